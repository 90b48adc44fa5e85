package export

import (
	"context"
	"errors"
	"slices"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/drivers"
	"github.com/linkspan/linkspan/endpoint"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/peering"
	"github.com/linkspan/linkspan/store/cluster"
)

// resume tells the cluster what this host has since before the process began.
func (x *Exporter) resume() {
	var living []cluster.Endpoint
	for _, id := range x.files.ids("network") {
		r, _, err := get[network.Network](x.files, "network", id)
		if err != nil || !r.Value.Shared {
			continue
		}
		x.Cluster.Kept(r.Value.ID, x.reason(id))
		on, err := x.endpointsOn(r.Value.ID)
		if err != nil {
			x.Logf("restoring the endpoints of network %s: %v", r.Value.Name, err)
		}
		for _, e := range on {
			living = append(living, x.inCluster(e))
		}
	}
	x.Cluster.Resume(living, x.held())
}

// follow keeps this host's parts of networks in step with the cluster.
func (x *Exporter) follow(ctx context.Context) {
	x.Cluster.Follow(ctx, func(change cluster.Change) {
		if x.Cluster.Err() != nil && !x.listed.Load() {
			return // what an earlier process knew of the other hosts stays
		}
		if change.Networks || change.Store {
			x.followNetworks(ctx)
		}
		changed := change.Endpoints
		if !x.listed.Swap(true) {
			changed = nil
			for _, n := range x.allParts() {
				changed = append(changed, n.ID)
			}
		}
		for _, id := range changed {
			x.followPeers(ctx, id)
		}
		for _, lost := range change.Lost {
			x.lose(ctx, lost)
		}
	})
}

func (x *Exporter) allParts() []network.Network {
	x.mu.Lock()
	defer x.mu.Unlock()
	var all []network.Network
	for _, n := range x.parts {
		all = append(all, n)
	}
	return all
}

// followPeers makes this host's part of a network lead to the endpoints on other
// hosts.
func (x *Exporter) followPeers(ctx context.Context, id linkspan.ID) {
	if !x.listed.Load() {
		return
	}
	x.spread.Lock()
	defer x.spread.Unlock()
	n, there := x.part(id)
	driver, spans := x.Drivers[n.Driver].(drivers.Spanning)
	if !there || !spans {
		return
	}
	if err := x.peers.Set(ctx, n, driver, peering.Peers(x.Cluster.Endpoints(id), x.Cluster.Self())); err != nil {
		x.Logf("telling network %s of other hosts: %v", n.Name, err)
	}
}

// followNetworks makes those networks anew that this host has a part of and the
// cluster does not have any more: nobody removes a network that is kept, so this
// host was away until its claim on it had ended.
func (x *Exporter) followNetworks(ctx context.Context) {
	if x.Cluster.Err() != nil {
		return
	}
	if err := x.finishLeaving(ctx); err != nil {
		x.Logf("leaving networks: %v", err)
	}
	there := x.Cluster.Networks()
	for _, n := range x.allParts() {
		if slices.ContainsFunc(there, func(other network.Network) bool { return other.ID == n.ID }) {
			continue
		}
		_, err := x.Cluster.CreateNetwork(ctx, func([]network.Network, uint32) (network.Network, error) { return n, nil })
		for _, id := range x.files.ids("network") {
			if r, _, failed := get[network.Network](x.files, "network", id); failed == nil && r.Value.ID == n.ID && err == nil {
				err = x.Cluster.Keep(ctx, n.ID, x.reason(id))
			}
		}
		if err != nil {
			x.Logf("network %s was removed on another host while this one was away, and cannot be made anew, so this host's part of it is cut off; remove it here, too: %v", n.Name, err)
			continue
		}
		x.Logf("network %s was removed on another host while this one was away, and is made anew", n.Name)
	}
}

// lose cuts an endpoint off whose address is somebody else's by now. Its engine
// cannot be told.
func (x *Exporter) lose(ctx context.Context, lost cluster.Lost) {
	e := lost.Endpoint
	if e.ID == "" {
		x.forget(e)
		x.Logf("an address of network %s that was held for the engine (%v) is lost: %s", e.Network.Short(), e.Addresses(), lost.Reason)
		return
	}
	defer x.alone(string(e.ID))()
	r, known, err := get[endpoint.Endpoint](x.files, "endpoint", string(e.ID))
	n, there := x.part(e.Network)
	if err != nil || !known || !there {
		return
	}
	if x.publish(ctx, n, r.Value) == nil {
		return // it is free again
	}
	x.Logf("endpoint %s is cut off network %s, since it has lost its address; start its container anew: %s", e.ID.Short(), n.Name, lost.Reason)
	err = errors.Join(x.executor.Undo(ctx, r.Plan), x.Cluster.Leave(ctx, x.inCluster(r.Value)))
	if err == nil {
		r.Plan = nil
		err = put(x.files, "endpoint", string(e.ID), r)
	}
	if err != nil {
		x.Logf("cutting endpoint %s off: %v", e.ID.Short(), err)
	}
}
