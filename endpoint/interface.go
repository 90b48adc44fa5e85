package endpoint

import (
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
			Op:  op.SetSysctl{NS: ns, Key: key + "disable_ipv6", Value: "1"},
		}}
	}
	return op.Plan{
		{
			Why: "Another container of the network must not pass itself off as the router (RFC 6104).",
			Op:  op.SetSysctl{NS: ns, Key: key + "accept_ra", Value: "0"},
		},
		{
			Why: "The MAC is unique on the network, and so is the link-local address made from it: no second's wait for duplicates.",
			Op:  op.SetSysctl{NS: ns, Key: key + "accept_dad", Value: "0"},
		},
	}
}

// linkLocal returns a link-local address with the length of its prefix (RFC
// 3927, RFC 4291 section 2.5.6).
func linkLocal(addr netip.Addr) netip.Prefix {
	if addr.Is4() {
		return netip.PrefixFrom(addr, 16)
	}
	return netip.PrefixFrom(addr, 64)
}
