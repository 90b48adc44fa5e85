package lesson

import (
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/lab"
)

func TestMain(m *testing.M) { nstest.Main(m) }

func course(t *testing.T) (*nstest.Machine, Course) {
	t.Helper()
	m := nstest.New(t)
	return m, Course{Labs: &lab.Engine{Dir: filepath.Join(t.TempDir(), "labs"), Real: m.Host()}}
}

// byHand runs what a learner types on the lab's machine.
func byHand(t *testing.T, c Course, p Progress, script string) {
	t.Helper()
	if err := c.script(p, script); err != nil {
		t.Fatalf("%v\nscript: %s", err, p.Seed.fill(p.Lesson, script))
	}
}

// TestLessons goes through every lesson with two seeds: each task fails before
// its solution, with a hint, and passes after it; nothing is left.
func TestLessons(t *testing.T) {
	for _, l := range Lessons() {
		for _, seed := range []Seed{"", "ada"} {
			t.Run(l.Name+"/"+string(seed), func(t *testing.T) {
				m, c := course(t)
				before := m.Dump(t)
				p, err := c.Start(t.Context(), l.Name, seed)
				if err != nil {
					t.Fatal(err)
				}
				for i, task := range l.steps(seed) {
					walk(t, c, l.Name, i, task)
				}
				if p, err = c.load(l.Name); err != nil || !p.Done {
					t.Errorf("the lesson is not done: %+v, %v", p, err)
				}
				if err := c.Stop(t.Context(), l.Name); err != nil {
					t.Error(err)
				}
				if after := m.Dump(t); after != before {
					t.Errorf("the lesson left something:\n%s", after)
				}
			})
		}
	}
}

