package lesson

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/lab"
	"github.com/linkspan/linkspan/op"
)

// hostile is what a machine with Docker on it does to bridges and to what is
// forwarded, and a bridge of its own.
const hostile = `iptables -P FORWARD DROP
if [ -e /proc/sys/net/bridge/bridge-nf-call-iptables ]; then sysctl -qw net.bridge.bridge-nf-call-iptables=1; fi
ip link add docker0 type bridge`

// cure is how a fault is mended by the one means or the other.
type cure struct {
	lesson string
	task   string // words of its text
	hint   string // what the check says before
	ip     string
	brctl  string // where bridge-utils can say it
	api    func(do *op.Executor, fill func(string) string) error
}

// does makes a plan of ops whose strings may hold words of the seed.
func does(make func(fill func(string) string) op.Op) func(*op.Executor, func(string) string) error {
	return func(x *op.Executor, fill func(string) string) error {
		return x.Do(context.Background(), op.Plan{{Op: make(fill)}})
	}
}

func cures() []cure {
	type words = func(string) string
	return []cure{
		{
			lesson: "cable", task: "neither has changed its address", hint: "link eth0 of node {B} is down",
			ip:  "ip -n {LAB}-{B} link set eth0 up",
			api: does(func(fill words) op.Op { return op.SetUp{NS: fill("{LAB}-{B}"), Link: "eth0"} }),
		},
		{
			lesson: "cable", task: "both ends are up", hint: "link eth0 of node {A} and of node {B} have the same MAC",
			ip: "ip -n {LAB}-{B} link set eth0 address 02:00:00:00:00:07",
			api: does(func(fill words) op.Op {
				return op.SetMAC{NS: fill("{LAB}-{B}"), Link: "eth0", MAC: "02:00:00:00:00:09"}
			}),
		},
		{
			lesson: "switch", task: "{X} is cut off from the others. Find", hint: "link p{I} is no port of bridge br0",
			ip:    "ip link set p{I} master br0",
			brctl: "brctl addif br0 p{I}",
			api:   does(func(fill words) op.Op { return op.PlugIn{Link: fill("p{I}"), Bridge: "br0"} }),
		},
		{
			lesson: "switch", task: "every port is in br0 and up", hint: "port p{I} of bridge br0 is in state disabled",
			ip:    "ip link set p{I} down; ip link set p{I} up",
			brctl: "brctl delif br0 p{I}; brctl addif br0 p{I}",
			api: func(x *op.Executor, fill words) error {
				plug := op.Plan{{Op: op.PlugIn{Link: fill("p{I}"), Bridge: "br0"}}}
				return errors.Join(x.Undo(context.Background(), plug), x.Do(context.Background(), plug))
			},
		},
		{
			lesson: "out", task: "No rule has changed", hint: "net.ipv4.ip_forward of the lab's machine is 0",
			ip:  "sysctl -qw net.ipv4.ip_forward=1",
			api: does(func(words) op.Op { return op.SetSysctl{Key: "net/ipv4/ip_forward", Value: "1"} }),
		},
		{
			lesson: "in", task: "though the request reaches {A}", hint: "node {C} cannot connect to {FAR}.254:{PORT}",
			ip: "ip -n {LAB}-{A} route add default via {NET}.254",
			api: does(func(fill words) op.Op {
				return op.AddRoute{NS: fill("{LAB}-{A}"), To: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr(fill("{NET}.254")), Link: "eth0"}
			}),
		},
	}
}

