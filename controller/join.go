package controller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/endpoint"
	"github.com/linkspan/linkspan/ipam"
	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/store/cluster"
)

// Kinds returns the ops of this package, for the codec of plans: those that act
// on what hosts share. Of a daemon that shares nothing it is nil.
func Kinds(shared Cluster) op.Kinds { return op.Kinds{"cluster-join": JoinCluster{cluster: shared}} }

// JoinCluster makes an endpoint known to all hosts, and learns the addresses
// that are its own from then on.
type JoinCluster struct {
	Network  network.Network
	Endpoint cluster.Endpoint // as wanted: zero addresses are any
	// Last4 and Last6 are preferred, if nobody else has them, to any.
	Last4  netip.Addr        `json:",omitzero"`
	Last6  netip.Addr        `json:",omitzero"`
	Answer *cluster.Endpoint `json:",omitempty"`

	cluster Cluster
}

var _ op.Asker = JoinCluster{}

// Do is Ask, less the answer.
func (o JoinCluster) Do(ctx context.Context, h *kernel.Host) error {
	_, err := o.Ask(ctx, h)
	return err
}

// Ask joins. What was answered once is asked for again.
func (o JoinCluster) Ask(ctx context.Context, _ *kernel.Host) (op.Op, error) {
	if o.cluster == nil {
		return o, noCluster(o.Network)
	}
	if o.Answer != nil {
		_, err := o.cluster.Join(ctx, o.Network, *o.Answer)
		return o, err
	}
	preferred := o.Endpoint
	preferred.IPv4 = leaseOf(o.Network, preferred.IPv4.Addr(), o.Last4)
	preferred.IPv6 = leaseOf(o.Network, preferred.IPv6.Addr(), o.Last6)
	got, err := o.cluster.Join(ctx, o.Network, preferred)
	if errors.Is(err, linkspan.ErrConflict) && (preferred.IPv4 != o.Endpoint.IPv4 || preferred.IPv6 != o.Endpoint.IPv6) {
		got, err = o.cluster.Join(ctx, o.Network, o.Endpoint)
	}
	if err != nil {
		return o, err
	}
	o.Answer = &got
	return o, nil
}

// leaseOf returns the first address of the network's, with the length of its
// subnet; zero if there is none.
func leaseOf(n network.Network, addrs ...netip.Addr) netip.Prefix {
	for _, addr := range addrs {
		if pool, ok := n.Pool(addr); ok {
			return netip.PrefixFrom(addr, pool.Subnet.Bits())
		}
	}
	return netip.Prefix{}
}

// Undo leaves. If nobody knows what was answered, it is what the cluster says.
func (o JoinCluster) Undo(ctx context.Context, _ *kernel.Host) error {
	if o.cluster == nil {
		return nil // the claim on the addresses ends by itself
	}
	e := o.Endpoint
	if o.Answer != nil {
		e = *o.Answer
	} else {
		for _, known := range o.cluster.Endpoints(o.Network.ID) {
			if known.ID == e.ID {
				e = known
			}
		}
	}
	return o.cluster.Leave(ctx, e)
}

// Check is content: what hosts share is followed, not compared (see
// Controller.followCluster).
func (o JoinCluster) Check(context.Context, *kernel.Host) error { return nil }

func (o JoinCluster) String() string {
	raw, err := json.Marshal(o.Endpoint)
	if err != nil {
		raw = []byte(err.Error()) // it is made of strings; it cannot fail
	}
	said := fmt.Sprintf("# join network %s in the store that hosts share\n# as %s", o.Network.Name, raw)
	if o.Answer != nil {
		said += fmt.Sprintf("\n# answered: %s %s", o.Answer.IPv4, o.Answer.IPv6)
	}
	return said
}

// noCluster refuses what only hosts with a store in common can have.
func noCluster(n network.Network) error {
	return linkspan.Errorf(linkspan.ErrForbidden, "This node is not a swarm manager and not part of a cluster: network %s of driver %s spans hosts, which need a store in common. Start the daemon with --cluster-store etcd://HOST:PORT and try again", n.Name, n.Driver)
}

// lessor answers for the addresses of endpoints where that is not this host's
// own business.
type lessor interface {
	Endpoint(n network.Network, e endpoint.Endpoint, answered op.Plan) (endpoint.Endpoint, op.Plan, error)
}

// lessor returns who leases addresses on a network, nil if it is this host.
func (c *Controller) lessor(n network.Network) lessor {
	if n.Shared {
		return joining{c.o.Cluster}
	}
	if addresses := c.addresses(n); addresses != nil {
		return addresses
	}
	return nil
}

// joining leases addresses of networks that hosts share.
type joining struct{ cluster Cluster }

// Endpoint asks for an address of each family that the network has.
func (j joining) Endpoint(n network.Network, e endpoint.Endpoint, answered op.Plan) (endpoint.Endpoint, op.Plan, error) {
	if len(answered) == 0 {
		plan, err := j.ask(n, e)
		return e, plan, err
	}
	joined, ok := answered[0].Op.(JoinCluster)
	if !ok || joined.Answer == nil {
		return e, nil, fmt.Errorf("joining network %s was not answered", n.Name)
	}
	e.IPv4, e.IPv6 = joined.Answer.IPv4, joined.Answer.IPv6
	if e.IPv4.IsValid() {
		e.Gateway4 = offered(n, e.IPv4)
	}
	if e.IPv6.IsValid() {
		e.Gateway6 = offered(n, e.IPv6)
	}
	return e, nil, nil
}

func (j joining) ask(n network.Network, e endpoint.Endpoint) (op.Plan, error) {
	if j.cluster == nil {
		return nil, noCluster(n)
	}
	o := JoinCluster{Network: n, cluster: j.cluster, Endpoint: cluster.Endpoint{
		ID: e.ID, Network: n.ID, Owner: e.Owner, Member: j.cluster.Self().ID, VTEP: j.cluster.Self().VTEP, Name: e.Name, MAC: e.MAC, DNSNames: e.DNSNames,
	}}
	for _, family := range []struct {
		on    bool
		want  netip.Addr
		kept  netip.Addr
		lease *netip.Prefix
		last  *netip.Addr
	}{{n.IPv4, e.Config.IPv4, e.Config.Last.IPv4, &o.Endpoint.IPv4, &o.Last4}, {n.IPv6, e.Config.IPv6, e.Config.Last.IPv6, &o.Endpoint.IPv6, &o.Last6}} {
		switch {
		case family.want.IsValid():
			if err := claimable(n, family.on, family.want); err != nil {
				return nil, err
			}
			*family.lease = leaseOf(n, family.want)
		case family.on && !serial(n) && claimable(n, true, family.kept) == nil:
			*family.last = family.kept
		}
	}
	return op.Plan{{Why: "All hosts learn of the endpoint, and nobody else gets its addresses.", Op: o}}, nil
}

// claimable refuses an address that no endpoint of a network can have.
func claimable(n network.Network, on bool, addr netip.Addr) error {
	pool, err := ipam.Containing(addr, n.Pools...)
	if !on || err != nil {
		return linkspan.Errorf(linkspan.ErrInvalid, "invalid endpoint settings:\nno configured subnet contains IP address %s: network %s has %s (see: linkspan network inspect %s)", addr, n.Name, subnets(n), n.Name)
	}
	return pool.Claim(addr, nil)
}