func walk(t *testing.T, c Course, name string, i int, task task) {
	t.Helper()
	text, err := c.Text(name)
	if err != nil || strings.ContainsAny(text, "{}") {
		t.Errorf("task %d: text %q, %v", i+1, text, err)
	}
	if err := c.Check(t.Context(), name, "nonsense"); !errors.Is(err, linkspan.ErrInvalid) {
		t.Errorf("task %d passes, or fails without a hint, before it is done: %v", i+1, err)
	}
	if err := c.Next(t.Context(), name, false); !errors.Is(err, linkspan.ErrConflict) {
		t.Errorf("task %d: next before it passed: %v", i+1, err)
	}
	for range len(task.hints) + 1 {
		if hint, err := c.Hint(name); err != nil || hint == "" {
			t.Errorf("task %d: hint %q, %v", i+1, hint, err)
		}
	}
	solution, err := c.Solution(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	p, err := c.load(name)
	if err != nil {
		t.Fatal(err)
	}
	if task.kind != predict {
		byHand(t, c, p, solution)
		solution = ""
	}
	if err := c.Check(t.Context(), name, solution); err != nil {
		t.Errorf("task %d does not pass after its solution: %v", i+1, err)
	}
	if err := c.Next(t.Context(), name, false); err != nil {
		t.Errorf("task %d: %v", i+1, err)
	}
}

// TestHalfSolutions stops short of a solution and wants a hint that names what
// is missing.
func TestHalfSolutions(t *testing.T) {
	for _, test := range []struct{ lesson, script, want string }{
		{"namespace", "true", "there is no network namespace lab-namespace-{A}"},
		{"namespace", "ip netns add {LAB}-{A}", "link lo of node {A} is down"},
		{"cable", "ip -n {LAB}-{A} link add eth0 type veth peer name eth0 netns {LAB}-{B}", "link eth0 of node {A} has not the address {NET}.1/24"},
		{"switch", "brctl addbr br0", "link br0 of the lab's machine is down"},
		{"switch", "ip link add br0 type veth peer name p1", "link br0 is no bridge but veth"},
		{"switch", "brctl addbr br0; ip link set br0 up; ip link add p1 type veth peer name eth0 netns {LAB}-{A}", "link p1 is no port of bridge br0"},
		{"door", "ip addr add {NET}.254/24 dev br0", "node {A} has no route to {FAR}.1"},
		{"out", "sysctl -qw net.ipv4.ip_forward=1", "node {A} gets no answer from {FAR}.2"},
		{"out", "sysctl -qw net.ipv4.ip_forward=1; ip -n {LAB}-{C} route add {NET}.0/24 via {FAR}.254", "node {C} sees node {A} as {NET}.1, not as {FAR}.254"},
		{"out", "true", "net.ipv4.ip_forward of the lab's machine is 0"},
		{"names", "true", "node {A} gets no answer by UDP from the resolver at 127.0.0.11:53 for {B}.lan"},
		{
			"names", "ip netns exec {LAB}-{A} dnsmasq -C /dev/null -u root --pid-file --no-resolv --no-hosts --bind-interfaces --listen-address=127.0.0.11 --host-record={B}.lan,{NET}.1",
			"the resolver at 127.0.0.11:53 of node {A} answers {B}.lan with {NET}.1, and not with {NET}.2",
		},
		{
			"names", "ip netns exec {LAB}-{A} dnsmasq -C /dev/null -u root --pid-file --no-resolv --no-hosts --bind-interfaces --listen-address=127.0.0.11 --host-record={B}.lan,{NET}.2",
			"answers www.example.org with no address (REFUSED)",
		},
		{"addresses", "ip -n {LAB}-{C} addr add {NET}.2/29 dev eth0", "address {NET}.2 of node {C} is that of node {B} already"},
		{"in", "true", "node {C} cannot connect to {FAR}.254:{PORT}"},
	} {
		t.Run(test.lesson, func(t *testing.T) {
			_, c := course(t)
			p, err := c.Start(t.Context(), test.lesson, "half")
			if err != nil {
				t.Fatal(err)
			}
			byHand(t, c, p, test.script)
			want := p.Seed.fill(test.lesson, test.want)
			if err := c.Check(t.Context(), test.lesson, ""); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("hint %v, want %q in it", err, want)
			}
			if err := c.Stop(t.Context(), test.lesson); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestSkipAndUndo(t *testing.T) {
	_, c := course(t)
	if _, err := c.Start(t.Context(), "switch", ""); err != nil {
		t.Fatal(err)
	}
	for range 3 { // past what is built and predicted
		if err := c.Next(t.Context(), "switch", true); err != nil {
			t.Fatal(err)
		}
	}
	p, err := c.load("switch")
	if err != nil {
		t.Fatal(err)
	}
	fault := c.Check(t.Context(), "switch", "")
	byHand(t, c, p, "ip link del br0")
	if err := c.Check(t.Context(), "switch", ""); err == nil || !strings.Contains(err.Error(), "has no link br0") {
		t.Errorf("a bridge that is gone is not missed: %v", err)
	}
	if err := c.Undo(t.Context(), "switch"); err != nil {
		t.Fatal(err)
	}
	if err := c.Check(t.Context(), "switch", ""); err == nil || fault == nil || err.Error() != fault.Error() {
		t.Errorf("undo did not bring the task's beginning back: %v, before %v", err, fault)
	}
	solution, err := c.Solution(t.Context(), "switch")
	if err != nil {
		t.Fatal(err)
	}
	byHand(t, c, p, solution)
	if err := c.Check(t.Context(), "switch", ""); err != nil {
		t.Error(err)
	}
	if report, err := c.Report(); err != nil || len(report) != 1 || report[0].Tasks[3].Attempts != 3 || report[0].Tasks[0].Passed != (Record{}).Passed {
		t.Errorf("report %+v, %v", report, err)
	}
	if err := c.Stop(t.Context(), "switch"); err != nil {
		t.Error(err)
	}
}

func TestSeedsDiffer(t *testing.T) {
	const words = "{A} {NET} {FAR} {PORT}"
	seen := map[string]bool{}
	orders := map[string]bool{}
	lesson := switchLesson()
	for _, seed := range []Seed{"ada", "bob", "eve", "joe"} {
		order := seed.fill("switch", "{X}")
		for _, step := range lesson.steps(seed)[len(lesson.tasks):] {
			order += step.spoil
		}
		orders[order] = true
		seen[seed.fill("out", words)] = true
		if again := seed.fill("out", words); !seen[again] {
			t.Errorf("seed %s is not steady", seed)
		}
	}
	if len(seen) != 4 || len(orders) < 3 {
		t.Errorf("four learners have %d variants, and %d series of faults", len(seen), len(orders))
	}
}

func TestUnknownLesson(t *testing.T) {
	_, c := course(t)
	if _, err := c.Start(t.Context(), "surfing", ""); !errors.Is(err, linkspan.ErrNotFound) || !strings.Contains(err.Error(), "there are namespace, cable") {
		t.Errorf("err = %v", err)
	}
	if err := c.Check(t.Context(), "cable", ""); !errors.Is(err, linkspan.ErrNotFound) || !strings.Contains(err.Error(), "was not started") {
		t.Errorf("err = %v", err)
	}
	if _, err := exec.LookPath("brctl"); err != nil {
		t.Error(err)
	}
}
