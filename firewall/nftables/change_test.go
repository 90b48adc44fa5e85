package nftables_test

import (
	"context"
	"testing"

	"github.com/linkspan/linkspan/firewall/firewalltest"
	"github.com/linkspan/linkspan/firewall/nftables"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/op"
)

// From the rules of each kind of network to those of each other: by the change
// and by its text there is what the new kind has, and its undo leads back.
func TestChange(t *testing.T) {
	ctx := context.Background()
	var backend nftables.Backend
	m := nstest.New(t)
	x := op.Executor{Host: m.Host()}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	dump := func(plan op.Plan) string {
		must(x.Do(ctx, plan))
		text := m.Dump(t)
		must(x.Undo(ctx, plan))
		return text
	}
	must(x.Do(ctx, backend.Base()))
	dumps := make(map[string]string)
	for name, network := range firewalltest.Networks() {
		dumps[name] = dump(backend.Network(network))
	}
	for from, old := range firewalltest.Networks() {
		for to, fresh := range firewalltest.Networks() {
			if from == to {
				continue
			}
			diff, err := op.Difference(backend.Network(old), backend.Network(fresh))
			must(err)
			must(x.Do(ctx, backend.Network(old)))
			for range 2 { // a change that is made already is made again in peace
				must(x.Do(ctx, diff))
			}
			if d := nstest.Diff(dumps[to], m.Dump(t)); d != "" {
				t.Errorf("%s to %s (- made anew, + changed):\n%s", from, to, d)
			}
			must(x.Check(ctx, diff))
			must(x.Undo(ctx, diff))
			if d := nstest.Diff(dumps[from], m.Dump(t)); d != "" {
				t.Errorf("%s to %s and back:\n%s", from, to, d)
			}
			m.Sh(t, diff.String())
			if d := nstest.Diff(dumps[to], m.Dump(t)); d != "" {
				t.Errorf("%s to %s by the shell:\n%s", from, to, d)
			}
			must(x.Undo(ctx, backend.Network(fresh)))
		}
	}
	must(x.Undo(ctx, backend.Base()))
}
