package lab_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/lab"
	"github.com/linkspan/linkspan/op"
)

// TestDownAfterACrash stops at every step of a lab's building, as kill -9 would,
// and takes the rest down with a new engine.
func TestDownAfterACrash(t *testing.T) {
	m, e := engine(t)
	m.Sh(t, strangers)
	defer m.Sh(t, "ip netns del lab-lane; ip netns del lab-la; ip link del sw; nft delete table netdev linkspan-loss-sw")
	before := m.Dump(t)
	for stop := 1; ; stop++ {
		steps := 0
		crashed := make(chan struct{})
		e.Trace = func(ev op.Event) {
			if steps++; ev.Verb == op.Did && steps == stop {
				close(crashed)
				select {} // the process is gone: nothing is undone
			}
		}
		built := make(chan error, 1)
		go func() {
			_, err := e.Up(t.Context(), []byte(two), "")
			built <- err
		}()
		select {
		case err := <-built:
			if err != nil {
				t.Fatal(err)
			}
			e.Trace = nil
			downInSteps(t, m, e, before)
			if stop < 10 {
				t.Fatalf("only %d steps", stop)
			}
			return
		case <-crashed:
		}
		// A lock is a process's: the dead one's folder stands for it.
		survivor := &lab.Engine{Dir: filepath.Join(t.TempDir(), "labs"), Real: m.Host()}
		if err := os.CopyFS(survivor.Dir, os.DirFS(e.Dir)); err != nil {
			t.Fatal(err)
		}
		down(t, survivor)
		if after := m.Dump(t); after != before {
			t.Fatalf("a stop after step %d left:\n%s\nbefore:\n%s", stop, after, before)
		}
		e = &lab.Engine{Dir: filepath.Join(t.TempDir(), "labs"), Real: m.Host()}
	}
}

// strangers have names like those of the lab's things, and are nobody's.
const strangers = `ip link add sw type bridge; ip link set sw up; ip addr add 10.0.0.254/24 dev sw
ip netns add lab-lane; ip netns add lab-la
ip link add port0 master sw type veth peer name eth0 netns lab-lane; ip -n lab-lane addr add 10.0.0.1/24 dev eth0
nft 'table netdev linkspan-loss-sw { chain x { type filter hook ingress device "sw" priority 0; }; }'
`

// downInSteps takes a lab down, and stops after each step in turn.
func downInSteps(t *testing.T, m *nstest.Machine, e *lab.Engine, before string) {
	t.Helper()
	for stop := 1; ; stop++ {
		steps := 0
		crashed, done := make(chan struct{}), make(chan error, 1)
		dying := &lab.Engine{Dir: e.Dir, Real: e.Real, Trace: func(op.Event) {
			if steps++; steps == stop {
				close(crashed)
				select {}
			}
		}}
		go func() { done <- dying.Down(context.Background(), "lan") }()
		select {
		case err := <-done:
			must(t, err)
			if after := m.Dump(t); after != before || stop < 4 {
				t.Errorf("taken down in %d steps, the lab left something:\n%s", stop, nstest.Diff(before, after))
			}
			return
		case <-crashed:
		}
		survivor := &lab.Engine{Dir: filepath.Join(t.TempDir(), "labs"), Real: e.Real}
		must(t, os.CopyFS(survivor.Dir, os.DirFS(e.Dir)))
		down(t, survivor)
		if after := m.Dump(t); after != before {
			t.Fatalf("a stop after step %d of taking down left:\n%s", stop, nstest.Diff(before, after))
		}
		e = &lab.Engine{Dir: filepath.Join(t.TempDir(), "labs"), Real: e.Real}
		_, err := e.Up(t.Context(), []byte(two), "")
		must(t, err)
	}
}

// TestDownOfNothing: a crash before anything was stored leaves a folder at most.
func TestDownOfNothing(t *testing.T) {
	_, e := engine(t)
	must(t, os.MkdirAll(filepath.Join(e.Dir, "lan"), 0o755))
	must(t, os.WriteFile(filepath.Join(e.Dir, "lan", "lab.json.new"), []byte("{"), 0o600))
	down(t, e)
	if names, err := e.Names(); err != nil || len(names) > 0 {
		t.Errorf("there are still the labs %v, %v", names, err)
	}
}

// TestDownWhateverBecameOfIt takes down a lab that a student has been at.
func TestDownWhateverBecameOfIt(t *testing.T) {
	for _, spoil := range []string{
		"ip netns del lab-lan",
		"ip netns del lab-lan-b", // whose process stays
		"ip netns del lab-lan; ip netns del lab-lan-a; ip netns del lab-lan-b; ip netns del lab-lan-c",
		"ip -n lab-lan link del sw; ip -n lab-lan-a link del eth1",
		"ip -n lab-lan link set port0 name sw2; ip -n lab-lan link add port0 type bridge",
		"ip -n lab-lan link set port1 netns " + "$PPID" + " 2>/dev/null || true; ip -n lab-lan-a link set eth0 name eth7",
		"tc -n lab-lan-a qdisc add dev eth0 root handle 1: tbf rate 1mbit burst 4000 limit 20000",
	} {
		t.Run(spoil, func(t *testing.T) {
			m, e := engine(t)
			before := m.Dump(t)
			_, err := e.Up(t.Context(), []byte(two), "")
			must(t, err)
			m.Sh(t, spoil)
			down(t, e)
			down(t, e)
			var diff string
			nstest.Until(5*time.Second, func() bool { diff = nstest.Diff(before, m.Dump(t)); return diff == "" })
			if diff != "" {
				t.Errorf("the lab left something:\n%s", diff)
			}
		})
	}
}
