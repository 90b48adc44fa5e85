package controller_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/linkspan/linkspan/controller"
	"github.com/linkspan/linkspan/firewall"
	"github.com/linkspan/linkspan/firewall/iptables"
	"github.com/linkspan/linkspan/firewall/nftables"
	"github.com/linkspan/linkspan/internal/nstest"
)

// What others take away of the rules comes back without anybody's doing, and
// what is theirs stays as it is.
func TestRulesComeBack(t *testing.T) {
	const foreign = "nft add table inet strange; nft add chain inet strange c '{ type filter hook input priority 5; }'; nft add rule inet strange c counter accept"
	for name, c := range map[string]struct {
		backend firewall.Backend
		dump    string
		harms   map[string]string
	}{
		"nftables": {nftables.Backend{}, "nft -s list table inet linkspan", map[string]string{
			"all":      "nft flush ruleset; " + foreign,
			"table":    "nft delete table inet linkspan",
			"rules":    "nft flush table inet linkspan",
			"elements": "nft flush map inet linkspan published4",
		}},
		"iptables": {iptables.Backend{Variant: iptables.NFT}, "iptables-nft-save 2>/dev/null | grep -e '^-A' | sort", map[string]string{
			"filter": "iptables-nft -F", "nat": "iptables-nft -t nat -F", "all": "nft flush ruleset; " + foreign,
		}},
		"legacy": {iptables.Backend{Variant: iptables.Legacy}, "iptables-legacy-save | grep -e '^-A' | sort", map[string]string{
			"filter": "iptables-legacy -F",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			m := nstest.New(t)
			lan := nstest.New(t)
			nstest.Wire(t, m, lan, netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("192.0.2.2/24"))
			m.Sh(t, foreign)
			d := start(t, m, newRoots(t), backend(c.backend))
			d.network(t, "lab", subnet("10.77.0.0/24"))
			a := d.run(t, spec("web", "lab", ip4("10.77.0.2"), publishing))
			accept(t, m, nsOf(a), "tcp4", "10.77.0.2:80")
			must(t, connect(lan, "192.0.2.1:8080", 20*time.Second))
			want := m.Sh(t, c.dump)
			const strange = "nft -s list table inet strange"
			theirs := m.Sh(t, strange)
			for what, harm := range c.harms {
				harmed := time.Now()
				m.Sh(t, harm)
				if !nstest.Until(20*time.Second, func() bool {
					now, err := m.TrySh(c.dump)
					return err == nil && sorted(now) == sorted(want)
				}) {
					now, _ := m.TrySh(c.dump)
					t.Fatalf("%s: the rules did not come back:\n%s", what, nstest.Diff(want, now))
				}
				t.Logf("%s: back after %v", what, time.Since(harmed).Round(time.Millisecond))
				must(t, connect(lan, "192.0.2.1:8080", 20*time.Second))
				if now := m.Sh(t, strange); now != theirs {
					t.Errorf("%s: rules of others changed:\n%s", what, nstest.Diff(theirs, now))
				}
			}
			if plan, err := d.Reapply(t.Context()); err != nil || len(plan) != 0 {
				t.Errorf("with nothing missing, to reapply does %s (%v)", plan, err)
			}
			d.clear(t)
			m.Sh(t, "nft delete table inet strange")
		})
	}
}

// What is made and removed while others flush is there in the end exactly if it
// is wanted.
func TestRulesComeBackUnderWay(t *testing.T) {
	m := nstest.New(t)
	d := start(t, m, newRoots(t))
	stop := m.Start(t, "while true; do nft flush ruleset; sleep 0.02; done")
	var left []string // whose removal failed, because a flush came between two of its steps
	for i := range 20 {
		spec := controller.NetworkSpec{Name: fmt.Sprint("lab", i), IPv4: true}
		n, err := d.CreateNetwork(t.Context(), spec)
		if err != nil {
			t.Logf("creating: %v", err)
			continue
		}
		if err := d.RemoveNetwork(t.Context(), string(n.ID)); err != nil {
			t.Logf("removing: %v", err)
			left = append(left, string(n.ID))
		}
	}
	stop()
	for _, id := range left {
		must(t, d.RemoveNetwork(t.Context(), id))
	}
	d.network(t, "other", subnet("10.78.0.0/24"))
	if !nstest.Until(20*time.Second, func() bool {
		plan, err := d.Reapply(t.Context())
		return err == nil && len(plan) == 0
	}) {
		t.Error("the rules do not come to rest")
	}
	list := m.Sh(t, "nft list map inet linkspan into")
	if strings.Count(list, "ipv4") != 2 { // the default network's, and the other's
		t.Errorf("elements of networks that are gone, or none of those that are there:\n%s", list)
	}
	d.clear(t)
}

// sorted makes listings equal that differ in the order of elements.
func sorted(listing string) string {
	fields := strings.Fields(strings.ReplaceAll(listing, ",", " "))
	slices.Sort(fields)
	return strings.Join(fields, " ")
}
