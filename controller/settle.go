package controller

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/sandbox"
	"github.com/linkspan/linkspan/store"
)

// consequences is what follows from the endpoints that a live container has:
// its default routes, whether a resolver answers in it, and its files.
type consequences struct {
	live     store.Row[sandbox.Sandbox]
	resolver bool
	old      store.Row[store.Gateways] // as they are
	gateways store.Row[store.Gateways] // as they should be
	files    sandbox.Files
}

// consequencesOf computes them from the rows.
func (c *Controller) consequencesOf(t store.Tables, owner linkspan.ID, host hostFiles) (consequences, error) {
	live, found := sandboxOf(t, owner)
	if !found {
		return consequences{}, noContainer(owner)
	}
	config, _ := t.Configs.Get(owner)
	links := linksOf(t, live.Value.ID)
	q := consequences{live: live, resolver: live.Value.Resolver}
	for _, l := range links {
		q.resolver = q.resolver || c.named(l.network)
	}
	q.old, _ = t.Gateways.Get(live.Value.ID)
	q.gateways.Phase = store.Ready
	q.gateways.Value, q.gateways.Plan = c.gateways(live.Value, links)
	s := live.Value
	s.Resolver = q.resolver
	var err error
	q.files, err = c.files(t, config.Value, s, links, host)
	return q, err
}

// settle makes what follows from a container's endpoints follow them, and
// answers and announces its names.
func (c *Controller) settle(ctx context.Context, owner linkspan.ID, host hostFiles) error {
	if err := c.followGateway(ctx, owner); err != nil {
		return err
	}
	live, err := c.follow(ctx, owner, host)
	if err != nil {
		return err
	}
	if err := errors.Join(c.ensureResolver(live), c.followTargets(ctx, owner)); err != nil {
		return err
	}
	c.announceNames(owner)
	c.refreshLinkers(owner)
	return nil
}

// follow is the part of settle that changes the kernel and the files. If
// nothing has changed, it does nothing. It returns the sandbox as it is then.
func (c *Controller) follow(ctx context.Context, owner linkspan.ID, host hostFiles) (sandbox.Sandbox, error) {
	q, err := c.followRoutes(ctx, owner, host)
	if err != nil {
		return q.live.Value, err
	}
	if q.resolver && !q.live.Value.Resolver {
		if q.live.Value, err = c.rewritePort(ctx, q.live.Value.ID); err != nil {
			return q.live.Value, err
		}
	}
	if err := c.followPorts(ctx, owner); err != nil {
		return q.live.Value, err
	}
	return q.live.Value, c.rewriteFiles(owner, host)
}

// followRoutes makes the default routes of a container follow its endpoints. It
// reads them once it is alone: a link of which another connection has made a
// default route meanwhile must not be gone before that route is.
func (c *Controller) followRoutes(ctx context.Context, owner linkspan.ID, host hostFiles) (consequences, error) {
	var id linkspan.ID
	c.o.Store.View(func(t store.Tables) {
		live, _ := sandboxOf(t, owner)
		id = live.Value.ID
	})
	defer c.alone(id)()
	var q consequences
	var err error
	c.o.Store.View(func(t store.Tables) { q, err = c.consequencesOf(t, owner, host) })
	if err != nil {
		return q, err
	}
	return q, c.switchGateways(ctx, q.live.Value, q.old, q.gateways)
}

// switchGateways replaces the default routes, if they change at all. While it
// does, the row holds both plans and is not Ready: whoever comes next, after a
// crash or a failure, undoes both and starts from nothing.
func (c *Controller) switchGateways(ctx context.Context, s sandbox.Sandbox, old, fresh store.Row[store.Gateways]) error {
	settled := old.Phase == store.Ready || old.Phase == "" // "": there were none
	if settled && old.Value == fresh.Value {
		return nil
	}
	put := func(row store.Row[store.Gateways]) error {
		return c.o.Store.Defer(func(t store.Tables) error {
			t.Gateways.Put(s.ID, row)
			return nil
		})
	}
	both := store.Row[store.Gateways]{Value: fresh.Value, Phase: store.Creating, Plan: slices.Concat(old.Plan, fresh.Plan)}
	if err := put(both); err != nil {
		return err
	}
	if err := c.executor.Undo(ctx, old.Plan); err != nil {
		return fmt.Errorf("switching the default route of sandbox %s: %w", s.Netns(), err)
	}
	if err := c.executor.Do(ctx, fresh.Plan); err != nil {
		return fmt.Errorf("switching the default route of sandbox %s: %w", s.Netns(), err)
	}
	return put(fresh)
}

// rewritePort prepares a sandbox for the resolver, when its container joins
// its first user's network while it runs. It stays so, as with Docker.
func (c *Controller) rewritePort(ctx context.Context, id linkspan.ID) (sandbox.Sandbox, error) {
	defer c.alone(id)()
	var live store.Row[sandbox.Sandbox]
	c.o.Store.View(func(t store.Tables) { live, _ = t.Sandboxes.Get(id) })
	if live.Value.Resolver {
		return live.Value, nil // by another connection of the same container
	}
	plan := c.o.Firewall.Resolver(live.Value.Netns(), resolverPort, resolverPort)
	with := live
	with.Value.Resolver = true
	with.Plan = slices.Concat(live.Plan, plan)
	if err := c.replan(with); err != nil {
		return live.Value, err
	}
	if err := c.executor.Do(ctx, plan); err != nil {
		return live.Value, errors.Join(err, c.replan(live))
	}
	return with.Value, nil
}

// replan stores a sandbox's changed value and plan. Its phase stays what it is
// by now: the container may be stopping.
func (c *Controller) replan(changed store.Row[sandbox.Sandbox]) error {
	return c.o.Store.Defer(func(t store.Tables) error {
		row, ok := t.Sandboxes.Get(changed.Value.ID)
		if !ok {
			return stoppedMeanwhile(changed.Value)
		}
		row.Value, row.Plan = changed.Value, changed.Plan
		t.Sandboxes.Put(row.Value.ID, row)
		return nil
	})
}

func stoppedMeanwhile(s sandbox.Sandbox) error {
	return linkspan.Errorf(linkspan.ErrConflict, "the container of sandbox %s has stopped meanwhile", s.Netns())
}

// ensureResolver starts the resolver of a sandbox that has none yet.
func (c *Controller) ensureResolver(s sandbox.Sandbox) error {
	defer c.alone(s.ID)()
	c.mu.Lock()
	_, answers := c.resolvers[s.ID]
	c.mu.Unlock()
	if !s.Resolver || answers {
		return nil
	}
	fresh, err := c.startResolver(s, nil)
	c.handOver(s, fresh)
	return err
}

// handOver gives the sockets of a resolver that was started late to the shim.
// Should that fail, the next daemon opens new ones, and questions that are
// asked in between are lost.
func (c *Controller) handOver(s sandbox.Sandbox, files []*os.File) {
	if len(files) > 0 && c.o.Holder != nil {
		c.note("keeping the resolver's sockets of sandbox "+s.Netns(), c.o.Holder.Keep(s.Owner, files))
	}
	for _, file := range files {
		file.Close() //nolint:errcheck // the shim has its own
	}
}
