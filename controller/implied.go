package controller

import (
	"github.com/linkspan/linkspan/endpoint"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/sandbox"
	"github.com/linkspan/linkspan/store"
)

// A container of mode "host" or "none" has an endpoint on the network of that
// name, as clients see it. There is no row of it, as there is nothing to it: it
// follows from the mode, and is there as long as the sandbox, whose ID it has.

// impliedEndpoint returns that endpoint, if a container's mode implies one. It
// has no ID while the container does not run.
func (c *Controller) impliedEndpoint(t store.Tables, cfg store.Config, live sandbox.Sandbox) (endpoint.Endpoint, bool) {
	if !c.traitsOf(cfg.Mode).Single {
		return endpoint.Endpoint{}, false
	}
	n, err := findNetwork(t, cfg.Mode)
	return endpoint.Endpoint{ID: live.ID, Network: n.Value.ID, Sandbox: live.ID, Owner: cfg.Owner, Name: cfg.Name}, err == nil
}

// impliedOn returns the implied endpoints on a network.
func (c *Controller) impliedOn(t store.Tables, n network.Network) (all []endpoint.Endpoint) {
	driver := c.o.Drivers[n.Driver]
	if driver == nil || !driver.Traits().Single {
		return nil
	}
	for _, live := range t.Sandboxes.All() {
		config, _ := t.Configs.Get(live.Value.Owner)
		if e, yes := c.impliedEndpoint(t, config.Value, live.Value); yes && e.Network == n.ID && live.Phase == store.Ready {
			all = append(all, e)
		}
	}
	return all
}

// impliedEvents tells of the implied endpoint that comes or goes with a sandbox.
func (c *Controller) impliedEvents(action string, s sandbox.Sandbox) []Event {
	var e endpoint.Endpoint
	yes := false
	c.o.Store.View(func(t store.Tables) {
		config, _ := t.Configs.Get(s.Owner)
		e, yes = c.impliedEndpoint(t, config.Value, s)
	})
	if !yes {
		return nil
	}
	return []Event{c.eventOf(action, e)}
}
