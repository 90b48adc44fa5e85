// Package cluster holds what the daemons of several hosts share: networks of
// global scope, their numbers, addresses and endpoints. It keeps them in etcd.
//
// There is no gossip here and no leader of our own. What must be unique (a name,
// a VXLAN network identifier, a pool, an address) is a key of its own, which a
// transaction creates only if it is not there; what lives only as long as a host
// does hangs on that host's lease; and what each host needs to know it follows by
// a watch from the revision that it read last. To see all of it:
//
//	etcdctl get --prefix /linkspan/v1/
//
// See https://etcd.io/docs/v3.5/learning/api/ for transactions, leases and
// watches.
package cluster

import (
	"fmt"
	"net/netip"

	"github.com/linkspan/linkspan"
)

// Member is a host of the cluster.
type Member struct {
	ID        linkspan.ID
	Name      string     // host name
	VTEP      netip.Addr // where its tunnels end
	Advertise string     // host:port, as --cluster-advertise has it

	// Away says that its daemon was stopped on purpose: what runs there goes on,
	// for as long as the host's claims last.
	Away bool `json:",omitempty"`
}

func (m Member) String() string { return fmt.Sprintf("host %s at %s", m.Name, m.VTEP) }

// Endpoint is what the cluster knows of an attachment.
type Endpoint struct {
	ID      linkspan.ID
	Network linkspan.ID
	Owner   linkspan.ID // the container
	Member  linkspan.ID // the host that it is on
	VTEP    netip.Addr
	Name    string // of the container

	IPv4     netip.Prefix `json:",omitzero"`
	IPv6     netip.Prefix `json:",omitzero"`
	MAC      string
	DNSNames []string `json:",omitempty"`

	Away bool `json:",omitempty"` // see Member
}

// Addresses returns those that the endpoint has.
func (e Endpoint) Addresses() []netip.Addr {
	var addrs []netip.Addr
	for _, prefix := range []netip.Prefix{e.IPv4, e.IPv6} {
		if prefix.IsValid() {
			addrs = append(addrs, prefix.Addr())
		}
	}
	return addrs
}

// Change tells that something of the cluster is not what it was. What it is now
// is read from the Cluster; changes that follow each other closely are told once.
type Change struct {
	Networks  bool          // networks came or went
	Members   bool          // hosts came or went
	Store     bool          // the store can be reached again, or cannot any more: see Err
	Endpoints []linkspan.ID // the networks whose endpoints are others now

	// Lost are this host's own endpoints that are no more: what they had was given
	// to others while this host was cut off. Each is told once to each follower, and
	// is to be taken down and left.
	Lost []Lost
}

// Lost is an endpoint of this host that the cluster does not have any more.
type Lost struct {
	Endpoint Endpoint
	Reason   string // whole, with the holder's name and host
}
