package controller

import (
	"context"
	"reflect"
	"slices"
	"strconv"

	"github.com/linkspan/linkspan/drivers"
	"github.com/linkspan/linkspan/endpoint"
	"github.com/linkspan/linkspan/firewall"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/store"
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

// adoptGuard adds the guard to the plan of a host that an earlier daemon prepared
// without one, with a backend that has none.
func (c *Controller) adoptGuard(host *store.Row[store.Host]) error {
	if c.o.Guard == nil {
		return nil
	}
	missing := slices.DeleteFunc(c.o.Guard.GuardBase(), func(step op.Step) bool {
		return slices.ContainsFunc(host.Plan, func(done op.Step) bool { return reflect.DeepEqual(done.Op, step.Op) })
	})
	if len(missing) == 0 {
		return nil
	}
	host.Plan = slices.Concat(host.Plan, missing)
	return c.o.Store.Defer(func(t store.Tables) error {
		t.Hosts.Put(store.HostID, *host)
		return nil
	})
}

// mendGuard puts the guard of all ports back if somebody has flushed it.
func (c *Controller) mendGuard(ctx context.Context) error {
	if c.o.Guard == nil {
		return nil
	}
	plan := c.o.Guard.GuardBase()
	if c.executor.Check(ctx, plan) == nil {
		return nil
	}
	c.o.Store.View(func(t store.Tables) {
		for _, row := range t.Endpoints.All() {
			for _, step := range row.Plan {
				if _, guards := step.Op.(firewall.PortGuard); guards && row.Phase == store.Ready {
					plan = append(plan, step)
				}
			}
		}
	})
	c.o.Logf("restoring port security: somebody took its table away")
	return c.ensure(ctx, plan, func(error) {})
}
