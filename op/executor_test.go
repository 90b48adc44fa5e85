package op_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/op"
)

// sample wires a sandbox to a bridge: every kind of op is in it.
func sample() op.Plan {
	prefix := netip.MustParsePrefix
	return op.Plan{
		{Why: "the host forwards", Op: op.SetSysctl{Key: "net/ipv4/ip_forward", Value: "1", Was: "0"}},
		{Why: "a switch", Op: op.AddBridge{Name: "br0", MAC: macBridge}},
		{Why: "quiet", Op: op.SetSysctl{Key: "net/ipv6/conf/br0/disable_ipv6", Value: "1"}},
		{Why: "a gateway", Op: op.AddAddress{Link: "br0", Address: prefix("10.77.0.1/24")}},
		{Why: "the switch is on", Op: op.SetUp{Link: "br0"}},
		{Why: "the way to another net", Op: op.AddRoute{To: prefix("192.0.2.0/24"), Via: netip.MustParseAddr("10.77.0.2"), Link: "br0"}},
		{Why: "a stack", Op: op.AddNetns{Name: "box"}},
		{Why: "itself", Op: op.SetUp{NS: "box", Link: "lo"}},
		{Why: "its names", Op: op.WriteFile{Path: "/run/work/box/hosts", Text: "127.0.0.1\tlocalhost\n"}},
		{Why: "a cable", Op: op.AddVeth{Name: "v0", MAC: macNear, Master: "br0", Peer: "eth0", PeerMAC: macFar, PeerNS: "box"}},
		{Why: "no neighbours", Op: op.SetIsolated{Link: "v0"}},
		{Why: "an address", Op: op.AddAddress{NS: "box", Link: "eth0", Address: prefix("10.77.0.2/24")}},
		{Why: "its end is on", Op: op.SetUp{NS: "box", Link: "eth0"}},
		{Why: "the way out", Op: op.AddRoute{NS: "box", To: prefix("0.0.0.0/0"), Via: netip.MustParseAddr("10.77.0.1"), Link: "eth0"}},
		{Why: "our end is on", Op: op.SetUp{Link: "v0"}},
	}
}

var errStop = errors.New("stopped by the test")

// stopAt returns an executor that fails in place of step i.
func stopAt(h *kernel.Host, i int) *op.Executor {
	return &op.Executor{Host: h, Before: func(at int, _ op.Step) error {
		if at == i {
			return errStop
		}
		return nil
	}}
}

func TestPlanIsDoneAndSaid(t *testing.T) {
	plan, ctx, a := sample(), t.Context(), nstest.New(t)
	before := world(t, a)
	x := &op.Executor{Host: a.Host()}
	ok(t, x.Do(ctx, plan))
	if err := x.Check(ctx, plan); err != nil {
		t.Errorf("Check after Do: %v", err)
	}
	a.Sh(t, "ping -c1 -W2 10.77.0.2")
	done := world(t, a)
	ok(t, x.Undo(ctx, plan))
	if diff := settles(t, a, before); diff != "" {
		t.Errorf("Undo left a trace:\n%s", diff)
	}
	ok(t, x.Undo(ctx, plan))

	b := nstest.New(t)
	b.Sh(t, plan.String())
	b.Sh(t, "ping -c1 -W2 10.77.0.2")
	if diff := nstest.Diff(done, world(t, b)); diff != "" {
		t.Errorf("what is said is not what is done (- done, + said):\n%s", diff)
	}
	ok(t, (&op.Executor{Host: b.Host()}).Undo(ctx, plan))
	if diff := settles(t, b, before); diff != "" {
		t.Errorf("Undo of what the script did left a trace:\n%s", diff)
	}
}

// Whatever step fails, nothing is left, and the error says which it was.
func TestFailureAtEveryStep(t *testing.T) {
	plan, m := sample(), nstest.New(t)
	before := world(t, m)
	for i, step := range plan {
		err := stopAt(m.Host(), i).Do(t.Context(), plan)
		if want := fmt.Sprintf("step %d of %d", i+1, len(plan)); !errors.Is(err, errStop) || !strings.Contains(err.Error(), want) {
			t.Errorf("failing at step %d: %v; want the cause and %q", i+1, err, want)
		}
		if diff := settles(t, m, before); diff != "" {
			t.Errorf("failing at step %d, %s, left a trace:\n%s", i+1, step.Op, diff)
		}
	}
}

// The process dies before step i; the next one finds the stored plan and undoes
// all of it, or does all of it again after that.
func TestCrashBeforeEveryStep(t *testing.T) {
	plan, m, codec := sample(), nstest.New(t), op.NewCodec()
	raw, err := codec.Marshal(plan)
	ok(t, err)
	before := world(t, m)
	for i := range len(plan) + 1 {
		first, err := kernel.OpenAt(kernel.Pin(m.Name()))
		ok(t, err)
		for _, step := range plan[:i] {
			ok(t, step.Op.Do(t.Context(), first))
		}
		stored, err := codec.Unmarshal(raw)
		ok(t, err)
		second, err := kernel.OpenAt(kernel.Pin(m.Name()))
		ok(t, err)
		if err := (&op.Executor{Host: second}).Undo(t.Context(), stored); err != nil {
			t.Errorf("stopped before step %d, undoing all: %v", i+1, err)
		}
		ok(t, second.Close())
		if diff := settles(t, m, before); diff != "" {
			t.Errorf("stopped before step %d, undoing all left a trace:\n%s", i+1, diff)
		}
		ok(t, first.Close())
	}
}

