package runtime

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/internal/nstest"
)

// daemonEnv makes the test binary a daemon that creates and starts what it
// reads and then waits to be killed. A request that is not followed by another
// is repeated for ever if daemonLoop is set. It returns only if something failed.
const (
	daemonEnv  = "LINKSPAN_RUNTIME_TEST_DAEMON"
	daemonLoop = "LINKSPAN_RUNTIME_TEST_LOOP"
)

func daemonMain() {
	var netns, data, run string
	fmt.Sscan(os.Getenv(daemonEnv), &netns, &data, &run)
	r, err := New(Options{
		DataRoot: data, ExecRoot: run, Networks: &fakeNetworks{netns: netns}, Shim: os.Getenv(shimEnv),
		Events: func(Event) {}, Logf: func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) },
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	ctx := context.Background()
	if err := r.Recover(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	var requests []Request
	if err := json.NewDecoder(os.Stdin).Decode(&requests); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	for {
		for _, q := range requests {
			c, _, err := r.Create(ctx, q)
			if err == nil {
				err = r.Start(ctx, string(c.ID))
			}
			fmt.Println(c.ID, err)
			if os.Getenv(daemonLoop) != "" && rand.IntN(3) == 0 {
				r.Remove(ctx, string(c.ID), RemoveOptions{Force: true})
			}
		}
		if os.Getenv(daemonLoop) == "" {
			select {}
		}
	}
}

// daemon starts one on the roots of the bench, which must not be used before it
// is dead.
func (b *bench) daemon(tb testing.TB, loop bool, requests ...Request) (*exec.Cmd, io.Reader) {
	tb.Helper()
	text, err := json.Marshal(requests)
	if err != nil {
		tb.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %s", daemonEnv, b.networks.netns, b.data, b.run))
	if loop {
		cmd.Env = append(cmd.Env, daemonLoop+"=1")
	}
	cmd.Stdin, cmd.Stderr = strings.NewReader(string(text)), os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { cmd.Process.Kill() })
	return cmd, out
}

func request(script string, settings ...setting) Request {
	q := Request{Config: &container.Config{Cmd: []string{"sh", "-c", script}}, HostConfig: &container.HostConfig{}, Rootfs: "/"}
	for _, s := range settings {
		s(&q)
	}
	return q
}

// TestDaemonKilled: containers, their output and exit codes do not depend on
// the daemon.
func TestDaemonKilled(t *testing.T) {
	b := open(t)
	go3 := filepath.Join(t.TempDir(), "go")
	if err := os.Mkdir(go3, 0o755); err != nil {
		t.Fatal(err)
	}
	bind := func(q *Request) { q.HostConfig.Binds = []string{go3 + ":/go"} }
	until := "while ! test -e /go/on; do sleep 0.02; done; "
	cmd, out := b.daemon(t, false,
		request("echo one; "+until+"echo more; exit 11", named("ends-meanwhile"), bind),
		request("echo two; while ! test -e /go/later; do sleep 0.02; done; echo late; exit 12", named("goes-on"), bind),
		request(until+"exit 13", named("to-be-removed"), bind, autoRemove),
		request("exit 14", named("ended-before")),
		request("true", command("nonesuch"), named("never-ran")),
		request("read x; echo $x; exit 15", named("listens"), func(q *Request) { q.Config.OpenStdin = true }),
	)
	lines := bufio.NewScanner(out)
	for range 6 {
		if !lines.Scan() {
			t.Fatal("the daemon ended")
		}
	}
	time.Sleep(200 * time.Millisecond) // for ended-before to end; either way is right
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	if err := os.WriteFile(go3+"/on", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond)

	b.reopen(t)
	if err := b.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	state := func(name string) State { c, _ := b.Get(name); return c.State }
	if s := b.wait(t, Container{Name: "x", ID: "ends-meanwhile"}); s.ExitCode != 11 || s.Status != container.StateExited || s.StartedAt.IsZero() || !s.FinishedAt.After(s.StartedAt) {
		t.Errorf("ended meanwhile: %+v", s)
	}
	one, _ := b.Get("ends-meanwhile")
	if stdout, _ := b.output(t, one); stdout != "one\nmore\n" {
		t.Errorf("output %q", stdout)
	}
	if s := state("goes-on"); s.Status != container.StateRunning || s.Pid == 0 {
		t.Errorf("goes on: %+v", s)
	}
	if s := b.wait(t, Container{ID: "ended-before"}); s.ExitCode != 14 {
		t.Errorf("ended before: %+v", s)
	}
	if s := state("never-ran"); s.Status != container.StateCreated || s.ExitCode != 127 {
		t.Errorf("never ran: %+v", s)
	}
	if !nstest.Until(5*time.Second, func() bool { _, err := b.Get("to-be-removed"); return err != nil }) {
		t.Error("a container to be removed at its exit is still there")
	}
	listens, err := b.Get("listens")
	if err != nil {
		t.Fatal(err)
	}
	stream, err := b.Attach(t.Context(), "listens", AttachOptions{Stdin: true, Stdout: true})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	fmt.Fprintln(stream, "after all")
	if s := b.wait(t, listens); s.ExitCode != 15 {
		t.Errorf("listens: %+v", s)
	}
	if err := os.WriteFile(go3+"/later", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	two, _ := b.Get("goes-on")
	if s := b.wait(t, two); s.ExitCode != 12 {
		t.Errorf("goes on: %+v", s)
	}
	if stdout, _ := b.output(t, two); stdout != "two\nlate\n" {
		t.Errorf("output %q", stdout)
	}
}

// TestDaemonKilledAnywhere kills a busy daemon at moments of no choice of ours.
// Whatever it was at, its successor has whole containers only, and removing
// those leaves nothing.
func TestDaemonKilledAnywhere(t *testing.T) {
	b := open(t)
	rounds := 15
	if testing.Short() {
		rounds = 4
	}
	for range rounds {
		cmd, out := b.daemon(t, true, request("exit 1"), request("sleep 1000"), request("x", command("nonesuch")), request("sleep 0.01", autoRemove))
		lines := bufio.NewScanner(out)
		if !lines.Scan() {
			t.Fatal("the daemon ended")
		}
		go io.Copy(io.Discard, out)
		time.Sleep(time.Duration(rand.IntN(400)) * time.Millisecond)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		cmd.Wait()
		b.reopen(t)
		if err := b.Recover(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, c := range b.List() {
			if err := b.check(c); err != nil {
				t.Errorf("%s %v: %v", c.ID.Short(), c.Config.Cmd, err)
			}
			// One that removes itself at its exit may be faster.
			if err := b.Remove(within(t, 20*time.Second), string(c.ID), RemoveOptions{Force: true}); err != nil && (!c.HostConfig.AutoRemove || !errors.Is(err, linkspan.ErrNotFound)) {
				t.Errorf("removing %s: %v", c.ID.Short(), err)
			}
		}
		b.Close() // waits for those that remove themselves
		b.empty(t)
	}
}

// check compares a container's state with the kernel's.
func (b *bench) check(c Container) error {
	group := b.cgroups.Group(c.group())
	switch {
	case c.HostConfig.AutoRemove:
		return nil // it may go at any moment
	case c.State.Running():
		if !strings.Contains(strings.Join(c.Config.Cmd, " "), "sleep 1000") {
			return nil // it is just ending
		}
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", c.State.Pid))
		if err != nil {
			return err
		}
		if !strings.Contains(string(text), string(c.ID)) {
			return fmt.Errorf("process %d is another's", c.State.Pid)
		}
	case c.State.Status == container.StateCreated || c.State.Status == container.StateExited:
		if group.Exists() {
			return fmt.Errorf("%s, but it has a cgroup", c.State.Status)
		}
	default:
		return fmt.Errorf("in state %q", c.State.Status)
	}
	return nil
}

// TestDamagedRecords: one bad record is named and left; it stops nobody else.
func TestDamagedRecords(t *testing.T) {
	b := open(t)
	good, bad, empty := b.create(t, "true"), b.create(t, "true"), b.create(t, "true")
	stateless := b.create(t, "true")
	for name, text := range map[string]string{
		filepath.Join(b.dataDir(bad.ID), recordFile):        "{ not JSON",
		filepath.Join(b.dataDir(empty.ID), recordFile):      "",
		filepath.Join(b.dataDir(stateless.ID), stateFile):   "",
		filepath.Join(b.data, "containers", "half", "junk"): "",
	} {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(b.execDir(linkspan.NewID()), 0o700); err != nil {
		t.Fatal(err)
	}
	b.reopen(t)
	if err := b.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Get(string(good.ID)); err != nil {
		t.Error(err)
	}
	if c, err := b.Get(string(stateless.ID)); err != nil || c.State.Status != container.StateExited || c.State.ExitCode != 255 {
		t.Errorf("without a state: %+v %v", c.State, err)
	}
	if n := len(b.List()); n != 2 {
		t.Errorf("%d containers", n)
	}
	if _, err := os.Stat(b.dataDir(bad.ID)); err != nil {
		t.Errorf("the damaged record is gone: %v", err)
	}
	if err := os.RemoveAll(b.dataDir(bad.ID)); err != nil {
		t.Fatal(err)
	}
}

// TestReboot: another boot id voids what lives in the exec root.
func TestReboot(t *testing.T) {
	b := open(t)
	c := b.create(t, "true")
	c.State = State{Status: container.StateRunning, Pid: 1, BootID: "another", StartedAt: time.Now()}
	if err := b.saveState(c); err != nil {
		t.Fatal(err)
	}
	removed := b.create(t, "true", autoRemove)
	removed.State = c.State
	if err := b.saveState(removed); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(b.execDir(c.ID), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b.run, "boot-id"), []byte("another"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.reopen(t)
	if err := b.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	got, err := b.Get(string(c.ID))
	if err != nil || got.State.Status != container.StateExited || got.State.ExitCode != 255 || got.State.Pid != 0 {
		t.Errorf("%+v %v", got.State, err)
	}
	if _, err := b.Get(string(removed.ID)); err == nil {
		t.Error("a container to be removed at its exit has survived a reboot")
	}
}
