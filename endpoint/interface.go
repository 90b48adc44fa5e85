package endpoint

import (
	"cmp"
	"net"
	"net/netip"

	"github.com/linkspan/linkspan/op"
)

// Configure plans what the interface of an endpoint needs inside a sandbox,
// once its driver has made it there and before anybody may use it: IPv6 on or
// off, sysctls, addresses, and up last. It is the same for every driver that
// gives the sandbox a link of its own.
func (e Endpoint) Configure(ns string) op.Plan {
	plan := e.family6(ns)
	for _, sysctl := range e.sysctls() {
		plan = append(plan, op.Step{
			Why: "A parameter of this interface that was asked for (" + OptionSysctls + ").",
			Op:  op.SetSysctl{NS: ns, Key: sysctl.Key(e.Interface), Value: sysctl.Value},
		})
	}
	for _, lease := range []netip.Prefix{e.IPv4, e.IPv6} {
		if lease.IsValid() {
			plan = append(plan, op.Step{
				Why: "The address that IPAM leased to this endpoint.",
				Op:  op.AddAddress{NS: ns, Link: e.Interface, Address: lease},
			})
		}
	}
	for _, addr := range e.Config.LinkLocal {
		plan = append(plan, op.Step{
			Why: "A link-local address that was asked for; it reaches no further than this network.",
			Op:  op.AddAddress{NS: ns, Link: e.Interface, Address: linkLocal(addr)},
		})
	}
	return append(plan, op.Step{Why: "The container's end is ready.", Op: op.SetUp{NS: ns, Link: e.Interface}})
}

// family6 switches IPv6 off on an interface that has no address of it, and
// guards one that has.
func (e Endpoint) family6(ns string) op.Plan {
	key := "net/ipv6/conf/" + e.Interface + "/"
	wanted := e.IPv6.IsValid()
	for _, addr := range e.Config.LinkLocal {
		wanted = wanted || addr.Is6()
	}
	if !wanted {
		return op.Plan{{
			Why: "Without an IPv6 lease there is no IPv6 on the interface, not even link-local.",
			Op:  op.SetSysctl{NS: ns, Key: key + "disable_ipv6", Value: "1", Optional: true},
		}}
	}
	return op.Plan{
		{
			Why: "Another container of the network must not pass itself off as the router (RFC 6104).",
			Op:  op.SetSysctl{NS: ns, Key: key + "accept_ra", Value: "0"},
		},
		{
			Why: "The kernel would look for duplicates of the link-local address that it makes, and nobody could use it meanwhile.",
			Op:  op.SetSysctl{NS: ns, Key: key + "addr_gen_mode", Value: "1"},
		},
		{
			Why: "The interface has IPv6, whatever it had before and new links have.",
			Op:  op.SetSysctl{NS: ns, Key: key + "disable_ipv6", Value: "0"},
		},
		{
			Why: "The same address without the wait: it comes from the MAC, which is unique on the network.",
			Op:  op.AddAddress{NS: ns, Link: e.Interface, Address: linkLocal(fromMAC(cmp.Or(e.MAC, e.HostMAC)))},
		},
	}
}

// fromMAC returns the link-local address that belongs to a MAC, by the
// modified EUI-64 format (RFC 4291 appendix A).
func fromMAC(text string) netip.Addr {
	addr := [16]byte{0: 0xfe, 1: 0x80, 11: 0xff, 12: 0xfe}
	mac, err := net.ParseMAC(text)
	if err != nil || len(mac) != 6 {
		return netip.AddrFrom16(addr) // an endpoint's MAC was parsed before it got one
	}
	copy(addr[8:], mac[:3])
	copy(addr[13:], mac[3:])
	addr[8] ^= 2
	return netip.AddrFrom16(addr)
}

// linkLocal returns a link-local address with the length of its prefix (RFC
// 3927, RFC 4291 section 2.5.6).
func linkLocal(addr netip.Addr) netip.Prefix {
	if addr.Is4() {
		return netip.PrefixFrom(addr, 16)
	}
	return netip.PrefixFrom(addr, 64)
}
