package choice_test

import (
	"context"
	"net/netip"
	"strings"
	"testing"

	"github.com/linkspan/linkspan/firewall"
	"github.com/linkspan/linkspan/firewall/choice"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/op"
)

func TestMain(m *testing.M) { nstest.Main(m) }

// clean takes away the tables that the scripts of these tests made.
const clean = "nft flush ruleset; for family in ip ip6; do for table in filter nat raw; do ${family}tables-legacy -t $table -F; ${family}tables-legacy -t $table -X; done; done"

func TestMake(t *testing.T) {
	for name, c := range map[string]struct {
		script, wanted string
		takes, says    string
	}{
		"nothing there":           {"", "auto", "nftables", "nothing stands"},
		"iptables without policy": {"iptables-nft -A FORWARD -j ACCEPT; iptables-legacy -A FORWARD -j ACCEPT", "auto", "nftables", "nothing stands"},
		"Docker":                  {"iptables-nft -P FORWARD DROP; iptables-nft -N DOCKER-USER; iptables-nft -A FORWARD -j DOCKER-USER; iptables-nft -A FORWARD -i docker0 -j ACCEPT", "auto", "iptables", "iptables stops"},
		"Docker, IPv6":            {"ip6tables-nft -P FORWARD DROP", "auto", "iptables", "iptables stops"},
		"legacy":                  {"iptables-legacy -P FORWARD DROP", "auto", "iptables", "iptables-legacy stops"},
		"rejected at the end":     {"iptables-legacy -A FORWARD -i docker0 -j ACCEPT; iptables-legacy -A FORWARD -j REJECT", "auto", "iptables", "iptables-legacy stops"},
		"accepted before":         {"iptables-nft -P FORWARD DROP; iptables-nft -A FORWARD -j ACCEPT", "auto", "nftables", "nothing stands"},
		"a table of nft":          {"nft add table inet strict; nft add chain inet strict forward '{ type filter hook forward priority 0; policy drop; }'", "auto", "nftables", "nothing stands"},
		"nftables wanted":         {"iptables-nft -P FORWARD DROP", "nftables", "nftables", "asked for"},
		"iptables wanted":         {"", "iptables", "iptables", "asked for"},
		"iptables wanted, legacy": {"iptables-legacy -P FORWARD DROP", "iptables", "iptables", "iptables-legacy stops"},
	} {
		t.Run(name, func(t *testing.T) {
			m := nstest.New(t)
			m.Sh(t, c.script)
			for i := range 2 { // what was taken must not change the choice
				made, err := choice.Make(m.Host(), c.wanted, firewall.Mark{})
				if err != nil {
					t.Fatal(err)
				}
				if made.Name != c.takes || !strings.Contains(made.Why, c.says) {
					t.Errorf("choice %d is %s because %s; want %s because %s", i, made.Name, made.Why, c.takes, c.says)
				}
				if i == 0 {
					do(t, m, append(made.Backend.Base(), made.Backend.Network(lab())...))
				}
			}
			m.Sh(t, clean)
		})
	}
}

func lab() firewall.Network {
	return firewall.Network{Bridge: "br-lab", Subnets: []netip.Prefix{netip.MustParsePrefix("10.77.0.0/24")}, ICC: true, Masquerade: true}
}

func do(t *testing.T, m *nstest.Machine, plan op.Plan) {
	t.Helper()
	if err := (&op.Executor{Host: m.Host()}).Do(context.Background(), plan); err != nil {
		t.Fatal(err)
	}
}

