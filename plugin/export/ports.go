package export

import (
	"context"
	"encoding/json"
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
	ports, err := portsOf(q.Options, e.Value)
	if err != nil || len(ports) == 0 {
		return err
	}
	if err := x.revokeAlone(ctx, q.EndpointID); err != nil { // it may be told twice
		return err
	}
	x.publishing.Lock()
	defer x.publishing.Unlock()
	if err := x.checkPorts(ports); err != nil {
		return err
	}
	plan := x.Firewall.Ports(rules.Bridge, ports)
	if err := put(x.files, "ports", q.EndpointID, record[[]sandbox.Port]{ports, plan}); err != nil {
		return err
	}
	if err := x.executor.Do(ctx, plan); err != nil {
		return errors.Join(err, x.files.drop("ports", q.EndpointID))
	}
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

// portsOf reads the port map of a request.
func portsOf(options map[string]any, e endpoint.Endpoint) ([]sandbox.Port, error) {
	raw, err := json.Marshal(options[wire.OptionPortMap])
	if err != nil {
		return nil, err
	}
	var bindings []wire.PortBinding
	if err := json.Unmarshal(raw, &bindings); err != nil {
		return nil, fmt.Errorf("option %s: %w", wire.OptionPortMap, err)
	}
	var ports []sandbox.Port
	for _, b := range bindings {
		if b.HostPort == 0 {
			return nil, fmt.Errorf("port %d: name the host's port, too (-p PORT:%d): nobody could say here which one was chosen", b.Port, b.Port)
		}
		protocol, ok := map[int]string{6: sandbox.TCP, 17: sandbox.UDP, 132: sandbox.SCTP}[b.Proto]
		if !ok {
			return nil, fmt.Errorf("port %d: protocol %d cannot be published", b.Port, b.Proto)
		}
		host, err := netip.ParseAddr(b.HostIP)
		if b.HostIP == "" {
			host, err = netip.IPv4Unspecified(), nil
		}
		if err != nil {
			return nil, fmt.Errorf("port %d: %w", b.Port, err)
		}
		to := e.IPv4.Addr()
		if host.Is6() {
			to = e.IPv6.Addr()
		}
		if !to.IsValid() {
			continue // the other family's
		}
		ports = append(ports, sandbox.Port{Protocol: protocol, Host: host, First: b.HostPort, Count: 1, To: netip.AddrPortFrom(to, b.Port)})
	}
	return ports, nil
}
