package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"

	apinetwork "github.com/moby/moby/api/types/network"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/endpoint"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/sandbox"
	"github.com/linkspan/linkspan/store"
)

// Connect attaches a container to one more network: at once if it runs, else
// when it starts.
func (c *Controller) Connect(ctx context.Context, ref string, owner linkspan.ID, settings *apinetwork.EndpointSettings) error {
	host, err := c.readHostFiles()
	if err != nil {
		return err
	}
	if n, findErr := c.Network(ref); findErr == nil && c.live(owner) {
		if err := c.wake(ctx, n); err != nil {
			return err
		}
	}
	var live reservation
	running := false
	err = c.withParts(ctx, func() error {
		return c.o.Store.Update(func(t store.Tables) (err error) {
			live, running, err = c.reserveConnect(t, ref, owner, settings)
			return err
		})
	})
	if err == nil && hasStatic(live.config) {
		c.followHolds(ctx)
	}
	if err != nil || !running {
		return err
	}
	added := live.endpoints[0]
	if added.Plan, err = c.executor.Ask(ctx, added.Plan); err != nil {
		return c.abandonEndpoint(ctx, added, err)
	}
	if added, err = c.complete(ctx, live.sandbox.Value, added); err != nil {
		return c.abandonEndpoint(ctx, added, errors.Join(err, leftOf(c.executor.Undo(ctx, added.Plan))))
	}
	live.links[0].endpoint = added.Value
	c.readyToAnnounce(live.links)
	err = c.o.Store.Defer(func(t store.Tables) error {
		row, ok := t.Endpoints.Get(added.Value.ID)
		if !ok || row.Phase != store.Creating {
			return linkspan.Errorf(linkspan.ErrConflict, "container %s stopped while it was being connected", live.config.Name)
		}
		added.Phase, added.Value.Name, added.Value.DNSNames = store.Ready, row.Value.Name, row.Value.DNSNames
		t.Endpoints.Put(added.Value.ID, added)
		return nil
	})
	if err != nil {
		c.hush(added.Value.ID)
		return c.abandonEndpoint(ctx, added, errors.Join(err, leftOf(c.executor.Undo(ctx, added.Plan))))
	}
	if err := c.settle(ctx, owner, host); err != nil {
		return errors.Join(err, c.takeBack(ctx, added, host))
	}
	c.startAnnouncing(live.links)
	c.describe(ctx, added)
	c.emit("connect", added.Value)
	return nil
}

func (c *Controller) live(owner linkspan.ID) (yes bool) {
	c.o.Store.View(func(t store.Tables) { _, yes = sandboxOf(t, owner) })
	return yes
}

// abandonEndpoint drops the row of a connection that failed and was undone, and
// the wish for it. If something is left, the row stays, and it is undone later.
func (c *Controller) abandonEndpoint(ctx context.Context, row store.Row[endpoint.Endpoint], err error) error {
	dropErr := c.dropEndpoint(ctx, row.Value)
	if errors.Is(err, op.ErrLeft) {
		row.Phase = store.Deleting
		dropErr = errors.Join(dropErr, c.o.Store.Defer(func(t store.Tables) error {
			t.Endpoints.Put(row.Value.ID, row)
			return nil
		}))
	}
	return errors.Join(err, dropErr)
}

// takeBack undoes a connection whose consequences failed: those first, as they
// rest on the link.
func (c *Controller) takeBack(ctx context.Context, added store.Row[endpoint.Endpoint], host hostFiles) error {
	ctx = context.WithoutCancel(ctx)
	if err := c.o.Store.Update(func(t store.Tables) error {
		t.Endpoints.SetPhase(added.Value.ID, store.Deleting)
		dropWish(t, added.Value)
		return nil
	}); err != nil {
		return err
	}
	c.hush(added.Value.ID)
	err := errors.Join(c.settle(ctx, added.Value.Owner, host), c.executor.Undo(ctx, added.Plan))
	if err != nil {
		return fmt.Errorf("taking the connection back: %w", err)
	}
	c.forgetNames(added.Value)
	return c.dropEndpoint(ctx, added.Value)
}

// reserveConnect is the pure part of Connect. The second result tells whether
// the container runs, so that there is something to do at once.
func (c *Controller) reserveConnect(t store.Tables, ref string, owner linkspan.ID, settings *apinetwork.EndpointSettings) (reservation, bool, error) {
	var r reservation
	config, ok := t.Configs.Get(owner)
	if !ok {
		return r, false, noContainer(owner)
	}
	r.config = config.Value
	live, running := sandboxOf(t, owner)
	want, err := c.wanted(t, r.config, ref, settings, running)
	if err != nil {
		return r, false, err
	}
	if running {
		if err = settled(live, r.config); err != nil {
			return r, false, err
		}
		taken := interfacesOf(t, live.Value.ID)
		if err = checkInterface(want, taken); err != nil {
			return r, false, err
		}
		row, n, failed := c.reserveEndpoint(t, r.config, live.Value, want, taken)
		if failed != nil {
			return r, false, failed
		}
		t.Endpoints.Put(row.Value.ID, row)
		r.sandbox, r.endpoints, r.links = live, []store.Row[endpoint.Endpoint]{row}, []link{{row.Value, n}}
		want.Last = row.Value.Used()
	}
	r.config.Attachments = append(without(r.config.Attachments, want), want)
	t.Configs.Put(owner, store.Row[store.Config]{Value: r.config, Phase: store.Ready})
	return r, running, nil
}

