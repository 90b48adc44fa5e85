// Package none plans the network "none" (driver "null"): a sandbox of the
// container's own with nothing in it but loopback.
//
// By hand:
//
//	ip netns add alone
//	ip -n alone link set lo up
//	ip -n alone link          # lo, and nothing else
package none

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

// Traits of the null network: one, predefined, without addresses.
func (Driver) Traits() drivers.Traits {
	return drivers.Traits{Scope: "local", Single: true, Alone: true}
}

// Check accepts: nothing is always possible.
func (Driver) Check(context.Context, *kernel.Host, network.Network) error { return nil }

// Network plans nothing.
func (Driver) Network(network.Network) (op.Plan, error) { return nil, nil }

// Endpoint plans nothing: the sandbox itself is all there is.
func (Driver) Endpoint(network.Network, endpoint.Endpoint, sandbox.Sandbox) (op.Plan, error) {
	return nil, nil
}
