// Package bridge plans networks on a Linux bridge, a switch in software
// (Documentation/networking/bridge.rst).
//
// By hand, a network with one endpoint:
//
//	ip link add name br-lab group 27763 type bridge
//	ip addr add 10.77.0.1/24 brd + dev br-lab        # the gateway of the containers
//	ip link set br-lab up
//
//	ip link add name veth0123456 group 27763 type veth peer name eth0 netns SANDBOX
//	ip link set veth0123456 master br-lab up         # plug the cable in
//	ip -n SANDBOX addr add 10.77.0.2/24 brd + dev eth0
//	ip -n SANDBOX link set eth0 up
//	brctl show
//
// Routing, masquerading and isolation between networks are the firewall's
// part; this driver only says what it wants (Rules).
package bridge

import (
	"context"
	"errors"
	"net/netip"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/drivers"
	"github.com/linkspan/linkspan/endpoint"
	"github.com/linkspan/linkspan/firewall"
	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/sandbox"
)

// Driver plans bridge networks. The zero value is ready for use.
type Driver struct {
	// AllowDirect lets everybody ask for published ports at the containers' own
	// addresses too.
	AllowDirect bool
}

var (
	_ drivers.Driver   = Driver{}
	_ drivers.Filtered = Driver{}
	_ drivers.Changer  = Driver{}
	_ drivers.Adopter  = Driver{}
)

// Traits of a bridge: addresses from IPAM, and a gateway on the bridge itself.
func (Driver) Traits() drivers.Traits {
	return drivers.Traits{Scope: "local", Addresses: true, Gateway: true}
}

// Check refuses malformed options, more than one subnet of a family, and a
// link of the wanted name that is there already.
func (Driver) Check(_ context.Context, h *kernel.Host, n network.Network) error {
	o, err := parse(n)
	if err != nil {
		return err
	}
	if err = endpoint.ValidateInterface(o.name); err != nil {
		return err
	}
	if err = errors.Join(checkMTU(n, o), checkPools(n)); err != nil {
		return err
	}
	if n.Adopted != nil {
		return nil // Adopt has looked at it
	}
	if b, err := h.Standing(o.name); err == nil {
		return linkspan.Errorf(linkspan.ErrForbidden, "cannot make bridge %s: a link of that name (%s) exists already (see: ip -d link show %s)", o.name, b.Kind, o.name)
	}
	return nil
}

// CheckChange refuses another bridge, and what no bridge can have. More subnets
// are welcome: the bridge has a gateway of each.
func (Driver) CheckChange(old, fresh network.Network) error {
	before, err := parse(old)
	if err != nil {
		return err
	}
	after, err := parse(fresh)
	if err != nil {
		return err
	}
	if before.name != after.name {
		return linkspan.Errorf(linkspan.ErrForbidden, "network %s is on bridge %s and cannot move to %s: containers are plugged into it", old.Name, before.name, after.name)
	}
	return checkMTU(fresh, after)
}

// checkMTU refuses what the kernel answers by switching IPv6 off (RFC 8200
// section 5).
func checkMTU(n network.Network, o options) error {
	if n.IPv6 && o.mtu != 0 && o.mtu < 1280 {
		return linkspan.Errorf(linkspan.ErrInvalid, "invalid MTU number: %d: IPv6 needs at least 1280 (RFC 8200)", o.mtu)
	}
	return nil
}

func checkPools(n network.Network) error {
	var four, six int
	for _, pool := range n.Pools {
		if pool.Subnet.Addr().Is4() {
			four++
		} else {
			six++
		}
		local := netip.MustParsePrefix("fe80::/64") // every interface has addresses of it
		switch p := pool.Subnet; {
		case p.Bits() == 0:
			return linkspan.Errorf(linkspan.ErrInvalid, "%s pool is empty", familyName(p))
		case p.Addr().Is6() && p.Addr().IsMulticast():
			return linkspan.Errorf(linkspan.ErrInvalid, "multicast subnet '%s' is not allowed", p)
		case p != local && p.Overlaps(local):
			return linkspan.Errorf(linkspan.ErrInvalid, "'%s' clashes with the Link-Local prefix '%s'", p, local)
		}
	}
	switch {
	case !n.IPv4 && !n.IPv6:
		return linkspan.Errorf(linkspan.ErrInvalid, "IPv4 or IPv6 must be enabled")
	case n.IPv4 && four == 0:
		return linkspan.Errorf(linkspan.ErrInvalid, "ipv4 pool is empty")
	case n.IPv6 && six == 0:
		return linkspan.Errorf(linkspan.ErrInvalid, "ipv6 pool is empty")
	case four > 1, six > 1:
		return linkspan.Errorf(linkspan.ErrForbidden, "bridge driver doesn't support multiple subnets")
	}
	return checkGateways(n)
}

// checkGateways refuses a way out of a network that has none.
func checkGateways(n network.Network) error {
	for _, pool := range n.Pools {
		for name, addr := range pool.Aux {
			if n.Internal && (name == network.AuxGateway4 || name == network.AuxGateway6) {
				return linkspan.Errorf(linkspan.ErrInvalid, "no gateway can be set on an internal bridge network: leave --aux-address %s=%s out", name, addr)
			}
		}
	}
	return nil
}

func familyName(p netip.Prefix) string {
	if p.Addr().Is4() {
		return "ipv4"
	}
	return "ipv6"
}

