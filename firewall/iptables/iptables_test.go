package iptables_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/linkspan/linkspan/firewall"
	"github.com/linkspan/linkspan/firewall/firewalltest"
	"github.com/linkspan/linkspan/firewall/iptables"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/op"
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

// Somebody who flushes everything between our look and our change is no obstacle
// to the change.
func TestFlushedMeanwhile(t *testing.T) {
	m := nstest.New(t)
	save, err := exec.LookPath("iptables-nft-save")
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	flag := filepath.Join(bin, "flush")
	script := fmt.Sprintf("#!/bin/sh\n%s \"$@\"\nif rm %s 2>/dev/null; then nft flush ruleset; fi\n", save, flag)
	if err := os.WriteFile(filepath.Join(bin, "iptables-nft-save"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	b := iptables.Backend{Variant: iptables.NFT}
	networks := firewalltest.Networks()
	from, to := b.Network(networks["masquerade"]), b.Network(networks["snat"])
	change, err := op.Difference(from, to)
	if err != nil {
		t.Fatal(err)
	}
	x := op.Executor{Host: m.Host()}
	if err := x.Do(t.Context(), b.Base()); err != nil {
		t.Fatal(err)
	}
	for _, act := range []struct {
		name string
		do   func(context.Context, op.Plan) error
		plan op.Plan
	}{{"adding", x.Do, from}, {"changing", x.Do, change}, {"changing back", x.Undo, change}, {"deleting", x.Undo, from}} {
		if err := os.WriteFile(flag, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := act.do(t.Context(), act.plan); err != nil {
			t.Errorf("%s: %v", act.name, err)
		}
		if _, err := os.Stat(flag); err == nil {
			t.Fatalf("%s: nothing was flushed", act.name)
		}
		if act.name == "adding" {
			if err := x.Check(t.Context(), from); err != nil {
				t.Errorf("after %s: %v", act.name, err)
			}
		}
	}
	if err := x.Undo(t.Context(), b.Base()); err != nil {
		t.Fatal(err)
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
