package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/drivers"
	"github.com/linkspan/linkspan/endpoint"
	"github.com/linkspan/linkspan/ipam"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/store"
)

// change is one network on its way from one version to another, with all its
// live endpoints.
//
//	reserve   all rows hold both versions, and both versions' addresses
//	act       the differences of their plans, the network's first
//	commit    all rows hold the new version alone
//
// Until the commit everything goes back, after a failure as after a crash.
type change struct {
	driver    drivers.Driver
	network   store.Row[network.Network]
	endpoints []store.Row[endpoint.Endpoint]
	steps     []op.Plan // of the network, then of each endpoint
}

// UpdateNetwork changes a network while containers are attached to it. Their
// connections live on, except those that the change is meant to end.
func (c *Controller) UpdateNetwork(ctx context.Context, ref string, wanted NetworkChange) (network.Network, error) {
	taken, err := c.hostHoldings()
	if err != nil {
		return network.Network{}, err
	}
	host, err := c.readHostFiles()
	if err != nil {
		return network.Network{}, err
	}
	var ch change
	err = c.whenFree(ctx, func() error {
		return c.o.Store.Defer(func(t store.Tables) (err error) {
			ch, err = c.reserveChange(t, ref, wanted, taken)
			if err == nil {
				ch.put(t)
			}
			return err
		})
	})
	if err != nil {
		return ch.network.Value, err
	}
	if err := c.carryOut(ctx, ch); err != nil {
		return ch.network.Value, errors.Join(err, c.goBack(ch))
	}
	if err := c.o.Store.Update(func(t store.Tables) error { return ch.commit(t) }); err != nil {
		return ch.network.Value, errors.Join(err, c.undoChange(ctx, ch), c.goBack(ch))
	}
	c.openZone(ch.network.Value)
	// Default routes, ports, files and names follow the rows. If one cannot, the
	// network is changed all the same, and the next start of the daemon tries again.
	for _, row := range ch.endpoints {
		c.note("following the change of network "+ch.network.Value.Name, c.settle(context.WithoutCancel(ctx), row.Value.Owner, host))
	}
	c.o.Events(Event{Action: "update", Network: ch.network.Value.ID, Name: ch.network.Value.Name, Driver: ch.network.Value.Driver})
	return ch.network.Value, nil
}

// ExplainUpdate returns the plan that UpdateNetwork would carry out now.
func (c *Controller) ExplainUpdate(ref string, wanted NetworkChange) (op.Plan, error) {
	taken, err := c.hostHoldings()
	if err != nil {
		return nil, err
	}
	var plan op.Plan
	err = c.explain(func(t store.Tables) error {
		ch, refused := c.reserveChange(t, ref, wanted, taken)
		plan = slices.Concat(ch.steps...)
		return refused
	})
	return plan, err
}

// errBusy is the kind of a refusal that another verb's end will lift.
var errBusy = errors.New("busy")

// How long a verb waits for others that are on their way, and how often it looks.
const (
	busyFor   = 10 * time.Second
	busyEvery = 2 * time.Millisecond
)

