package controller

import (
	"context"
	"errors"
	"os"
	"slices"

	apinetwork "github.com/moby/moby/api/types/network"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/endpoint"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/sandbox"
	"github.com/linkspan/linkspan/store"
)

// Connect attaches a container to one more network: at once if it runs, else
// when it starts.
func (c *Controller) Connect(ctx context.Context, ref string, owner linkspan.ID, settings *apinetwork.EndpointSettings) error {
	hostFile, err := c.readResolvConf()
	if err != nil {
		return err
	}
	var live reservation
	running := false
	err = c.o.Store.Update(func(t store.Tables) error {
		live, running, err = c.reserveConnect(t, ref, owner, settings)
		return err
	})
	if err != nil || !running {
		return err
	}
	added := live.endpoints[0]
	if err = c.executor.Do(ctx, added.Plan); err != nil {
		return errors.Join(err, c.dropEndpoint(added.Value))
	}
	err = c.o.Store.Defer(func(t store.Tables) error {
		row, ok := t.Endpoints.Get(added.Value.ID)
		if !ok || row.Phase != store.Creating {
			return linkspan.Errorf(linkspan.ErrConflict, "container %s stopped while it was being connected", live.config.Name)
		}
		t.Endpoints.SetPhase(added.Value.ID, store.Ready)
		return nil
	})
	if err != nil {
		return errors.Join(err, c.executor.Undo(ctx, added.Plan), c.dropEndpoint(added.Value))
	}
	err = c.settle(ctx, owner, hostFile)
	c.emit("connect", added.Value)
	return err
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
	found, err := findNetwork(t, ref)
	if err != nil && (running || !errors.Is(err, linkspan.ErrNotFound)) {
		return r, false, err
	}
	name, id := ref, linkspan.ID("")
	if err == nil {
		name, id = found.Value.Name, found.Value.ID
	}
	if err = checkConnect(r.config, name); err != nil {
		return r, false, err
	}
	want, err := endpointConfig(name, settings)
	if err != nil {
		return r, false, err
	}
	want.NetworkID = id
	if running {
		if live.Phase != store.Ready {
			return r, false, linkspan.Errorf(linkspan.ErrConflict, "container %s is starting or stopping: try again", r.config.Name)
		}
		row, _, err := c.reserveEndpoint(t, r.config, live.Value, want, linksOf(t, live.Value.ID))
		if err != nil {
			return r, false, err
		}
		t.Endpoints.Put(row.Value.ID, row)
		r.sandbox, r.endpoints = live, []store.Row[endpoint.Endpoint]{row}
	}
	r.config.Attachments = append(without(r.config.Attachments, want), want)
	t.Configs.Put(owner, store.Row[store.Config]{Value: r.config, Phase: store.Ready})
	return r, running, nil
}

func checkConnect(cfg store.Config, name string) error {
	switch {
	case cfg.Mode == "host", name == "host":
		if cfg.Mode == "host" && name != "host" {
			return linkspan.Errorf(linkspan.ErrInvalid, "container sharing network namespace with another container or host cannot be connected to any other network")
		}
		return linkspan.Errorf(linkspan.ErrInvalid, "cannot connect container to host network - container must be created in host network mode")
	case len(cfg.Mode) > 10 && cfg.Mode[:10] == "container:":
		return linkspan.Errorf(linkspan.ErrInvalid, "container sharing network namespace with another container or host cannot be connected to any other network")
	case cfg.Mode == "none", name == "none":
		return linkspan.Errorf(linkspan.ErrInvalid, "container cannot be connected to multiple networks with one of the networks in private (none) mode")
	}
	return nil
}

// without returns the attachments other than the one to the same network.
func without(all []endpoint.Config, other endpoint.Config) []endpoint.Config {
	return slices.DeleteFunc(slices.Clone(all), func(a endpoint.Config) bool {
		return a.Network == other.Network || (a.NetworkID != "" && a.NetworkID == other.NetworkID)
	})
}

func (c *Controller) dropEndpoint(e endpoint.Endpoint) error {
	return c.o.Store.Update(func(t store.Tables) error {
		t.Endpoints.Delete(e.ID)
		if config, ok := t.Configs.Get(e.Owner); ok {
			config.Value.Attachments = without(config.Value.Attachments, e.Config)
			t.Configs.Put(e.Owner, config)
		}
		return nil
	})
}

// Disconnect takes a container off a network. With force, a network or an
// attachment that is gone already is success.
func (c *Controller) Disconnect(ctx context.Context, ref string, owner linkspan.ID, force bool) error {
	hostFile, err := c.readResolvConf()
	if err != nil {
		return err
	}
	var gone store.Row[endpoint.Endpoint]
	running := false
	err = c.o.Store.Update(func(t store.Tables) error {
		gone, running, err = reserveDisconnect(t, ref, owner)
		return err
	})
	switch {
	case force && errors.Is(err, linkspan.ErrNotFound):
		return nil
	case err != nil, !running:
		return err
	}
	if zone := c.zone(gone.Value.Network); zone != nil {
		zone.Delete(gone.Value.ID)
	}
	// The default route first: it must not outlive its link.
	err = errors.Join(c.settle(ctx, owner, hostFile), c.executor.Undo(ctx, gone.Plan))
	if err != nil {
		return err
	}
	err = c.o.Store.Defer(func(t store.Tables) error {
		t.Endpoints.Delete(gone.Value.ID)
		return nil
	})
	c.emit("disconnect", gone.Value)
	return err
}

