package nftables_test

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/linkspan/linkspan/firewall"
	"github.com/linkspan/linkspan/firewall/nftables"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/sandbox"
)

var update = flag.Bool("update", false, "write the golden files anew")

// plans are all kinds of plan, by the name of their golden file.
func plans() map[string]op.Plan {
	var backend nftables.Backend
	all := map[string]op.Plan{"base": backend.Base(), "resolver": backend.Resolver("box", 5301, 5302)}
	for name, network := range networks() {
		all[name] = backend.Network(network)
	}
	for name, ports := range published() {
		all[name] = backend.Ports("br-lab", ports)
	}
	return all
}

// published are the kinds of published port there are.
func published() map[string][]sandbox.Port {
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
		"ports-routed": {
			{Protocol: sandbox.TCP, Count: 1, To: at(v4, 80), Routed: true},
			{Protocol: sandbox.UDP, Count: 10, To: at(v6, 80), Routed: true},
			{Protocol: sandbox.TCP, Count: 1, To: at(v4, 81), Routed: true, Sources: from},
		},
	}
}

func TestPlanText(t *testing.T) {
	for name, plan := range plans() {
		path := filepath.Join("testdata", name+".golden")
		if *update {
			if err := os.WriteFile(path, []byte(plan.String()), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), plan.String()); diff != "" {
			t.Errorf("plan %s differs from %s (-):\n%s", name, path, diff)
		}
	}
}

func TestPlanIsStored(t *testing.T) {
	codec := op.NewCodec(nftables.Kinds())
	for name, plan := range plans() {
		raw, err := codec.Marshal(plan)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		back, err := codec.Unmarshal(raw)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff(plan, back); diff != "" {
			t.Errorf("plan %s comes back changed:\n%s", name, diff)
		}
	}
}

func TestNetworkValidate(t *testing.T) {
	subnet := []netip.Prefix{netip.MustParsePrefix("10.77.0.0/24")}
	for _, c := range []struct {
		network firewall.Network
		says    string // "" is valid
	}{
		{firewall.Network{Bridge: "br-lab", Subnets: subnet}, ""},
		{firewall.Network{Bridge: "fifteen-bytes-x", Subnets: subnet}, ""},
		{firewall.Network{Bridge: "br-lab"}, ""},
		{firewall.Network{}, "no link name"},
		{firewall.Network{Bridge: "sixteen-bytes-xx"}, "no link name"},
		{firewall.Network{Bridge: "br 0"}, "no link name"},
		{firewall.Network{Bridge: `br"0`}, "no link name"},
		{firewall.Network{Bridge: "br*"}, "no link name"},
		{firewall.Network{Bridge: "br-lab", Subnets: []netip.Prefix{{}}}, "no subnet"},
		{firewall.Network{Bridge: "br-lab", Subnets: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}}, "no subnet"},
		{firewall.Network{Bridge: "br-lab", Subnets: []netip.Prefix{netip.MustParsePrefix("::ffff:10.0.0.0/104")}}, "no subnet"},
		{firewall.Network{Bridge: "br-lab", SNAT4: netip.MustParseAddr("fd77::1")}, "not an IPv4 address"},
		{firewall.Network{Bridge: "br-lab", SNAT6: netip.MustParseAddr("10.0.0.1")}, "not a plain IPv6 address"},
		{firewall.Network{Bridge: "br-lab", SNAT6: netip.MustParseAddr("fe80::1%eth0")}, "not a plain IPv6 address"},
	} {
		err := c.network.Validate()
		if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("Validate(%+v) = %v, want %q", c.network, err, c.says)
		}
	}
}