// The undoing process may die as well.
func TestCrashDuringUndo(t *testing.T) {
	plan, m := sample(), nstest.New(t)
	x := &op.Executor{Host: m.Host()}
	before := world(t, m)
	for i := range plan {
		ok(t, x.Do(t.Context(), plan))
		ok(t, x.Undo(t.Context(), plan[i:]))
		ok(t, x.Undo(t.Context(), plan))
		if diff := settles(t, m, before); diff != "" {
			t.Errorf("undone from step %d, then all: a trace is left:\n%s", i+1, diff)
		}
	}
}

// A stranger in the way of a late step: all is taken back but the stranger.
func TestStrangerInTheWay(t *testing.T) {
	m := nstest.New(t)
	m.Sh(t, "ip link add v0 type bridge")
	before := world(t, m)
	err := (&op.Executor{Host: m.Host()}).Do(t.Context(), sample())
	if !errors.Is(err, linkspan.ErrConflict) || !strings.Contains(err.Error(), "v0") {
		t.Errorf("Do = %v, want a conflict about v0", err)
	}
	if diff := settles(t, m, before); diff != "" {
		t.Errorf("a trace is left, or the stranger is not:\n%s", diff)
	}
}

// fake is an op that acts on nothing and notes what it was asked.
type fake struct {
	name string
	log  *[]string
	fail string // the verb that fails
}

func (o fake) note(verb string, ctx context.Context) error {
	*o.log = append(*o.log, verb+" "+o.name)
	if verb == "undo" && ctx.Err() != nil {
		return fmt.Errorf("%s was cancelled: %w", o.name, ctx.Err())
	}
	if verb == o.fail {
		return fmt.Errorf("%s will not %s", o.name, verb)
	}
	return nil
}

func (o fake) Do(ctx context.Context, _ *kernel.Host) error    { return o.note("do", ctx) }
func (o fake) Undo(ctx context.Context, _ *kernel.Host) error  { return o.note("undo", ctx) }
func (o fake) Check(ctx context.Context, _ *kernel.Host) error { return o.note("check", ctx) }
func (o fake) String() string                                  { return "fake " + o.name + "\nmore" }

// carrier is a fake with which another one goes.
type carrier struct {
	fake
	with string
}

func (o carrier) Bears(other op.Op) bool {
	f, ok := other.(fake)
	return ok && f.name == o.with
}

// What goes with an earlier step is not undone by itself; what only a later one
// would take along is.
func TestUndoOfBorne(t *testing.T) {
	var log []string
	plan := fakes(&log, nil)
	plan[1].Op = carrier{plan[1].Op.(fake), "c"}
	if err := (&op.Executor{}).Undo(t.Context(), plan); err != nil || strings.Join(log, ", ") != "undo b, undo a" {
		t.Errorf("undone: %q, %v", log, err)
	}
	log = nil
	plan[1].Op = carrier{plan[1].Op.(carrier).fake, "a"}
	if err := (&op.Executor{}).Undo(t.Context(), plan); err != nil || strings.Join(log, ", ") != "undo c, undo b, undo a" {
		t.Errorf("undone: %q, %v", log, err)
	}
}

// A pair of links takes along that its ends are up, a namespace that its loopback
// is; neither takes along what somebody else's link or namespace has.
func TestBears(t *testing.T) {
	pair, box := op.AddVeth{Name: "v0", Peer: "eth0", PeerNS: "box"}, op.AddNetns{Name: "box"}
	for _, c := range []struct {
		other     op.Op
		pair, box bool
	}{
		{op.SetUp{Link: "v0"}, true, false},
		{op.SetUp{NS: "box", Link: "eth0"}, true, false},
		{op.SetUp{NS: "box", Link: "v0"}, false, false},
		{op.SetUp{Link: "eth0"}, false, false},
		{&op.SetUp{NS: "box", Link: "lo"}, false, true},
		{op.SetUp{NS: "other", Link: "lo"}, false, false},
		{op.SetUp{Link: "lo"}, false, false},
		{op.AddAddress{NS: "box", Link: "eth0"}, false, false}, // it would be seen until the pair is deleted
	} {
		if pair.Bears(c.other) != c.pair || box.Bears(c.other) != c.box {
			t.Errorf("%s: goes with the pair %v, with the namespace %v", c.other, pair.Bears(c.other), box.Bears(c.other))
		}
	}
}

func fakes(log *[]string, fail map[string]string) op.Plan {
	var plan op.Plan
	for _, name := range []string{"a", "b", "c"} {
		plan = append(plan, op.Step{Why: "because\nof " + name, Op: fake{name, log, fail[name]}})
	}
	return plan
}