func reserveDisconnect(t store.Tables, ref string, owner linkspan.ID) (store.Row[endpoint.Endpoint], bool, error) {
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
	_, running := sandboxOf(t, owner)
	if err != nil && running {
		return gone, false, err
	}
	switch {
	case cfg.Mode == "host" && named.Network == "host":
		return gone, false, linkspan.Errorf(linkspan.ErrInvalid, "cannot disconnect container from host network - container was created in host network mode")
	case len(without(cfg.Attachments, named)) == len(cfg.Attachments):
		how := "not connected to network " + named.Network
		if !running {
			how = "not connected to the network " + named.Network
		}
		return gone, false, linkspan.Errorf(errUnexpected, "container %s is %s", owner, how)
	}
	cfg.Attachments = without(cfg.Attachments, named)
	t.Configs.Put(owner, store.Row[store.Config]{Value: cfg, Phase: store.Ready})
	if !running {
		return gone, false, nil
	}
	for id, row := range t.Endpoints.All() {
		if row.Value.Owner == owner && row.Value.Network == named.NetworkID {
			t.Endpoints.SetPhase(id, store.Deleting)
			return row, true, nil
		}
	}
	return gone, false, nil
}

// settle makes what follows from a container's endpoints follow: the default
// routes, the resolver, the names and the files.
func (c *Controller) settle(ctx context.Context, owner linkspan.ID, hostFile []byte) error {
	var live store.Row[sandbox.Sandbox]
	var cfg store.Config
	var links []link
	var old, fresh store.Row[store.Gateways]
	var files sandbox.Files
	rewritten := false // whether the resolver's port is rewritten already
	err := c.o.Store.Defer(func(t store.Tables) error {
		found := false
		if live, found = sandboxOf(t, owner); !found {
			return noContainer(owner)
		}
		config, _ := t.Configs.Get(owner)
		cfg, links = config.Value, linksOf(t, live.Value.ID)
		rewritten = live.Value.Resolver
		for _, l := range links {
			live.Value.Resolver = live.Value.Resolver || !network.Predefined(l.network.Name)
		}
		old, _ = t.Gateways.Get(live.Value.ID)
		fresh.Value, fresh.Plan = gateways(live.Value, links)
		fresh.Phase = store.Ready
		var err error
		files, err = c.files(cfg, live.Value, links, hostFile, defaultGateways(t))
		return err
	})
	if err != nil {
		return err
	}
	if err := c.switchGateways(ctx, live.Value, old, fresh); err != nil {
		return err
	}
	if err := c.ensureResolver(ctx, live, rewritten); err != nil {
		return err
	}
	c.announceNames(owner)
	return errors.Join(rewrite(live.Value.Hosts(), files.Hosts), rewrite(live.Value.ResolvConf(), files.ResolvConf))
}

// switchGateways replaces the default routes, if they change at all. The new
// plan is stored beside the old one until the old one is undone.
func (c *Controller) switchGateways(ctx context.Context, s sandbox.Sandbox, old, fresh store.Row[store.Gateways]) error {
	if old.Value == fresh.Value {
		return nil
	}
	put := func(row store.Row[store.Gateways]) error {
		return c.o.Store.Defer(func(t store.Tables) error {
			t.Gateways.Put(s.ID, row)
			return nil
		})
	}
	both := fresh
	both.Plan = append(append(op.Plan(nil), old.Plan...), fresh.Plan...)
	if err := put(both); err != nil {
		return err
	}
	if err := c.executor.Undo(ctx, old.Plan); err != nil {
		return err
	}
	if err := c.executor.Do(ctx, fresh.Plan); err != nil {
		return err
	}
	return put(fresh)
}

// ensureResolver starts the resolver of a container that joined its first
// user's network while it runs.
func (c *Controller) ensureResolver(ctx context.Context, live store.Row[sandbox.Sandbox], rewritten bool) error {
	c.mu.Lock()
	_, answers := c.resolvers[live.Value.ID]
	c.mu.Unlock()
	if !live.Value.Resolver || answers {
		return nil
	}
	if !rewritten {
		if err := c.rewritePort(ctx, live); err != nil {
			return err
		}
	}
	kept, err := c.startResolver(live.Value, nil)
	for _, file := range kept {
		file.Close() //nolint:errcheck // no shim holds them: the daemon opens new ones when it starts again
	}
	return err
}

func (c *Controller) rewritePort(ctx context.Context, live store.Row[sandbox.Sandbox]) error {
	plan := c.o.Firewall.Resolver(live.Value.Netns(), resolverPort, resolverPort)
	live.Plan = append(append(op.Plan(nil), live.Plan...), plan...)
	if err := c.o.Store.Defer(func(t store.Tables) error {
		t.Sandboxes.Put(live.Value.ID, live)
		return nil
	}); err != nil {
		return err
	}
	return c.executor.Do(ctx, plan)
}

// rewrite changes a bound file in place: its inode is what the container sees.
func rewrite(path, text string) error {
	return os.WriteFile(path, []byte(text), 0o644)
}
