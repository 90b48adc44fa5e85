// Package host plans the network "host": no network at all, for a container
// that uses the machine's own stack.
//
// By hand there is nothing to type. The container is started without
// CLONE_NEWNET and so sees what ip link shows on the host.
package host

import (
	"context"

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

// Traits of the host network: one, predefined, without addresses of its own.
func (Driver) Traits() drivers.Traits {
	return drivers.Traits{Scope: "local", Single: true, Borrows: drivers.Host}
}

// Check accepts: the host is always there.
func (Driver) Check(context.Context, *kernel.Host, network.Network) error { return nil }

// Network plans nothing.
func (Driver) Network(network.Network) (op.Plan, error) { return nil, nil }

// Endpoint plans nothing: the sandbox borrows the host's namespace.
func (Driver) Endpoint(network.Network, endpoint.Endpoint, sandbox.Sandbox) (op.Plan, error) {
	return nil, nil
}
