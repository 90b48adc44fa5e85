package remote

import (
	"context"

	"github.com/linkspan/linkspan/plugin/wire"
)

// A plugin that was started again may have kept nothing. It is not told all again
// at once: those that keep what they were told take that for a fault, as
// CreateNetwork comes once in a network's life. But one that refuses a call, and
// was not told in its present life of what the call is about, is told of it then.

// told is what a plugin was told before a call: the call makes no sense to one
// that has forgotten.
type told struct {
	Network  wire.CreateNetworkRequest
	Endpoint wire.CreateEndpointRequest
}

// againNetwork tells a plugin of a network once more, if its present process was
// not told. It returns whether there is something new to try.
func (p party) againNetwork(ctx context.Context, network wire.CreateNetworkRequest) bool {
	line := p.line()
	if line.Heard(network.NetworkID) {
		return false
	}
	line.Note(network.NetworkID) // it is asked once
	if line.Call(ctx, "NetworkDriver.CreateNetwork", network, nil) != nil {
		return false
	}
	p.plugins.Logf("plugin %s was started again: it was told of network %s once more", p.Plugin, network.NetworkID)
	return true
}

// again is againNetwork for a network and an endpoint, if it is certain that the
// plugin was started since it was told: a second CreateEndpoint may make a second
// link. An answer that changes what the endpoint has by now is taken back.
func (p party) again(ctx context.Context, before told) bool {
	line, id := p.line(), before.Endpoint.EndpointID
	if !line.Missed(id) {
		return false
	}
	p.againNetwork(ctx, before.Network)
	endpoint := CreateEndpoint{party: p, Request: before.Endpoint, Network: before.Network}
	if _, err := endpoint.Ask(ctx, nil); err != nil {
		line.Note(id) // it is asked once
		return false
	}
	p.plugins.Logf("plugin %s was started again: it was told of endpoint %s once more", p.Plugin, id)
	return true
}
