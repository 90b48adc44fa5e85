package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/linkspan/linkspan/internal/nstest"
)

// TestStepByStep makes a network and a container on it, one kernel operation
// after the other, and takes the network down in the same way.
func TestStepByStep(t *testing.T) {
	s := newStory(t)
	s.start()
	defer s.leave()
	before := s.machine.Dump(t)

	out := s.stepping(strings.Repeat("\n", 50), "network", "create", "--step", "--subnet", "10.77.0.0/24", "-o", "com.docker.network.bridge.name=br-lab", "lab")
	for _, want := range []string{
		`\nip link add name br-lab address \S+ group \d+ type bridge\n  before: not there: link br-lab does not exist .*\n  \[Enter: go on; q: stop, and undo what was done\] \n  after:  br-lab: bridge, address \S+, mtu 1500, down, ours\n`,
		`\nip addr add 10\.77\.0\.1/24 brd \+ dev br-lab\n  before: br-lab: bridge, .*, ours\n.*\n  after:  br-lab: bridge, .*, ours, 10\.77\.0\.1/24\n`,
		`\n[0-9a-f]{64}\n$`,
	} {
		if !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("nothing like %s in:\n%s", want, out)
		}
	}
	out = s.stepping(strings.Repeat("\n", 50), "explain", "--dialect", "brctl", "--step", "run", "--name", "web", "--network", "lab", "--rootfs", "/", "--", "sleep", "1000")
	if !regexp.MustCompile(` && brctl addif br-lab veth[0-9a-f]{7}\n  before: not there: .*\n.*\n  after:  veth\S+: veth, .*, port of br-lab, ours\n          eth0: veth, `).MatchString(out) {
		t.Errorf("the cable does not show:\n%s", out)
	}
	s.do("exec", "web", "ping", "-c1", "-W5", "10.77.0.1")
	s.do("rm", "-f", "web")

	if out = s.stepping(strings.Repeat("\n", 50), "network", "rm", "--step", "lab"); !regexp.MustCompile(`# To be undone:\n# ip link add name br-lab .*\n  before: br-lab: bridge, .*\n.*\n  after:  (not there|link br-lab is about to be deleted)`).MatchString(out) {
		t.Errorf("steps of a removal:\n%s", out)
	}
	if diff := nstest.Diff(before, s.machine.Dump(t)); diff != "" {
		t.Errorf("something is left:\n%s", diff)
	}
}

// stepping runs a command that reads from its standard input.
func (s *story) stepping(input string, args ...string) string {
	s.t.Helper()
	cmd := s.program(s.t.Context(), args...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.t.Fatalf("linkspan %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// TestStoppedHalfWay says q at each step in turn, or goes away by the end of the
// input or by a signal, and finds the machine as it was.
func TestStoppedHalfWay(t *testing.T) {
	s := newStory(t)
	s.start()
	defer s.leave()
	before := s.machine.Dump(t)
	create := []string{"network", "create", "--step", "--subnet", "10.77.0.0/24", "lab"}
	for steps := 0; ; steps++ {
		cmd := s.program(t.Context(), create...)
		cmd.Stdin = strings.NewReader(strings.Repeat("\n", steps) + []string{"q\n", ""}[steps%2])
		out, err := cmd.CombinedOutput()
		if err == nil {
			if steps < 3 {
				t.Errorf("after %d steps all is done:\n%s", steps, out)
			}
			break
		}
		if !strings.Contains(string(out), "stopped before this step") {
			t.Fatalf("stopped at step %d: %v\n%s", steps+1, err, out)
		}
		if diff := nstest.Diff(before, s.machine.Dump(t)); diff != "" {
			t.Fatalf("stopped at step %d, something is left:\n%s", steps+1, diff)
		}
	}
	s.do("network", "rm", "lab")

	// A client that is killed while the daemon waits for it.
	input, hold, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer hold.Close()
	cmd := s.program(t.Context(), create...)
	shown := filepath.Join(s.dir, "shown")
	cmd.Stdin = input
	if cmd.Stdout, err = os.Create(shown); err != nil {
		t.Fatal(err)
	}
	if err = cmd.Start(); err != nil {
		t.Fatal(err)
	}
	input.Close()
	if _, err = hold.WriteString("\n\n"); err != nil {
		t.Fatal(err)
	}
	waits := func() bool {
		text, err := os.ReadFile(shown)
		return err == nil && strings.Count(string(text), "[Enter") == 3
	}
	if !nstest.Until(30*time.Second, waits) {
		t.Error("the third step does not come")
	}
	if nstest.Diff(before, s.machine.Dump(t)) == "" {
		t.Error("two steps have changed nothing")
	}
	cmd.Process.Kill() //nolint:errcheck // it has ended by itself
	cmd.Wait()         //nolint:errcheck // killed
	if !nstest.Until(30*time.Second, func() bool { return nstest.Diff(before, s.machine.Dump(t)) == "" }) {
		t.Errorf("the client is gone, something is left:\n%s", nstest.Diff(before, s.machine.Dump(t)))
	}
	for request, want := range map[string]string{
		"steps/nobody": "nothing waits under the ID nobody",
		`steps -H Content-Type:application/json -d '{"Method":"GET","Path":"/networks"}'`: "GET /networks cannot be explained",
	} {
		if out := s.machine.Sh(t, "curl -s --unix-socket "+filepath.Join(s.dir, "s")+" -X POST http://linkspan/linkspan/v1/"+request); !strings.Contains(out, want) {
			t.Errorf("POST /linkspan/v1/%s: %s, want %q", request, out, want)
		}
	}
	s.do("network", "create", "--subnet", "10.77.0.0/24", "lab") // name and pool are free
	s.do("network", "rm", "lab")
}
