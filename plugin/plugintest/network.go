package plugintest

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"

	"github.com/docker/go-plugins-helpers/network"

	"github.com/linkspan/linkspan/internal/nstest"
)

// Network is a driver of networks on bridges of its own. Make one with NewNetwork.
type Network struct {
	machine *nstest.Machine

	// Hook, if set, is called at the start of each call with its name, such as
	// "CreateEndpoint"; its error is the answer.
	Hook func(call string) error
	// Scope is "local" or "global".
	Scope string
	// NoGateway leaves the gateway out of the answer to Join, DisableGateway
	// adds that none is wanted.
	NoGateway, DisableGateway bool
	// Routes are added to the answer to Join.
	Routes []*network.StaticRoute
	// Prefix is that of interfaces: "eth".
	Prefix string
	// Supply is what CreateEndpoint answers, or nil.
	Supply *network.EndpointInterface

	mu        sync.Mutex
	calls     []string
	networks  map[string]*network.CreateNetworkRequest
	endpoints map[string]*network.CreateEndpointRequest
	joins     map[string]*network.JoinRequest
	nodes     map[string]bool
}

// NewNetwork returns a driver that makes its links on a machine.
func NewNetwork(m *nstest.Machine) *Network {
	n := &Network{machine: m, Scope: network.LocalScope, Prefix: "eth"}
	n.Forget()
	return n
}

// Handler returns what serves the driver.
func (n *Network) Handler() Handler { return network.NewHandler(n) }

// Forget drops all that the driver knows, as a restart does with one that keeps
// nothing. Its links stay.
func (n *Network) Forget() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.networks = make(map[string]*network.CreateNetworkRequest)
	n.endpoints = make(map[string]*network.CreateEndpointRequest)
	n.joins = make(map[string]*network.JoinRequest)
	n.nodes = make(map[string]bool)
}

// SetHook changes Hook while the driver serves.
func (n *Network) SetHook(hook func(call string) error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.Hook = hook
}

// Calls returns the calls so far, in order: "CreateNetwork", ….
func (n *Network) Calls() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.calls)
}

// Left lists the networks and endpoints that the driver still knows.
func (n *Network) Left() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var left []string
	for id := range n.networks {
		left = append(left, "network "+id)
	}
	for id := range n.endpoints {
		left = append(left, "endpoint "+id)
	}
	for id := range n.joins {
		left = append(left, "join "+id)
	}
	return left
}

// Endpoint returns a request to CreateEndpoint that was not deleted since, and
// its Join: any one of them.
func (n *Network) Endpoint() (*network.CreateEndpointRequest, *network.JoinRequest) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for id, endpoint := range n.endpoints {
		return endpoint, n.joins[id]
	}
	return nil, nil
}

// Network returns a request to CreateNetwork that was not deleted since.
func (n *Network) Network() *network.CreateNetworkRequest {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, request := range n.networks {
		return request
	}
	return nil
}

func (n *Network) called(name string) error {
	n.mu.Lock()
	n.calls = append(n.calls, name)
	hook := n.Hook
	n.mu.Unlock()
	if hook == nil {
		return nil
	}
	return hook(name)
}

