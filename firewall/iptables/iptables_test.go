package iptables_test

import (
	"testing"

	"github.com/linkspan/linkspan/firewall"
	"github.com/linkspan/linkspan/firewall/firewalltest"
	"github.com/linkspan/linkspan/firewall/iptables"
	"github.com/linkspan/linkspan/internal/nstest"
)

func TestMain(m *testing.M) { nstest.Main(m) }

var update = firewalltest.Update()

// dump lists what both programs have, but for the kernel's own chains, which
// stay once a table was used.
const dump = `list() { for family in iptables ip6tables; do for variant in nft legacy; do
		$* $family-$variant-save 2>/dev/null | grep -v -e '^#' -e '^COMMIT' -e '^:[A-Z]* ACCEPT' | sed "s/^/$family-$variant: /; s/\[.*//" | grep -v '\*' || true
	done; done; }
	list; if [ -e /run/netns/box ]; then list ip netns exec box; fi`

func TestBackend(t *testing.T) {
	for _, variant := range []iptables.Variant{iptables.NFT, iptables.Legacy} {
		t.Run(string(variant), func(t *testing.T) {
			firewalltest.Run(t, firewalltest.Subject{
				Backend: iptables.Backend{Variant: variant}, Kinds: iptables.Kinds(), Dump: dump,
				Marked: iptables.Backend{Variant: variant, Accept: firewall.Mark{Value: 0x10, Mask: 0xf0}},
				Refuse: "iptables-" + string(variant) + " -A LINKSPAN-USER -s $1 -j DROP", Relent: "iptables-" + string(variant) + " -F LINKSPAN-USER",
				Harms: harms(string(variant)), Golden: string(variant),
			}, *update)
		})
	}
}

func harms(variant string) map[string]string {
	v4, v6 := "iptables-"+variant, "ip6tables-"+variant
	all := map[string]string{
		"filter":       v4 + " -F",
		"filter, nat":  v4 + " -F; " + v4 + " -t nat -F; " + v6 + " -F",
		"all":          "for c in " + v4 + " " + v6 + "; do for t in filter nat raw; do $c -t $t -F; $c -t $t -X || true; done; done",
		"one chain":    v4 + " -F LINKSPAN-INTO",
		"one rule":     v4 + " -D LINKSPAN-INTO -i br-mixed -o br-mixed -j ACCEPT",
		"the way in":   v4 + " -D FORWARD -j LINKSPAN-FORWARD",
		"a first rule": v4 + " -D LINKSPAN-FORWARD 1",
		"a port":       v4 + " -t nat -D LINKSPAN-PORTS 1",
	}
	if variant == "nft" {
		all["tables"] = "nft flush ruleset"
	}
	return all
}
