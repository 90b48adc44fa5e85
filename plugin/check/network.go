package check

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/linkspan/linkspan/plugin"
	"github.com/linkspan/linkspan/plugin/wire"
)

// network tries a network driver.
func (r *run) network(ctx context.Context, capabilities wire.Capabilities) {
	r.say(OK, "NetworkDriver.GetCapabilities", "scope %s, connectivity %s", capabilities.Scope, capabilities.ConnectivityScope)
	if capabilities.GwAllocChecker {
		r.must(ctx, "NetworkDriver.GwAllocCheck", wire.GwAllocCheckRequest{Options: map[string]any{}}, &wire.GwAllocCheckResponse{})
	}
	network := randomID()
	pools := []wire.Pool{{AddressSpace: "LocalDefault", Pool: "198.18.77.0/24", Gateway: "198.18.77.1/24"}}
	request := wire.CreateNetworkRequest{
		NetworkID: network, IPv4Data: pools, IPv6Data: []wire.Pool{},
		Options: map[string]any{wire.OptionGeneric: map[string]any{}, wire.OptionIPv4: true, wire.OptionIPv6: false},
	}
	if capabilities.Scope == "global" {
		r.optional(ctx, "NetworkDriver.AllocateNetwork", wire.AllocateNetworkRequest{NetworkID: network, Options: map[string]string{}, IPv4Data: pools})
	}
	before := links()
	if !r.must(ctx, "NetworkDriver.CreateNetwork", request, nil) {
		return
	}
	r.answers(ctx, "NetworkDriver.CreateNetwork", "the same network again", request)
	r.endpoint(ctx, network, "198.18.77.2/24")
	r.manyEndpoints(ctx, network)
	r.answers(ctx, "NetworkDriver.DeleteEndpoint", "an endpoint that never was", wire.EndpointRequest{NetworkID: network, EndpointID: randomID()})
	r.answers(ctx, "NetworkDriver.Leave", "an endpoint that never was", wire.EndpointRequest{NetworkID: network, EndpointID: randomID()})
	r.must(ctx, "NetworkDriver.DeleteNetwork", wire.NetworkRequest{NetworkID: network}, nil)
	r.answers(ctx, "NetworkDriver.DeleteNetwork", "a network that is gone", wire.NetworkRequest{NetworkID: network})
	if capabilities.Scope == "global" {
		r.optional(ctx, "NetworkDriver.FreeNetwork", wire.NetworkRequest{NetworkID: network})
	}
	if capabilities.ConnectivityScope == "global" {
		node := wire.Discovery{DiscoveryType: wire.NodeDiscovery, DiscoveryData: wire.Node{Address: "198.18.0.9", BindAddress: "198.18.0.9"}}
		r.optional(ctx, "NetworkDriver.DiscoverNew", node)
		r.optional(ctx, "NetworkDriver.DiscoverDelete", node)
	}
	for _, name := range leftAfter(before) {
		r.say(Broken, "NetworkDriver.DeleteNetwork", "link %s was left behind (see: ip -d link show %s)", name, name)
	}
}

// endpoint tries the life of one endpoint.
func (r *run) endpoint(ctx context.Context, network, address string) {
	before := links()
	id := randomID()
	named := wire.EndpointRequest{NetworkID: network, EndpointID: id}
	options := map[string]any{wire.OptionExposedPorts: []wire.TransportPort{}, wire.OptionPortMap: []wire.PortBinding{}}
	given := &wire.Interface{Address: address}
	var made wire.CreateEndpointResponse
	if !r.must(ctx, "NetworkDriver.CreateEndpoint", wire.CreateEndpointRequest{NetworkID: network, EndpointID: id, Interface: given, Options: options}, &made) {
		return
	}
	if i := made.Interface; i != nil && i.Address != "" && i.Address != given.Address {
		r.say(Broken, "NetworkDriver.CreateEndpoint", "it answers address %s where %s was given: an engine rolls back", i.Address, given.Address)
	}
	if i := made.Interface; i != nil && i.MacAddress != "" {
		if _, err := net.ParseMAC(i.MacAddress); err != nil {
			r.say(Broken, "NetworkDriver.CreateEndpoint", "MacAddress: %v", err)
		}
	}
	if err := r.line.Call(ctx, "NetworkDriver.EndpointOperInfo", named, nil); plugin.Unsupported(err) {
		r.say(Note, "NetworkDriver.EndpointOperInfo", "not supported: Docker up to 20.10 at least takes that for a failure; answer {}")
	} else {
		r.optional(ctx, "NetworkDriver.EndpointOperInfo", named)
	}
	var join wire.JoinResponse
	if r.must(ctx, "NetworkDriver.Join", wire.JoinRequest{NetworkID: network, EndpointID: id, SandboxKey: "/proc/self/ns/net", Options: options}, &join) {
		r.joined(join)
		r.optional(ctx, "NetworkDriver.ProgramExternalConnectivity", wire.ConnectivityRequest{NetworkID: network, EndpointID: id, Options: options})
		r.optional(ctx, "NetworkDriver.RevokeExternalConnectivity", named)
		r.must(ctx, "NetworkDriver.Leave", named, nil)
	}
	r.must(ctx, "NetworkDriver.DeleteEndpoint", named, nil)
	for _, name := range leftAfter(before) {
		r.say(Broken, "NetworkDriver.DeleteEndpoint", "link %s was left behind (see: ip -d link show %s)", name, name)
	}
}

