package firewalltest

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/linkspan/linkspan/firewall"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/op"
)

// mend lets others do harm to rules, and has them put back.
func (s Subject) mend(t *testing.T) {
	ctx := context.Background()
	mender, can := s.Backend.(firewall.Mender)
	if !can {
		t.Fatal("the backend cannot mend")
	}
	harms := map[string]string{"nothing": "true"}
	for name, harm := range s.Harms {
		harms[name] = harm
	}
	for name, harm := range harms {
		t.Run(name, func(t *testing.T) {
			m := nstest.New(t)
			x := op.Executor{Host: m.Host()}
			empty := m.Sh(t, s.Dump)
			whole := s.Backend.Base()
			for kind, network := range Networks() {
				network.Bridge = "br-" + kind // one of each
				if kind != "mixed" && kind != "internal" {
					network.Subnets = nil // no two networks' overlap
				}
				whole = append(whole, s.Backend.Network(network)...)
			}
			for kind, ports := range Ports() {
				if kind != "ports-sources" && kind != "ports-direct" { // have a port of another
					whole = append(whole, s.Backend.Ports("br-mixed", ports)...)
				}
			}
			if err := x.Do(ctx, whole); err != nil {
				t.Fatal(err)
			}
			want := words(m.Sh(t, s.Dump))
			m.Sh(t, harm)
			if broken := cmp.Diff(want, words(m.Sh(t, s.Dump))); (broken == "") != (name == "nothing") {
				t.Fatalf("the harm does:\n%s", broken)
			}
			plan, err := mender.Mend(m.Host(), rules(whole))
			if err != nil {
				t.Fatal(err)
			}
			if (len(plan) == 0) != (name == "nothing") {
				t.Errorf("to be mended: %s", plan)
			}
			for range 2 { // the worst needs two
				if err := x.Do(ctx, plan); err != nil {
					t.Fatalf("%v\n%s", err, plan)
				}
				if plan, err = mender.Mend(m.Host(), rules(whole)); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(want, words(m.Sh(t, s.Dump))); diff != "" {
				t.Errorf("mended, they differ (- before):\n%s\n%s", diff, plan)
			}
			if err := x.Check(ctx, whole); err != nil {
				t.Errorf("mended: %v", err)
			}
			if again, err := mender.Mend(m.Host(), rules(whole)); err != nil || len(again) != 0 {
				t.Errorf("to be mended again: %s (%v)", again, err)
			}
			if err := x.Undo(ctx, whole); err != nil {
				t.Error(err)
			}
			if diff := cmp.Diff(empty, m.Sh(t, s.Dump)); diff != "" {
				t.Errorf("after Undo there is:\n%s", diff)
			}
		})
	}
}

func rules(plan op.Plan) []firewall.Op {
	var ops []firewall.Op
	for _, step := range plan {
		if o, is := step.Op.(firewall.Op); is {
			ops = append(ops, o)
		}
	}
	return ops
}

// words sorts what is listed: rules of different networks, and elements of a
// set, have no order.
func words(listing string) string {
	lines := strings.Split(strings.NewReplacer(", ", "\n", ",\n", "\n", "elements = {", "\n", "}", "\n").Replace(listing), "\n")
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	slices.Sort(lines)
	return strings.TrimSpace(strings.Join(lines, "\n"))
}
