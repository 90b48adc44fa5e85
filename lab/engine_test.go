package lab_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/lab"
	"github.com/linkspan/linkspan/op"
)

func TestMain(m *testing.M) { nstest.Main(m) }

// two is two nodes on a switch, and a third behind one of them.
const two = `name: lan
switches:
  sw: {addresses: [10.0.0.254/24]}
nodes:
  a:
    addresses: {eth0: [10.0.0.1/24], eth1: [10.0.1.1/24]}
    sysctls: {net.ipv4.ip_forward: "1"}
  b:
    addresses: {eth0: [10.0.0.2/24]}
    routes: [{to: 10.0.1.0/24, via: 10.0.0.1}]
    run: exec sleep 1000
  c:
    addresses: {eth0: [10.0.1.2/24]}
    routes: [{to: 0.0.0.0/0, via: 10.0.1.1}]
links:
  - [a:eth0, sw]
  - [b:eth0, sw]
  - [a:eth1, c:eth0]
`

func engine(t *testing.T) (*nstest.Machine, *lab.Engine) {
	t.Helper()
	m := nstest.New(t)
	return m, &lab.Engine{Dir: filepath.Join(t.TempDir(), "labs"), Real: m.Host()}
}

func up(t *testing.T, e *lab.Engine, text string) {
	t.Helper()
	if _, err := e.Up(t.Context(), []byte(text), ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { down(t, e) })
}

func down(t *testing.T, e *lab.Engine) {
	t.Helper()
	if err := e.Down(t.Context(), "lan"); err != nil { //nolint:usetesting // it is over before the context ends
		t.Error(err)
	}
}

// run runs a command in a node.
func run(t *testing.T, e *lab.Engine, node string, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	cmd := lab.Command(node, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := e.Exec("lan", node, cmd); err != nil {
		t.Fatal(err)
	}
	err := cmd.Wait()
	return out.String(), err
}

func TestLab(t *testing.T) {
	m, e := engine(t)
	before := m.Dump(t)
	if _, err := e.Up(t.Context(), []byte(two), ""); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ node, target string }{{"a", "10.0.0.2"}, {"b", "10.0.1.2"}, {"c", "10.0.0.2"}, {"b", "10.0.0.254"}} {
		if out, err := run(t, e, test.node, "ping", "-c1", "-W5", test.target); err != nil {
			t.Errorf("%s does not reach %s:\n%s", test.node, test.target, out)
		}
	}
	if out, err := run(t, e, "a", "sh", "-c", "hostname; ls /sys/class/net | tr '\\n' ' '; ls /sys/fs/cgroup | wc -l"); err != nil || !strings.HasPrefix(out, "a\neth0 eth1 lo ") || strings.HasSuffix(out, " 0\n") {
		t.Errorf("node a sees %q, %v", out, err)
	}
	if status, err := e.Status(t.Context(), "lan"); err != nil || status.Difference != nil || len(status.Nodes) != 3 || len(status.Nodes[1].Processes) != 1 {
		t.Errorf("status %+v, err %v", status, err)
	}
	if _, err := e.Up(t.Context(), []byte(two), ""); !errors.Is(err, linkspan.ErrConflict) || !strings.Contains(err.Error(), "lab lan is up already") {
		t.Errorf("up twice: %v", err)
	}
	m.Sh(t, "ip -n lab-lan-a link set eth0 down")
	if status, err := e.Status(t.Context(), "lan"); err != nil || status.Difference == nil || !strings.Contains(status.Difference.Error(), "link eth0 is down") {
		t.Errorf("status does not show what was changed: %+v, %v", status, err)
	}
	if err := e.Reset(t.Context(), "lan"); err != nil {
		t.Fatal(err)
	}
	if out, err := run(t, e, "c", "ping", "-c1", "-W5", "10.0.0.2"); err != nil {
		t.Errorf("after a reset c does not reach b:\n%s", out)
	}
	for range 2 {
		down(t, e)
	}
	if after := m.Dump(t); after != before {
		t.Errorf("the lab left something:\n%s\nbefore:\n%s", after, before)
	}
}

