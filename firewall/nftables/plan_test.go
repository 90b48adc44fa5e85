package nftables_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/linkspan/linkspan/firewall"
	"github.com/linkspan/linkspan/firewall/firewalltest"
	"github.com/linkspan/linkspan/firewall/nftables"
)

var update = firewalltest.Update()

func TestBackend(t *testing.T) {
	firewalltest.Run(t, firewalltest.Subject{
		Backend: nftables.Backend{}, Kinds: nftables.Kinds(),
		Marked: nftables.Backend{Accept: firewall.Mark{Value: 0x10, Mask: 0xf0}},
		Refuse: "nft add rule inet linkspan-user forward ip saddr $1 drop", Relent: "nft flush chain inet linkspan-user forward",
		Harms: map[string]string{
			"all":            "nft flush ruleset",
			"both tables":    "nft delete table inet linkspan; nft delete table inet linkspan-user",
			"user's chain":   "nft delete chain inet linkspan-user forward",
			"our table":      "nft delete table inet linkspan",
			"rules":          "nft flush table inet linkspan",
			"one chain":      "nft flush chain inet linkspan forward",
			"one rule":       "nft delete rule inet linkspan forward handle $(nft -a list chain inet linkspan forward | sed -n 's/.*@into.*handle //p')",
			"a rule of ours": "nft insert rule inet linkspan forward drop",
			"a policy":       "nft chain inet linkspan forward '{ policy drop; }'",
			"a map":          "nft flush map inet linkspan published4",
			"intervals":      "nft flush map inet linkspan ranges4",
			"an element":     "nft delete element inet linkspan published4 '{ tcp . 8080 }'",
			"another value":  "nft delete element inet linkspan published4 '{ tcp . 8080 }'; nft add element inet linkspan published4 '{ tcp . 8080 : 192.0.2.66 . 80 }'",
			"our mark":       "nft flush set inet linkspan owner; nft flush set inet linkspan networks",
			"a set":          "nft flush chain inet linkspan postrouting; nft delete set inet linkspan masq",
			"another set":    "nft flush chain inet linkspan postrouting; nft delete set inet linkspan masq; nft add set inet linkspan masq '{ type ipv4_addr; }'",
		},
		Dump: "nft list ruleset; if [ -e /run/netns/box ]; then ip netns exec box nft list ruleset; fi",
	}, *update)
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
