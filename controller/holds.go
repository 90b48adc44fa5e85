package controller

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/endpoint"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/store"
	"github.com/linkspan/linkspan/store/cluster"
)

// holdTimeout bounds how long a verb waits for the cluster to note a static
// address. What is not noted by then is tried again in the background.
const holdTimeout = 5 * time.Second

// hold is a claim on static addresses of a shared network, for as long as the
// container exists, whether it runs or not.
type hold struct {
	network linkspan.ID
	owner   linkspan.ID
	v4, v6  netip.Addr
}

// followHolds makes the claims that the cluster has of this host's containers
// those that their configurations want, but for the containers in leaving. A
// claim that somebody else has is no failure: the container is told when it
// starts.
func (c *Controller) followHolds(ctx context.Context, leaving ...hold) {
	if c.o.Cluster == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, holdTimeout)
	defer cancel()
	c.holding.Lock()
	defer c.holding.Unlock()
	wanted := c.wantedHolds()
	for _, h := range leaving {
		delete(wanted, h)
	}
	for h := range c.holds {
		if _, still := wanted[h]; !still {
			err := c.o.Cluster.Release(ctx, h.network, h.owner)
			c.note("giving up the static address of container "+h.owner.Short(), err)
			if err == nil || errors.Is(err, linkspan.ErrNotFound) {
				delete(c.holds, h)
			}
		}
	}
	for h, want := range wanted {
		if c.holds[h] || c.o.Cluster.Err() != nil {
			continue // if the store is away, until it is back
		}
		err := c.o.Cluster.Hold(ctx, want.network, want.endpoint)
		if err == nil {
			c.holds[h] = true
		}
		if !errors.Is(err, linkspan.ErrConflict) {
			c.note("claiming the static address of container "+want.endpoint.Name, err)
		}
	}
}

// wantedHold is what a claim is made with.
type wantedHold struct {
	network  network.Network
	endpoint cluster.Endpoint
}

func (c *Controller) wantedHolds() map[hold]wantedHold {
	all := make(map[hold]wantedHold)
	c.o.Store.View(func(t store.Tables) {
		for addr := range t.By.ConfigsByAddress.Keys() {
			for _, row := range t.By.ConfigsByAddress.All(addr) {
				c.addHolds(t, row.Value, all)
			}
		}
	})
	return all
}

func (c *Controller) addHolds(t store.Tables, cfg store.Config, all map[hold]wantedHold) {
	self := c.o.Cluster.Self()
	for _, want := range cfg.Attachments {
		row, err := findAttached(t, want)
		if n := row.Value; err == nil && n.Shared && (want.IPv4.IsValid() || want.IPv6.IsValid()) {
			all[hold{n.ID, cfg.Owner, want.IPv4, want.IPv6}] = wantedHold{n, cluster.Endpoint{
				Network: n.ID, Owner: cfg.Owner, Member: self.ID, VTEP: self.VTEP, Name: cfg.Name,
				IPv4: leaseOf(n, want.IPv4), IPv6: leaseOf(n, want.IPv6),
			}}
		}
	}
}

// loseHold notes that a claim is no more.
func (c *Controller) loseHold(e cluster.Endpoint) {
	c.holding.Lock()
	defer c.holding.Unlock()
	for h := range c.holds {
		if h.network == e.Network && h.owner == e.Owner {
			delete(c.holds, h)
		}
	}
}

func hasStatic(cfg store.Config) bool {
	return slices.ContainsFunc(cfg.Attachments, func(want endpoint.Config) bool { return want.IPv4.IsValid() || want.IPv6.IsValid() })
}

// release gives up the claims of a container before its configuration goes: were
// it the other way round, a crash between the two would leave them for ever.
func (c *Controller) release(ctx context.Context, owner linkspan.ID) {
	if c.o.Cluster == nil {
		return
	}
	var leaving []hold
	c.holding.Lock()
	for h := range c.holds {
		if h.owner == owner {
			leaving = append(leaving, h)
		}
	}
	c.holding.Unlock()
	if len(leaving) > 0 {
		c.followHolds(ctx, leaving...)
	}
}