// wanted is a new attachment of a container. A network that is not there can be
// wanted by a container that does not run: it may be there when it starts.
func (c *Controller) wanted(t store.Tables, cfg store.Config, ref string, settings *apinetwork.EndpointSettings, running bool) (endpoint.Config, error) {
	found, missing := findNetwork(t, ref)
	if missing != nil && (running || !errors.Is(missing, linkspan.ErrNotFound)) {
		return endpoint.Config{}, missing
	}
	name := ref
	if missing == nil {
		name = found.Value.Name
	}
	want, err := endpointConfig(name, settings)
	if err == nil {
		err = c.checkConnect(cfg, name)
	}
	if err != nil || missing != nil {
		return want, err
	}
	want.NetworkID = found.Value.ID
	return want, checkSubnets(want, found.Value)
}

// settled refuses to change the endpoints of a container that changes itself.
func settled(live store.Row[sandbox.Sandbox], cfg store.Config) error {
	if live.Phase != store.Ready {
		return linkspan.Errorf(linkspan.ErrConflict, "container %s is starting or stopping: try again", cfg.Name)
	}
	return nil
}

// without returns the attachments other than the one to the same network.
func without(all []endpoint.Config, other endpoint.Config) []endpoint.Config {
	return slices.DeleteFunc(slices.Clone(all), func(a endpoint.Config) bool {
		return a.Network == other.Network || (a.NetworkID != "" && a.NetworkID == other.NetworkID)
	})
}

func (c *Controller) dropEndpoint(ctx context.Context, e endpoint.Endpoint) error {
	err := c.o.Store.Update(func(t store.Tables) error {
		t.Endpoints.Delete(e.ID)
		dropWish(t, e)
		return nil
	})
	c.retire(ctx, e.Network)
	return err
}

// dropWish makes a container want an attachment no more.
func dropWish(t store.Tables, e endpoint.Endpoint) {
	if config, ok := t.Configs.Get(e.Owner); ok {
		config.Value.Attachments = without(config.Value.Attachments, e.Config)
		t.Configs.Put(e.Owner, config)
	}
}

// interrupted tells whether an endpoint is of a connection that nobody finished,
// rather than of a start: the container was there without it.
func interrupted(t store.Tables, row store.Row[endpoint.Endpoint]) bool {
	live, there := t.Sandboxes.Get(row.Value.Sandbox)
	return row.Phase == store.Creating && there && live.Phase == store.Ready
}

// Disconnect takes a container off a network. With force, the network may be
// gone already, and a container that runs forgets that it wanted it.
func (c *Controller) Disconnect(ctx context.Context, ref string, owner linkspan.ID, force bool) error {
	host, err := c.readHostFiles()
	if err != nil {
		return err
	}
	var gone store.Row[endpoint.Endpoint]
	running := false
	err = c.o.Store.Update(func(t store.Tables) error {
		gone, running, err = c.reserveDisconnect(t, ref, owner, force)
		return err
	})
	if err != nil {
		return err
	}
	c.followHolds(ctx)
	if !running {
		return nil
	}
	c.forgetNames(gone.Value)
	c.hush(gone.Value.ID)
	// The default route first: it must not outlive its link.
	err = c.settle(ctx, owner, host)
	if undoErr := c.finishEndpoint(ctx, gone); undoErr != nil {
		return errors.Join(err, undoErr)
	}
	c.emit("disconnect", gone.Value)
	return err
}

func (c *Controller) reserveDisconnect(t store.Tables, ref string, owner linkspan.ID, force bool) (store.Row[endpoint.Endpoint], bool, error) {
	var gone store.Row[endpoint.Endpoint]
	config, ok := t.Configs.Get(owner)
	if !ok {
		return gone, false, noContainer(owner)
	}
	cfg := config.Value
	named := endpoint.Config{Network: ref}
	found, err := findNetwork(t, ref)
	if err == nil {
		named.Network, named.NetworkID = found.Value.Name, found.Value.ID
	}
	live, running := sandboxOf(t, owner)
	if err != nil && running && !force {
		return gone, false, err
	}
	running = running && err == nil
	if err = c.checkDisconnect(cfg, named.Network); err != nil {
		return gone, false, err
	}
	if implied, yes := c.impliedEndpoint(t, cfg, live.Value); yes && implied.Network == named.NetworkID {
		cfg.Mode = "" // of no network: it may be connected to others
		t.Configs.Put(owner, store.Row[store.Config]{Value: cfg, Phase: store.Ready})
		return store.Row[endpoint.Endpoint]{Value: implied, Phase: store.Deleting}, running, nil
	}
	if len(without(cfg.Attachments, named)) == len(cfg.Attachments) {
		how := "not connected to network " + named.Network
		if !running {
			how = "not connected to the network " + named.Network
		}
		return gone, false, linkspan.Errorf(errUnexpected, "container %s is %s", owner, how)
	}
	if running {
		if err = settled(live, cfg); err != nil {
			return gone, false, err
		}
	}
	attached := false
	for id, row := range t.By.EndpointsByOwner.All(owner) {
		switch {
		case !running || row.Value.Network != named.NetworkID || row.Phase == store.Deleting:
		case row.Phase == store.Creating:
			return gone, false, linkspan.Errorf(linkspan.ErrConflict, "container %s is being connected to network %s: try again", cfg.Name, named.Network)
		default:
			t.Endpoints.SetPhase(id, store.Deleting)
			gone, attached = row, true
		}
	}
	cfg.Attachments = without(cfg.Attachments, named)
	t.Configs.Put(owner, store.Row[store.Config]{Value: cfg, Phase: store.Ready})
	return gone, attached, nil
}
