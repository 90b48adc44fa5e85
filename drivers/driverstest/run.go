package driverstest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/drivers"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/op"
)

// patience is how long the reaper may take to follow.
const patience = 3 * time.Second

// errStop takes the place of a step.
var errStop = errors.New("stopped by the test")

// Run tests a driver with the records of a fixture. The test binary must have
// been entered through nstest.Main.
func Run(t *testing.T, f Fixture) {
	t.Helper()
	if f.Codec == nil {
		f.Codec = op.NewCodec()
	}
	s := suite{Fixture: f, plans: f.plan(t, t.TempDir())}
	for _, property := range []struct {
		name string
		test func(*testing.T)
	}{
		{"PlansArePure", s.pure},
		{"PlansCanBeStored", s.stored},
		{"SaidIsDone", s.saidIsDone},
		{"UndoneIsGone", s.undoneIsGone},
		{"FailureAtEveryStep", s.failureAtEveryStep},
		{"CrashBeforeEveryStep", s.crashBeforeEveryStep},
		{"CrashDuringUndo", s.crashDuringUndo},
		{"StrangersAreLeftAlone", s.strangers},
		{"Traffic", s.traffic},
	} {
		t.Run(property.name, property.test)
	}
}

type suite struct {
	Fixture
	plans
}

// site is a machine with what the fixture needs, and what it looked like.
type site struct {
	*nstest.Machine
	t      *testing.T
	dir    string
	before string
}

func (s suite) site(t *testing.T) site {
	t.Helper()
	m := site{Machine: nstest.New(t), t: t, dir: s.dir}
	m.Sh(t, s.Setup)
	t.Cleanup(func() { m.Sh(t, s.Teardown) })
	m.before = m.world()
	return m
}

func (m site) executor() *op.Executor { return &op.Executor{Host: m.Host()} }

// world is the state of the network and of the sandboxes' files.
func (m site) world() string {
	m.t.Helper()
	text := m.Dump(m.t) + "== files ==\n"
	err := filepath.WalkDir(m.dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == m.dir {
			return err
		}
		var raw []byte
		if !entry.IsDir() {
			raw, err = os.ReadFile(path)
		}
		text += fmt.Sprintf("%s %q\n", path, raw)
		return err
	})
	if err != nil {
		m.t.Fatal(err)
	}
	return text
}

// back reports what differs from before, once the reaper had its time.
func (m site) back(after string) {
	m.t.Helper()
	var diff string
	if !nstest.Until(patience, func() bool { diff = nstest.Diff(m.before, m.world()); return diff == "" }) {
		m.t.Errorf("%s, the machine is not as it was before (- before, + now):\n%s", after, diff)
	}
}

func (m site) do(plan op.Plan) {
	m.t.Helper()
	if err := m.executor().Do(m.t.Context(), plan); err != nil {
		m.t.Fatalf("Do: %v", err)
	}
}

func (m site) undo(plan op.Plan) {
	m.t.Helper()
	if err := m.executor().Undo(m.t.Context(), plan); err != nil {
		m.t.Errorf("Undo: %v", err)
	}
}

func (s suite) pure(t *testing.T) {
	records := func() string {
		raw, err := json.Marshal([]any{s.Network, s.Endpoints, s.Sandboxes})
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	before := records()
	again := s.plan(t, s.dir)
	if diff := cmp.Diff(s.whole().String(), again.whole().String()); diff != "" {
		t.Errorf("the same records gave another plan (-first +second):\n%s", diff)
	}
	if diff := cmp.Diff(before, records()); diff != "" {
		t.Errorf("planning changed the records (-before +after):\n%s", diff)
	}
	for _, step := range s.whole() {
		if strings.TrimSpace(step.Why) == "" {
			t.Errorf("the reader is not told why: %s", step.Op)
		}
	}
}

func (s suite) stored(t *testing.T) {
	raw, err := s.Codec.Marshal(s.whole())
	if err != nil {
		t.Fatal(err)
	}
	read, err := s.Codec.Unmarshal(raw)
	if err != nil {
		t.Fatal(err)
	}
	again, err := s.Codec.Marshal(read)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(raw), string(again)); diff != "" {
		t.Errorf("a plan was changed by storing it:\n%s", diff)
	}
	if diff := cmp.Diff(s.whole().String(), read.String()); diff != "" {
		t.Errorf("a stored plan reads differently:\n%s", diff)
	}
}

func (s suite) saidIsDone(t *testing.T) {
	a := s.site(t)
	if err := s.Driver.Check(t.Context(), a.Host(), s.Network); (err != nil) != (s.Driver.Traits().Borrows == drivers.Container) {
		t.Fatalf("the driver's verdict on the network: %v", err)
	}
	if diff := nstest.Diff(a.before, a.world()); diff != "" {
		t.Errorf("the driver's Check changed something:\n%s", diff)
	}
	done := s.outcome(a, "Do", func() { a.do(s.whole()) }, 0)
	for _, dialect := range []op.Dialect{op.IP, op.Brctl} {
		script := s.whole().In(dialect)
		if dialect != op.IP && script == s.whole().String() {
			continue
		}
		said := func(settling time.Duration) string {
			b := s.site(t)
			return s.outcome(b, "the script", func() { b.Sh(t, script) }, settling)
		}
		diff := nstest.Diff(done, said(0))
		if diff != "" {
			// The kernel finishes some of it by itself, such as the routes of a link that
			// gets its carrier: with time for that there must be no difference.
			a := s.site(t)
			diff = nstest.Diff(s.outcome(a, "Do", func() { a.do(s.whole()) }, patience), said(patience))
		}
		if diff != "" {
			t.Errorf("what is said is not what is done (- done, + said):\n%s\nscript:\n%s", diff, script)
		}
	}
}

