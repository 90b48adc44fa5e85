package export

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/endpoint"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/plugin/wire"
	"github.com/linkspan/linkspan/sandbox"
)

func (x *Exporter) createEndpoint(ctx context.Context, q wire.CreateEndpointRequest) (wire.CreateEndpointResponse, error) {
	defer x.alone(q.EndpointID)()
	var answer wire.CreateEndpointResponse
	n, known, err := get[network.Network](x.files, "network", q.NetworkID)
	if err != nil {
		return answer, err
	}
	if !known {
		return answer, fmt.Errorf("network %s is not known here", q.NetworkID)
	}
	e := endpoint.Endpoint{
		ID: linkspan.ID(q.EndpointID), Network: n.Value.ID, Sandbox: linkspan.ID(q.EndpointID),
		Interface: "eth0", MAC: macOf(q.EndpointID), HostMAC: macOf("h" + q.EndpointID),
	}
	given := q.Interface
	if given == nil {
		given = &wire.Interface{}
	}
	if given.MacAddress == "" {
		answer.Interface = &wire.Interface{MacAddress: e.MAC}
	} else if e.MAC, err = endpoint.ParseMAC(given.MacAddress); err != nil {
		return answer, err
	}
	for text, lease := range map[string]*netip.Prefix{given.Address: &e.IPv4, given.AddressIPv6: &e.IPv6} {
		if text == "" {
			continue
		}
		if *lease, err = netip.ParsePrefix(text); err != nil {
			return answer, fmt.Errorf("address %q: %w", text, err)
		}
	}
	if n.Value.Shared {
		e.Name, _ = q.Options[wire.OptionContainerName].(string)
		return answer, x.createShared(ctx, n.Value, e)
	}
	return answer, put(x.files, "endpoint", q.EndpointID, record[endpoint.Endpoint]{Value: e})
}

// join makes the link in a namespace that waits for nobody, and brings it out.
func (x *Exporter) join(ctx context.Context, q wire.JoinRequest) (wire.JoinResponse, error) {
	defer x.alone(q.EndpointID)()
	var answer wire.JoinResponse
	r, known, err := get[endpoint.Endpoint](x.files, "endpoint", q.EndpointID)
	if err != nil {
		return answer, err
	}
	n, networkKnown, err := get[network.Network](x.files, "network", q.NetworkID)
	if err != nil {
		return answer, err
	}
	if !known || !networkKnown {
		return answer, fmt.Errorf("endpoint %s of network %s is not known here", q.EndpointID, q.NetworkID)
	}
	e := r.Value
	waiting := sandbox.Sandbox{ID: e.ID}
	if r.Plan, err = x.Drivers[n.Value.Driver].Endpoint(n.Value, e, waiting); err != nil {
		return answer, err
	}
	if err := put(x.files, "endpoint", q.EndpointID, r); err != nil {
		return answer, err
	}
	place := op.AddNetns{Name: waiting.Netns()}
	if err := place.Do(ctx, x.Host); err != nil {
		return answer, err
	}
	defer place.Undo(context.WithoutCancel(ctx), x.Host) //nolint:errcheck // an empty namespace harms nobody, and DeleteEndpoint removes it
	if err := x.executor.Do(ctx, r.Plan); err != nil {
		return answer, err
	}
	out := op.MoveLink{Link: outside(e), NS: waiting.Netns(), As: e.Interface}
	if err := out.Undo(ctx, x.Host); err != nil {
		return answer, errors.Join(err, x.executor.Undo(ctx, r.Plan))
	}
	answer.InterfaceName = &wire.InterfaceName{SrcName: out.Link, DstPrefix: "eth"}
	answer.Gateway, answer.GatewayIPv6 = gateways(n.Value)
	answer.DisableGatewayService = true
	return answer, nil
}

// outside is what the link of an endpoint is called while it waits for its engine.
func outside(e endpoint.Endpoint) string { return "lks" + e.ID.Prefix(7) }

func gateways(n network.Network) (four, six string) {
	for _, pool := range n.Pools {
		switch {
		case !pool.Gateway.IsValid() || n.Internal:
		case pool.Gateway.Is4():
			four = pool.Gateway.String()
		default:
			six = pool.Gateway.String()
		}
	}
	return four, six
}

func (x *Exporter) deleteEndpoint(ctx context.Context, q wire.EndpointRequest) error {
	defer x.alone(q.EndpointID)()
	r, known, err := get[endpoint.Endpoint](x.files, "endpoint", q.EndpointID)
	if !known || err != nil {
		return err
	}
	if err := x.revokeAlone(ctx, q.EndpointID); err != nil {
		return err
	}
	// The link came back to the host. A driver may look for it where it was made.
	place := op.AddNetns{Name: sandbox.Sandbox{ID: r.Value.ID}.Netns()}
	back := op.MoveLink{Link: outside(r.Value), NS: place.Name, As: r.Value.Interface}
	if _, err := x.Host.MAC("", back.Link); err == nil {
		if err := errors.Join(place.Undo(ctx, x.Host), place.Do(ctx, x.Host), back.Do(ctx, x.Host)); err != nil {
			return err
		}
	}
	if err := errors.Join(x.executor.Undo(ctx, r.Plan), place.Undo(ctx, x.Host)); err != nil {
		return err
	}
	if _, shared := x.part(r.Value.Network); shared {
		if err := x.Cluster.Leave(ctx, x.inCluster(r.Value)); err != nil {
			return err
		}
	}
	return x.files.drop("endpoint", q.EndpointID)
}

// check finds the host's part of an endpoint: the rest is in the engine's
// sandbox, where only the engine can look.
func (x *Exporter) check(ctx context.Context, q wire.EndpointRequest) (wire.CheckResponse, error) {
	answer := wire.CheckResponse{Problems: []string{}}
	n, known, err := get[network.Network](x.files, "network", q.NetworkID)
	if err != nil {
		return answer, err
	}
	if !known {
		answer.Problems = append(answer.Problems, "the network is not known here")
		return answer, nil
	}
	if err := x.executor.Check(ctx, n.Plan); err != nil {
		answer.Problems = append(answer.Problems, err.Error())
	}
	return answer, nil
}

// macOf returns a MAC address that follows from an ID.
func macOf(id string) string {
	sum := [5]byte{}
	for i := range len(id) {
		sum[i%5] = sum[i%5]*31 + id[i]
	}
	return fmt.Sprintf("02:%02x:%02x:%02x:%02x:%02x", sum[0], sum[1], sum[2], sum[3], sum[4])
}
