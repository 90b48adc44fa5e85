package controller

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/drivers"
	"github.com/linkspan/linkspan/endpoint"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/store"
)

// Degraded says why a network works in part only: a plugin that it needs is
// away, so that nothing new can be attached, or says that it is not well. What is
// there goes on working. It is nil for a network that is well. It asks nobody.
func (c *Controller) Degraded(n network.Network) error {
	var errs []error
	for _, name := range slices.Sorted(maps.Values(c.plugins(n))) {
		if c.o.Plugins == nil {
			errs = append(errs, linkspan.Errorf(linkspan.ErrNotFound, "plugin %q not found", name))
			continue
		}
		errs = append(errs, c.o.Plugins.Watch(name))
		if complainer, can := c.o.Plugins.(drivers.Complainer); can {
			errs = append(errs, complainer.Complaint(name))
		}
	}
	return errors.Join(errs...)
}

// Dependents returns the names of the networks that need a plugin, and what could
// not be undone without it.
func (c *Controller) Dependents(name string) (networks, waiting []string) {
	c.o.Store.View(func(t store.Tables) {
		for _, row := range t.Networks.All() {
			needs := slices.Contains(slices.Collect(maps.Values(c.plugins(row.Value))), name)
			switch {
			case needs && row.Phase == store.Deleting:
				waiting = append(waiting, "network "+row.Value.Name)
			case needs && row.Phase == store.Ready:
				networks = append(networks, row.Value.Name)
			}
		}
		for _, row := range t.Endpoints.All() {
			if row.Phase == store.Deleting && slices.Contains(op.Parties(row.Plan), name) {
				waiting = append(waiting, "endpoint of container "+row.Value.Name)
			}
		}
	})
	slices.Sort(networks)
	slices.Sort(waiting)
	return networks, waiting
}

// describe asks the plugins of endpoints that have come up about them, as Docker
// does: some wait for that question. The answer is for whoever asks again.
func (c *Controller) describe(ctx context.Context, rows ...store.Row[endpoint.Endpoint]) {
	for _, row := range rows {
		_, err := c.Describe(ctx, row.Value)
		c.note("asking about the endpoint of container "+row.Value.Name, err)
	}
}

// Describe returns what a plugin has to say about an endpoint of its own.
func (c *Controller) Describe(ctx context.Context, e endpoint.Endpoint) (map[string]any, error) {
	n, err := c.Network(string(e.Network))
	if err != nil {
		return nil, err
	}
	driver, err := c.driver(n.Driver)
	if err != nil {
		return nil, err
	}
	describer, can := driver.(drivers.Describer)
	if !can {
		return nil, nil
	}
	return describer.Describe(ctx, e)
}

// Meet tells a plugin's process that was just started what it wants repeated, by
// calls with ctx. It holds no lock, and waits for no other verb: they wait for it.
func (c *Controller) Meet(ctx context.Context, name string) { c.repeat(ctx, name) }

// Heal is told that a plugin answers again. What could not be undone without it
// is, and it is told again what it wants repeated. Heal returns at once.
func (c *Controller) Heal(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.life.Err() != nil {
		return
	}
	if _, busy := c.healing[name]; busy {
		c.healing[name] = true // once more: something may have changed since
		return
	}
	c.healing[name] = false
	c.stopped.Go(func() {
		for again := true; again; {
			c.heal(c.life, name)
			c.mu.Lock()
			if again = c.healing[name]; again {
				c.healing[name] = false
			} else {
				delete(c.healing, name)
			}
			c.mu.Unlock()
		}
	})
}

// healAll starts to heal all plugins that something depends on: at the start of
// a daemon, which must not wait for any of them.
func (c *Controller) healAll() {
	names := make(map[string]bool)
	c.o.Store.View(func(t store.Tables) {
		for _, row := range t.Networks.All() {
			for _, name := range c.plugins(row.Value) {
				names[name] = true
			}
		}
		for _, plan := range plansOf(t) {
			for _, name := range op.Parties(plan) {
				names[name] = true
			}
		}
	})
	for name := range names {
		c.Heal(name)
	}
}

// plansOf returns all plans of networks and endpoints: networks first, since an
// endpoint rests on one.
func plansOf(t store.Tables) []op.Plan {
	var plans []op.Plan
	for _, row := range t.Networks.All() {
		plans = append(plans, row.Plan)
	}
	for _, row := range t.Endpoints.All() {
		plans = append(plans, row.Plan)
	}
	return plans
}

func (c *Controller) heal(ctx context.Context, name string) {
	if c.o.Plugins == nil {
		return
	}
	var kinds []string
	c.o.Store.View(func(t store.Tables) {
		for _, row := range t.Networks.All() {
			for kind, plugin := range c.plugins(row.Value) {
				if plugin == name && !slices.Contains(kinds, kind) {
					kinds = append(kinds, kind)
				}
			}
		}
	})
	c.o.Plugins.Watch(name) //nolint:errcheck // Wake says it again
	for _, kind := range kinds {
		if err := c.o.Plugins.Wake(ctx, name, kind); err != nil {
			c.o.Logf("networks of plugin %s are degraded: %v", name, err)
			return // the line asks until there is an answer, and Heal is called then
		}
	}
	c.repeat(ctx, name)
	c.reconcile(ctx, name)
	c.retryDeleting(ctx, func(plan op.Plan) bool { return slices.Contains(op.Parties(plan), name) })
}

// repeat tells a plugin again what its ops say that it must be told.
func (c *Controller) repeat(ctx context.Context, name string) {
	var plans []op.Plan
	c.o.Store.View(func(t store.Tables) {
		for _, row := range t.Networks.All() {
			if row.Phase == store.Ready {
				plans = append(plans, row.Plan)
			}
		}
		for _, row := range t.Endpoints.All() {
			if row.Phase == store.Ready {
				plans = append(plans, row.Plan)
			}
		}
	})
	for _, plan := range plans {
		var theirs op.Plan
		for _, step := range plan {
			if outsider, ok := step.Op.(op.Outsider); ok && outsider.Party() == name {
				theirs = append(theirs, step)
			}
		}
		c.note("telling plugin "+name+" again", c.ensure(ctx, theirs, func(error) {}))
	}
}

// reconcile tells a plugin that wants to know all that there is of it, and
// announces again what it does not know.
func (c *Controller) reconcile(ctx context.Context, name string) {
	reconciler, ok := c.o.Plugins.(drivers.Reconciler)
	if !ok {
		return
	}
	plans := make(map[linkspan.ID]op.Plan)
	var held drivers.Held
	c.o.Store.View(func(t store.Tables) {
		for id, row := range t.Networks.All() {
			if row.Value.Driver == name && row.Phase == store.Ready {
				held.Networks, plans[id] = append(held.Networks, id), row.Plan
			}
		}
		for id, row := range t.Endpoints.All() {
			if slices.Contains(held.Networks, row.Value.Network) {
				held.Endpoints = append(held.Endpoints, drivers.HeldEndpoint{Network: row.Value.Network, Endpoint: id})
				plans[id] = row.Plan
			}
		}
	})
	unknown, err := reconciler.Reconcile(ctx, name, held)
	c.note("reconciling with plugin "+name, err)
	again := func(id linkspan.ID) {
		for _, step := range plans[id] {
			if outsider, ok := step.Op.(op.Outsider); ok && outsider.Party() == name {
				c.note("announcing "+id.Short()+" to plugin "+name+" again", c.executor.Do(ctx, op.Plan{step}))
			}
		}
	}
	for _, id := range unknown.Networks {
		again(id)
	}
	for _, e := range unknown.Endpoints {
		again(e.Endpoint)
	}
}
