// Package drivers says what a network driver is.
//
// A driver plans. Given records, it returns the list of kernel changes that
// make a network or an endpoint of its kind; it changes nothing itself, keeps
// nothing and locks nothing. Hence a driver is tested by the text of its
// plans, and each driver's plans by the suite in drivers/driverstest.
package drivers

import (
	"context"

	"github.com/linkspan/linkspan/endpoint"
	"github.com/linkspan/linkspan/firewall"
	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/sandbox"
)

// Traits are what the controller needs to know of a kind of network.
type Traits struct {
	Scope string // "local": known to one host; "global": spans hosts

	// Addresses says that IPAM leases an address to each endpoint.
	Addresses bool

	// Gateway says that the network's own link holds a gateway address.
	Gateway bool

	// SharedMAC says that endpoints have the MAC of a link of the host's: none
	// is chosen for them, and none can be asked for.
	SharedMAC bool

	// Single says that there is one network of this kind, and it is predefined.
	Single bool

	// Borrows says whose network stack a container of this kind uses instead of
	// one of its own. Such a container has no other network.
	Borrows Lender

	// Alone says that a container on such a network is on no other one.
	Alone bool
}

// Lender is who lends a network stack.
type Lender string

// The lenders; None is for kinds that give a container a stack of its own.
const (
	None      Lender = ""
	Host      Lender = "host"
	Container Lender = "container"
)

// Driver plans networks and endpoints of one kind. Implementations are safe
// for concurrent use.
type Driver interface {
	Traits() Traits

	// Check says why a network cannot exist on this host: a malformed option, a
	// feature that the kernel lacks, a link that is in the way. It changes nothing.
	Check(context.Context, *kernel.Host, network.Network) error

	// Network plans a network. It is pure.
	Network(network.Network) (op.Plan, error)

	// Endpoint plans the attachment of a sandbox. It is pure.
	Endpoint(network.Network, endpoint.Endpoint, sandbox.Sandbox) (op.Plan, error)
}

// Filtered is a Driver whose traffic passes the host's firewall.
type Filtered interface {
	// Rules returns what the firewall is to do for a network. It is pure.
	Rules(network.Network) (firewall.Network, error)
}

// Adopter is a Driver whose networks can be on a link that is there already,
// because a user names it.
type Adopter interface {
	// Adopt returns what that link is like, nil if the network is to make its
	// own. It changes nothing.
	Adopt(context.Context, *kernel.Host, network.Network) (*network.Adopted, error)
}

// Changer is a Driver whose networks can be changed while they exist, by the
// difference of their plans.
type Changer interface {
	// CheckChange says why a network cannot become another in place. It is pure.
	CheckChange(old, fresh network.Network) error
}

// Adapter is a Driver that settles parts of a network's record itself.
type Adapter interface {
	// Adapt returns the record of a new network, whose pools are chosen, as it
	// is for this kind. It is pure.
	Adapt(network.Network) (network.Network, error)
}

// Neighbour is a Driver whose networks can be in each other's way.
type Neighbour interface {
	// Beside says why a network cannot exist beside another one of the driver's.
	// It is pure.
	Beside(n, other network.Network) error
}
