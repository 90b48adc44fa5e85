// Package overlay plans networks that span hosts: on each host a bridge, as the
// driver of that name makes it, and a tunnel device as one more port of it (VXLAN,
// RFC 7348; Documentation/networking/vxlan.rst). What the bridge sends to that
// port goes to another host in a UDP packet, with the network's number (VNI).
//
// By hand, on a host whose own address is 192.0.2.1:
//
//	ip link add name br-lab address 02:42:0a:4d:00:01 mtu 1450 group 27763 type bridge
//	ip addr add 10.77.0.1/24 brd + dev br-lab
//	ip link set br-lab up
//	ip link add name vx-lab mtu 1450 group 27763 master br-lab type vxlan id 4096 local 192.0.2.1 dstport 4789 nolearning proxy
//	bridge link set dev vx-lab learning off flood off
//	ip link set vx-lab up
//
// and for a container 10.77.0.3 that is on host 192.0.2.2:
//
//	bridge fdb replace 02:42:0a:4d:00:03 dev vx-lab dst 192.0.2.2 self permanent   # the tunnel
//	bridge fdb replace 02:42:0a:4d:00:03 dev vx-lab master static                  # the bridge's port
//	ip neigh replace 10.77.0.3 lladdr 02:42:0a:4d:00:03 dev vx-lab nud permanent   # who has it
//
// Nothing is learned and nothing is flooded to other hosts: who is where is
// known from the cluster, and "who has 10.77.0.3" is answered by the tunnel
// device itself (proxy). A question about an address that nobody has, a broadcast
// and a multicast end at the tunnel device.
//
// The gateway of the containers is their own host, on each host with the same
// address and MAC. Hence a host itself reaches only its own containers; from there
// masquerading and published ports are as on any bridge network.
package overlay

import (
	"context"
	"errors"
	"maps"
	"net"
	"net/netip"
	"strconv"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/drivers"
	"github.com/linkspan/linkspan/drivers/bridge"
	"github.com/linkspan/linkspan/endpoint"
	"github.com/linkspan/linkspan/firewall"
	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/sandbox"
)

// Driver plans overlay networks on one host. The zero value is one of a host
// that has no cluster: it plans with examples of what the cluster would give,
// and Check refuses every network.
type Driver struct {
	Bridge bridge.Driver // of what a network is on this host alone

	VTEP netip.Addr // where the tunnels of this host end
	MTU  int        // of the link that has it, in bytes; 0: 1500
}

var (
	_ drivers.Spanning = Driver{}
	_ drivers.Filtered = Driver{}
	_ drivers.Adapter  = Driver{}
)

// At returns the driver of a host whose tunnels end at an address. One that the
// host does not have is an error of kind linkspan.ErrNotFound.
func At(h *kernel.Host, vtep netip.Addr) (Driver, error) {
	underlay, err := h.Underlay(vtep)
	return Driver{VTEP: vtep, MTU: underlay.MTU}, err
}

// What stands in a plan for what only a cluster can give (RFC 5737).
const exampleVNI = 4096

func exampleVTEP() netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, 1}) }

// Traits of an overlay: addresses from the cluster, and a gateway on each host.
func (Driver) Traits() drivers.Traits {
	return drivers.Traits{Scope: "global", Addresses: true, Gateway: true}
}

