// Package container plans the network mode "container:NAME": no network at all,
// for a container that uses the network stack of another one.
//
// By hand, the second command sees the links, addresses and ports of the first:
//
//	ip netns add shared
//	ip netns exec shared python3 -m http.server 80 &
//	ip netns exec shared curl http://localhost/
//
// There is no network of this kind and never an endpoint: what a container of
// it needs, its lender has already. So all that is to say of it are its traits.
package container

import (
	"context"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/drivers"
	"github.com/linkspan/linkspan/endpoint"
	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/sandbox"
)

// Driver plans nothing. The zero value is ready for use.
type Driver struct{}

var _ drivers.Driver = Driver{}

// Traits of the mode: the stack is another container's.
func (Driver) Traits() drivers.Traits {
	return drivers.Traits{Scope: "local", Borrows: drivers.Container}
}

// Check refuses: one can join a container's stack, not make a network of it.
func (Driver) Check(_ context.Context, _ *kernel.Host, n network.Network) error {
	return linkspan.Errorf(linkspan.ErrNotFound, "plugin %q not found", n.Driver)
}

// Network plans nothing.
func (Driver) Network(network.Network) (op.Plan, error) { return nil, nil }

// Endpoint plans nothing: the sandbox is the lender's.
func (Driver) Endpoint(network.Network, endpoint.Endpoint, sandbox.Sandbox) (op.Plan, error) {
	return nil, nil
}