// outcome returns the world that doing the whole plan, in whichever way, leads to,
// and has it undone.
func (s suite) outcome(m site, way string, do func(), settling time.Duration) string {
	m.t.Helper()
	do()
	if err := m.executor().Check(m.t.Context(), s.whole()); err != nil {
		m.t.Errorf("Check after %s: %v", way, err)
	}
	time.Sleep(settling)
	world := m.world()
	m.undo(s.whole())
	m.back("after " + way + " and Undo")
	m.Sh(m.t, s.Teardown)
	return world
}

func (s suite) undoneIsGone(t *testing.T) {
	m := s.site(t)
	m.undo(s.whole()) // nothing was done: nothing to undo
	m.back("after Undo of nothing")

	// One endpoint leaves, the other stays as it is.
	m.do(append(slices.Clone(s.network), s.endpoints[1]...))
	alone := m
	alone.before = m.world()
	m.do(s.endpoints[0])
	m.undo(s.endpoints[0])
	alone.back("after an endpoint came and went")
	m.do(s.endpoints[0])
	m.undo(s.endpoints[0])
	m.undo(s.endpoints[1])
	m.undo(s.network)
	m.back("after the endpoints left in the order of their coming")

	m.do(s.whole())
	m.undo(s.network)
	m.undo(s.endpoints[0])
	m.undo(s.endpoints[1])
	m.undo(s.whole())
	m.back("after the network went first, and all of it twice")

	m.do(s.whole())
	for _, name := range s.namespaces() {
		m.Sh(t, "ip netns del "+name)
	}
	m.undo(s.whole())
	m.back("after somebody removed the namespaces")
}

func (s suite) failureAtEveryStep(t *testing.T) {
	m := s.site(t)
	plan := s.whole()
	for i, step := range plan {
		x := m.executor()
		x.Before = func(at int, _ op.Step) error {
			if at == i {
				return errStop
			}
			return nil
		}
		if err := x.Do(t.Context(), plan); !errors.Is(err, errStop) {
			t.Errorf("failing at step %d: %v", i+1, err)
		}
		m.back(fmt.Sprintf("failing at step %d, %s", i+1, step.Op))
	}
}

// crashBeforeEveryStep leaves a plan half done, as kill -9 does, and undoes all
// of what was stored, as the next start does.
func (s suite) crashBeforeEveryStep(t *testing.T) {
	m := s.site(t)
	plan := s.whole()
	raw, err := s.Codec.Marshal(plan)
	if err != nil {
		t.Fatal(err)
	}
	for i := range len(plan) + 1 {
		stored, err := s.Codec.Unmarshal(raw)
		if err != nil {
			t.Fatal(err)
		}
		for _, step := range plan[:i] {
			if err := step.Op.Do(t.Context(), m.Host()); err != nil {
				t.Fatal(err)
			}
		}
		next, err := kernel.OpenAt(kernel.Pin(m.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if err := (&op.Executor{Host: next}).Undo(t.Context(), stored); err != nil {
			t.Errorf("undoing all after a stop before step %d: %v", i+1, err)
		}
		if err := next.Close(); err != nil {
			t.Error(err)
		}
		m.back(fmt.Sprintf("after a stop before step %d and undoing all", i+1))
	}
}

func (s suite) crashDuringUndo(t *testing.T) {
	m := s.site(t)
	plan := s.whole()
	for i := range plan {
		m.do(plan)
		m.undo(plan[i:])
		m.undo(plan)
		m.back(fmt.Sprintf("after undoing from step %d, then all", i+1))
	}
}

// strangers puts a foreign link, or a foreign namespace, in the way of each one
// that the plan makes.
func (s suite) strangers(t *testing.T) {
	m := s.site(t)
	plan := s.whole()
	old := strings.Fields(m.Sh(t, "ls /sys/class/net"))
	m.do(plan)
	made := slices.DeleteFunc(strings.Fields(m.Sh(t, "ls /sys/class/net")), func(name string) bool {
		return slices.Contains(old, name) || s.Others != "" && strings.HasPrefix(name, s.Others)
	})
	m.undo(plan)
	m.back("after Do and Undo")

	refused := func(what string) string {
		t.Helper()
		stranger := m
		stranger.before = m.world()
		err := m.executor().Do(t.Context(), plan)
		if !errors.Is(err, linkspan.ErrConflict) || !strings.Contains(err.Error(), what) {
			t.Errorf("Do with a foreign %s in the way: %v; want a conflict that names it", what, err)
		}
		stranger.back("after Do with a foreign " + what + " in the way")
		return stranger.before
	}
	for _, name := range made {
		m.Sh(t, fmt.Sprintf("ip link add %[1]s type bridge; ip link set %[1]s up; ip addr add 198.51.100.1/24 dev %[1]s", name))
		present := refused(name)
		m.executor().Undo(t.Context(), plan) //nolint:errcheck // it may complain of the stranger, or pass it over
		if diff := nstest.Diff(present, m.world()); diff != "" {
			t.Errorf("Undo with a foreign link %s touched it:\n%s", name, diff)
		}
		m.Sh(t, "ip link del "+name)
	}
	for _, name := range s.namespaces() {
		m.Sh(t, "ip netns add "+name)
		refused(name)
		m.Sh(t, "ip netns del "+name)
	}
	m.back("after all strangers left")
}
