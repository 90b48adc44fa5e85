package controller

import (
	"context"
	"errors"
	"slices"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/drivers"
	"github.com/linkspan/linkspan/endpoint"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/store"
)

// GiveUp drops what is kept to be undone by a plugin that will not come back, and
// returns what that was. The plugin is never told; what it made outside our
// sandboxes stays. It refuses while the plugin answers: then nothing needs to be
// dropped.
func (c *Controller) GiveUp(ctx context.Context, name string) (dropped []string, err error) {
	_, waiting := c.Dependents(name)
	if len(waiting) == 0 {
		return nil, linkspan.Errorf(linkspan.ErrNotFound, "nothing waits for plugin %q (see: linkspan plugin ls)", name)
	}
	for _, kind := range []string{drivers.KindNetwork, drivers.KindIPAM} {
		if c.o.Plugins != nil && c.o.Plugins.Wake(ctx, name, kind) == nil {
			return nil, linkspan.Errorf(linkspan.ErrConflict, "plugin %q answers: what waits for it will be done (see: linkspan plugin inspect %s)", name, name)
		}
	}
	var networks []store.Row[network.Network]
	var endpoints []store.Row[endpoint.Endpoint]
	err = c.o.Store.Update(func(t store.Tables) error {
		for id, row := range t.Endpoints.All() {
			if row.Phase == store.Deleting && slices.Contains(op.Parties(row.Plan), name) {
				row.Plan = withoutParty(row.Plan, name)
				t.Endpoints.Put(id, row)
				endpoints, dropped = append(endpoints, row), append(dropped, "endpoint of container "+row.Value.Name)
			}
		}
		for id, row := range t.Networks.All() {
			if row.Phase == store.Deleting && slices.Contains(op.Parties(row.Plan), name) {
				row.Plan = withoutParty(row.Plan, name)
				t.Networks.Put(id, row)
				networks, dropped = append(networks, row), append(dropped, "network "+row.Value.Name)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	for _, row := range endpoints {
		delete(c.owed, row.Value.ID)
	}
	for _, row := range networks {
		delete(c.owed, row.Value.ID)
	}
	c.mu.Unlock()
	slices.Sort(dropped)
	c.o.Logf("plugin %s is given up: it is not told any more of %v", name, dropped)
	var errs []error
	for _, row := range endpoints {
		errs = append(errs, c.finishEndpoint(ctx, row))
	}
	for _, row := range networks {
		errs = append(errs, c.finishNetwork(ctx, row))
	}
	networksLeft, _ := c.Dependents(name)
	if forgetter, can := c.o.Plugins.(drivers.Forgetter); can && len(networksLeft) == 0 {
		forgetter.Abandon(name)
	}
	return dropped, errors.Join(errs...)
}

// withoutParty returns a plan less the steps that a plugin would have to undo.
func withoutParty(plan op.Plan, name string) op.Plan {
	return slices.DeleteFunc(slices.Clone(plan), func(step op.Step) bool {
		outsider, is := step.Op.(op.Outsider)
		return is && outsider.Party() == name
	})
}
