package export

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/drivers"
	"github.com/linkspan/linkspan/endpoint"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/plugin/wire"
	"github.com/linkspan/linkspan/sandbox"
)

// program publishes the ports of an endpoint: the engine says so when the way out
// of its sandbox is by it. Networks whose traffic does not pass the host have none.
func (x *Exporter) program(ctx context.Context, q wire.ConnectivityRequest) error {
	defer x.alone(q.EndpointID)()
	e, known, err := get[endpoint.Endpoint](x.files, "endpoint", q.EndpointID)
	if err != nil {
		return err
	}
	n, networkKnown, err := get[network.Network](x.files, "network", q.NetworkID)
	if err != nil {
		return err
	}
	if !known || !networkKnown {
		return fmt.Errorf("endpoint %s of network %s is not known here", q.EndpointID, q.NetworkID)
	}
	filtered, ok := x.Drivers[n.Value.Driver].(drivers.Filtered)
	if !ok {
		return nil
	}
	rules, err := filtered.Rules(n.Value)
	if err != nil {
		return err
	}
	wishes, err := wishesOf(q.Options, e.Value)
	if err != nil || len(wishes) == 0 {
		return err
	}
	if err := x.revokeAlone(ctx, q.EndpointID); err != nil { // it may be told twice
		return err
	}
	x.publishing.Lock()
	defer x.publishing.Unlock()
	ports, sockets, err := x.occupy(e.Value, wishes)
	if err != nil {
		return err
	}
	plan := x.Firewall.Ports(rules.Bridge, ports)
	if err := put(x.files, "ports", q.EndpointID, record[[]sandbox.Port]{ports, plan}); err != nil {
		sockets.Close()
		return err
	}
	if err := x.executor.Do(ctx, plan); err != nil {
		sockets.Close()
		return errors.Join(err, x.files.drop("ports", q.EndpointID))
	}
	x.sockets[q.EndpointID] = sockets
	return nil
}

func (x *Exporter) revoke(ctx context.Context, q wire.EndpointRequest) error {
	defer x.alone(q.EndpointID)()
	return x.revokeAlone(ctx, q.EndpointID)
}

// revokeAlone takes back what is published of an endpoint. The caller has its turn.
func (x *Exporter) revokeAlone(ctx context.Context, id string) error {
	r, known, err := get[[]sandbox.Port](x.files, "ports", id)
	if !known || err != nil {
		return err
	}
	if err := x.executor.Undo(ctx, r.Plan); err != nil {
		return err
	}
	x.publishing.Lock()
	defer x.publishing.Unlock()
	x.sockets[id].Close()
	delete(x.sockets, id)
	return x.files.drop("ports", id)
}

// checkPorts refuses a port of the host's that another endpoint has.
func (x *Exporter) checkPorts(wanted []sandbox.Port) error {
	for _, id := range x.files.ids("ports") {
		r, _, err := get[[]sandbox.Port](x.files, "ports", id)
		if err != nil {
			return err
		}
		for _, has := range r.Value {
			for _, want := range wanted {
				if has.Protocol == want.Protocol && has.First == want.First && (has.Host == want.Host || has.Host.IsUnspecified() || want.Host.IsUnspecified()) {
					return fmt.Errorf("Bind for %s failed: port is already allocated to endpoint %s", netip.AddrPortFrom(want.Host, want.First), linkspan.ID(id).Short()) //nolint:staticcheck // Docker's words
				}
			}
		}
	}
	return nil
}