// SkipGateways leaves out the gateways that the bridge would not have: nobody
// would answer there, and a /31 needs both its addresses.
func (Driver) SkipGateways(_ context.Context, n network.Network) (skip4, skip6 bool, err error) {
	o, err := parse(n)
	return o.mode4 == isolated || o.inhibit && n.Internal, o.mode6 == isolated, err
}

// Network plans the bridge: up last, when its address is in place.
func (Driver) Network(n network.Network) (op.Plan, error) {
	o, err := parse(n)
	if err != nil {
		return nil, err
	}
	if n.Adopted != nil {
		return adoption(n, o), nil
	}
	plan := op.Plan{{
		Why: "A network is a switch; in Linux, a bridge. Its MAC is fixed, or it would change with its ports.",
		Op:  op.AddBridge{Name: o.name, MAC: n.MAC, MTU: o.mtu},
	}}
	plan = append(plan, sysctls(n, o)...)
	for _, gateway := range gateways(n, o) {
		plan = append(plan, op.Step{Why: whyGateway, Op: op.AddAddress{Link: o.name, Address: gateway}})
	}
	return append(plan, op.Step{Why: "Everything is in place: frames may pass.", Op: op.SetUp{Link: o.name}}), nil
}

const (
	whyGateway  = "The bridge is the containers' way to the host and beyond: their gateway."
	whyLocalnet = "Published ports answer at 127.0.0.1 too; the firewall keeps such packets from the containers out."
)

// gateways are the addresses that the bridge has for its containers.
func gateways(n network.Network, o options) []netip.Prefix {
	var all []netip.Prefix
	for _, pool := range n.Pools {
		if pool.Gateway.IsValid() && (!o.inhibit || !pool.Gateway.Is4()) && !o.isolated(pool.Gateway.Is6()) {
			all = append(all, netip.PrefixFrom(pool.Gateway, pool.Subnet.Bits()))
		}
	}
	return all
}

// localnet tells whether packets for the host's loopback addresses may come by
// way of the bridge.
func localnet(n network.Network, o options) bool {
	return n.IPv4 && !n.Internal && o.mode4 != firewall.Routed
}

func keyLocalnet(o options) string { return "net/ipv4/conf/" + o.name + "/route_localnet" }

func key6(o options, name string) string { return "net/ipv6/conf/" + o.name + "/" + name }

func sysctls(n network.Network, o options) op.Plan {
	var plan op.Plan
	if localnet(n, o) {
		plan = append(plan, op.Step{Why: whyLocalnet, Op: op.SetSysctl{Key: keyLocalnet(o), Value: "1"}})
	}
	if !n.IPv6 || o.mode6 == isolated {
		return append(plan, op.Step{
			Why: "The bridge stays quiet on IPv6: no link-local address, no router solicitations.",
			Op:  op.SetSysctl{Key: key6(o, "disable_ipv6"), Value: "1", Optional: true},
		})
	}
	return append(plan, op.Plan{
		{
			Why: "This network has IPv6, whatever the machine's default for new links is.",
			Op:  op.SetSysctl{Key: key6(o, "disable_ipv6"), Value: "0"},
		},
		{
			Why: "No container may tell the host where its routers are.",
			Op:  op.SetSysctl{Key: key6(o, "accept_ra"), Value: "0"},
		},
	}...)
}

// Endpoint plans the cable: a veth pair from the bridge into the sandbox.
func (Driver) Endpoint(n network.Network, e endpoint.Endpoint, s sandbox.Sandbox) (op.Plan, error) {
	o, err := parse(n)
	if err != nil {
		return nil, err
	}
	ns, host := s.Netns(), e.HostLink()
	plan := op.Plan{
		{
			Why: "An endpoint is a cable: one end is a port of the bridge, the other is " + e.Interface + " in the sandbox.",
			Op:  op.AddVeth{Name: host, MAC: e.HostMAC, Master: o.name, Peer: e.Interface, PeerMAC: e.MAC, PeerNS: ns, MTU: o.mtu},
		},
		{
			Why: "The host's end is a socket in a switch: it has no IPv6 address of its own and sends nothing.",
			Op:  op.SetSysctl{Key: "net/ipv6/conf/" + host + "/disable_ipv6", Value: "1", Optional: true},
		},
	}
	if !o.icc {
		plan = append(plan, op.Step{
			Why: "Containers of this network reach the bridge, not each other (enable_icc=false).",
			Op:  op.SetIsolated{Link: host},
		})
	}
	plan = append(plan, e.Configure(ns)...)
	return append(plan, op.Step{Why: "The host's end comes up last: from here on the container is on the network.", Op: op.SetUp{Link: host}}), nil
}

// Rules says what the firewall is to do for the network.
func (d Driver) Rules(n network.Network) (firewall.Network, error) {
	o, err := parse(n)
	if err != nil {
		return firewall.Network{}, err
	}
	rules := firewall.Network{
		Bridge:     o.name,
		Masquerade: o.masquerade && !n.Internal,
		SNAT4:      o.hostIPv4,
		SNAT6:      o.hostIPv6,
		Internal:   n.Internal,
		ICC:        o.icc,
	}
	if !n.Internal {
		rules.Mode4, rules.Mode6 = o.mode4, o.mode6
		rules.Direct, rules.Trusted = d.AllowDirect, o.trusted
	}
	for _, pool := range n.Pools {
		rules.Subnets = append(rules.Subnets, pool.Subnet)
	}
	return rules, nil
}
