package nftables_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/firewall"
	"github.com/linkspan/linkspan/firewall/firewalltest"
	"github.com/linkspan/linkspan/firewall/nftables"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/op"
)

// ruleset lists the rules of the machine and of namespace box.
func ruleset(t testing.TB, m *nstest.Machine) string {
	return m.Sh(t, "nft list ruleset; if [ -e /run/netns/box ]; then ip netns exec box nft list ruleset; fi")
}

func TestUndoOfWhatIsPartlyGone(t *testing.T) {
	ctx := context.Background()
	var backend nftables.Backend
	neighbour := firewall.Network{Bridge: "br-other", Subnets: []netip.Prefix{netip.MustParsePrefix("10.77.1.0/24")}, ICC: true, Masquerade: true}
	plan := backend.Network(firewalltest.Networks()["snat"])
	elements := plan[0].Op.(nftables.AddElements).Elements
	for i, gone := range elements {
		t.Run(gone.Set, func(t *testing.T) {
			m := nstest.New(t)
			x := op.Executor{Host: m.Host()}
			if err := x.Do(ctx, append(backend.Base(), backend.Network(neighbour)...)); err != nil {
				t.Fatal(err)
			}
			want := ruleset(t, m)
			if err := x.Do(ctx, plan); err != nil {
				t.Fatal(err)
			}
			words := strings.TrimPrefix(gone.String(), gone.Set+" ")
			m.Sh(t, fmt.Sprintf("nft delete element inet linkspan %s '%s'", gone.Set, words))
			err := x.Check(ctx, plan)
			if err == nil || !strings.Contains(err.Error(), words) || !strings.Contains(err.Error(), "linkspan "+gone.Set) {
				t.Errorf("Check says %v, want element %d %s and the command that lists set %s", err, i, words, gone.Set)
			}
			if err := x.Undo(ctx, plan); err != nil {
				t.Error(err)
			}
			if diff := cmp.Diff(want, ruleset(t, m)); diff != "" {
				t.Errorf("Undo left or took too much:\n%s", diff)
			}
			if err := x.Undo(ctx, backend.Base()); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestForeignTableIsLeftAlone(t *testing.T) {
	ctx := context.Background()
	var backend nftables.Backend
	plan := backend.Network(firewalltest.Networks()["masquerade"])
	for name, script := range map[string]string{
		"empty":       "nft add table inet linkspan",
		"unmarked":    "nft add table inet linkspan; nft add set inet linkspan owner '{ type mark; elements = { 1 } }'",
		"look-alike":  "nft add table inet linkspan; nft add map inet linkspan within '{ type ifname . ifname : verdict; elements = { \"br-lab\" . \"br-lab\" : accept } }'",
		"other chain": "nft add table inet linkspan; nft add chain inet linkspan forward '{ type filter hook forward priority 0; policy drop; }'",
	} {
		t.Run(name, func(t *testing.T) {
			m := nstest.New(t)
			x := op.Executor{Host: m.Host()}
			m.Sh(t, script)
			before := ruleset(t, m)
			for what, err := range map[string]error{
				"Base.Do": x.Do(ctx, backend.Base()), "Base.Undo": x.Undo(ctx, backend.Base()), "Base.Check": x.Check(ctx, backend.Base()),
				"Network.Do": x.Do(ctx, plan), "Network.Undo": x.Undo(ctx, plan), "Network.Check": x.Check(ctx, plan),
			} {
				if !errors.Is(err, linkspan.ErrConflict) || !strings.Contains(err.Error(), "nft list") {
					t.Errorf("%s: %v, want a conflict that says how to look", what, err)
				}
			}
			if diff := cmp.Diff(before, ruleset(t, m)); diff != "" {
				t.Errorf("the foreign table changed:\n%s", diff)
			}
			m.Sh(t, "nft delete table inet linkspan")
		})
	}
}

func TestFlushedTableIsReportedAndRestored(t *testing.T) {
	ctx := context.Background()
	var backend nftables.Backend
	base, plan := backend.Base(), backend.Network(firewalltest.Networks()["snat"])
	for name, harm := range map[string]struct{ script, says string }{
		"ruleset":  {"nft flush ruleset", "table inet linkspan is missing"},
		"rules":    {"nft flush table inet linkspan", "rule 1 of chain forward"},
		"chain":    {"nft flush chain inet linkspan postrouting", "rule 1 of chain postrouting"},
		"one rule": {"nft delete rule inet linkspan forward handle $(nft -a list chain inet linkspan forward | sed -n 's/.*@into.*handle //p')", "oifname vmap @into"},
		"added":    {"nft add rule inet linkspan forward accept", "1 rules too many"},
		"policy":   {"nft chain inet linkspan forward '{ policy drop; }'", "chain forward"},
	} {
		t.Run(name, func(t *testing.T) {
			m := nstest.New(t)
			x := op.Executor{Host: m.Host()}
			if err := x.Do(ctx, append(base, plan...)); err != nil {
				t.Fatal(err)
			}
			want := ruleset(t, m)
			m.Sh(t, harm.script)
			err := x.Check(ctx, base)
			if err == nil || !strings.Contains(err.Error(), harm.says) || !strings.Contains(err.Error(), "nft list") {
				t.Errorf("Check says %v, want %q and how to look", err, harm.says)
			}
			if err := x.Undo(ctx, append(base, plan...)); err != nil {
				t.Fatal(err)
			}
			if err := x.Do(ctx, append(base, plan...)); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, ruleset(t, m)); diff != "" {
				t.Errorf("restored rules differ:\n%s", diff)
			}
			if err := x.Undo(ctx, base); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestMissingTable(t *testing.T) {
	ctx := context.Background()
	var backend nftables.Backend
	m := nstest.New(t)
	x := op.Executor{Host: m.Host()}
	plan := backend.Network(firewalltest.Networks()["masquerade"])
	if err := x.Check(ctx, plan); !errors.Is(err, linkspan.ErrNotFound) {
		t.Errorf("Check with no table: %v, want not found", err)
	}
	if err := x.Undo(ctx, append(backend.Base(), plan...)); err != nil {
		t.Errorf("Undo with no table: %v", err)
	}
	if err := x.Do(ctx, plan); err != nil {
		t.Errorf("Do with no table, which somebody may just have flushed: %v", err)
	}
	if err := x.Check(ctx, append(backend.Base()[:1], plan...)); err != nil {
		t.Errorf("after Do with no table: %v", err)
	}
	if err := x.Undo(ctx, append(backend.Base(), plan...)); err != nil {
		t.Errorf("Undo with no table: %v", err)
	}
	other := backend.Network(firewalltest.Networks()["snat"])
	change, err := op.Difference(plan, other)
	if err != nil {
		t.Fatal(err)
	}
	if err := x.Do(ctx, change); err != nil {
		t.Errorf("a change with no table, which somebody may just have flushed: %v", err)
	}
	if err := x.Check(ctx, append(backend.Base()[:1], change...)); err != nil {
		t.Errorf("after a change with no table: %v", err)
	}
	if err := x.Undo(ctx, append(backend.Base(), other...)); err != nil {
		t.Errorf("Undo after a change with no table: %v", err)
	}
	if err := x.Undo(ctx, backend.Resolver("gone", 1, 2)); err != nil {
		t.Errorf("Undo in a namespace that is gone: %v", err)
	}
}