func TestExecutorOrder(t *testing.T) {
	for _, c := range []struct {
		name string
		fail map[string]string
		run  func(*op.Executor, op.Plan) error
		want string
		errs []string
	}{
		{"do", nil, func(x *op.Executor, p op.Plan) error { return x.Do(t.Context(), p) }, "do a, do b, do c", nil},
		{"undo", nil, func(x *op.Executor, p op.Plan) error { return x.Undo(t.Context(), p) }, "undo c, undo b, undo a", nil},
		{"check", nil, func(x *op.Executor, p op.Plan) error { return x.Check(t.Context(), p) }, "check a, check b, check c", nil},
		{"do fails", map[string]string{"c": "do"}, func(x *op.Executor, p op.Plan) error { return x.Do(t.Context(), p) }, "do a, do b, do c, undo b, undo a", []string{"c will not do", "step 3 of 3: fake c …"}},
		{
			"and so does its undoing",
			map[string]string{"c": "do", "b": "undo"},
			func(x *op.Executor, p op.Plan) error { return x.Do(t.Context(), p) },
			"do a, do b, do c, undo b, undo a",
			[]string{"c will not do", "b will not undo", "undoing what was done before"},
		},
		{
			"undo goes on",
			map[string]string{"c": "undo", "a": "undo"},
			func(x *op.Executor, p op.Plan) error { return x.Undo(t.Context(), p) },
			"undo c, undo b, undo a",
			[]string{"a will not undo", "c will not undo"},
		},
		{
			"check goes on",
			map[string]string{"c": "check", "a": "check"},
			func(x *op.Executor, p op.Plan) error { return x.Check(t.Context(), p) },
			"check a, check b, check c",
			[]string{"a will not check", "c will not check"},
		},
		{"cancelled before", nil, func(x *op.Executor, p op.Plan) error {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			return x.Do(ctx, p)
		}, "", []string{"context canceled"}},
		{"cancelled on the way", nil, func(x *op.Executor, p op.Plan) error {
			ctx, cancel := context.WithCancel(t.Context())
			x.Before = func(i int, _ op.Step) error {
				if i == 1 {
					cancel()
				}
				return nil
			}
			return x.Do(ctx, p)
		}, "do a, do b, undo b, undo a", []string{"context canceled"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var log, traced []string
			x := &op.Executor{Trace: func(e op.Event) {
				traced = append(traced, fmt.Sprintf("%s %s", e.Verb, e.Step.Op.(fake).name))
				if failed := e.Step.Op.(fake).fail == string(e.Verb); failed != (e.Err != nil) {
					t.Errorf("the trace of %s %s has error %v", e.Verb, e.Step.Op.(fake).name, e.Err)
				}
			}}
			err := c.run(x, fakes(&log, c.fail))
			if got := strings.Join(log, ", "); got != c.want {
				t.Errorf("what was done is %q, want %q", got, c.want)
			}
			if !strings.HasPrefix(c.want, "check") && !slices.Equal(traced, log) {
				t.Errorf("what was traced is %q, what was done %q", traced, log)
			}
			if (err != nil) != (c.errs != nil) {
				t.Errorf("the error is %v", err)
			}
			for _, want := range c.errs {
				if err != nil && !strings.Contains(err.Error(), want) {
					t.Errorf("the error lacks %q: %v", want, err)
				}
			}
		})
	}
}

func TestPlanText(t *testing.T) {
	const want = "# because\n# of a\nfake a\nmore\n\n# because\n# of b\nfake b\nmore\n\n# because\n# of c\nfake c\nmore\n"
	if got := fakes(nil, nil).String(); got != want {
		t.Errorf("the plan reads\n%s\nwant\n%s", got, want)
	}
}

// Endpoints of one network come and go side by side.
func TestPlansInParallel(t *testing.T) {
	m := nstest.New(t)
	before := world(t, m)
	x := &op.Executor{Host: m.Host()}
	ok(t, x.Do(t.Context(), sample()[1:5]))
	var group sync.WaitGroup
	for i := range 20 {
		group.Go(func() {
			ns, near := fmt.Sprintf("box%d", i), fmt.Sprintf("v%d", i)
			plan := op.Plan{
				{Op: op.AddNetns{Name: ns}},
				{Op: op.AddVeth{Name: near, MAC: fmt.Sprintf("02:42:00:00:00:%02x", i), Master: "br0", Peer: "eth0", PeerMAC: fmt.Sprintf("02:42:00:00:01:%02x", i), PeerNS: ns}},
				{Op: op.AddAddress{NS: ns, Link: "eth0", Address: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 77, 1, byte(i)}), 16)}},
				{Op: op.SetUp{NS: ns, Link: "eth0"}},
				{Op: op.SetUp{Link: near}},
			}
			for range 3 {
				for _, act := range []func(context.Context, op.Plan) error{x.Do, x.Check, x.Undo} {
					if err := act(t.Context(), plan); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	group.Wait()
	ok(t, x.Undo(t.Context(), sample()[1:5]))
	if diff := settles(t, m, before); diff != "" {
		t.Errorf("a trace is left:\n%s", diff)
	}
}