// joined looks at the answer to Join as an engine does.
func (r *run) joined(join wire.JoinResponse) {
	const call = "NetworkDriver.Join"
	name := join.InterfaceName
	switch {
	case name == nil || name.SrcName == "":
		r.say(Note, call, "no InterfaceName: the container gets no interface")
	case len(name.SrcName) > 15 || strings.ContainsAny(name.SrcName, "/: \t\n"):
		r.say(Broken, call, "SrcName %q is no name for a link", name.SrcName)
	case !links()[name.SrcName]:
		r.say(Broken, call, "SrcName %s: there is no such link in this network namespace (see: ip link)", name.SrcName)
	default:
		r.say(OK, call, "link %s is there", name.SrcName)
	}
	if name != nil && name.SrcName != "" && (name.DstPrefix == "" || len(name.DstPrefix) > 13) {
		r.say(Broken, call, "DstPrefix %q: want a short prefix, such as eth", name.DstPrefix)
	}
	for field, text := range map[string]string{"Gateway": join.Gateway, "GatewayIPv6": join.GatewayIPv6} {
		if _, err := netip.ParseAddr(text); text != "" && err != nil {
			r.say(Broken, call, "%s %q: want a bare address", field, text)
		}
	}
	for _, route := range join.StaticRoutes {
		_, err := netip.ParsePrefix(route.Destination)
		_, hopErr := netip.ParseAddr(route.NextHop)
		switch {
		case err != nil:
			r.say(Broken, call, "StaticRoutes: destination %q: want a prefix", route.Destination)
		case route.RouteType == wire.RouteNextHop && hopErr != nil:
			r.say(Broken, call, "StaticRoutes: %s has RouteType 0 and no next hop", route.Destination)
		case route.RouteType != wire.RouteNextHop && route.RouteType != wire.RouteConnected:
			r.say(Broken, call, "StaticRoutes: RouteType %d: want 0 (by a next hop) or 1 (on the link)", route.RouteType)
		}
	}
}

// manyEndpoints tries some at once: engines start containers in parallel.
func (r *run) manyEndpoints(ctx context.Context, network string) {
	const call = "NetworkDriver.CreateEndpoint"
	var wg sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		wg.Go(func() {
			named := wire.EndpointRequest{NetworkID: network, EndpointID: randomID()}
			address := netip.AddrFrom4([4]byte{198, 18, 77, byte(100 + i)}).String() + "/24"
			errs[i] = r.line.Call(ctx, call, wire.CreateEndpointRequest{
				NetworkID: network, EndpointID: named.EndpointID, Interface: &wire.Interface{Address: address}, Options: map[string]any{},
			}, nil)
			if errs[i] == nil {
				errs[i] = r.line.Call(ctx, "NetworkDriver.DeleteEndpoint", named, nil)
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			r.say(Broken, call, "%d at once: %v", len(errs), err)
			return
		}
	}
	r.say(OK, call, "%d at once", len(errs))
}

// patience is how long a driver may take to remove links behind its answer.
const patience = 5 * time.Second

// leftAfter returns the links that were not there before, once a driver had time
// to remove them.
func leftAfter(before map[string]bool) (left []string) {
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		left = nil
		for name := range links() {
			if !before[name] {
				left = append(left, name)
			}
		}
		if len(left) == 0 || time.Now().After(end) {
			return left
		}
	}
}

// links are the names of the links of this network namespace.
func links() map[string]bool {
	names := make(map[string]bool)
	all, err := net.Interfaces()
	if err != nil {
		return names
	}
	for _, link := range all {
		names[link.Name] = true
	}
	return names
}
