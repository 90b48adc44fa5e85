package controller

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/linkspan/linkspan/drivers"
	"github.com/linkspan/linkspan/firewall"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/store"
)

// moved is a plan with the rules of two backends: the daemon's first, and those
// of an earlier daemon's that are to go.
type moved struct{ fresh, stale op.Plan }

// switchBackend replaces the rules of a firewall backend that is not the
// daemon's. The rows get the new rules beside the old ones, then the kernel does,
// then the old ones go: there is no moment at which a packet meets neither, and a
// daemon that dies halfway begins again where it was.
func (c *Controller) switchBackend(ctx context.Context) error {
	base := c.o.Firewall.Base()
	all := []moved{}
	err := c.o.Store.Defer(func(t store.Tables) error {
		host, known := t.Hosts.Get(store.HostID)
		if !known {
			return nil
		}
		var m moved
		if host.Plan, m = beside(host.Plan, base); m.stale == nil {
			return nil // no other backend was at work
		}
		all = append(all, m)
		t.Hosts.Put(store.HostID, host)
		if err := c.moveNetworks(t, &all); err != nil {
			return err
		}
		c.movePorts(t, &all)
		return nil
	})
	if err != nil || len(all) == 0 {
		return err
	}
	c.o.Logf("replacing the firewall's rules by those of another backend")
	for _, m := range all {
		if err := c.ensure(ctx, m.fresh, func(error) {}); err != nil {
			return fmt.Errorf("switching the firewall backend: %w", err)
		}
	}
	var errs []error
	for _, m := range slices.Backward(all) {
		errs = append(errs, c.executor.Undo(ctx, m.stale))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("removing the rules of the other firewall backend: %w", err)
	}
	return c.forgetStale(base)
}

// beside puts rules of the daemon's backend before those of another one.
func beside(plan, fresh op.Plan) (op.Plan, moved) {
	m := moved{fresh: fresh}
	at := -1
	for i, step := range plan {
		switch {
		case !isRule(step):
		case backendOf(step) != backendOf(fresh[0]):
			if m.stale = append(m.stale, step); at < 0 {
				at = i
			}
		default: // put there by a daemon that died
			m.fresh = nil
		}
	}
	if m.stale != nil && m.fresh != nil {
		plan = slices.Insert(slices.Clone(plan), at, fresh...)
	}
	m.fresh = fresh
	return plan, m
}

func isRule(step op.Step) bool {
	_, is := step.Op.(firewall.Op)
	return is
}

func backendOf(step op.Step) string {
	if rule, is := step.Op.(firewall.Op); is {
		return rule.Backend()
	}
	return ""
}

func (c *Controller) moveNetworks(t store.Tables, all *[]moved) error {
	for id, row := range maps.Collect(t.Networks.All()) {
		fresh, err := c.rulesOf(row.Value)
		if err != nil {
			return err
		}
		if len(fresh) == 0 || row.Plan == nil {
			continue
		}
		var m moved
		row.Plan, m = beside(row.Plan, fresh)
		*all = append(*all, m)
		t.Networks.Put(id, row)
	}
	return nil
}

// rulesOf plans the firewall's part of a network.
func (c *Controller) rulesOf(n network.Network) (op.Plan, error) {
	driver, err := c.driver(n.Driver)
	if err != nil {
		return nil, nil //nolint:nilerr // a driver that is missing has made no rules
	}
	filtered, ok := driver.(drivers.Filtered)
	if !ok {
		return nil, nil
	}
	rules, err := filtered.Rules(n)
	if err != nil {
		return nil, err
	}
	return c.o.Firewall.Network(rules), nil
}

func (c *Controller) movePorts(t store.Tables, all *[]moved) {
	for id, row := range maps.Collect(t.Ports.All()) {
		fresh := slices.DeleteFunc(slices.Clone(c.portsPlan(row.Value)), func(s op.Step) bool { return !isRule(s) })
		if len(fresh) == 0 {
			continue
		}
		var m moved
		row.Plan, m = beside(row.Plan, fresh)
		*all = append(*all, m)
		t.Ports.Put(id, row)
	}
}

// forgetStale takes the steps of other backends out of all rows.
func (c *Controller) forgetStale(base op.Plan) error {
	stale := func(s op.Step) bool { return isRule(s) && backendOf(s) != backendOf(base[0]) }
	return c.o.Store.Defer(func(t store.Tables) error {
		forget(t.Hosts, stale)
		forget(t.Networks, stale)
		forget(t.Ports, stale)
		return nil
	})
}

func forget[T any](rows *store.Table[T], stale func(op.Step) bool) {
	for id, row := range maps.Collect(rows.All()) {
		if slices.ContainsFunc(row.Plan, stale) {
			row.Plan = slices.DeleteFunc(slices.Clone(row.Plan), stale)
			rows.Put(id, row)
		}
	}
}
