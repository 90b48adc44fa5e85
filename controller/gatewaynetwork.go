package controller

import (
	"context"
	"errors"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/endpoint"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/sandbox"
	"github.com/linkspan/linkspan/store"
)

// gatewayNetwork is the name of the network that gives a way out to sandboxes
// whose own networks offer none. It is made when it is first needed.
const gatewayNetwork = "docker_gwbridge"

// gatewaySpec says what it is like: a bridge whose containers cannot talk to each
// other.
func gatewaySpec() NetworkSpec {
	return NetworkSpec{Name: gatewayNetwork, Driver: "bridge", IPv4: true, Options: map[string]string{
		"com.docker.network.bridge.name":                 "linkspan-gw0",
		"com.docker.network.bridge.enable_icc":           "false",
		"com.docker.network.bridge.enable_ip_masquerade": "true",
	}}
}

// wantsGateway tells whether a sandbox with these links needs one that leads out:
// an endpoint hoped for it, and no other has one.
func wantsGateway(links []link) bool {
	wants := false
	for _, l := range links {
		switch {
		case l.network.Name == gatewayNetwork:
		case l.endpoint.Gateway4.IsValid():
			return false
		case l.endpoint.Inward:
			wants = true
		}
	}
	return wants
}

// followGateway joins a sandbox to the gateway network when it needs that, and
// takes it off when it does not.
func (c *Controller) followGateway(ctx context.Context, owner linkspan.ID) error {
	var s sandbox.Sandbox
	var cfg store.Config
	var has *store.Row[endpoint.Endpoint]
	wants := false
	c.o.Store.View(func(t store.Tables) {
		live, there := sandboxOf(t, owner)
		if !there || live.Phase != store.Ready {
			return
		}
		config, _ := t.Configs.Get(owner)
		s, cfg = live.Value, config.Value
		wants = wantsGateway(linksOf(t, s.ID))
		for _, row := range t.By.EndpointsBySandbox.All(s.ID) {
			if n, _ := t.Networks.Get(row.Value.Network); n.Value.Name == gatewayNetwork {
				has = &row
			}
		}
	})
	switch {
	case wants && has == nil:
		return c.joinGateway(ctx, s, cfg)
	case !wants && has != nil:
		return c.leaveGateway(ctx, *has)
	}
	return nil
}

func (c *Controller) joinGateway(ctx context.Context, s sandbox.Sandbox, cfg store.Config) error {
	row, err := c.gatewayEndpoint(ctx, s, cfg)
	if err != nil {
		return err
	}
	return c.putEndpoint(row, store.Ready)
}

// startGateway is followGateway for a container that starts: its ports may be
// published by the gateway network, and there is no shim yet that another one's
// could be taken from afterwards.
func (c *Controller) startGateway(ctx context.Context, r *reservation) error {
	if !wantsGateway(r.links) {
		return nil
	}
	row, err := c.gatewayEndpoint(ctx, r.sandbox.Value, r.config)
	if err == nil {
		r.endpoints = append(r.endpoints, row)
	}
	return err
}

// gatewayEndpoint makes a sandbox's endpoint on the gateway network. Its row is
// not Ready yet.
func (c *Controller) gatewayEndpoint(ctx context.Context, s sandbox.Sandbox, cfg store.Config) (row store.Row[endpoint.Endpoint], err error) {
	n, err := c.Network(gatewayNetwork)
	if errors.Is(err, linkspan.ErrNotFound) {
		if n, err = c.createNetwork(ctx, gatewaySpec()); errors.Is(err, linkspan.ErrConflict) {
			n, err = c.Network(gatewayNetwork) // another container was faster
		}
	}
	if err != nil {
		return row, err
	}
	cfg.Name, cfg.Hostname, cfg.Domainname = "gateway_"+s.ID.Short(), "", ""
	err = c.o.Store.Defer(func(t store.Tables) error {
		row, _, err = c.reserveEndpoint(t, cfg, s, endpoint.Config{Network: n.Name, NetworkID: n.ID}, interfacesOf(t, s.ID))
		if err == nil {
			t.Endpoints.Put(row.Value.ID, row)
		}
		return err
	})
	if err != nil {
		return row, err
	}
	if row.Plan, err = c.executor.Ask(ctx, row.Plan); err != nil {
		phase := store.Phase("")
		if errors.Is(err, op.ErrLeft) {
			phase = store.Deleting
		}
		return row, errors.Join(err, c.putEndpoint(row, phase))
	}
	return row, nil
}

// putEndpoint stores a row with a phase, or drops it if there is none.
func (c *Controller) putEndpoint(row store.Row[endpoint.Endpoint], phase store.Phase) error {
	return c.o.Store.Defer(func(t store.Tables) error {
		row.Phase = phase
		if phase == "" {
			t.Endpoints.Delete(row.Value.ID)
		} else {
			t.Endpoints.Put(row.Value.ID, row)
		}
		return nil
	})
}

// leaveGateway takes the endpoint's routes away with it: they are planned anew by
// whoever called.
func (c *Controller) leaveGateway(ctx context.Context, row store.Row[endpoint.Endpoint]) error {
	if err := c.putEndpoint(row, store.Deleting); err != nil {
		return err
	}
	var old store.Row[store.Gateways]
	c.o.Store.View(func(t store.Tables) { old, _ = t.Gateways.Get(row.Value.Sandbox) })
	if old.Value.IPv4 == row.Value.ID {
		live := sandbox.Sandbox{ID: row.Value.Sandbox, Owner: row.Value.Owner}
		if err := c.switchGateways(ctx, live, old, store.Row[store.Gateways]{Phase: store.Ready}); err != nil {
			return err
		}
	}
	return c.finishEndpoint(ctx, row)
}

// ofGateway tells whether a network is the gateway network, which nobody is meant
// to see: it has no names.
func ofGateway(n network.Network) bool { return n.Name == gatewayNetwork }
