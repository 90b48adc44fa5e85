package firewalltest

import (
	"context"
	"maps"
	"slices"
	"testing"

	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/op"
)

// From the rules of each kind of network to those of others: by the change and
// by its text there is what the new kind has, and its undo leads back.
func (s Subject) change(t *testing.T) {
	ctx, backend := context.Background(), s.Backend
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
		text := m.Sh(t, s.Dump)
		must(x.Undo(ctx, plan))
		return text
	}
	must(x.Do(ctx, backend.Base()))
	dumps := make(map[string]string)
	for name, network := range Networks() {
		dumps[name] = dump(backend.Network(network))
	}
	names := slices.Sorted(maps.Keys(Networks()))
	for i, from := range names {
		for _, to := range []string{names[(i+1)%len(names)], names[(i+3)%len(names)]} {
			old, fresh := Networks()[from], Networks()[to]
			diff, err := op.Difference(backend.Network(old), backend.Network(fresh))
			must(err)
			must(x.Do(ctx, backend.Network(old)))
			for range 2 { // a change that is made already is made again in peace
				must(x.Do(ctx, diff))
			}
			if d := nstest.Diff(dumps[to], m.Sh(t, s.Dump)); d != "" {
				t.Errorf("%s to %s (- made anew, + changed):\n%s", from, to, d)
			}
			must(x.Check(ctx, diff))
			must(x.Undo(ctx, diff))
			if d := nstest.Diff(dumps[from], m.Sh(t, s.Dump)); d != "" {
				t.Errorf("%s to %s and back:\n%s", from, to, d)
			}
			m.Sh(t, diff.String())
			if d := nstest.Diff(dumps[to], m.Sh(t, s.Dump)); d != "" {
				t.Errorf("%s to %s by the shell:\n%s", from, to, d)
			}
			must(x.Undo(ctx, backend.Network(fresh)))
		}
	}
	must(x.Undo(ctx, backend.Base()))
}
