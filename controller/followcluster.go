package controller

import (
	"context"
	"slices"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/dns"
	"github.com/linkspan/linkspan/drivers"
	"github.com/linkspan/linkspan/endpoint"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/peering"
	"github.com/linkspan/linkspan/store"
	"github.com/linkspan/linkspan/store/cluster"
)

// followCluster makes what this host has of shared networks follow what the
// cluster says, until ctx ends: rows, names of containers on other hosts, and
// those here that have lost their place.
func (c *Controller) followCluster(ctx context.Context) {
	names := make(map[linkspan.ID]foreign)
	c.o.Cluster.Follow(ctx, func(change cluster.Change) {
		if change.Networks || change.Store {
			c.followNetworks(ctx)
			c.followHolds(ctx)
		}
		changed := change.Endpoints
		if c.o.Cluster.Err() == nil && !c.listed.Swap(true) {
			changed = nil
			for _, n := range c.o.Cluster.Networks() {
				changed = append(changed, n.ID)
			}
		}
		for _, id := range changed {
			c.followNames(id, names)
			c.followPeers(id)
		}
		for _, lost := range change.Lost {
			c.followLoss(ctx, lost)
		}
	})
}

// foreign are the endpoints of a network that are on other hosts, as they stand
// in its zone.
type foreign map[linkspan.ID]cluster.Endpoint

// followNames makes the zone of a network know the containers on other hosts.
func (c *Controller) followNames(id linkspan.ID, names map[linkspan.ID]foreign) {
	if !c.listed.Load() {
		return
	}
	zone := c.zone(id)
	n, err := c.Network(string(id))
	if zone == nil || err != nil {
		delete(names, id) // it has gone, and its zone with it
		return
	}
	if names[id] == nil {
		names[id] = make(foreign)
	}
	known, now := names[id], make(map[linkspan.ID]bool)
	for _, e := range c.elsewhere(n) {
		now[e.ID] = true
		if !sameNames(known[e.ID], e) {
			zone.Set(e.ID, dns.Entry{Names: e.DNSNames, Addrs: e.Addresses()})
			known[e.ID] = e
		}
	}
	for gone := range known {
		if !now[gone] {
			zone.Delete(gone)
			delete(known, gone)
		}
	}
}

// followPeers makes this host's part of a network, if it has one, lead to the
// containers on other hosts. Until the store was read for the first time, what an
// earlier daemon knew of them stays.
func (c *Controller) followPeers(id linkspan.ID) {
	if c.o.Cluster == nil || !c.listed.Load() {
		return
	}
	c.spread.Lock()
	defer c.spread.Unlock()
	n, err := c.Network(string(id))
	if err != nil || c.partlessHere(id) {
		c.dropPeers(id)
		return
	}
	if driver, err := c.driver(n.Driver); err != nil || !spanning(driver) {
		return
	}
	c.setPeers(n, peering.Peers(c.o.Cluster.Endpoints(n.ID), c.o.Cluster.Self()))
}

func spanning(driver drivers.Driver) bool {
	_, is := driver.(drivers.Spanning)
	return is
}

func sameNames(a, b cluster.Endpoint) bool {
	return a.ID == b.ID && a.IPv4 == b.IPv4 && a.IPv6 == b.IPv6 && slices.Equal(a.DNSNames, b.DNSNames)
}

// resumeCluster tells the cluster what there is here since before the daemon
// began.
func (c *Controller) resumeCluster() {
	var living, held []cluster.Endpoint
	c.o.Store.View(func(t store.Tables) {
		for _, row := range t.Endpoints.All() {
			if n, _ := t.Networks.Get(row.Value.Network); n.Value.Shared && row.Phase == store.Ready {
				living = append(living, c.sharedEndpoint(row.Value))
			}
		}
	})
	for h, want := range c.wantedHolds() {
		held = append(held, want.endpoint)
		c.holds[h] = true
	}
	c.o.Cluster.Resume(living, held)
}

