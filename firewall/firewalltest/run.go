package firewalltest

import (
	"context"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/firewall"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/op"
)

// Subject is a backend to be judged.
type Subject struct {
	Backend firewall.Backend
	Kinds   op.Kinds

	// Dump is a shell command that lists all rules of the machine it runs in,
	// and those of namespace box if there is one.
	Dump string

	// Harms are shell commands by which somebody else damages rules, by name.
	Harms map[string]string

	// Marked is the backend that lets in packets with mark 0x10 in the bits 0xf0.
	Marked firewall.Backend

	// Refuse is a shell command that puts a rule to drop forwarded packets from
	// the IPv4 address $1 where users put theirs, and Relent one that takes it away.
	Refuse, Relent string

	// Golden is the folder of testdata that holds the plans' texts.
	Golden string
}

// Run runs the whole suite. The plans' texts are compared with the files
// testdata/NAME.golden of the backend's package; with update they are written.
func Run(t *testing.T, s Subject, update bool) {
	t.Run("text", func(t *testing.T) { s.text(t, update) })
	t.Run("stored", s.stored)
	t.Run("said is done", s.saidIsDone)
	t.Run("twice", s.twice)
	t.Run("change", s.change)
	t.Run("mend", s.mend)
	t.Run("packets", s.packets)
}

// Update is the flag of a backend's test that writes its golden files anew.
func Update() *bool { return flag.Bool("update", false, "write the golden files anew") }

func (s Subject) text(t *testing.T, update bool) {
	for name, plan := range Plans(s.Backend) {
		path := filepath.Join("testdata", s.Golden, name+".golden")
		if update {
			if err := os.WriteFile(path, []byte(plan.String()), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), plan.String()); diff != "" {
			t.Errorf("plan %s differs from %s (-):\n%s", name, path, diff)
		}
	}
}

func (s Subject) stored(t *testing.T) {
	codec := op.NewCodec(s.Kinds)
	for name, plan := range Plans(s.Backend) {
		raw, err := codec.Marshal(plan)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		back, err := codec.Unmarshal(raw)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff(plan, back); diff != "" {
			t.Errorf("plan %s comes back changed:\n%s", name, diff)
		}
	}
}

// whole returns all plans, each with what must be done before it.
func (s Subject) whole() map[string]op.Plan {
	all := Plans(s.Backend)
	for name, plan := range all {
		switch name {
		case "base":
		case "resolver":
			all[name] = append(op.Plan{{Op: op.AddNetns{Name: "box"}}}, plan...)
		default:
			all[name] = append(s.Backend.Base(), plan...)
		}
	}
	ports := Ports()
	for name := range ports {
		network := "masquerade"
		if name == "ports-routed" {
			network = "routed"
		}
		plan := append(s.Backend.Base(), s.Backend.Network(Networks()[network])...)
		all[name] = append(plan, s.Backend.Ports("br-lab", ports[name])...)
	}
	return all
}

func (s Subject) saidIsDone(t *testing.T) {
	for name, plan := range s.whole() {
		t.Run(name, func(t *testing.T) {
			ctx := context.Background()
			done, said := nstest.New(t), nstest.New(t)
			x := op.Executor{Host: done.Host()}
			before := done.Sh(t, s.Dump)
			if err := x.Do(ctx, plan); err != nil {
				t.Fatal(err)
			}
			if err := x.Check(ctx, plan); err != nil {
				t.Errorf("after Do: %v", err)
			}
			want := done.Sh(t, s.Dump)
			if err := x.Undo(ctx, plan); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(before, done.Sh(t, s.Dump)); diff != "" {
				t.Errorf("after Undo there is:\n%s", diff)
			}
			said.Sh(t, plan.String())
			if diff := cmp.Diff(want, said.Sh(t, s.Dump)); diff != "" {
				t.Errorf("what is done (-) is not what is said (+):\n%s\n%s", diff, plan)
			}
			y := op.Executor{Host: said.Host()}
			if err := y.Check(ctx, plan); err != nil {
				t.Errorf("Check after the script: %v", err)
			}
			for range 2 {
				if err := y.Undo(ctx, plan); err != nil {
					t.Errorf("Undo after the script: %v", err)
				}
			}
			if diff := cmp.Diff(before, said.Sh(t, s.Dump)); diff != "" {
				t.Errorf("after Undo of the script there is:\n%s", diff)
			}
		})
	}
}

// twice does plans again, which is either refused or changes nothing.
func (s Subject) twice(t *testing.T) {
	ctx := context.Background()
	for name, network := range Networks() {
		t.Run(name, func(t *testing.T) {
			m := nstest.New(t)
			x := op.Executor{Host: m.Host()}
			base, plan := s.Backend.Base(), s.Backend.Network(network)
			if err := x.Do(ctx, append(base, plan...)); err != nil {
				t.Fatal(err)
			}
			before := m.Sh(t, s.Dump)
			for _, again := range []op.Plan{base, plan} {
				if err := x.Do(ctx, again); !errors.Is(err, linkspan.ErrConflict) {
					t.Errorf("doing it again: %v, want a conflict", err)
				}
			}
			if diff := cmp.Diff(before, m.Sh(t, s.Dump)); diff != "" {
				t.Errorf("doing it again changed the rules:\n%s", diff)
			}
			if err := x.Undo(ctx, append(base, plan...)); err != nil {
				t.Error(err)
			}
		})
	}
}