func (n *Network) sh(format string, args ...any) error {
	out, err := n.machine.TrySh(fmt.Sprintf(format, args...))
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

func bridgeOf(id string) string { return "plb" + id[:8] }

// near and far are the ends of an endpoint's cable.
func near(id string) string { return "pln" + id[:8] }
func far(id string) string  { return "plf" + id[:8] }

// GetCapabilities answers the scope.
func (n *Network) GetCapabilities() (*network.CapabilitiesResponse, error) {
	return &network.CapabilitiesResponse{Scope: n.Scope}, n.called("GetCapabilities")
}

// CreateNetwork makes a bridge.
func (n *Network) CreateNetwork(r *network.CreateNetworkRequest) error {
	if err := n.called("CreateNetwork"); err != nil {
		return err
	}
	n.mu.Lock()
	known := n.networks[r.NetworkID]
	n.networks[r.NetworkID] = r
	n.mu.Unlock()
	if known != nil {
		return fmt.Errorf("network %s exists", r.NetworkID)
	}
	script := fmt.Sprintf("test -e /sys/class/net/%[1]s || { ip link add %[1]s address 02:00:00:00:00:01 type bridge; sysctl -qw net.ipv6.conf.%[1]s.addr_gen_mode=1; ip link set %[1]s up; ", bridgeOf(r.NetworkID))
	for _, pool := range slices.Concat(r.IPv4Data, r.IPv6Data) {
		if pool.Gateway != "" {
			script += fmt.Sprintf("ip addr add %s dev %s; ", pool.Gateway, bridgeOf(r.NetworkID))
		}
	}
	return n.sh("%s}", script)
}

// DeleteNetwork removes the bridge.
func (n *Network) DeleteNetwork(r *network.DeleteNetworkRequest) error {
	if err := n.called("DeleteNetwork"); err != nil {
		return err
	}
	n.mu.Lock()
	delete(n.networks, r.NetworkID)
	n.mu.Unlock()
	return n.sh("ip link del %s", bridgeOf(r.NetworkID))
}

// CreateEndpoint keeps the request.
func (n *Network) CreateEndpoint(r *network.CreateEndpointRequest) (*network.CreateEndpointResponse, error) {
	if err := n.called("CreateEndpoint"); err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.networks[r.NetworkID] == nil {
		return nil, fmt.Errorf("no such network: %s", r.NetworkID)
	}
	n.endpoints[r.EndpointID] = r
	return &network.CreateEndpointResponse{Interface: n.Supply}, nil
}

// DeleteEndpoint removes the cable. It must be back under its own name.
func (n *Network) DeleteEndpoint(r *network.DeleteEndpointRequest) error {
	if err := n.called("DeleteEndpoint"); err != nil {
		return err
	}
	n.mu.Lock()
	known := n.endpoints[r.EndpointID]
	delete(n.endpoints, r.EndpointID)
	n.mu.Unlock()
	if known == nil {
		return fmt.Errorf("no such endpoint: %s", r.EndpointID)
	}
	return n.sh("test ! -e /sys/class/net/%[1]s || ip link del %[1]s", near(r.EndpointID))
}

// Join makes a cable from the bridge.
func (n *Network) Join(r *network.JoinRequest) (*network.JoinResponse, error) {
	if err := n.called("Join"); err != nil {
		return nil, err
	}
	if err := n.knows(r.EndpointID); err != nil {
		return nil, err
	}
	n.mu.Lock()
	n.joins[r.EndpointID] = r
	network0 := n.networks[r.NetworkID]
	n.mu.Unlock()
	if err := n.sh("ip link add %[1]s type veth peer name %[2]s; ip link set %[1]s master %[3]s up", near(r.EndpointID), far(r.EndpointID), bridgeOf(r.NetworkID)); err != nil {
		return nil, err
	}
	answer := &network.JoinResponse{
		InterfaceName: network.InterfaceName{SrcName: far(r.EndpointID), DstPrefix: n.Prefix},
		StaticRoutes:  n.Routes, DisableGatewayService: n.DisableGateway,
	}
	for _, pool := range network0.IPv4Data {
		answer.Gateway = bare(pool.Gateway, n.NoGateway)
	}
	for _, pool := range network0.IPv6Data {
		answer.GatewayIPv6 = bare(pool.Gateway, n.NoGateway)
	}
	return answer, nil
}

func bare(prefix string, none bool) string {
	ip, _, err := net.ParseCIDR(prefix)
	if none || err != nil {
		return ""
	}
	return ip.String()
}

// Leave checks that the cable is back.
func (n *Network) Leave(r *network.LeaveRequest) error {
	if err := n.called("Leave"); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.joins, r.EndpointID)
	return nil
}

// EndpointInfo answers nothing.
func (n *Network) EndpointInfo(*network.InfoRequest) (*network.InfoResponse, error) {
	return &network.InfoResponse{Value: map[string]string{}}, n.called("EndpointOperInfo")
}

// AllocateNetwork answers a number that CreateNetwork must bring.
func (n *Network) AllocateNetwork(*network.AllocateNetworkRequest) (*network.AllocateNetworkResponse, error) {
	return &network.AllocateNetworkResponse{Options: map[string]string{"number": "4096"}}, n.called("AllocateNetwork")
}

// FreeNetwork does nothing.
func (n *Network) FreeNetwork(*network.FreeNetworkRequest) error { return n.called("FreeNetwork") }

// DiscoverNew notes the node.
func (n *Network) DiscoverNew(r *network.DiscoveryNotification) error {
	err := n.called("DiscoverNew")
	n.mu.Lock()
	defer n.mu.Unlock()
	n.nodes[nodeOf(r)] = true
	return err
}

// DiscoverDelete drops the node.
func (n *Network) DiscoverDelete(r *network.DiscoveryNotification) error {
	err := n.called("DiscoverDelete")
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.nodes, nodeOf(r))
	return err
}

func nodeOf(r *network.DiscoveryNotification) string {
	node, _ := r.DiscoveryData.(map[string]any)
	return fmt.Sprintf("%d %v %v", r.DiscoveryType, node["Address"], node["Self"])
}

// Nodes returns the nodes that the driver knows: kind, address, whether it is the
// engine's own.
func (n *Network) Nodes() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Sorted(maps.Keys(n.nodes))
}

// ProgramExternalConnectivity wants to know the endpoint.
func (n *Network) ProgramExternalConnectivity(r *network.ProgramExternalConnectivityRequest) error {
	if err := n.called("ProgramExternalConnectivity"); err != nil {
		return err
	}
	return n.knows(r.EndpointID)
}

func (n *Network) knows(id string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.endpoints[id] == nil {
		return fmt.Errorf("no such endpoint: %s", id)
	}
	return nil
}

// RevokeExternalConnectivity notes the endpoint.
func (n *Network) RevokeExternalConnectivity(*network.RevokeExternalConnectivityRequest) error {
	return n.called("RevokeExternalConnectivity")
}

// Links returns the names of the driver's links on its machine.
func (n *Network) Links() string {
	out, err := n.machine.TrySh("ls /sys/class/net")
	if err != nil {
		return err.Error()
	}
	var links []string
	for _, name := range strings.Fields(out) {
		if strings.HasPrefix(name, "pl") {
			links = append(links, name)
		}
	}
	return strings.Join(links, " ")
}
