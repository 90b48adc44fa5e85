package bridge_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/linkspan/linkspan/drivers/bridge"
	"github.com/linkspan/linkspan/firewall"
	"github.com/linkspan/linkspan/ipam"
	"github.com/linkspan/linkspan/network"
)

// lab is a network with both families and the given options.
func lab(internal bool, options map[string]string) network.Network {
	return network.Network{
		ID: "0123456789abcdef", Name: "lab", IPv4: true, IPv6: true, Internal: internal, Options: options, MAC: "02:42:0a:4d:00:01",
		Pools: []ipam.Pool{
			{Subnet: netip.MustParsePrefix("10.77.0.0/24"), Gateway: netip.MustParseAddr("10.77.0.1")},
			{Subnet: netip.MustParsePrefix("fd77::/64"), Gateway: netip.MustParseAddr("fd77::1")},
		},
	}
}

func TestGatewayModes(t *testing.T) {
	_, err := bridge.Driver{}.Rules(lab(false, map[string]string{bridge.OptionBinding: "x"}))
	if want := "failed to parse com.docker.network.bridge.host_binding_ipv4 value: x (nil ip)"; err == nil || err.Error() != want {
		t.Errorf("a host address that is none: %v, want %q", err, want)
	}
	for _, c := range []struct {
		four, six    string
		internal     bool
		mode4, mode6 firewall.Mode
		planned      []string // parts of the plan
		absent       []string
		says         string // the refusal
	}{
		{four: "", six: "nat", mode4: firewall.NAT, mode6: firewall.NAT, planned: []string{"route_localnet=1", "10.77.0.1/24", "fd77::1/64"}},
		{four: "nat-unprotected", six: "routed", mode4: firewall.Unprotected, mode6: firewall.Routed, planned: []string{"route_localnet=1", "fd77::1/64"}},
		{four: "routed", six: "nat", mode4: firewall.Routed, planned: []string{"10.77.0.1/24"}, absent: []string{"route_localnet"}},
		{four: "isolated", six: "nat", internal: true, planned: []string{"fd77::1/64"}, absent: []string{"10.77.0.1", "route_localnet"}},
		{four: "nat", six: "isolated", internal: true, planned: []string{"10.77.0.1/24", "disable_ipv6=1"}, absent: []string{"fd77::1"}},
		{four: "isolated", says: "gateway mode 'isolated' can only be used for an internal network"},
		{six: "bridged", says: "failed to parse com.docker.network.bridge.gateway_mode_ipv6 value: bridged (unknown gateway mode bridged)"},
	} {
		n := lab(c.internal, map[string]string{bridge.OptionMode4: c.four, bridge.OptionMode6: c.six})
		rules, err := bridge.Driver{}.Rules(n)
		if c.says != "" {
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("modes %q and %q: %v, want %q", c.four, c.six, err, c.says)
			}
			continue
		}
		if err != nil || rules.Mode4 != c.mode4 || rules.Mode6 != c.mode6 || rules.Internal != c.internal {
			t.Errorf("modes %q and %q become %+v (%v)", c.four, c.six, rules, err)
		}
		if err := rules.Validate(); err != nil {
			t.Error(err)
		}
		plan, err := bridge.Driver{}.Network(n)
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range c.planned {
			if !strings.Contains(plan.String(), part) {
				t.Errorf("modes %q and %q: the plan lacks %s:\n%s", c.four, c.six, part, plan)
			}
		}
		for _, part := range c.absent {
			if strings.Contains(plan.String(), part) {
				t.Errorf("modes %q and %q: the plan has %s:\n%s", c.four, c.six, part, plan)
			}
		}
	}
}
