package op_test

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/op"
)

func cable(mtu int, disabled, icc bool, addrs ...string) op.Plan {
	plan := op.Plan{
		{Why: "switch", Op: op.AddBridge{Name: "br0", MAC: macBridge, MTU: mtu}},
		{Why: "room", Op: op.AddNetns{Name: "box"}},
		{Why: "cable", Op: op.AddVeth{Name: "v0", MAC: macNear, Master: "br0", Peer: "eth0", PeerMAC: macFar, PeerNS: "box", MTU: mtu}},
	}
	value := "0"
	if disabled {
		value = "1"
	} else {
		plan = append(plan, op.Step{Why: "ra", Op: op.SetSysctl{NS: "box", Key: "net/ipv6/conf/eth0/accept_ra", Value: "0"}})
	}
	plan = append(plan, op.Step{Why: "six", Op: op.SetSysctl{NS: "box", Key: "net/ipv6/conf/eth0/disable_ipv6", Value: value}})
	if !icc {
		plan = append(plan, op.Step{Why: "apart", Op: op.SetIsolated{Link: "v0"}})
	}
	for _, addr := range addrs {
		plan = append(plan, op.Step{Why: "address", Op: op.AddAddress{NS: "box", Link: "eth0", Address: netip.MustParsePrefix(addr)}})
	}
	return append(plan, op.Step{Why: "up", Op: op.SetUp{Link: "v0"}}, op.Step{Why: "up", Op: op.SetUp{NS: "box", Link: "eth0"}})
}

// six tells whether a cable has IPv6.
func six(plan op.Plan) bool {
	return slices.ContainsFunc(plan, func(s op.Step) bool { return s.Why == "ra" })
}

// For every two plans: old and the difference make what the new one would have
// made, the shell does the same with the difference's text, and its undo, from
// any step, makes what old did.
func TestDifference(t *testing.T) {
	plans := map[string]op.Plan{
		"plain":     cable(0, true, true, "10.77.0.2/24"),
		"dual":      cable(0, false, true, "10.77.0.2/24", "fd77::2/64"),
		"everybody": cable(1280, false, false, "fd77::2/64", "10.78.0.2/24"),
	}
	ctx := context.Background()
	for from, old := range plans {
		for to, fresh := range plans {
			if six(old) && !six(fresh) {
				continue // see Difference
			}
			t.Run(from+" to "+to, func(t *testing.T) {
				diff, err := op.Difference(old, fresh)
				if err != nil {
					t.Fatal(err)
				}
				if (len(diff) == 0) != (from == to) {
					t.Errorf("difference of %d steps:\n%s", len(diff), diff)
				}
				m := nstest.New(t)
				x := op.Executor{Host: m.Host()}
				do := func(plan op.Plan) {
					t.Helper()
					if err := x.Do(ctx, plan); err != nil {
						t.Fatal(err)
					}
				}
				undo := func(plan op.Plan) {
					t.Helper()
					if err := errors.Join(x.Undo(ctx, plan), m.Host().Reap()); err != nil {
						t.Error(err)
					}
				}
				do(fresh)
				want := m.Dump(t)
				undo(fresh)

				do(old)
				before := m.Dump(t)
				do(diff)
				if d := nstest.Diff(want, m.Dump(t)); d != "" {
					t.Errorf("made anew (-) and changed (+):\n%s", d)
				}
				if err := x.Check(ctx, fresh); err != nil {
					t.Errorf("the new plan's Check: %v", err)
				}
				undo(fresh)

				do(old)
				m.Sh(t, diff.String())
				if d := nstest.Diff(want, m.Dump(t)); d != "" {
					t.Errorf("made anew (-) and changed by the shell (+):\n%s", d)
				}
				undo(fresh)

				do(old)
				for stop := range len(diff) + 1 {
					do(diff[:stop])
					if err := x.Undo(ctx, diff); err != nil {
						t.Errorf("undo after %d steps: %v", stop, err)
					}
					if d := nstest.Diff(before, m.Dump(t)); d != "" {
						t.Errorf("there and back, after %d steps:\n%s", stop, d)
					}
				}
				undo(old)
			})
		}
	}
}

func TestDifferenceRefuses(t *testing.T) {
	bridge := func(name, mac string) op.Plan { return op.Plan{{Op: op.AddBridge{Name: name, MAC: mac}}} }
	for name, fresh := range map[string]op.Plan{"another name": bridge("br1", macBridge), "another MAC": bridge("br0", macNear), "nothing": nil} {
		if diff, err := op.Difference(bridge("br0", macBridge), fresh); !errors.Is(err, linkspan.ErrForbidden) {
			t.Errorf("%s: %v\n%s", name, err, cmp.Diff("", diff.String()))
		}
	}
}
