package controller

import (
	"context"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/store/cluster"
)

// Cluster is the store that the daemons of several hosts share. What it returns
// without a context is what was seen last, and is there while it cannot be
// reached. It is safe for concurrent use.
type Cluster interface {
	// Err says why the store cannot be reached now, or nil.
	Err() error

	Self() cluster.Member
	Members() []cluster.Member

	// Networks and Endpoints return what was seen last, in the order of their IDs.
	Networks() []network.Network
	Endpoints(network linkspan.ID) []cluster.Endpoint

	// Resume tells what this host has on the cluster's networks since before the
	// daemon began: endpoints that live, and static addresses that are held. What
	// else the store has of this host is given back, and what the store lacks is told
	// to it. It is called once, before the first Join, and does not wait.
	Resume(living, held []cluster.Endpoint)

	// CreateNetwork makes a network known to all hosts. choose is given the
	// networks that there are and a number that is free, and returns the record;
	// it is pure, and is called again when another host was quicker.
	CreateNetwork(ctx context.Context, choose func(there []network.Network, vni uint32) (network.Network, error)) (network.Network, error)

	// RemoveNetwork refuses while endpoints are on it, with kind ErrForbidden and
	// their names and hosts.
	RemoveNetwork(ctx context.Context, id linkspan.ID) error

	// Join leases the addresses of an endpoint and makes it known, in one step.
	// e.IPv4 and e.IPv6 are what is asked for, or zero: any that is free. The
	// endpoint comes back with what it got. A taken address is kind ErrConflict,
	// and the message names its holder and the holder's host. While the store
	// cannot be reached, addresses are from this host's block.
	Join(ctx context.Context, n network.Network, e cluster.Endpoint) (cluster.Endpoint, error)

	// Leave is the reverse. While the store cannot be reached it is kept, and done
	// later; then it returns no error.
	Leave(ctx context.Context, e cluster.Endpoint) error

	// Hold reserves a static address for a container that does not run; Release is
	// the reverse. A Join of the same owner may use it, and Leave keeps it.
	Hold(ctx context.Context, n network.Network, e cluster.Endpoint) error
	Release(ctx context.Context, network, owner linkspan.ID) error

	// Follow calls changed from one goroutine at a time until ctx ends, first for
	// all that there is.
	Follow(ctx context.Context, changed func(cluster.Change))
}

var _ Cluster = (*cluster.Cluster)(nil)