// followLoss takes down what has lost its place, or notes that a static address
// is not this host's to keep any more.
func (c *Controller) followLoss(ctx context.Context, lost cluster.Lost) {
	e := lost.Endpoint
	if e.ID == "" {
		c.loseHold(e)
		c.o.Logf("container %s, which does not run, has lost its static address on network %s: %s", e.Name, e.Network.Short(), lost.Reason)
		return
	}
	for _, here := range c.local(e.Network) {
		if here.ID == e.ID {
			c.evict(ctx, here, lost.Reason)
			return
		}
	}
	c.note("leaving a network", c.o.Cluster.Leave(ctx, e))
}

// renameShared tells the cluster the names that a live container has now.
func (c *Controller) renameShared(owner linkspan.ID) {
	if c.o.Cluster == nil {
		return
	}
	var all []link
	c.o.Store.View(func(t store.Tables) {
		if live, ok := sandboxOf(t, owner); ok {
			all = linksOf(t, live.Value.ID)
		}
	})
	for _, l := range all {
		if l.network.Shared {
			_, err := c.o.Cluster.Join(c.life, l.network, c.sharedEndpoint(l.endpoint))
			c.note("telling other hosts the new name of container "+l.endpoint.Name, err)
		}
	}
}

// local returns the endpoints of a network that are here and ready.
func (c *Controller) local(id linkspan.ID) (all []endpoint.Endpoint) {
	c.o.Store.View(func(t store.Tables) {
		for _, row := range t.By.EndpointsByNetwork.All(id) {
			if row.Phase == store.Ready {
				all = append(all, row.Value)
			}
		}
	})
	return all
}

func (c *Controller) sharedEndpoint(e endpoint.Endpoint) cluster.Endpoint {
	self := c.o.Cluster.Self()
	return cluster.Endpoint{
		ID: e.ID, Network: e.Network, Owner: e.Owner, Member: self.ID, VTEP: self.VTEP, Name: e.Name,
		IPv4: e.IPv4, IPv6: e.IPv6, MAC: e.MAC, DNSNames: e.DNSNames,
	}
}

// evict takes an endpoint down that may not stay, since what it has is somebody
// else's by now. The container keeps its wish: it gets a place again when it is
// started anew.
func (c *Controller) evict(ctx context.Context, e endpoint.Endpoint, why string) {
	c.o.Logf("container %s is taken off its network %s: %s", e.Name, e.Network.Short(), why)
	var row store.Row[endpoint.Endpoint]
	err := c.o.Store.Defer(func(t store.Tables) error {
		now, there := t.Endpoints.Get(e.ID)
		if !there || now.Phase != store.Ready {
			return linkspan.Errorf(linkspan.ErrConflict, "container %s has left already", e.Name)
		}
		row = now
		t.Endpoints.SetPhase(e.ID, store.Deleting)
		return nil
	})
	if err != nil {
		return
	}
	c.forgetNames(e)
	c.hush(e.ID)
	host, err := c.readHostFiles()
	c.note("reading the host's files", err)
	c.note("taking container "+e.Name+" off a network", c.settle(ctx, e.Owner, host))
	c.note("taking container "+e.Name+" off a network", c.finishEndpoint(ctx, row))
	c.emit("disconnect", e)
}

// stranded returns the live containers that want to be on a shared network and
// are not, with the network's name.
func (c *Controller) stranded() (all []strandedContainer) {
	c.o.Store.View(func(t store.Tables) {
		for _, row := range t.Sandboxes.All() {
			config, ok := t.Configs.Get(row.Value.Owner)
			if !ok || row.Phase != store.Ready {
				continue
			}
			on := make(map[linkspan.ID]bool)
			for _, e := range t.By.EndpointsBySandbox.All(row.Value.ID) {
				on[e.Value.Network] = true
			}
			for _, want := range config.Value.Attachments {
				if n, err := findAttached(t, want); err == nil && n.Value.Shared && !on[n.Value.ID] {
					all = append(all, strandedContainer{config.Value.Name, n.Value})
				}
			}
		}
	})
	return all
}

type strandedContainer struct {
	name    string
	network network.Network
}
