package controller

import (
	"context"
	"slices"

	apinetwork "github.com/moby/moby/api/types/network"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/sandbox"
	"github.com/linkspan/linkspan/store"
)

// errExplained takes a reservation back: to explain is to reserve and to
// change one's mind.
var errExplained = linkspan.Errorf(linkspan.ErrNotModified, "explained only")

// explain runs the pure part of a verb and keeps nothing of it.
func (c *Controller) explain(reserve func(store.Tables) error) error {
	var failed error
	c.o.Store.Defer(func(t store.Tables) error { //nolint:errcheck // it always fails, with errExplained
		failed = reserve(t)
		return errExplained
	})
	return failed
}

// ExplainCreate returns the plan that CreateNetwork would carry out now.
func (c *Controller) ExplainCreate(ctx context.Context, spec NetworkSpec) (op.Plan, error) {
	if err := network.ValidateName(spec.Name); err != nil {
		return nil, err
	}
	n, driver, err := c.newNetwork(ctx, spec)
	if err != nil {
		return nil, err
	}
	if n, err = c.adopt(ctx, n, driver); err != nil {
		return nil, err
	}
	if spansHosts(n, driver) {
		return c.explainShared(ctx, n, driver)
	}
	taken, err := c.takenFor(n)
	if err != nil {
		return nil, err
	}
	var plan op.Plan
	err = c.explain(func(t store.Tables) error {
		n, plan, err = c.reserveNetwork(t, n, driver, taken)
		return err
	})
	if err != nil || n.ConfigOnly {
		return nil, err
	}
	if c.addresses(n) != nil {
		return plan, nil // the rest depends on the answers
	}
	return plan, driver.Check(ctx, c.o.Host, n)
}

// ExplainRemove returns the plan that RemoveNetwork would undo now.
func (c *Controller) ExplainRemove(ref string) (op.Plan, error) { return c.NetworkCommands(ref) }

// ExplainAttach returns the plan that Attach would carry out now for a
// container, whether it exists or not.
func (c *Controller) ExplainAttach(ctr Container) (op.Plan, error) {
	cfg, err := c.configOf(ctr)
	if err != nil {
		return nil, err
	}
	host, err := c.readHostFiles()
	if err != nil {
		return nil, err
	}
	space, err := c.portSpace(cfg.Owner, cfg.Ports)
	if err != nil {
		return nil, err
	}
	var r reservation
	var parts op.Plan
	err = c.explain(func(t store.Tables) error {
		if cfg.Links, err = resolveLinks(t, ctr, cfg); err != nil {
			return err
		}
		t.Configs.Put(cfg.Owner, store.Row[store.Config]{Value: cfg, Phase: store.Ready})
		parts, err = c.partsFor(t, func() error {
			r, err = c.reserveStart(t, cfg.Owner, host, space)
			return err
		})
		return err
	})
	return slices.Concat(parts, r.plan()), err
}

// ExplainPublish returns what Publish would undo now, and the plan that it would
// carry out then. Both are empty for a container that does not run.
func (c *Controller) ExplainPublish(owner linkspan.ID, wishes []sandbox.Wish) (undo, do op.Plan, err error) {
	return c.explainWishes(owner, wishes, publishing(wishes))
}

// ExplainUnpublish is ExplainPublish for Unpublish.
func (c *Controller) ExplainUnpublish(owner linkspan.ID, wishes []sandbox.Wish) (undo, do op.Plan, err error) {
	return c.explainWishes(owner, wishes, unpublishing(wishes))
}

func (c *Controller) explainWishes(owner linkspan.ID, wishes []sandbox.Wish, change func(*store.Config) error) (undo, do op.Plan, err error) {
	space, err := c.portSpace(owner, wishes)
	if err != nil {
		return nil, nil, err
	}
	err = c.explain(func(t store.Tables) error {
		row, ok := t.Configs.Get(owner)
		if !ok {
			return noContainer(owner)
		}
		if err := change(&row.Value); err != nil {
			return err
		}
		t.Configs.Put(owner, row)
		live, found := sandboxOf(t, owner)
		if !found || live.Phase != store.Ready {
			return nil
		}
		old, known := t.Ports.Get(live.Value.ID)
		if !known {
			old.Phase = store.Ready
		}
		fresh, refused := c.reservePorts(t, owner, live.Value.ID, space)
		change := c.rulesChange(old, fresh)
		undo, do = slices.Concat(change.first, change.last), change.then
		return refused
	})
	return undo, do, err
}

// ExplainConnect returns the plan that Connect would carry out now. It is empty
// for a container that does not run: the wish alone would be recorded.
func (c *Controller) ExplainConnect(ref string, owner linkspan.ID, settings *apinetwork.EndpointSettings) (op.Plan, error) {
	host, err := c.readHostFiles()
	if err != nil {
		return nil, err
	}
	var plan op.Plan
	err = c.explain(func(t store.Tables) error {
		var r reservation
		running := false
		parts, failed := c.partsFor(t, func() (err error) {
			r, running, err = c.reserveConnect(t, ref, owner, settings)
			return err
		})
		if failed != nil || !running {
			return failed
		}
		t.Endpoints.SetPhase(r.endpoints[0].Value.ID, store.Ready)
		q, failed := c.consequencesOf(t, owner, host)
		plan = slices.Concat(parts, r.endpoints[0].Plan)
		if q.gateways.Value != q.old.Value {
			plan = slices.Concat(plan, q.gateways.Plan)
		}
		if q.resolver && !q.live.Value.Resolver {
			plan = slices.Concat(plan, c.o.Firewall.Resolver(q.live.Value.Netns(), resolverPort, resolverPort))
		}
		return failed
	})
	return plan, err
}

// ExplainDisconnect returns the plan that Disconnect would undo now, empty for a
// container that does not run.
func (c *Controller) ExplainDisconnect(ref string, owner linkspan.ID) (op.Plan, error) {
	var plan op.Plan
	err := c.explain(func(t store.Tables) error {
		gone, _, err := c.reserveDisconnect(t, ref, owner, false)
		plan = gone.Plan
		return err
	})
	return plan, err
}