// Check refuses malformed options, a host without an end for tunnels, a packet
// size that does not fit, and a kernel without tunnels.
func (d Driver) Check(ctx context.Context, h *kernel.Host, n network.Network) error {
	o, err := parse(n)
	if err != nil {
		return err
	}
	if err = checkPools(n); err != nil {
		return err
	}
	if !d.VTEP.IsValid() {
		return linkspan.Errorf(linkspan.ErrUnavailable, "this host is in no cluster, and network %s would span hosts: start the daemon with --cluster-store etcd://HOST:2379 and --cluster-advertise ADDRESS, or create it with --driver bridge", n.Name)
	}
	underlay, err := h.Underlay(d.VTEP)
	if err != nil {
		return linkspan.Errorf(linkspan.ErrUnavailable, "the tunnels of this host have no end: %w; start the daemon with a --cluster-advertise that the host has", err)
	}
	if most := underlay.MTU - d.overhead(); o.mtu > most {
		return linkspan.Errorf(linkspan.ErrInvalid, "invalid MTU value: %d: at most %d bytes fit, since tunnels leave by link %s, whose MTU is %d, and add %d to each packet (see: ip link show %s)", o.mtu, most, underlay.Link, underlay.MTU, d.overhead(), underlay.Link)
	}
	if err = checkKernel(kernel.LacksLink); err != nil {
		return err
	}
	local, err := d.local(n)
	if err != nil {
		return err
	}
	return d.Bridge.Check(ctx, h, local)
}

