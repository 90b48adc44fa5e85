package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"

	apinetwork "github.com/moby/moby/api/types/network"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/endpoint"
	"github.com/linkspan/linkspan/store"
)

// Connect attaches a container to one more network: at once if it runs, else
// when it starts.
func (c *Controller) Connect(ctx context.Context, ref string, owner linkspan.ID, settings *apinetwork.EndpointSettings) error {
	host, err := c.readHostFiles()
	if err != nil {
		return err
	}
	var live reservation
	running := false
	err = c.whenFree(ctx, func() error {
		return c.o.Store.Update(func(t store.Tables) (err error) {
			live, running, err = c.reserveConnect(t, ref, owner, settings)
			return err
		})
	})
	if err != nil || !running {
		return err
	}
	added := live.endpoints[0]
	if err = c.executor.Do(ctx, added.Plan); err != nil {
		return errors.Join(err, c.dropEndpoint(added.Value))
	}
	c.readyToAnnounce(live.links)
	err = c.o.Store.Defer(func(t store.Tables) error {
		row, ok := t.Endpoints.Get(added.Value.ID)
		if !ok || row.Phase != store.Creating {
			return linkspan.Errorf(linkspan.ErrConflict, "container %s stopped while it was being connected", live.config.Name)
		}
		t.Endpoints.SetPhase(added.Value.ID, store.Ready)
		return nil
	})
	if err != nil {
		c.hush(added.Value.ID)
		return errors.Join(err, c.executor.Undo(ctx, added.Plan), c.dropEndpoint(added.Value))
	}
	c.startAnnouncing(live.links)
	if err := c.settle(ctx, owner, host); err != nil {
		return errors.Join(err, c.takeBack(ctx, added, host))
	}
	c.emit("connect", added.Value)
	return nil
}

// takeBack undoes a connection whose consequences failed: those first, as they
// rest on the link.
func (c *Controller) takeBack(ctx context.Context, added store.Row[endpoint.Endpoint], host hostFiles) error {
	ctx = context.WithoutCancel(ctx)
	if err := c.o.Store.Defer(func(t store.Tables) error {
		t.Endpoints.SetPhase(added.Value.ID, store.Deleting)
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
	return c.dropEndpoint(added.Value)
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
		taken := interfacesOf(t, live.Value.ID)
		if err = checkInterface(want, taken); err != nil {
			return r, false, err
		}
		row, n, err := c.reserveEndpoint(t, r.config, live.Value, want, taken)
		if err != nil {
			return r, false, err
		}
		t.Endpoints.Put(row.Value.ID, row)
		r.sandbox, r.endpoints, r.links = live, []store.Row[endpoint.Endpoint]{row}, []link{{row.Value, n}}
		want.Last = row.Value.Used()
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
	host, err := c.readHostFiles()
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
	for id, row := range t.By.EndpointsByOwner.All(owner) {
		if row.Value.Network == named.NetworkID {
			t.Endpoints.SetPhase(id, store.Deleting)
			return row, true, nil
		}
	}
	return gone, false, nil
}
