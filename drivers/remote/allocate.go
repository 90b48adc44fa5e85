package remote

import (
	"context"
	"maps"

	"github.com/linkspan/linkspan/drivers"
	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/plugin"
	"github.com/linkspan/linkspan/plugin/wire"
)

var _ drivers.Allocator = Driver{}

// Allocation plans to ask the plugin what a network needs on all hosts.
func (d Driver) Allocation(n network.Network) op.Plan {
	announced := announcement(n)
	question := wire.AllocateNetworkRequest{NetworkID: announced.NetworkID, Options: map[string]string{}, IPv4Data: announced.IPv4Data, IPv6Data: announced.IPv6Data}
	maps.Copy(question.Options, n.Options)
	return op.Plan{{
		Why: "Plugin " + d.Name + " says what the network is to have on all hosts.",
		Op:  AllocateNetwork{party: d.party(), Request: question},
	}}
}

// Allocated returns what it said.
func (d Driver) Allocated(answered op.Plan) map[string]string {
	options := make(map[string]string)
	for _, step := range answered {
		if o, asked := step.Op.(AllocateNetwork); asked && o.Answer != nil {
			maps.Copy(options, o.Answer.Options)
		}
	}
	return options
}

// AllocateNetwork asks a driver what a network needs on all hosts. Many need
// nothing, and do not know the question.
type AllocateNetwork struct {
	party
	Request wire.AllocateNetworkRequest
	Answer  *wire.AllocateNetworkResponse `json:",omitempty"`
}

// Do is Ask, less the answer.
func (o AllocateNetwork) Do(ctx context.Context, h *kernel.Host) error {
	_, err := o.Ask(ctx, h)
	return err
}

// Ask asks.
func (o AllocateNetwork) Ask(ctx context.Context, h *kernel.Host) (op.Op, error) {
	answer := &wire.AllocateNetworkResponse{}
	err := o.call(ctx, "NetworkDriver.AllocateNetwork", o.Request, answer, func(ctx context.Context) error { return o.Undo(ctx, h) })
	if plugin.Unsupported(err) {
		return o, nil
	}
	if err != nil {
		return o, err
	}
	o.Answer = answer
	return o, nil
}

// Undo gives back what was allocated.
func (o AllocateNetwork) Undo(ctx context.Context, _ *kernel.Host) error {
	return o.release(ctx, "NetworkDriver.FreeNetwork", wire.NetworkRequest{NetworkID: o.Request.NetworkID})
}

func (o AllocateNetwork) String() string {
	said := o.said("NetworkDriver.AllocateNetwork", o.Request)
	if o.Answer != nil {
		said += answerIn(o.Answer)
	}
	return said
}
