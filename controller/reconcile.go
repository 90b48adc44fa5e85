package controller

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/endpoint"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/sandbox"
	"github.com/linkspan/linkspan/store"
)

// Recover brings kernel and rows together after a start, and makes what must
// always be there. A start at which nothing is amiss changes nothing in the
// kernel.
//
//   - rows that are Creating or Deleting are undone and dropped: nobody waits
//     for them any more;
//   - rows that are Ready are checked, and repaired step by step;
//   - networks without a plan come from before a boot and are planned anew;
//   - marked links that no row claims are orphans and are removed.
//
// What needs a plugin is left to the background: it may be away, or wait for this
// daemon's API.
func (c *Controller) Recover(ctx context.Context) error {
	if err := c.takeOver(ctx); err != nil {
		return err
	}
	c.note("replacing the rules of another firewall backend", c.switchBackend(ctx))
	c.note("bringing the rules that all networks share up to date", c.renewBase())
	if err := c.recoverHost(ctx); err != nil {
		return err
	}
	c.takeBackChanges(ctx)
	c.finishIntents(ctx)
	c.noteDebts()
	looked := c.survey(ctx)
	c.recoverNetworks(ctx, looked)
	if err := c.ensureDefault(ctx); err != nil {
		return err
	}
	c.recoverSandboxes(ctx, looked)
	if err := c.answerHost(); err != nil {
		return err
	}
	c.note("following the host's name servers", c.followHost(context.WithoutCancel(ctx)))
	c.stopped.Go(func() { c.retry(c.life) })
	c.stopped.Go(func() { c.guardRules(c.life) })
	c.stopped.Go(func() { c.peers.Guard(c.life) })
	if c.o.Cluster != nil {
		c.resumeCluster()
		c.stopped.Go(func() { c.followCluster(c.life) })
	}
	c.healAll()
	return nil
}

// recoverHost does what all networks share, once per life of the machine.
func (c *Controller) recoverHost(ctx context.Context) error {
	var row store.Row[store.Host]
	known := false
	c.o.Store.View(func(t store.Tables) { row, known = t.Hosts.Get(store.HostID) })
	if known {
		// All at once first: the repair of a table alone would lose what is in it.
		_, _, err := c.mend(ctx)
		c.note("restoring the firewall's rules", err)
		if err := c.repair(ctx, "the host", row.Plan); err != nil {
			return err
		}
		return c.prepareGuard(ctx)
	}
	plan, err := c.hostPlan()
	if err != nil {
		return err
	}
	put := func(phase store.Phase) error {
		return c.o.Store.Defer(func(t store.Tables) error {
			t.Hosts.Put(store.HostID, store.Row[store.Host]{Phase: phase, Plan: plan})
			return nil
		})
	}
	if err := put(store.Creating); err != nil {
		return err
	}
	if err := c.ensure(ctx, plan, func(error) {}); err != nil {
		return fmt.Errorf("preparing the host: %w", err)
	}
	if err := put(store.Ready); err != nil {
		return err
	}
	return c.prepareGuard(ctx)
}

// hostPlan reads what the machine is like and plans the rest. A sysctl that is
// right already is no step.
func (c *Controller) hostPlan() (op.Plan, error) {
	plan := append(op.Plan(nil), c.o.Firewall.Base()...)
	const forward = "net/ipv4/ip_forward"
	was, err := c.o.Host.ReadSysctl("", forward)
	if err != nil {
		return nil, err
	}
	if was != "1" {
		plan = append(plan, op.Step{
			Why: "Containers reach the world by way of the host, which must pass packets on for them.",
			Op:  op.SetSysctl{Key: forward, Value: "1", Was: was},
		})
	}
	return plan, nil
}

// repair does again what is missing of a plan that was done, and says so.
func (c *Controller) repair(ctx context.Context, what string, plan op.Plan) error {
	err := c.ensure(ctx, plan, func(missing error) { c.o.Logf("repairing %s: %v", what, missing) })
	if err != nil {
		return fmt.Errorf("repairing %s: %w", what, err)
	}
	return nil
}

