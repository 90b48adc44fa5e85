package remote

import (
	"context"
	"maps"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/drivers"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/plugin"
	"github.com/linkspan/linkspan/plugin/wire"
)

var _ drivers.Allocator = Driver{}

// Allocate asks the plugin what a network needs on all hosts. Many need nothing,
// and do not know the question.
func (d Driver) Allocate(ctx context.Context, n network.Network) (map[string]string, error) {
	announced := announcement(n)
	question := wire.AllocateNetworkRequest{NetworkID: announced.NetworkID, Options: map[string]string{}, IPv4Data: announced.IPv4Data, IPv6Data: announced.IPv6Data}
	maps.Copy(question.Options, n.Options)
	var answer wire.AllocateNetworkResponse
	err := d.party().call(ctx, "NetworkDriver.AllocateNetwork", question, &answer, func(ctx context.Context) error { return d.Free(ctx, n.ID) })
	if plugin.Unsupported(err) {
		return nil, nil
	}
	return answer.Options, err
}

// Free gives back what was allocated.
func (d Driver) Free(ctx context.Context, id linkspan.ID) error {
	return d.party().release(ctx, "NetworkDriver.FreeNetwork", wire.NetworkRequest{NetworkID: string(id)})
}
