package controller

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"strconv"

	"github.com/linkspan/linkspan"
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
	if _, filtered := driver.(drivers.Filtered); !filtered || c.cannotGuard() != nil || !c.wantsGuard(n) {
		return plan
	}
	station := firewall.Station{Link: e.HostLink(), MAC: e.MAC, Addrs: slices.Concat(e.Addrs(), e.Config.LinkLocal)}
	return slices.Concat(c.o.Guard.Station(station), plan)
}

// wantsGuard tells whether a network's ports are to be guarded: unless it says no.
func (c *Controller) wantsGuard(n network.Network) bool {
	on, err := strconv.ParseBool(n.Options[OptionPortSecurity])
	return on || err != nil
}

// prepareGuard makes what all guards share, and notes it in the row of the host.
// A kernel that cannot look into bridges leaves ports unguarded: networks say so
// (see PortSecurity), and so does Diagnose.
func (c *Controller) prepareGuard(ctx context.Context) error {
	if c.o.Guard == nil {
		return nil
	}
	var host store.Row[store.Host]
	c.o.Store.View(func(t store.Tables) { host, _ = t.Hosts.Get(store.HostID) })
	missing := slices.DeleteFunc(c.o.Guard.GuardBase(), func(step op.Step) bool {
		return slices.ContainsFunc(host.Plan, func(done op.Step) bool { return reflect.DeepEqual(done.Op, step.Op) })
	})
	if len(missing) == 0 {
		return nil
	}
	put := func(plan op.Plan) error {
		return c.o.Store.Defer(func(t store.Tables) error {
			row, _ := t.Hosts.Get(store.HostID)
			row.Plan = plan
			t.Hosts.Put(store.HostID, row)
			return nil
		})
	}
	if err := put(slices.Concat(host.Plan, missing)); err != nil {
		return err
	}
	err := c.ensure(ctx, missing, func(error) {})
	if errors.Is(err, linkspan.ErrUnsupported) {
		c.o.Logf("ports are not guarded: %v", err)
		c.unguarded.Store(&err)
		return put(host.Plan)
	}
	return err
}

// PortSecurity says whether the ports of a network are guarded; if not, why.
type PortSecurity struct {
	On  bool
	Why string `json:",omitempty"`
}

// PortSecurity tells it of a network. Networks that have no ports on a bridge of
// this host are not guardable.
func (c *Controller) PortSecurity(n network.Network) (s PortSecurity, guardable bool) {
	driver, err := c.driver(n.Driver)
	if _, filtered := driver.(drivers.Filtered); err != nil || !filtered {
		return PortSecurity{}, false
	}
	if !c.wantsGuard(n) {
		return PortSecurity{Why: "switched off: " + OptionPortSecurity + "=" + n.Options[OptionPortSecurity]}, true
	}
	if err := c.cannotGuard(); err != nil {
		return PortSecurity{Why: err.Error()}, true
	}
	return PortSecurity{On: true}, true
}

// cannotGuard says why no port of this host is guarded; nil: they are.
func (c *Controller) cannotGuard() error {
	if c.o.Guard == nil {
		return linkspan.Errorf(linkspan.ErrUnsupported, "this daemon has no guard of ports")
	}
	if err := c.unguarded.Load(); err != nil {
		return *err
	}
	return nil
}

// mendGuard puts back what somebody has taken away of the guard of ports.
func (c *Controller) mendGuard(ctx context.Context) error {
	if c.cannotGuard() != nil {
		return nil //nolint:nilerr // doctor says so
	}
	plan, err := c.o.Guard.MendGuard(c.o.Host, c.guardedPorts(settledEndpoint))
	if err != nil || len(plan) == 0 {
		return err
	}
	c.o.Logf("restoring port security: %s", plan[0].Why)
	err = c.ensure(ctx, plan, func(error) {})
	return errors.Join(err, c.executor.Undo(ctx, c.staleGuards(plan)))
}

// staleGuards returns those steps whose port has gone meanwhile: had its guard been
// taken away before it was put back, it would stay for ever.
func (c *Controller) staleGuards(plan op.Plan) (stale op.Plan) {
	wanted := make(map[string]bool)
	for _, port := range c.guardedPorts(func(row store.Row[endpoint.Endpoint]) bool { return row.Phase != store.Deleting }) {
		wanted[port.Guards()] = true
	}
	for _, step := range plan {
		if port, guards := step.Op.(firewall.PortGuard); guards && !wanted[port.Guards()] {
			stale = append(stale, step)
		}
	}
	return stale
}

func settledEndpoint(row store.Row[endpoint.Endpoint]) bool {
	return row.Phase == store.Ready && row.Was == nil
}

// guardedPorts returns the guards of the endpoints that match.
func (c *Controller) guardedPorts(match func(store.Row[endpoint.Endpoint]) bool) (ports []firewall.PortGuard) {
	c.o.Store.View(func(t store.Tables) {
		for _, row := range t.Endpoints.All() {
			for _, step := range row.Plan {
				if port, guards := step.Op.(firewall.PortGuard); guards && match(row) {
					ports = append(ports, port)
				}
			}
		}
	})
	return ports
}
