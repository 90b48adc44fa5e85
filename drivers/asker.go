package drivers

import (
	"context"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/endpoint"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/sandbox"
)

// Asker is a Driver that plans an endpoint in two stages, because somebody else
// has a say in it. Its Endpoint plans questions (steps whose ops are op.Asker)
// and leaves the interface's name, its addresses and its gateways to the
// answers.
type Asker interface {
	Driver

	// Answered returns the endpoint as the answers make it, and the rest of its
	// plan. asked is the plan of Endpoint, with the answers in it; free returns a
	// name that no interface of the sandbox has and that starts with a prefix.
	// It is pure.
	Answered(n network.Network, e endpoint.Endpoint, s sandbox.Sandbox, asked op.Plan, free func(prefix string) string) (endpoint.Endpoint, op.Plan, error)

	// Outward plans what follows when the sandbox's default route leaves by the
	// endpoint, beside the route itself. It is pure.
	Outward(n network.Network, e endpoint.Endpoint, s sandbox.Sandbox) op.Plan
}

// Describer is a Driver that has something to say about an endpoint that is
// there.
type Describer interface {
	// Describe asks what there is to know of an endpoint. An empty answer is
	// usual.
	Describe(ctx context.Context, e endpoint.Endpoint) (map[string]any, error)
}

// Allocator is a Driver of networks that hosts share that is asked once for each,
// on the host where it is made. Undoing the question frees what was allocated; that
// needs no answer.
type Allocator interface {
	// Allocation plans the question.
	Allocation(n network.Network) op.Plan

	// Allocated returns options that the network is to have on all hosts, beside
	// those that it has, from the answered plan.
	Allocated(answered op.Plan) map[string]string
}

// GatewayChooser is a Driver that has a say in whether gateways are chosen.
type GatewayChooser interface {
	// SkipGateways tells for which families none is to be chosen. It may ask
	// somebody.
	SkipGateways(ctx context.Context, n network.Network) (skip4, skip6 bool, err error)
}

// Addresses is an IPAM driver that is a program of its own. Network and Endpoint
// are called again and again: they return what is to be asked next, given what was
// answered so far, until nothing is. They are pure.
type Addresses interface {
	// Network returns a network with the pools that the answers give it, and
	// the next questions. avoid are prefixes that a pool of its own choice must
	// not overlap.
	Network(n network.Network, avoid []string, answered op.Plan) (network.Network, op.Plan, error)

	// Endpoint returns an endpoint with the leases that the answers give it, and
	// the next questions.
	Endpoint(n network.Network, e endpoint.Endpoint, answered op.Plan) (endpoint.Endpoint, op.Plan, error)

	// Held returns the questions about the pools of a network as they were
	// answered in an earlier life of the machine.
	Held(n network.Network) op.Plan
}

// Plugins finds drivers that are programs of their own. Only Wake asks them.
type Plugins interface {
	// Wake makes sure that a plugin answers and offers a kind of driver:
	// "NetworkDriver" or "IpamDriver". It may wait for it as long as ctx allows.
	Wake(ctx context.Context, name, kind string) error

	// Driver returns a network driver, whether there is one of that name or not.
	Driver(name string) Driver

	// Addresses returns an IPAM driver, likewise.
	Addresses(name string) Addresses

	// Watch has a plugin looked after from now on, because somebody depends on
	// it, and returns what is wrong with it, or nil, as far as is known.
	Watch(name string) error
}

// Kinds of driver that a plugin may offer.
const (
	KindNetwork = "NetworkDriver"
	KindIPAM    = "IpamDriver"
)

// Held is what the engine holds of a plugin's.
type Held struct {
	Networks  []linkspan.ID
	Endpoints []HeldEndpoint
}

// HeldEndpoint names an endpoint.
type HeldEndpoint struct{ Network, Endpoint linkspan.ID }

// Complainer is what Plugins may be, besides: for plugins that say by themselves
// that they are not well.
type Complainer interface {
	// Complaint returns what a plugin said was wrong with it when it was asked
	// last, or nil. It asks nobody.
	Complaint(name string) error
}

// Forgetter is what Plugins may be, besides.
type Forgetter interface {
	// Abandon stops looking for a plugin, until somebody wants it again.
	Abandon(name string)
}

// Reconciler is what Plugins may be, besides: for plugins that want to be told
// from time to time what there is of them.
type Reconciler interface {
	// Reconcile tells a plugin what is held of it, and returns what of that it
	// does not know. Most do not care: then it does nothing.
	Reconcile(ctx context.Context, name string, held Held) (unknown Held, err error)
}
