package plugintest

import (
	"errors"
	"fmt"
	"net"
	"sync"

	"github.com/linkspan/linkspan/internal/nstest"
)

// Tunnel stands for a VXLAN driver that is an allocator as well. It keeps
// nothing: what a network is like it asks the engine, also while that network is
// being made, and the links of a network are there as long as an endpoint is.
type Tunnel struct {
	double
	engine Engine
	state  sync.Mutex
	last   map[string]byte // of the addresses, by pool
}

// NewTunnel returns a driver that makes its links on a machine.
func NewTunnel(m *nstest.Machine, engine Engine) *Tunnel {
	return &Tunnel{double: double{machine: m}, engine: engine, last: make(map[string]byte)}
}

// Handler returns what serves both drivers.
func (t *Tunnel) Handler() Handler {
	return t.noted(Answers{
		"Plugin.Activate":                    fixed(map[string]any{"Implements": []string{"NetworkDriver", "IpamDriver"}}),
		"NetworkDriver.GetCapabilities":      fixed(map[string]string{"Scope": "local", "ConnectivityScope": ""}),
		"NetworkDriver.CreateNetwork":        t.createNetwork,
		"NetworkDriver.DeleteNetwork":        t.deleteNetwork,
		"NetworkDriver.CreateEndpoint":       t.createEndpoint,
		"NetworkDriver.DeleteEndpoint":       t.deleteEndpoint,
		"NetworkDriver.EndpointOperInfo":     fixed(map[string]any{"Value": nil}),
		"NetworkDriver.Join":                 t.join,
		"NetworkDriver.Leave":                t.leave,
		"IpamDriver.GetCapabilities":         fixed(struct{}{}),
		"IpamDriver.GetDefaultAddressSpaces": fixed(struct{}{}),
		"IpamDriver.RequestPool":             t.requestPool,
		"IpamDriver.ReleasePool":             fixed(nil),
		"IpamDriver.RequestAddress":          t.requestAddress,
		"IpamDriver.ReleaseAddress":          fixed(nil),
	})
}

// inspect returns the VXLAN's number and the gateway with its prefix length.
func (t *Tunnel) inspect(q Request) (vni, gateway string, err error) {
	var n engineNetwork
	if err := t.engine.Get("/v1.15/networks/"+q.Text("NetworkID"), &n); err != nil {
		return "", "", err
	}
	for _, config := range n.IPAM.Config {
		_, subnet, err := net.ParseCIDR(config.Subnet)
		if err == nil && config.Gateway != "" {
			bits, _ := subnet.Mask.Size()
			return n.Options["vxlanid"], fmt.Sprintf("%s/%d", config.Gateway, bits), nil
		}
	}
	return "", "", errors.New("no gateway with subnet found in ipam config")
}

func (t *Tunnel) createNetwork(q Request) (any, error) {
	vni, _, err := t.inspect(q)
	if err == nil && vni == "" {
		err = errors.New("cannot create a network without a vxlanid (-o vxlanid=<0-16777215>)")
	}
	return struct{}{}, err
}

func (t *Tunnel) deleteNetwork(q Request) (any, error) {
	return struct{}{}, t.sh("ip link del br_%[1]s 2>/dev/null; ip link del vx_%[1]s 2>/dev/null; true", q.Text("NetworkID")[:12])
}

func (t *Tunnel) createEndpoint(q Request) (any, error) {
	vni, gateway, err := t.inspect(q)
	if err != nil {
		return nil, err
	}
	t.state.Lock()
	defer t.state.Unlock()
	err = t.sh(`test ! -e /sys/class/net/br_%[1]s || exit 0
		ip link add br_%[1]s type bridge
		ip link add vx_%[1]s type vxlan id %[2]s dstport 4789
		ip link set vx_%[1]s master br_%[1]s up
		ip addr add %[3]s dev br_%[1]s
		ip link set br_%[1]s up`, q.Text("NetworkID")[:12], vni, gateway)
	return map[string]any{"Interface": map[string]string{"Address": q.In("Interface").Text("Address")}}, err // an echo is no change
}

func (t *Tunnel) join(q Request) (any, error) {
	_, gateway, err := t.inspect(q)
	if err != nil {
		return nil, err
	}
	ip, _, err := net.ParseCIDR(gateway)
	if err != nil {
		return nil, err
	}
	end := q.Text("EndpointID")[:5]
	err = t.sh("ip link add veth_%[1]s type veth peer name ethc%[1]s; ip link set veth_%[1]s master br_%[2]s up", end, q.Text("NetworkID")[:12])
	return map[string]any{"InterfaceName": map[string]string{"SrcName": "ethc" + end, "DstPrefix": "eth"}, "Gateway": ip.String()}, err
}

// leave removes the cable: it must be back on the host by then.
func (t *Tunnel) leave(q Request) (any, error) {
	return struct{}{}, t.sh("ip link del ethc%s", q.Text("EndpointID")[:5])
}

func (t *Tunnel) deleteEndpoint(q Request) (any, error) {
	t.state.Lock()
	defer t.state.Unlock()
	return struct{}{}, t.sh("ip -o link show master br_%[1]s | grep -q veth_ || { ip link del vx_%[1]s; ip link del br_%[1]s; }", q.Text("NetworkID")[:12])
}

func (t *Tunnel) requestPool(q Request) (any, error) {
	if q.Text("Pool") == "" {
		return nil, errors.New("this driver does not support automatic address pools")
	}
	return map[string]any{"PoolID": "vxrIpam_" + q.Text("Pool"), "Pool": q.Text("Pool")}, nil
}

func (t *Tunnel) requestAddress(q Request) (any, error) {
	ip, subnet, err := net.ParseCIDR(q.Text("PoolID")[len("vxrIpam_"):])
	if err != nil {
		return nil, err
	}
	bits, _ := subnet.Mask.Size()
	if wanted := q.Text("Address"); wanted != "" {
		return map[string]string{"Address": fmt.Sprintf("%s/%d", wanted, bits)}, nil
	}
	t.state.Lock()
	defer t.state.Unlock()
	t.last[subnet.String()]++
	ip = ip.To4()
	ip[3] = t.last[subnet.String()]
	return map[string]string{"Address": fmt.Sprintf("%s/%d", ip, bits)}, nil
}
