package controller

import (
	"slices"
	"strconv"

	"github.com/linkspan/linkspan/drivers"
	"github.com/linkspan/linkspan/endpoint"
	"github.com/linkspan/linkspan/firewall"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/op"
)

// OptionPortSecurity turns the guard of a network's ports off (docker network
// create -o).
const OptionPortSecurity = "linkspan.port_security"

// guarded puts the guard of an endpoint's port before its cable: rules come
// before links.
func (c *Controller) guarded(driver drivers.Driver, n network.Network, e endpoint.Endpoint, plan op.Plan) op.Plan {
	_, filtered := driver.(drivers.Filtered)
	on, err := strconv.ParseBool(n.Options[OptionPortSecurity])
	if c.o.Guard == nil || !filtered || err == nil && !on {
		return plan
	}
	station := firewall.Station{Link: e.HostLink(), MAC: e.MAC, Addrs: slices.Concat(e.Addrs(), e.Config.LinkLocal)}
	return slices.Concat(c.o.Guard.Station(station), plan)
}