// checkKernel names the kinds of link that are missing.
func checkKernel(lacks func(kind string) (bool, error)) error {
	var errs []error
	for _, kind := range []string{"vxlan", "bridge"} {
		missing, err := lacks(kind)
		if err == nil && missing {
			err = linkspan.Errorf(linkspan.ErrUnsupported, "networks of kind overlay need a kernel with links of kind %s, and this one has none (see: modprobe %s; modinfo %s)", kind, kind, kind)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func checkPools(n network.Network) error {
	families := map[bool]int{}
	for _, pool := range n.Pools {
		families[pool.Subnet.Addr().Is6()]++
	}
	if families[false] > 1 || families[true] > 1 {
		return linkspan.Errorf(linkspan.ErrForbidden, "overlay driver doesn't support multiple subnets of one address family")
	}
	return nil
}

// Adapt gives a network the number that its user wants.
func (Driver) Adapt(n network.Network) (network.Network, error) {
	o, err := parse(n)
	if o.vni != 0 {
		n.VNI = o.vni
	}
	return n, err
}

// overhead is what a tunnel adds to the packets of a container: their Ethernet
// header, and headers of VXLAN, UDP and IP.
func (d Driver) overhead() int {
	if d.VTEP.Is6() {
		return 14 + 8 + 8 + 40
	}
	return 14 + 8 + 8 + 20
}

// local returns what a network is on this host alone: a bridge network. Of an
// internal one the bridge has no address, since hosts are outside.
func (d Driver) local(n network.Network) (network.Network, error) {
	mtu, err := d.mtu(n)
	n.Options = map[string]string{network.OptionMTU: strconv.Itoa(mtu)}
	if n.Internal {
		pools := n.Pools
		n.Pools = nil
		for _, pool := range pools {
			pool.Gateway, pool.Aux = netip.Addr{}, maps.Clone(pool.Aux)
			n.Pools = append(n.Pools, pool)
		}
	}
	return n, err
}

func (d Driver) mtu(n network.Network) (int, error) {
	o, err := parse(n)
	switch {
	case err != nil || o.mtu != 0:
		return o.mtu, err
	case d.MTU != 0:
		return d.MTU - d.overhead(), nil
	}
	return 1500 - d.overhead(), nil
}

// Network plans the bridge and its tunnel device.
func (d Driver) Network(n network.Network) (op.Plan, error) {
	o, err := parse(n)
	if err != nil {
		return nil, err
	}
	local, err := d.local(n)
	if err != nil {
		return nil, err
	}
	plan, err := d.Bridge.Network(local)
	if err != nil {
		return nil, err
	}
	mtu, err := d.mtu(n)
	tunnel := op.AddVXLAN{
		Name: device(n), MAC: portMAC(n.MAC), Master: bridgeOf(n), VNI: n.VNI, Local: d.VTEP, Port: o.port, MTU: mtu,
	}
	why := "The way to other hosts is one more port of the bridge: what goes there travels in UDP packets, with the network's number."
	switch {
	case !d.VTEP.IsValid():
		tunnel.Local = exampleVTEP()
		if tunnel.VNI == 0 {
			tunnel.VNI = exampleVNI
		}
		why += "\nNumber and address are examples: a daemon with --cluster-store gets them from the cluster."
	case n.VNI == 0:
		return nil, linkspan.Errorf(linkspan.ErrInvalid, "no VNI provided")
	}
	plan = append(plan,
		op.Step{Why: why, Op: tunnel},
		op.Step{
			Why: "Who is behind the tunnels is known, not learned: frames for others stay here, and forged ones move nobody.",
			Op:  op.SetTold{Link: device(n)},
		})
	plan = append(plan, quiet(n)...)
	return append(plan, op.Step{Why: "Frames for other hosts may leave, and theirs come in.", Op: op.SetUp{Link: device(n)}}), err
}

// quiet keeps the tunnel device from speaking for itself. Where containers have
// IPv6 it must have it as well, or the kernel lets it have no neighbours.
func quiet(n network.Network) op.Plan {
	key := "net/ipv6/conf/" + device(n) + "/"
	if !n.IPv6 {
		return op.Plan{{Why: "The tunnel device has no address of its own and sends nothing.", Op: op.SetSysctl{Key: key + "disable_ipv6", Value: "1", Optional: true}}}
	}
	return op.Plan{
		{Why: "The tunnel device answers for IPv6 neighbours and has no address itself.", Op: op.SetSysctl{Key: key + "addr_gen_mode", Value: "1"}},
		{Why: "Nobody beyond the tunnels is a router of this host.", Op: op.SetSysctl{Key: key + "accept_ra", Value: "0"}},
		{Why: "The kernel keeps IPv6 neighbours only for a device that has IPv6.", Op: op.SetSysctl{Key: key + "disable_ipv6", Value: "0"}},
	}
}

// Endpoint plans the cable from the bridge into the sandbox.
func (d Driver) Endpoint(n network.Network, e endpoint.Endpoint, s sandbox.Sandbox) (op.Plan, error) {
	local, err := d.local(n)
	if err != nil {
		return nil, err
	}
	return d.Bridge.Endpoint(local, e, s)
}

// Peers plans three entries for each endpoint elsewhere: by which tunnel its MAC
// is reached, at which port of the bridge, and which addresses have it.
func (Driver) Peers(n network.Network, peers []drivers.Peer) (op.Plan, error) {
	link := device(n)
	plan := make(op.Plan, 0, 4*len(peers))
	for _, peer := range peers {
		mac, err := endpoint.ParseMAC(peer.MAC)
		if err != nil {
			return nil, err
		}
		plan = append(plan,
			op.Step{Why: "Frames for this station go by the tunnel to its host.", Op: op.SetTunnel{Link: link, MAC: mac, To: peer.VTEP}},
			op.Step{Why: "The bridge hands them to the tunnel device.", Op: op.SetStation{Link: link, MAC: mac}})
		for _, addr := range peer.Addresses {
			plan = append(plan, op.Step{
				Why: "Who asks for its address is answered here; no question crosses the underlay.",
				Op:  op.SetNeighbour{Link: link, Address: addr, MAC: mac},
			})
		}
	}
	return plan, nil
}

// Rules says what the firewall is to do for the network: the same as for a
// bridge network.
func (d Driver) Rules(n network.Network) (firewall.Network, error) {
	local, err := d.local(n)
	if err != nil {
		return firewall.Network{}, err
	}
	return d.Bridge.Rules(local)
}

// device returns the name of the tunnel device of a network.
func device(n network.Network) string { return "vx-" + n.ID.Short() }

func bridgeOf(n network.Network) string { return "br-" + n.ID.Short() }

// portMAC returns the tunnel device's own address. It is on the bridge and must be
// no container's, and the same each time: the bridge's with one bit flipped.
func portMAC(gateway string) string {
	mac, err := net.ParseMAC(gateway)
	if err != nil {
		return gateway // a network's MAC was made, not typed
	}
	mac[0] ^= 0x04
	return mac.String()
}
