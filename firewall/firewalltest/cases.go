package firewalltest

import (
	"net/netip"

	"github.com/linkspan/linkspan/firewall"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/sandbox"
)

// Networks returns the kinds of network there are, by name. All are on br-lab.
func Networks() map[string]firewall.Network {
	v4, v6 := netip.MustParsePrefix("10.77.0.0/24"), netip.MustParsePrefix("fd77::/64")
	both := []netip.Prefix{v4, v6}
	return map[string]firewall.Network{
		"masquerade": {Bridge: "br-lab", Subnets: both, ICC: true, Masquerade: true},
		"snat":       {Bridge: "br-lab", Subnets: both, ICC: true, Masquerade: true, SNAT4: netip.MustParseAddr("192.0.2.9"), SNAT6: netip.MustParseAddr("2001:db8::9")},
		"unmasked":   {Bridge: "br-lab", Subnets: []netip.Prefix{v4}, ICC: true},
		"routed":     {Bridge: "br-lab", Subnets: both, ICC: true, Masquerade: true, Mode4: firewall.Routed, Mode6: firewall.Routed},
		"mixed":      {Bridge: "br-lab", Subnets: both, ICC: true, Masquerade: true, Mode4: firewall.Unprotected, Mode6: firewall.Routed},
		"internal":   {Bridge: "br-lab", Subnets: []netip.Prefix{v4}, ICC: true, Internal: true, Masquerade: true},
		"direct":     {Bridge: "br-lab", Subnets: both, ICC: true, Masquerade: true, Direct: true},
		"trusted":    {Bridge: "br-lab", Subnets: both, ICC: true, Masquerade: true, Trusted: []string{"eth1", "wg0"}, Mode6: firewall.Routed},
		"icc-off":    {Bridge: "br-lab", Subnets: []netip.Prefix{v4}, Masquerade: true},
	}
}

// Ports returns the kinds of published port there are, by name.
func Ports() map[string][]sandbox.Port {
	v4, v6 := netip.MustParseAddr("10.77.0.2"), netip.MustParseAddr("fd77::2")
	all4, all6 := netip.IPv4Unspecified(), netip.IPv6Unspecified()
	from := []netip.Prefix{netip.MustParsePrefix("192.0.2.7/24"), netip.MustParsePrefix("2001:db8::/32")}
	at := netip.AddrPortFrom
	return map[string][]sandbox.Port{
		"ports": {
			{Protocol: sandbox.TCP, Host: all4, First: 8080, Count: 1, To: at(v4, 80)},
			{Protocol: sandbox.TCP, Host: all6, First: 8080, Count: 1, To: at(v6, 80)},
			{Protocol: sandbox.TCP, Host: all6, First: 8080, Count: 1, To: at(v4, 80)}, // relayed
			{Protocol: sandbox.UDP, Host: netip.MustParseAddr("127.0.0.1"), First: 53, Count: 1, To: at(v4, 5353)},
			{Protocol: sandbox.SCTP, Host: netip.MustParseAddr("2001:db8::1"), First: 9, Count: 1, To: at(v6, 9)},
		},
		"ports-ranges": {
			{Protocol: sandbox.TCP, Host: all4, First: 50000, Count: 1001, To: at(v4, 50000)},
			{Protocol: sandbox.UDP, Host: netip.MustParseAddr("2001:db8::1"), First: 50000, Count: 1001, To: at(v6, 50000)},
			{Protocol: sandbox.TCP, Host: all4, First: 8000, Count: 3, To: at(v4, 80)},
		},
		"ports-sources": {
			{Protocol: sandbox.TCP, Host: all4, First: 8080, Count: 1, To: at(v4, 80), Sources: from},
			{Protocol: sandbox.TCP, Host: netip.MustParseAddr("2001:db8::1"), First: 60000, Count: 9, To: at(v6, 60000), Sources: from},
		},
		"ports-direct": {
			{Protocol: sandbox.TCP, Host: all4, First: 8080, Count: 1, To: at(v4, 80), Direct: true},
			{Protocol: sandbox.UDP, Host: all6, First: 60100, Count: 9, To: at(v6, 60100), Direct: true, Sources: from},
		},
		"ports-routed": {
			{Protocol: sandbox.TCP, Count: 1, To: at(v4, 80), Routed: true},
			{Protocol: sandbox.UDP, Count: 10, To: at(v6, 80), Routed: true},
			{Protocol: sandbox.TCP, Count: 1, To: at(v4, 81), Routed: true, Sources: from},
		},
	}
}

// Links returns who may ask whom on network icc-off.
func Links() []sandbox.Link {
	addr := netip.MustParseAddr
	return []sandbox.Link{
		{From: addr("10.77.0.3"), Protocol: sandbox.TCP, To: netip.AddrPortFrom(addr("10.77.0.2"), 80), Count: 1},
		{From: addr("10.77.0.3"), Protocol: sandbox.UDP, To: netip.AddrPortFrom(addr("10.77.0.2"), 5000), Count: 10},
		{From: addr("fd77::3"), Protocol: sandbox.SCTP, To: netip.AddrPortFrom(addr("fd77::2"), 9), Count: 1},
	}
}

// Plans returns all kinds of plan, by name: for golden files and stored plans.
func Plans(backend firewall.Backend) map[string]op.Plan {
	all := map[string]op.Plan{"base": backend.Base(), "resolver": backend.Resolver("box", 5301, 5302)}
	for name, network := range Networks() {
		all[name] = backend.Network(network)
	}
	for name, ports := range Ports() {
		all[name] = backend.Ports("br-lab", ports)
	}
	if linker, ok := backend.(firewall.Linker); ok {
		all["links"] = linker.Links("br-lab", Links())
	}
	return all
}