func TestCables(t *testing.T) {
	_, e := engine(t)
	up(t, e, two)
	for _, near := range []string{"b:eth0", "c:eth0"} {
		node, face, _ := strings.Cut(near, ":")
		carrier := func() string {
			out, _ := run(t, e, node, "cat", "/sys/class/net/"+face+"/carrier")
			return strings.TrimSpace(out)
		}
		if err := e.Cut(t.Context(), "lan", near); err != nil {
			t.Fatal(err)
		}
		if !nstest.Until(5*time.Second, func() bool { return carrier() == "0" }) {
			t.Errorf("%s has carrier %q on a cut cable", near, carrier())
		}
		if err := e.Restore(t.Context(), "lan", near); err != nil {
			t.Fatal(err)
		}
		if !nstest.Until(5*time.Second, func() bool { return carrier() == "1" }) {
			t.Errorf("%s has carrier %q on a mended cable", near, carrier())
		}
	}
	if err := e.Cut(t.Context(), "lan", "b:eth7"); !errors.Is(err, linkspan.ErrNotFound) || !strings.Contains(err.Error(), "there are a:eth0, sw") {
		t.Errorf("cut of no cable: %v", err)
	}
}

// TestHostileHost puts a lab up where every forwarded packet is dropped and
// bridges ask iptables, as a host with Docker on it does.
func TestHostileHost(t *testing.T) {
	m, e := engine(t)
	m.Sh(t, "nft add table ip filter; nft 'add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }'")
	defer m.Sh(t, "nft delete table ip filter")
	up(t, e, two)
	if out, err := run(t, e, "c", "ping", "-c1", "-W5", "10.0.0.2"); err != nil {
		t.Errorf("c does not reach b:\n%s", out)
	}
}

// TestDownAfterACrash stops at every step of a lab's building, as kill -9 would,
// and takes the rest down with a new engine.
func TestDownAfterACrash(t *testing.T) {
	m, e := engine(t)
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
			down(t, e)
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

func TestForeignNamespaceIsSpared(t *testing.T) {
	m, e := engine(t)
	m.Sh(t, "ip netns add lab-lan-b")
	defer m.Sh(t, "ip netns del lab-lan-b")
	if _, err := e.Up(t.Context(), []byte(two), ""); !errors.Is(err, linkspan.ErrConflict) || !strings.Contains(err.Error(), "lab-lan-b is there already") {
		t.Errorf("err = %v", err)
	}
	down(t, e)
	m.Sh(t, "ip -n lab-lan-b link show lo")
}

func TestNameOf(t *testing.T) {
	_, e := engine(t)
	path := filepath.Join(t.TempDir(), "lan.yaml")
	if err := os.WriteFile(path, []byte(two), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Up(t.Context(), []byte(two), path); err != nil {
		t.Fatal(err)
	}
	defer down(t, e)
	// The file may have been edited since, or be gone.
	if err := os.WriteFile(path, []byte("name: ["), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, arg := range []string{"lan", path} {
		if name, err := e.NameOf(arg); err != nil || name != "lan" {
			t.Errorf("NameOf(%s) = %q, %v", arg, name, err)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if name, err := e.NameOf(path); err != nil || name != "lan" {
		t.Errorf("NameOf of a file that is gone = %q, %v", name, err)
	}
	if _, err := e.NameOf("/no/where.yaml"); !errors.Is(err, linkspan.ErrNotFound) {
		t.Errorf("err = %v", err)
	}
}

// BenchmarkFifty is a lab of 50 nodes and 100 cables.
func BenchmarkFifty(b *testing.B) {
	m := nstest.New(b)
	e := &lab.Engine{Dir: filepath.Join(b.TempDir(), "labs"), Real: m.Host()}
	var text strings.Builder
	text.WriteString("name: lan\nswitches: {s: {}, r: {}}\nnodes:\n")
	for i := range 50 {
		fmt.Fprintf(&text, "  n%d: {addresses: {eth0: [10.0.0.%d/24], eth1: [10.0.1.%d/24]}}\n", i, i+1, i+1)
	}
	text.WriteString("links:\n")
	for i := range 50 {
		fmt.Fprintf(&text, "  - [n%d:eth0, s]\n  - [n%d:eth1, r]\n", i, i)
	}
	var ups, downs time.Duration
	for b.Loop() {
		start := time.Now()
		if _, err := e.Up(b.Context(), []byte(text.String()), ""); err != nil {
			b.Fatal(err)
		}
		ups += time.Since(start)
		start = time.Now()
		if err := e.Down(b.Context(), "lan"); err != nil {
			b.Fatal(err)
		}
		downs += time.Since(start)
	}
	b.ReportMetric(ups.Seconds()/float64(b.N), "s/up")
	b.ReportMetric(downs.Seconds()/float64(b.N), "s/down")
}
