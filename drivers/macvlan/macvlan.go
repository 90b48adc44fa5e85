// Package macvlan plans networks whose containers stand on the wire beside the
// host, each with a MAC of its own, instead of behind it: macvlan and, where
// all share the host's MAC, ipvlan.
//
// By hand, a network on the link eth1, with one endpoint, needs nothing for the
// network itself and for the endpoint:
//
//	ip link add link eth1 name eth0 netns SANDBOX group 27763 type macvlan mode bridge
//	ip -n SANDBOX addr add 192.0.2.130/24 brd + dev eth0
//	ip -n SANDBOX link set eth0 up
//	ip -n SANDBOX route add default via 192.0.2.1        # the LAN's router, not the host
//
// Frames of a macvlan never come up at the parent itself, so the host and the
// containers do not hear each other. The option linkspan.host_access makes a
// way: a macvlan of the host's own and a route to each container.
//
//	ip link add link eth1 name mvh-0123456789a group 27763 type macvlan mode bridge
//	ip addr add 192.0.2.129/32 dev mvh-0123456789a
//	ip link set mvh-0123456789a up
//	ip route add 192.0.2.130/32 dev mvh-0123456789a
//
// A network without a parent reaches nobody but its own containers. Its parent
// is one end of a cable whose other end is in a switch that is off.
//
// Nothing of this passes the host's firewall: there is no masquerading, no
// published port and no isolation between networks on one wire.
package macvlan

import (
	"context"
	"fmt"
	"maps"
	"net/netip"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/drivers"
	"github.com/linkspan/linkspan/endpoint"
	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/sandbox"
)

// Driver plans macvlan networks. The zero value is ready for use.
type Driver struct{}

var (
	_ drivers.Driver    = Driver{}
	_ drivers.Adapter   = Driver{}
	_ drivers.Neighbour = Driver{}
)

// Traits of a macvlan: addresses from IPAM; a gateway, if there is one, is
// another machine.
func (Driver) Traits() drivers.Traits { return drivers.Traits{Scope: "local", Addresses: true} }

// Check refuses malformed options, a parent that is missing or cannot carry
// macvlans, and a kernel that has none.
func (Driver) Check(_ context.Context, h *kernel.Host, n network.Network) error {
	o, err := parse(n)
	if err != nil {
		return err
	}
	if err := checkPools(n); err != nil {
		return err
	}
	if err := checkKind(h, "macvlan", "networks of kind macvlan"); err != nil {
		return err
	}
	return o.parent.check(h, "macvlan")
}

// Adapt makes a network without a parent internal, and takes the host's own
// address from each pool of one with access for the host.
func (Driver) Adapt(n network.Network) (network.Network, error) {
	o, err := parse(n)
	if err != nil {
		return n, err
	}
	n.Internal = n.Internal || o.parent.own
	if !o.hostAccess {
		return n, nil
	}
	pools := n.Pools
	n.Pools = nil
	for _, pool := range pools {
		pool.Aux = maps.Clone(pool.Aux)
		if _, given := pool.Aux[AuxHost]; !given {
			addr, err := pool.Take(nil)
			if err != nil {
				return n, fmt.Errorf("taking an address for the host (%s): %w", OptionHostAccess, err)
			}
			if pool.Aux == nil {
				pool.Aux = make(map[string]netip.Addr)
			}
			pool.Aux[AuxHost] = addr
		}
		n.Pools = append(n.Pools, pool)
	}
	return n, nil
}

// Beside refuses to share a parent with a network in mode passthru.
func (Driver) Beside(n, other network.Network) error {
	o, err := parse(n)
	if err != nil {
		return err
	}
	theirs, err := parse(other)
	switch {
	case err != nil || o.parent.name != theirs.parent.name:
		return nil //nolint:nilerr // what is wrong with the other one is not this one's business
	case o.mode == op.MacvlanPassthru:
		return linkspan.Errorf(linkspan.ErrForbidden, "cannot use mode passthru, macvlan network %s is already using parent interface %s (see: linkspan network inspect %s)", other.ID, o.parent.name, other.Name)
	case theirs.mode == op.MacvlanPassthru:
		return linkspan.Errorf(linkspan.ErrForbidden, "macvlan network %s is already using parent interface %s in mode passthru (see: linkspan network inspect %s)", other.ID, o.parent.name, other.Name)
	}
	return nil
}