func TestObstacles(t *testing.T) {
	strict := "nft add table inet strict; nft add chain inet strict forward '{ type filter hook forward priority 0; policy drop; }'; nft add chain inet strict other;"
	for name, c := range map[string]struct {
		script string
		says   []string // of the obstacle; none: there is none
	}{
		"nothing":               {"true", nil},
		"a policy":              {strict, []string{"chain forward of table inet strict", "policy is drop", "nft list chain inet strict forward", "nft insert rule"}},
		"a policy and a door":   {strict + "nft add rule inet strict forward iifname br-lab accept; nft add rule inet strict forward oifname br-lab counter accept", nil},
		"a policy and a prefix": {strict + "nft add rule inet strict forward iifname 'br-*' accept; nft add rule inet strict forward oifname 'br-*' accept", nil},
		"a policy and half":     {strict + "nft add rule inet strict forward iifname br-lab accept", []string{"policy is drop"}},
		"a door in a chain":     {strict + "nft add rule inet strict forward jump other; nft add rule inet strict other accept", nil},
		"answers and published": {strict + "nft add rule inet strict forward iifname br-lab accept; nft add rule inet strict forward ct state { established, related } accept; nft add rule inet strict forward ct status dnat accept", nil},
		"answers in bits":       {strict + "nft add rule inet strict forward iifname br-lab accept; nft add rule inet strict forward ct state established,related accept; nft add rule inet strict forward ct status dnat oifname br-lab accept", nil},
		"answers alone":         {strict + "nft add rule inet strict forward iifname br-lab accept; nft add rule inet strict forward ct state { established, related } accept", []string{"policy is drop"}},
		"a door for others":     {strict + "nft add rule inet strict forward iifname != br-lab accept", []string{"policy is drop"}},
		"a drop in a chain":     {"nft add table ip z; nft add chain ip z f '{ type filter hook forward priority 5; }'; nft add chain ip z g; nft add rule ip z f goto g; nft add rule ip z g counter reject", []string{"table ip z", "chain g drops or rejects"}},
		"a drop for others":     {"nft add table ip z; nft add chain ip z f '{ type filter hook forward priority 5; }'; nft add rule ip z f iifname eth9 drop; nft add rule ip z f ct state invalid drop", nil},
		"a drop elsewhere":      {"nft add table ip z; nft add chain ip z i '{ type filter hook input priority 5; policy drop; }'", nil},
		"firewalld":             {"nft add table inet firewalld; nft add chain inet firewalld filter_FORWARD '{ type filter hook forward priority 10; }'; nft add rule inet firewalld filter_FORWARD ct state established,related accept; nft add rule inet firewalld filter_FORWARD reject with icmpx admin-prohibited", []string{"firewalld", "firewall-cmd"}},
		"Docker":                {"iptables-nft -P FORWARD DROP", []string{"chain FORWARD of table ip filter", "--firewall-backend iptables"}},
		"legacy":                {"ip6tables-legacy -P FORWARD DROP", []string{"chain FORWARD of ip6tables-legacy", "policy is DROP", "--firewall-backend iptables"}},
	} {
		t.Run(name, func(t *testing.T) {
			m := nstest.New(t)
			m.Sh(t, c.script)
			found, err := choice.Obstacles(m.Host(), []string{"br-lab"}, []string{"br-lab"})
			if err != nil {
				t.Fatal(err)
			}
			if len(found) != min(1, len(c.says)) {
				t.Fatalf("obstacles: %v", found)
			}
			for _, words := range c.says {
				if !strings.Contains(found[0].String(), words) {
					t.Errorf("%q lacks %q", found[0], words)
				}
			}
			m.Sh(t, clean)
		})
	}
}

// With the backend that is chosen, what was an obstacle is none.
func TestChoiceOvercomes(t *testing.T) {
	for name, script := range map[string]string{
		"nft": "iptables-nft -P FORWARD DROP; ip6tables-nft -P FORWARD DROP", "legacy": "iptables-legacy -P FORWARD DROP; ip6tables-legacy -P FORWARD DROP",
	} {
		t.Run(name, func(t *testing.T) {
			m := nstest.New(t)
			m.Sh(t, script)
			made, err := choice.Make(m.Host(), "auto", firewall.Mark{})
			if err != nil {
				t.Fatal(err)
			}
			if found, err := choice.Obstacles(m.Host(), nil, []string{"br-lab"}); err != nil || len(found) != 1 || !strings.Contains(found[0].Chain, "ip6") {
				t.Errorf("obstacles of IPv6 alone: %v (%v)", found, err)
			}
			network := lab()
			network.Subnets = append(network.Subnets, netip.MustParsePrefix("fd77::/64"))
			do(t, m, append(made.Backend.Base(), made.Backend.Network(network)...))
			if found, err := choice.Obstacles(m.Host(), []string{"br-lab"}, []string{"br-lab"}); err != nil || len(found) != 0 {
				t.Errorf("obstacles: %v (%v)", found, err)
			}
			m.Sh(t, clean)
		})
	}
}
