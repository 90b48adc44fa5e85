package iptables_test

import (
	"testing"

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
				Golden: string(variant),
			}, *update)
		})
	}
}
