package remote

import (
	"context"

	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/plugin"
	"github.com/linkspan/linkspan/plugin/wire"
)

// CreateNetwork announces a network to a driver.
type CreateNetwork struct {
	party
	Request wire.CreateNetworkRequest
}

// Do announces the network.
func (o CreateNetwork) Do(ctx context.Context, h *kernel.Host) error {
	undo := func(ctx context.Context) error { return o.Undo(ctx, h) }
	err := o.call(ctx, "NetworkDriver.CreateNetwork", o.Request, nil, undo)
	if err == nil {
		o.line().Note(o.Request.NetworkID)
	}
	return err
}

// Undo has the network deleted.
func (o CreateNetwork) Undo(ctx context.Context, _ *kernel.Host) error {
	err := o.release(ctx, "NetworkDriver.DeleteNetwork", wire.NetworkRequest{NetworkID: o.Request.NetworkID})
	if err == nil {
		o.line().Forget(o.Request.NetworkID)
	}
	return err
}

func (o CreateNetwork) String() string { return o.said("NetworkDriver.CreateNetwork", o.Request) }

// CreateEndpoint announces an endpoint. The answer may hold addresses that the
// request left open.
type CreateEndpoint struct {
	party
	Request wire.CreateEndpointRequest
	Network wire.CreateNetworkRequest    // see party.againNetwork
	Answer  *wire.CreateEndpointResponse `json:",omitempty"`
}

// Do is Ask, less the answer.
func (o CreateEndpoint) Do(ctx context.Context, h *kernel.Host) error {
	_, err := o.Ask(ctx, h)
	return err
}

// Ask announces the endpoint. An answer that changes what was given is taken
// back.
func (o CreateEndpoint) Ask(ctx context.Context, h *kernel.Host) (op.Op, error) {
	const method = "NetworkDriver.CreateEndpoint"
	undo := func(ctx context.Context) error { return o.Undo(ctx, h) }
	answer := &wire.CreateEndpointResponse{}
	err := o.call(ctx, method, o.Request, answer, undo)
	if plugin.Refused(err) && o.againNetwork(ctx, o.Network) {
		err = o.call(ctx, method, o.Request, answer, undo)
	}
	if err != nil {
		return o, err
	}
	if err := checkEndpoint(o.Request.Interface, answer.Interface); err != nil {
		return o, takenBack(ctx, err, undo)
	}
	o.line().Note(o.Request.EndpointID)
	o.Answer = answer
	return o, nil
}

// Undo has the endpoint deleted.
func (o CreateEndpoint) Undo(ctx context.Context, _ *kernel.Host) error {
	err := o.release(ctx, "NetworkDriver.DeleteEndpoint", wire.EndpointRequest{NetworkID: o.Request.NetworkID, EndpointID: o.Request.EndpointID})
	if err == nil {
		o.line().Forget(o.Request.EndpointID)
	}
	return err
}

func (o CreateEndpoint) String() string {
	said := o.said("NetworkDriver.CreateEndpoint", o.Request)
	if o.Answer != nil {
		said += answerIn(o.Answer)
	}
	return said
}

// Join asks for the link of an endpoint.
type Join struct {
	party
	Request wire.JoinRequest
	Told    told
	Answer  *wire.JoinResponse `json:",omitempty"`
}

// Do is Ask, less the answer.
func (o Join) Do(ctx context.Context, h *kernel.Host) error {
	_, err := o.Ask(ctx, h)
	return err
}

// Ask asks for the link. An answer that makes no sense is taken back.
func (o Join) Ask(ctx context.Context, h *kernel.Host) (op.Op, error) {
	undo := func(ctx context.Context) error { return o.Undo(ctx, h) }
	answer := &wire.JoinResponse{}
	err := o.call(ctx, "NetworkDriver.Join", o.Request, answer, undo)
	if plugin.Refused(err) && o.again(ctx, o.Told) {
		err = o.call(ctx, "NetworkDriver.Join", o.Request, answer, undo)
	}
	if err != nil {
		return o, err
	}
	if _, err := readJoin(answer); err != nil {
		return o, takenBack(ctx, err, undo)
	}
	o.Answer = answer
	return o, nil
}

// Undo says that the sandbox leaves.
func (o Join) Undo(ctx context.Context, _ *kernel.Host) error {
	return o.release(ctx, "NetworkDriver.Leave", wire.EndpointRequest{NetworkID: o.Request.NetworkID, EndpointID: o.Request.EndpointID})
}

func (o Join) String() string {
	said := o.said("NetworkDriver.Join", o.Request)
	if o.Answer != nil {
		said += answerIn(o.Answer)
	}
	return said
}

// ProgramExternal tells a driver that the sandbox's way out is by this endpoint.
// Many know nothing of it, which is no failure.
type ProgramExternal struct {
	party
	Request wire.ConnectivityRequest
	Told    told
}

// Do tells the driver.
func (o ProgramExternal) Do(ctx context.Context, h *kernel.Host) error {
	undo := func(ctx context.Context) error { return o.Undo(ctx, h) }
	const method = "NetworkDriver.ProgramExternalConnectivity"
	err := o.call(ctx, method, o.Request, nil, undo)
	if plugin.Unsupported(err) {
		return nil
	}
	if plugin.Refused(err) && o.again(ctx, o.Told) {
		err = o.call(ctx, method, o.Request, nil, undo)
	}
	return err
}

// Undo says that it is no longer. A plugin that is away learns it from Leave,
// which follows and is repeated until it is heard.
func (o ProgramExternal) Undo(ctx context.Context, _ *kernel.Host) error {
	err := o.release(ctx, "NetworkDriver.RevokeExternalConnectivity", wire.EndpointRequest{NetworkID: o.Request.NetworkID, EndpointID: o.Request.EndpointID})
	if err != nil {
		o.plugins.Logf("%v", err)
	}
	return nil
}

func (o ProgramExternal) String() string {
	return o.said("NetworkDriver.ProgramExternalConnectivity", o.Request)
}
