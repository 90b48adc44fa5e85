package controller

import (
	"context"
	"errors"
	"reflect"
	"slices"

	"github.com/linkspan/linkspan/firewall"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/store"
)

// seen tells what one look at all rules has found in order, so that no row needs
// a look of its own: each would list whole maps, and with n rows a start would
// read n times n elements.
type seen struct{ rules, guards bool }

// survey puts all rules of rows that are Ready in order, reading them once.
func (c *Controller) survey(ctx context.Context) (s seen) {
	if _, can := c.o.Firewall.(firewall.Mender); can {
		_, _, err := c.mend(ctx)
		c.note("restoring the firewall's rules", err)
		s.rules = err == nil
	}
	err := c.mendGuard(ctx)
	c.note("restoring port security", err)
	s.guards = err == nil
	return s
}

// look is survey that puts nothing in order: what is not, is left to be looked at.
func (c *Controller) look() (s seen) {
	if mender, can := c.o.Firewall.(firewall.Mender); can {
		wanted, _ := c.rules()
		plan, err := mender.Mend(c.o.Host, wanted)
		s.rules = err == nil && len(plan) == 0
	}
	if c.cannotGuard() == nil {
		plan, err := c.o.Guard.MendGuard(c.o.Host, c.guardedPorts(settledEndpoint))
		s.guards = err == nil && len(plan) == 0
	}
	return s
}

// rest is what is left to look at of the plan of a network that is Ready.
func (s seen) rest(plan op.Plan) op.Plan {
	return slices.DeleteFunc(slices.Clone(plan), func(step op.Step) bool {
		_, guards := step.Op.(firewall.PortGuard)
		return isRule(step) && s.rules || guards && s.guards
	})
}

// restOf is what is left to look at of a live container. The rules in its own
// namespace are nowhere else looked at.
func (s seen) restOf(r reservation) reservation {
	if r.ports.Phase == store.Ready && r.ports.Was == nil {
		r.ports.Plan = s.rest(r.ports.Plan)
	}
	for i, row := range r.endpoints {
		if row.Phase == store.Ready && row.Was == nil {
			r.endpoints[i].Plan = s.rest(row.Plan)
		}
	}
	return r
}

// renewBase makes the row of the host want the rules that this daemon would make:
// an earlier one may have been of another release, or had other flags.
func (c *Controller) renewBase() error {
	base := c.o.Firewall.Base()
	return c.o.Store.Defer(func(t store.Tables) error {
		row, known := t.Hosts.Get(store.HostID)
		if !known {
			return nil
		}
		var old op.Plan
		at := -1
		for i, step := range row.Plan {
			if isRule(step) && backendOf(step) == backendOf(base[0]) {
				if old = append(old, step); at < 0 {
					at = i
				}
			}
		}
		if at < 0 || reflect.DeepEqual(old, base) {
			return nil
		}
		row.Plan = slices.Insert(slices.DeleteFunc(slices.Clone(row.Plan), func(step op.Step) bool {
			return isRule(step) && backendOf(step) == backendOf(base[0])
		}), at, base...)
		t.Hosts.Put(store.HostID, row)
		return nil
	})
}

// renewRules changes the rules of a network to those that this daemon would make.
// Connections under way go on.
func (c *Controller) renewRules(ctx context.Context, row store.Row[network.Network]) error {
	fresh, err := c.rulesOf(row.Value)
	if err != nil || len(fresh) == 0 {
		return err
	}
	isOld := func(step op.Step) bool { return isRule(step) && backendOf(step) == backendOf(fresh[0]) }
	old := slices.DeleteFunc(slices.Clone(row.Plan), func(step op.Step) bool { return !isOld(step) })
	at := slices.IndexFunc(row.Plan, isOld)
	steps, err := op.Difference(old, fresh)
	if err != nil || len(steps) == 0 || at < 0 {
		return err
	}
	driver, err := c.driver(row.Value.Driver)
	if err != nil {
		return err
	}
	ch := change{driver: driver, network: row, steps: []op.Plan{steps}}
	ch.network.Was = &store.Version[network.Network]{Value: row.Value, Plan: row.Plan}
	ch.network.Plan = slices.Insert(slices.DeleteFunc(slices.Clone(row.Plan), isOld), at, fresh...)
	if err := c.o.Store.Defer(func(t store.Tables) error { ch.put(t); return nil }); err != nil {
		return err
	}
	if err := c.carryOut(ctx, ch); err != nil {
		return errors.Join(err, c.goBack(ch))
	}
	return c.o.Store.Update(func(t store.Tables) error { return ch.commit(t) })
}