// Network plans the parent, as far as it is ours, and the host's way in.
func (Driver) Network(n network.Network) (op.Plan, error) {
	o, err := parse(n)
	if err != nil {
		return nil, err
	}
	plan := o.parent.plan(n)
	if !o.hostAccess {
		return plan, nil
	}
	shim := shimOf(n)
	plan = append(plan, op.Step{
		Why: "Frames of a macvlan never come up at its parent: the host needs one, too, to hear them.",
		Op:  op.AddMacvlan{Name: shim, MAC: n.MAC, Parent: o.parent.name, Mode: o.mode, MTU: o.mtu},
	})
	if !n.IPv6 {
		plan = append(plan, op.Step{
			Why: "An IPv4 network stays quiet on IPv6: no link-local address, no router solicitations.",
			Op:  op.SetSysctl{Key: "net/ipv6/conf/" + shim + "/disable_ipv6", Value: "1", Optional: true},
		})
	} else {
		plan = append(plan, op.Step{
			Why: "Where its routers are the host knows from its own links.",
			Op:  op.SetSysctl{Key: "net/ipv6/conf/" + shim + "/accept_ra", Value: "0"},
		})
	}
	for _, pool := range n.Pools {
		if addr := pool.Aux[AuxHost]; addr.IsValid() {
			plan = append(plan, op.Step{
				Why: "The containers answer to this address. It brings no route along: that of the LAN stays with the parent.",
				Op:  op.AddAddress{Link: shim, Address: netip.PrefixFrom(addr, addr.BitLen())},
			})
		}
	}
	return append(plan, op.Step{Why: "The host listens.", Op: op.SetUp{Link: shim}}), nil
}

// Endpoint plans the container's link on the parent.
func (Driver) Endpoint(n network.Network, e endpoint.Endpoint, s sandbox.Sandbox) (op.Plan, error) {
	o, err := parse(n)
	if err != nil {
		return nil, err
	}
	plan := op.Plan{{
		Why: "An endpoint is a second face of " + o.parent.name + ", with a MAC of its own: the wire sees it beside the host.",
		Op:  op.AddMacvlan{NS: s.Netns(), Name: e.Interface, MAC: e.MAC, Parent: o.parent.name, Mode: o.mode, MTU: o.mtu},
	}}
	plan = append(plan, e.Configure(s.Netns())...)
	if o.hostAccess {
		for _, addr := range e.Addrs() {
			plan = append(plan, op.Step{
				Why: "The host finds this container by its own macvlan, not by the parent.",
				Op:  op.AddRoute{To: netip.PrefixFrom(addr, addr.BitLen()), Link: shimOf(n)},
			})
		}
	}
	return plan, nil
}

// shimOf returns the name of the host's own macvlan on a network.
func shimOf(n network.Network) string { return "mvh-" + n.ID.Prefix(11) }

func checkPools(n network.Network) error {
	wanted := map[string]bool{"ipv4": n.IPv4, "ipv6": n.IPv6}
	for _, pool := range n.Pools {
		family := "ipv4"
		if pool.Subnet.Addr().Is6() {
			family = "ipv6"
		}
		if pool.Subnet.Bits() > 0 {
			delete(wanted, family)
		}
	}
	for _, family := range []string{"ipv4", "ipv6"} {
		if wanted[family] {
			return linkspan.Errorf(linkspan.ErrInvalid, "%s pool is empty", family)
		}
	}
	return nil
}

// checkKind refuses what the kernel does not have, by the name of what is
// missing.
func checkKind(h *kernel.Host, kind, what string) error {
	known, err := h.KnowsKind(kind)
	if err == nil && !known {
		err = linkspan.Errorf(linkspan.ErrUnsupported, "%s need a kernel with links of kind %s, and this one has none (see: modprobe %s; modinfo %s)", what, kind, moduleOf(kind), moduleOf(kind))
	}
	return err
}

func moduleOf(kind string) string {
	if kind == "vlan" {
		return "8021q"
	}
	return kind
}