// ensure does the steps of a plan that are not done.
func (c *Controller) ensure(ctx context.Context, plan op.Plan, missing func(error)) error {
	for _, step := range plan {
		err := step.Op.Check(ctx, c.o.Host)
		if err == nil {
			continue
		}
		missing(err)
		one := op.Plan{step}
		if err = c.executor.Do(ctx, one); errors.Is(err, linkspan.ErrConflict) {
			// It is there but differs: only what is ours can be replaced.
			if err = c.executor.Undo(ctx, one); err == nil {
				err = c.executor.Do(ctx, one)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// finishIntents undoes what an earlier daemon had begun and not ended.
func (c *Controller) finishIntents(ctx context.Context) {
	var networks []store.Row[network.Network]
	var owners []linkspan.ID
	var endpoints, unwanted []store.Row[endpoint.Endpoint]
	c.o.Store.View(func(t store.Tables) {
		for _, row := range t.Networks.All() {
			if row.Phase != store.Ready {
				networks = append(networks, row)
			}
		}
		for _, row := range t.Sandboxes.All() {
			if row.Phase != store.Ready {
				owners = append(owners, row.Value.Owner)
			}
		}
		for _, row := range t.Endpoints.All() {
			if row.Phase != store.Ready {
				endpoints = append(endpoints, row)
			}
			if interrupted(t, row) {
				unwanted = append(unwanted, row)
			}
		}
	})
	if len(unwanted) > 0 { // the wish goes first: whoever is stopped here in turn finds the endpoints still
		c.note("forgetting connections that were not made", c.o.Store.Update(func(t store.Tables) error {
			for _, row := range unwanted {
				dropWish(t, row.Value)
			}
			return nil
		}))
	}
	for _, row := range endpoints {
		if len(op.Parties(row.Plan)) > 0 {
			c.note("leaving a half-made endpoint for later", c.putEndpoint(row, store.Deleting))
			continue
		}
		c.note("taking a half-made endpoint away", c.finishEndpoint(ctx, row))
	}
	for _, owner := range owners {
		c.note("taking a half-made sandbox away", c.DetachEnded(ctx, owner))
	}
	for _, row := range networks {
		if len(op.Parties(row.Plan)) > 0 {
			row.Phase = store.Deleting
			c.note("leaving a half-made network for later", c.putNetwork(row))
			continue
		}
		c.note("taking a half-made network away", c.finishNetwork(ctx, row))
	}
}

// DetachEnded is Detach for a container that has ended while no daemon ran. If it
// needs a plugin it goes on in the background: a start must not wait for one.
func (c *Controller) DetachEnded(ctx context.Context, owner linkspan.ID) error {
	plan, err := c.ContainerCommands(owner)
	if err != nil || len(op.Parties(plan)) == 0 {
		return c.Detach(ctx, owner)
	}
	c.stopped.Go(func() { c.note("detaching container "+owner.Short(), c.Detach(c.life, owner)) })
	return nil
}

func (c *Controller) finishEndpoint(ctx context.Context, row store.Row[endpoint.Endpoint]) error {
	if err := c.undoEndpoint(ctx, row); err != nil {
		return c.leave("disconnecting container "+row.Value.Name, err)
	}
	err := c.o.Store.Defer(func(t store.Tables) error {
		t.Endpoints.Delete(row.Value.ID)
		return nil
	})
	c.retire(ctx, row.Value.Network)
	return err
}

// recoverNetworks checks all networks, and plans those anew whose plan died
// with an earlier life of the kernel. One that fails stays, and is reported.
func (c *Controller) recoverNetworks(ctx context.Context, seen seen) {
	c.retire(ctx, c.unused()...)
	for _, n := range c.Networks() {
		c.openZone(n)
		row, err := c.networkRow(string(n.ID))
		if err != nil || row.Phase != store.Ready {
			continue
		}
		if n.Shared && row.Plan == nil {
			continue // its part is made when it is needed
		}
		if row.Plan == nil {
			err = c.replanNetwork(ctx, n)
		} else {
			err = errors.Join(c.repair(ctx, "network "+n.Name, seen.rest(row.Plan)), c.renewRules(ctx, row))
		}
		c.note("restoring network "+n.Name, err)
	}
}

func (c *Controller) replanNetwork(ctx context.Context, n network.Network) error {
	driver, err := c.driver(n.Driver)
	if err != nil {
		return err
	}
	if n, err = c.adoptAgain(ctx, n, driver); err != nil {
		return err
	}
	plan, err := c.networkPlan(n, driver)
	if err != nil {
		return err
	}
	if addresses := c.addresses(n); addresses != nil {
		plan = slices.Concat(addresses.Held(n), plan)
	}
	put := func(plan op.Plan) error {
		return c.o.Store.Defer(func(t store.Tables) error {
			t.Networks.Put(n.ID, store.Row[network.Network]{Value: n, Phase: store.Ready, Plan: plan})
			return nil
		})
	}
	if err := put(plan); err != nil {
		return err
	}
	if err := c.prepareHost(ctx, n, driver); err != nil {
		return err
	}
	return c.ensure(ctx, plan, func(error) {})
}

// recoverSandboxes checks the live sandboxes. Those whose container is gone the
// launcher detaches; those that stay get their resolver back by Resume.
func (c *Controller) recoverSandboxes(ctx context.Context, seen seen) {
	var owners []linkspan.ID
	c.o.Store.View(func(t store.Tables) {
		for _, row := range t.Sandboxes.All() {
			owners = append(owners, row.Value.Owner)
		}
	})
	host, err := c.readHostFiles()
	c.note("reading the host's files", err)
	for _, owner := range owners {
		plan, err := c.ContainerCommands(owner)
		c.note("restoring the network of container "+owner.Short(), err)
		if len(op.Parties(plan)) > 0 {
			c.stopped.Go(func() { c.recoverSandbox(c.life, owner, host, seen) })
			continue
		}
		c.recoverSandbox(ctx, owner, host, seen)
	}
}

func (c *Controller) recoverSandbox(ctx context.Context, owner linkspan.ID, host hostFiles, seen seen) {
	// What an interrupted connect or disconnect has left half switched.
	_, err := c.follow(ctx, owner, host)
	c.note("restoring the routes and files of container "+owner.Short(), err)
	var plan op.Plan
	c.o.Store.View(func(t store.Tables) {
		if r, live := liveOf(t, owner); live {
			plan = seen.restOf(r).plan()
		}
	})
	c.note("restoring the network of container "+owner.Short(), c.repair(ctx, "container "+owner.Short(), plan))
}

// Resume answers again in the sandbox of a container that outlived the daemon,
// on the sockets that its shim kept.
func (c *Controller) Resume(owner linkspan.ID, kept []*os.File) error {
	var live store.Row[sandbox.Sandbox]
	found := false
	c.o.Store.View(func(t store.Tables) { live, found = sandboxOf(t, owner) })
	if !found {
		return nil
	}
	// Now its shim can be asked to follow what has changed of its network.
	c.note("following what is published of container "+owner.Short(), c.followPorts(c.life, owner))
	if !live.Value.Resolver {
		return nil
	}
	duplicates, err := c.startResolver(live.Value, kept)
	if len(kept) == 0 {
		c.handOver(live.Value, duplicates)
		duplicates = nil
	}
	for _, file := range duplicates {
		file.Close() //nolint:errcheck // the shim has its own
	}
	c.announceNames(owner)
	return err
}

// Owners returns the containers that have a live sandbox or a configuration.
func (c *Controller) Owners() (live, configured []linkspan.ID) {
	c.o.Store.View(func(t store.Tables) {
		for _, row := range t.Sandboxes.All() {
			live = append(live, row.Value.Owner)
		}
		for id := range t.Configs.All() {
			configured = append(configured, id)
		}
	})
	return live, configured
}

// retry tries again, from time to time, what could not be undone.
func (c *Controller) retry(ctx context.Context) {
	ticker := time.NewTicker(retryEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			c.retryDeleting(ctx, func(op.Plan) bool { return true })
			c.retire(ctx, c.unused()...)
			c.followHolds(ctx)
		}
	}
}

// retryDeleting undoes what could not be undone before, of the plans that match.
func (c *Controller) retryDeleting(ctx context.Context, match func(op.Plan) bool) {
	var networks []store.Row[network.Network]
	var owners []linkspan.ID
	var endpoints []store.Row[endpoint.Endpoint]
	c.o.Store.View(func(t store.Tables) {
		for _, row := range t.Networks.All() {
			if row.Phase == store.Deleting && match(row.Plan) {
				networks = append(networks, row)
			}
		}
		for _, row := range t.Sandboxes.All() {
			if row.Phase == store.Deleting && match(row.Plan) {
				owners = append(owners, row.Value.Owner)
			}
		}
		for _, row := range t.Endpoints.All() {
			if row.Phase == store.Deleting && match(row.Plan) {
				endpoints = append(endpoints, row)
			}
		}
	})
	for _, row := range endpoints {
		c.note("disconnecting container "+row.Value.Name, c.finishEndpoint(ctx, row))
	}
	for _, row := range networks {
		c.note("removing network "+row.Value.Name, c.finishNetwork(ctx, row))
	}
	for _, owner := range owners {
		c.note("detaching container "+owner.Short(), c.Detach(ctx, owner))
	}
}

func (c *Controller) note(what string, err error) {
	if err != nil {
		c.o.Logf("%s: %v", what, err)
	}
}