// TestOnAHostileHost injects six faults on a host that drops what is forwarded,
// mends each by ip, by brctl and by the API, with an undo before each, and leaves
// the host as it was.
func TestOnAHostileHost(t *testing.T) {
	m, c := course(t)
	m.Sh(t, hostile)
	t.Cleanup(func() { m.Sh(t, "ip link del docker0") })
	before := m.Dump(t)
	for _, cure := range cures() {
		t.Run(cure.lesson+" "+cure.task, func(t *testing.T) {
			const seed = Seed("ada")
			l, err := Find(cure.lesson)
			if err != nil {
				t.Fatal(err)
			}
			number := 1 + slices.IndexFunc(l.steps(seed), func(step task) bool { return strings.Contains(step.text, cure.task) })
			p, err := c.StartAt(t.Context(), l.Name, seed, number)
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				// The lab is not asked first: its processes are killed.
				// One may end beside the others before its turn comes.
				m.Sh(t, "for n in $(ip netns | grep -o 'lab-[^ ]*'); do for p in $(ip netns pids $n); do kill -9 $p 2>/dev/null || test ! -d /proc/$p; done; done")
				if err := c.Stop(t.Context(), l.Name); err != nil {
					t.Error(err)
				}
				if diff := cmp.Diff(before, m.Dump(t)); diff != "" {
					t.Errorf("the host is not as it was (- before, + after):\n%s", diff)
				}
			}()
			fill := func(text string) string { return seed.fill(l.Name, text) }
			if shown := m.Sh(t, "ip netns exec "+fill("{LAB}-{A}")+" brctl show"); shown != "" {
				t.Errorf("brctl show in a node lists bridges that are not its own:\n%s", shown)
			}
			means := map[string]func() error{
				"ip":  func() error { return c.script(p, cure.ip) },
				"api": func() error { return c.byAPI(l.Name, func(x *op.Executor) error { return cure.api(x, fill) }) },
			}
			if cure.brctl != "" {
				means["brctl"] = func() error { return c.script(p, cure.brctl) }
			}
			for name, mend := range means {
				if err := c.Check(t.Context(), l.Name, ""); !errors.Is(err, linkspan.ErrInvalid) || !strings.Contains(err.Error(), fill(cure.hint)) {
					t.Errorf("before %s: %v, want a hint with %q", name, err, fill(cure.hint))
				}
				if err := mend(); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				if err := c.Check(t.Context(), l.Name, ""); err != nil {
					t.Errorf("after %s: %v", name, err)
				}
				if err := c.Undo(t.Context(), l.Name); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// byAPI lets a program of the learner's own work on a lab's machine.
func (c Course) byAPI(name string, act func(*op.Executor) error) error {
	root, err := kernel.OpenAt(kernel.Pin(lab.Root(name)))
	if err != nil {
		return err
	}
	return errors.Join(act(&op.Executor{Host: root}), root.Close())
}

// TestStudentsOwnFile is the same host, and a lab of the student's own: the first
// ping works, and the commands that the lab prints make the same on a machine
// that has nothing.
func TestStudentsOwnFile(t *testing.T) {
	const text = `name: mine
switches: {sw: {addresses: [10.1.0.254/24]}}
nodes:
  a: {addresses: {eth0: [10.1.0.1/24]}, routes: [{to: 0.0.0.0/0, via: 10.1.0.254}]}
  b: {addresses: {eth0: [10.1.0.2/24]}}
links: [["a:eth0", sw], ["b:eth0", sw]]
`
	m, c := course(t)
	m.Sh(t, hostile)
	t.Cleanup(func() { m.Sh(t, "ip link del docker0") })
	before := m.Dump(t)
	if _, err := c.Labs.Up(t.Context(), []byte(text), ""); err != nil {
		t.Fatal(err)
	}
	m.Sh(t, "ip netns exec lab-mine-a ping -c1 -W5 10.1.0.2")
	pinned := []string{"lab-mine", "lab-mine-a", "lab-mine-b"}
	want := strings.TrimPrefix(m.Dump(t, pinned...), before)
	if err := c.Labs.Down(t.Context(), "mine"); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, m.Dump(t)); diff != "" {
		t.Errorf("the host is not as it was (- before, + after):\n%s", diff)
	}

	script, err := lab.Explain([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	outer, inner, found := strings.Cut(script, "nsenter --net="+kernel.Pin("lab-mine")+" sh\n")
	if !found {
		t.Fatalf("the script does not say where it is done:\n%s", script)
	}
	fresh := nstest.New(t)
	bare := fresh.Dump(t)
	fresh.Sh(t, outer+"\nnsenter --net="+kernel.Pin("lab-mine")+" sh -eu <<'LAB'\n"+inner+"LAB\n")
	got := strings.TrimPrefix(fresh.Dump(t, pinned...), bare)
	if !strings.HasPrefix(want, "== lab-mine ==\n") {
		t.Errorf("the lab has changed the host:\n%s", want)
	}
	if diff := nstest.Diff(want, got); diff != "" {
		t.Errorf("what the printed commands make is not what the lab made:\n%s", diff)
	}
	fresh.Sh(t, "for n in "+strings.Join(pinned, " ")+"; do ip netns del $n; done")
}