// whenFree reserves, and waits while another verb is in the way.
func (c *Controller) whenFree(ctx context.Context, reserve func() error) error {
	deadline := time.Now().Add(busyFor)
	for {
		err := reserve()
		if !errors.Is(err, errBusy) {
			return err
		}
		if time.Now().After(deadline) {
			return linkspan.Errorf(linkspan.ErrConflict, "%w: try again", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(busyEvery):
		}
	}
}

// checkFree refuses to begin anything with a network that is being changed.
func checkFree(row store.Row[network.Network]) error {
	if row.Was == nil {
		return nil
	}
	return linkspan.Errorf(errBusy, "network %s is being updated", row.Value.Name)
}

// reserveChange is the pure part of an update.
func (c *Controller) reserveChange(t store.Tables, ref string, wanted NetworkChange, taken []ipam.Holding) (change, error) {
	var ch change
	row, err := findNetwork(t, ref)
	if err != nil {
		return ch, err
	}
	old := row.Value
	ch.network = row
	if ch.driver, err = c.changeable(row); err != nil {
		return ch, err
	}
	fresh := wanted.apply(old)
	if fresh.Pools, err = c.addPools(t, old, fresh, wanted.Pools, ch.driver.Traits(), taken); err != nil {
		return ch, err
	}
	ch.network.Value = fresh
	ch.network.Was = &store.Version[network.Network]{Value: old, Plan: row.Plan}
	if sameInKernel(old, fresh) {
		return ch, nil
	}
	if c.addresses(old) != nil {
		return ch, linkspan.Errorf(linkspan.ErrNotImplemented, "network %s cannot be changed in place, but for labels and --attachable: its addresses are those of plugin %q", old.Name, old.IPAMDriver)
	}
	if err = checkChange(ch.driver, old, fresh); err != nil {
		return ch, err
	}
	plan, err := c.networkPlan(fresh, ch.driver)
	if err != nil {
		return ch, err
	}
	steps, err := op.Difference(row.Plan, plan)
	if err != nil {
		return ch, linkspan.Errorf(linkspan.ErrForbidden, "network %s cannot be changed so while it exists: %w", old.Name, err)
	}
	ch.network.Plan, ch.steps = plan, []op.Plan{steps}
	err = c.reserveEndpoints(t, &ch)
	return ch, err
}

// changeable finds the driver of a network that can be changed at all, now.
func (c *Controller) changeable(row store.Row[network.Network]) (drivers.Driver, error) {
	n := row.Value
	switch {
	case network.Predefined(n.Name):
		return nil, linkspan.Errorf(linkspan.ErrForbidden, "%s is a pre-defined network and cannot be changed: its settings are those of the daemon (see: linkspan daemon --help)", n.Name)
	case n.ConfigOnly:
		return nil, linkspan.Errorf(linkspan.ErrForbidden, "configuration network %s cannot be changed: networks have copied its settings", n.Name)
	case n.Shared:
		return nil, linkspan.Errorf(linkspan.ErrNotImplemented, "network %s cannot be changed in place: hosts share it, and each has its part of it as it is", n.Name)
	case row.Phase != store.Ready:
		return nil, linkspan.Errorf(linkspan.ErrNotFound, "network %s not found: it is being removed", n.Name)
	}
	driver, err := c.driver(n.Driver)
	if err != nil {
		return nil, err
	}
	return driver, checkFree(row)
}

// reserveEndpoints plans the network's live endpoints anew, with an address of
// each family that they have none of.
func (c *Controller) reserveEndpoints(t store.Tables, ch *change) error {
	n := ch.network.Value
	for _, row := range t.By.EndpointsByNetwork.All(n.ID) {
		old := row.Value
		if row.Phase != store.Ready {
			return linkspan.Errorf(errBusy, "container %s is joining or leaving network %s", old.Name, n.Name)
		}
		live, ok := t.Sandboxes.Get(old.Sandbox)
		if !ok {
			continue // its container has just gone
		}
		fresh, err := c.renew(t, n, old)
		if err != nil {
			return err
		}
		plan, err := ch.driver.Endpoint(n, fresh, live.Value)
		if err != nil {
			return err
		}
		plan = c.guarded(ch.driver, n, fresh, plan)
		steps, err := op.Difference(row.Plan, plan)
		if err != nil {
			return linkspan.Errorf(linkspan.ErrForbidden, "container %s cannot follow the change of network %s while it runs: %w", old.Name, n.Name, err)
		}
		row.Was = &store.Version[endpoint.Endpoint]{Value: old, Plan: row.Plan}
		row.Value, row.Plan = fresh, plan
		// The next one must not get the same address.
		t.Endpoints.Put(fresh.ID, row)
		ch.endpoints, ch.steps = append(ch.endpoints, row), append(ch.steps, steps)
	}
	return nil
}

// renew leases what an endpoint lacks, and offers it the gateways that its
// network has now.
func (c *Controller) renew(t store.Tables, n network.Network, e endpoint.Endpoint) (endpoint.Endpoint, error) {
	lacking := n
	lacking.IPv4, lacking.IPv6 = n.IPv4 && !e.IPv4.IsValid(), n.IPv6 && !e.IPv6.IsValid()
	if lacking.IPv4 || lacking.IPv6 {
		config, _ := t.Configs.Get(e.Owner)
		bare := e
		bare.Config.IPv4, bare.Config.IPv6 = only(lacking.IPv4, e.Config.IPv4), only(lacking.IPv6, e.Config.IPv6)
		leased, err := lease(t, lacking, bare, config.Value)
		if err != nil {
			return e, err
		}
		e.IPv4, e.IPv6 = leased.IPv4, leased.IPv6
	}
	e.Gateway4, e.Gateway6 = offered(n, e.IPv4), offered(n, e.IPv6)
	return e, nil
}

// put makes all rows hold both versions.
func (ch change) put(t store.Tables) {
	t.Networks.Put(ch.network.Value.ID, ch.network)
	for _, row := range ch.endpoints {
		t.Endpoints.Put(row.Value.ID, row)
	}
}

// carryOut does the differences one by one. An endpoint that has gone meanwhile
// needs no change.
func (c *Controller) carryOut(ctx context.Context, ch change) error {
	if len(ch.steps) == 0 {
		return nil
	}
	if err := c.prepareHost(ctx, ch.network.Value, ch.driver); err != nil {
		return err
	}
	for i, steps := range ch.steps {
		err := c.executor.Do(ctx, steps)
		if err == nil || (i > 0 && !c.stays(ch.endpoints[i-1])) {
			continue
		}
		done := ch
		done.steps = ch.steps[:i]
		return errors.Join(fmt.Errorf("updating network %s: %w", ch.network.Value.Name, err), c.undoChange(ctx, done))
	}
	return nil
}

func (c *Controller) stays(row store.Row[endpoint.Endpoint]) (stays bool) {
	c.o.Store.View(func(t store.Tables) {
		now, ok := t.Endpoints.Get(row.Value.ID)
		stays = ok && now.Phase == store.Ready
	})
	return stays
}

// undoChange takes the differences back, whether they were carried out or not.
func (c *Controller) undoChange(ctx context.Context, ch change) error {
	var errs []error
	for i, steps := range slices.Backward(ch.steps) {
		if i > 0 && !c.stays(ch.endpoints[i-1]) {
			continue
		}
		errs = append(errs, c.executor.Undo(ctx, steps))
	}
	return errors.Join(errs...)
}

// commit makes the new version the only one.
func (ch change) commit(t store.Tables) error {
	n := ch.network.Value
	row, ok := t.Networks.Get(n.ID)
	if !ok || row.Phase != store.Ready {
		return linkspan.Errorf(linkspan.ErrConflict, "network %s was removed while it was updated", n.Name)
	}
	row.Was = nil
	t.Networks.Put(n.ID, row)
	for _, changed := range ch.endpoints {
		if row, ok := t.Endpoints.Get(changed.Value.ID); ok {
			row.Was = nil
			t.Endpoints.Put(row.Value.ID, row)
		}
	}
	return nil
}

// goBack makes the old version the only one.
func (c *Controller) goBack(ch change) error {
	return c.o.Store.Update(func(t store.Tables) error {
		if row, ok := t.Networks.Get(ch.network.Value.ID); ok && row.Was != nil {
			row.Value, row.Plan, row.Was = row.Was.Value, row.Was.Plan, nil
			t.Networks.Put(row.Value.ID, row)
		}
		for _, changed := range ch.endpoints {
			row, ok := t.Endpoints.Get(changed.Value.ID)
			if !ok || row.Was == nil {
				continue
			}
			name, names := row.Value.Name, row.Value.DNSNames // which follow the container's
			row.Value, row.Plan, row.Was = row.Was.Value, row.Was.Plan, nil
			row.Value.Name, row.Value.DNSNames = name, names
			t.Endpoints.Put(row.Value.ID, row)
		}
		return nil
	})
}

// takeBackChanges undoes the updates that an earlier daemon had begun and not
// ended.
func (c *Controller) takeBackChanges(ctx context.Context) {
	var changes []change
	var parts []store.Row[network.Network]
	c.o.Store.View(func(t store.Tables) {
		for _, row := range t.Networks.All() {
			if row.Was == nil {
				continue
			}
			if row.Value.Shared {
				parts = append(parts, row)
				continue
			}
			ch := change{network: row}
			steps, err := op.Difference(row.Was.Plan, row.Plan)
			c.note("taking the update of network "+row.Value.Name+" back", err)
			ch.steps = append(ch.steps, steps)
			for _, e := range t.By.EndpointsByNetwork.All(row.Value.ID) {
				if e.Was == nil {
					continue
				}
				steps, err := op.Difference(e.Was.Plan, e.Plan)
				c.note("taking the update of container "+e.Value.Name+" back", err)
				ch.endpoints, ch.steps = append(ch.endpoints, e), append(ch.steps, steps)
			}
			changes = append(changes, ch)
		}
	})
	for _, row := range parts {
		c.note("taking this host's part of network "+row.Value.Name+" back", c.takeBackPart(ctx, row))
	}
	for _, ch := range changes {
		what := "taking the update of network " + ch.network.Value.Name + " back"
		c.note(what, c.undoChange(ctx, ch))
		c.note(what, c.goBack(ch))
	}
}
