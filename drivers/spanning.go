package drivers

import (
	"net/netip"

	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/op"
)

// Spanning is a Driver whose networks span hosts. What its Network and Endpoint
// plan is this host's part; what this host must know of endpoints that are on
// other hosts is planned apart, since it changes while nothing does here.
type Spanning interface {
	Driver

	// Peers plans what leads to the endpoints of a network that are on other
	// hosts. Each step stands for itself: none needs another one, and the plan of
	// fewer peers is the same without their steps. It is pure.
	Peers(n network.Network, peers []Peer) (op.Plan, error)
}

// Peer is an endpoint on another host.
type Peer struct {
	Addresses []netip.Addr
	MAC       string
	VTEP      netip.Addr // the tunnel endpoint of the host that it is on
}
