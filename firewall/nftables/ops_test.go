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
	"github.com/linkspan/linkspan/firewall/nftables"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/op"
)

// networks are the kinds of network there are, by the name of their golden file.
func networks() map[string]firewall.Network {
	v4, v6 := netip.MustParsePrefix("10.77.0.0/24"), netip.MustParsePrefix("fd77::/64")
	return map[string]firewall.Network{
		"masquerade": {Bridge: "br-lab", Subnets: []netip.Prefix{v4, v6}, ICC: true, Masquerade: true},
		"snat":       {Bridge: "br-lab", Subnets: []netip.Prefix{v4, v6}, ICC: true, Masquerade: true, SNAT4: netip.MustParseAddr("192.0.2.9"), SNAT6: netip.MustParseAddr("2001:db8::9")},
		"unmasked":   {Bridge: "br-lab", Subnets: []netip.Prefix{v4}, ICC: true},
		"routed":     {Bridge: "br-lab", Subnets: []netip.Prefix{v4}, ICC: true, Masquerade: true, Mode4: firewall.Routed, Mode6: firewall.Routed},
		"internal":   {Bridge: "br-lab", Subnets: []netip.Prefix{v4}, ICC: true, Internal: true, Masquerade: true},
		"icc-off":    {Bridge: "br-lab", Subnets: []netip.Prefix{v4}, Masquerade: true},
		"mixed":      {Bridge: "br-lab", Subnets: []netip.Prefix{v4, v6}, ICC: true, Masquerade: true, Mode4: firewall.Unprotected, Mode6: firewall.Routed},
	}
}

func TestSaidIsDone(t *testing.T) {
	var backend nftables.Backend
	plans := map[string]op.Plan{"base": backend.Base()}
	for name, network := range networks() {
		plans[name] = append(backend.Base(), backend.Network(network)...)
	}
	for name, ports := range published() {
		plans[name] = append(backend.Base(), backend.Ports("br-lab", ports)...)
	}
	for name, plan := range plans {
		t.Run(name, func(t *testing.T) { saidIsDone(t, plan) })
	}
	t.Run("resolver", func(t *testing.T) {
		saidIsDone(t, append(op.Plan{{Op: op.AddNetns{Name: "box"}}}, backend.Resolver("box", 5301, 5302)...))
	})
}

func saidIsDone(t *testing.T, plan op.Plan) {
	ctx := context.Background()
	done, said := nstest.New(t), nstest.New(t)
	x := op.Executor{Host: done.Host()}
	if err := x.Do(ctx, plan); err != nil {
		t.Fatal(err)
	}
	if err := x.Check(ctx, plan); err != nil {
		t.Errorf("after Do: %v", err)
	}
	want := ruleset(t, done)
	if err := x.Undo(ctx, plan); err != nil {
		t.Fatal(err)
	}
	if left := ruleset(t, done); left != "" {
		t.Errorf("after Undo there is:\n%s", left)
	}
	said.Sh(t, plan.String())
	if diff := cmp.Diff(want, ruleset(t, said)); diff != "" {
		t.Errorf("what is done (-) is not what is said (+):\n%s\n%s", diff, plan)
	}
	y := op.Executor{Host: said.Host()}
	if err := y.Check(ctx, plan); err != nil {
		t.Errorf("Check after the script: %v", err)
	}
	if err := y.Undo(ctx, plan); err != nil {
		t.Errorf("Undo after the script: %v", err)
	}
}

// ruleset lists the rules of the machine and of namespace box.
func ruleset(t testing.TB, m *nstest.Machine) string {
	return m.Sh(t, "nft list ruleset; if [ -e /run/netns/box ]; then ip netns exec box nft list ruleset; fi")
}

func TestDoTwiceIsAConflict(t *testing.T) {
	ctx := context.Background()
	var backend nftables.Backend
	for name, network := range networks() {
		t.Run(name, func(t *testing.T) {
			m := nstest.New(t)
			x := op.Executor{Host: m.Host()}
			base, plan := backend.Base(), backend.Network(network)
			if err := x.Do(ctx, append(base, plan...)); err != nil {
				t.Fatal(err)
			}
			before := ruleset(t, m)
			for _, again := range []op.Plan{base, plan} {
				if err := x.Do(ctx, again); !errors.Is(err, linkspan.ErrConflict) {
					t.Errorf("doing it again: %v, want a conflict", err)
				}
			}
			if diff := cmp.Diff(before, ruleset(t, m)); diff != "" {
				t.Errorf("doing it again changed the rules:\n%s", diff)
			}
			for range 2 {
				if err := x.Undo(ctx, append(base, plan...)); err != nil {
					t.Error(err)
				}
			}
			if left := ruleset(t, m); left != "" {
				t.Errorf("after Undo there is:\n%s", left)
			}
		})
	}
}

func TestUndoOfWhatIsPartlyGone(t *testing.T) {
	ctx := context.Background()
	var backend nftables.Backend
	neighbour := firewall.Network{Bridge: "br-other", Subnets: []netip.Prefix{netip.MustParsePrefix("10.77.1.0/24")}, ICC: true, Masquerade: true}
	plan := backend.Network(networks()["snat"])
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
	plan := backend.Network(networks()["masquerade"])
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
	base, plan := backend.Base(), backend.Network(networks()["snat"])
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
	plan := backend.Network(networks()["masquerade"])
	if err := x.Do(ctx, plan); !errors.Is(err, linkspan.ErrUnavailable) {
		t.Errorf("Do with no table: %v, want unavailable", err)
	}
	if err := x.Check(ctx, plan); !errors.Is(err, linkspan.ErrNotFound) {
		t.Errorf("Check with no table: %v, want not found", err)
	}
	if err := x.Undo(ctx, append(backend.Base(), plan...)); err != nil {
		t.Errorf("Undo with no table: %v", err)
	}
	if err := x.Undo(ctx, backend.Resolver("gone", 1, 2)); err != nil {
		t.Errorf("Undo in a namespace that is gone: %v", err)
	}
}
