package runtime

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/container"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/internal/nstest"
)

func named(name string) setting { return func(q *Request) { q.Name = name } }

func command(args ...string) setting { return func(q *Request) { q.Config.Cmd = args } }

func autoRemove(q *Request) { q.HostConfig.AutoRemove = true }

// within gives a verb its time.
func within(tb testing.TB, limit time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	tb.Cleanup(cancel)
	return ctx
}

func TestFailedStart(t *testing.T) {
	b := open(t)
	tests := []struct {
		command, text string
		code          int
	}{
		{"nonesuch", `exec: "nonesuch": executable file not found in $PATH`, 127},
		{"/no/such", `exec: "/no/such": stat /no/such: no such file or directory`, 127},
		{"/etc", `exec: "/etc": is a directory`, 126},
		{"/etc/passwd", `exec: "/etc/passwd": permission denied`, 126},
	}
	for _, test := range tests {
		c := b.create(t, "", command(test.command))
		err := b.Start(t.Context(), c.Name)
		if !errors.Is(err, linkspan.ErrInvalid) || !strings.Contains(err.Error(), test.text) {
			t.Errorf("%s: error %v, want %s", test.command, err, test.text)
		}
		got, _ := b.Get(c.Name)
		if got.State.Status != container.StateCreated || got.State.ExitCode != test.code || !strings.Contains(got.State.Error, test.text) {
			t.Errorf("%s: state %+v, want exit code %d", test.command, got.State, test.code)
		}
		if n := b.networks.count("Detach", c.ID); n == 0 {
			t.Errorf("%s: networks stay attached", test.command)
		}
		if _, err := os.Stat(b.execDir(c.ID)); err == nil || b.cgroups.Group(string(c.ID)).Exists() {
			t.Errorf("%s: run directory or cgroup left", test.command)
		}
	}
	c := b.create(t, "", command("nonesuch"), autoRemove)
	if err := b.Start(t.Context(), c.Name); err == nil {
		t.Error("a missing command started")
	}
	if _, err := b.Get(c.Name); !errors.Is(err, linkspan.ErrNotFound) {
		t.Errorf("a container to be removed is there after a failed start: %v", err)
	}
}

func TestNetworksRefuse(t *testing.T) {
	b := open(t)
	refusal := linkspan.Errorf(linkspan.ErrForbidden, "Address already in use")
	b.networks.refuse = map[string]error{"Reserve": refusal}
	if _, _, err := b.Create(t.Context(), Request{Config: &container.Config{Cmd: []string{"true"}}, Rootfs: "/"}); !errors.Is(err, linkspan.ErrForbidden) {
		t.Errorf("create: %v", err)
	}
	b.empty(t)
	b.networks.refuse = nil
	c := b.create(t, "true")
	b.networks.refuse = map[string]error{"Attach": refusal}
	if err := b.Start(t.Context(), c.Name); !errors.Is(err, linkspan.ErrForbidden) {
		t.Errorf("start: %v", err)
	}
	b.networks.refuse = nil
	if err := b.Start(t.Context(), c.Name); err != nil {
		t.Errorf("start after a refusal: %v", err)
	}
	b.wait(t, c)
}

func TestCreateRefuses(t *testing.T) {
	b := open(t)
	held := b.create(t, "true", named("held"))
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		change func(*Request)
		kind   error
		text   string
	}{
		{func(q *Request) { q.Config = nil }, linkspan.ErrInvalid, "config cannot be empty in order to create a container"},
		{func(q *Request) { q.Config.Cmd = nil }, linkspan.ErrInvalid, "no command specified"},
		{func(q *Request) { q.Rootfs = "/no/such" }, linkspan.ErrInvalid, "/no/such: no such file or directory"},
		{func(q *Request) { q.Rootfs = "relative" }, linkspan.ErrInvalid, "not an absolute path"},
		{func(q *Request) { q.Rootfs = file }, linkspan.ErrInvalid, "is not a directory"},
		{func(q *Request) { q.Rootfs = "" }, linkspan.ErrInvalid, "no root file system"},
		{func(q *Request) { q.Name = "a/b" }, linkspan.ErrInvalid, "Invalid container name (a/b), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"},
		{func(q *Request) { q.Name = ".." }, linkspan.ErrInvalid, "Invalid container name"},
		{func(q *Request) { q.Name = "x" }, linkspan.ErrInvalid, "Invalid container name"},
		{func(q *Request) { q.Name = "/held" }, linkspan.ErrConflict, `Conflict. The container name "/held" is already in use by container "` + string(held.ID) + `". You have to remove (or rename) that container to be able to reuse that name.`},
		{func(q *Request) { q.HostConfig.Memory = 1 << 20 }, linkspan.ErrInvalid, "Minimum memory limit allowed is 6MB"},
		{func(q *Request) { q.HostConfig.CapAdd = []string{"NONE_SUCH"} }, linkspan.ErrInvalid, "unknown capability"},
		{func(q *Request) { q.HostConfig.Sysctls = map[string]string{"kernel.panic": "1"} }, linkspan.ErrInvalid, "would change the host"},
		{func(q *Request) { q.HostConfig.Sysctls = map[string]string{"net.../../kernel/panic": "1"} }, linkspan.ErrInvalid, "would change the host"},
		{func(q *Request) { q.HostConfig.SecurityOpt = []string{"what"} }, linkspan.ErrInvalid, "invalid --security-opt"},
		{func(q *Request) { q.HostConfig.Binds = []string{"/a:b"} }, linkspan.ErrInvalid, "invalid volume specification: '/a:b': invalid mount path"},
		{func(q *Request) { q.HostConfig.PidMode = "nonsense" }, linkspan.ErrInvalid, "invalid PID mode: nonsense"},
		{func(q *Request) { q.HostConfig.IpcMode = "nonsense" }, linkspan.ErrInvalid, "invalid IPC mode: nonsense"},
		{func(q *Request) { q.HostConfig.UTSMode, q.Config.Hostname = "host", "x" }, linkspan.ErrInvalid, "conflicting options: hostname and the UTS mode"},
		{func(q *Request) { q.HostConfig.Runtime = "nonsense" }, linkspan.ErrInvalid, "unknown or invalid runtime name: nonsense"},
		{func(q *Request) { q.HostConfig.DeviceCgroupRules = []string{"x 1:1 r"} }, linkspan.ErrInvalid, "invalid device cgroup rule format: 'x 1:1 r'"},
		{check(v1.HealthcheckConfig{Interval: 1}), linkspan.ErrInvalid, "Interval in Healthcheck cannot be less than 1ms"},
		{check(v1.HealthcheckConfig{Retries: -1}), linkspan.ErrInvalid, "Retries in Healthcheck cannot be negative"},
		{logging("nonsense"), linkspan.ErrInvalid, "no log driver named 'nonsense' is registered"},
		{logging("syslog"), linkspan.ErrNotImplemented, `log driver "syslog" is not supported`},
		{logging("json-file", "what", "1"), linkspan.ErrInvalid, "unknown log opt 'what' for json-file log driver"},
		{logging("json-file", "max-size", "much"), linkspan.ErrInvalid, "invalid log opt max-size=much"},
		{logging("json-file", "max-file", "0"), linkspan.ErrInvalid, "max-file cannot be less than 1"},
		{logging("json-file", "compress", "true"), linkspan.ErrInvalid, "compress cannot be true when"},
		{func(q *Request) { q.Config.StopSignal = "SIGWHAT" }, linkspan.ErrInvalid, "invalid signal: SIGWHAT"},
		{func(q *Request) { q.Config.WorkingDir = "a" }, linkspan.ErrInvalid, "needs to be an absolute path"},
		{func(q *Request) { q.Config.Env = []string{"A=\x00"} }, linkspan.ErrInvalid, "zero byte"},
		{func(q *Request) { q.HostConfig.RestartPolicy.Name, q.HostConfig.AutoRemove = "always", true }, linkspan.ErrInvalid, "can't create 'AutoRemove' container with restart policy"},
	}
	for _, test := range tests {
		q := Request{Config: &container.Config{Cmd: []string{"true"}}, HostConfig: &container.HostConfig{}, Rootfs: "/"}
		test.change(&q)
		c, _, err := b.Create(t.Context(), q)
		if !errors.Is(err, test.kind) || !strings.Contains(err.Error(), test.text) {
			t.Errorf("got %q %v, want %s", c.Name, err, test.text)
		}
	}
	if n := len(b.List()); n != 1 {
		t.Errorf("%d containers are left of refused creations", n-1)
	}
}

func TestFind(t *testing.T) {
	b := open(t)
	one, two := b.create(t, "true"), b.create(t, "true", named("zwei"))
	for _, ref := range []string{string(two.ID), two.ID.Short(), "zwei", "/zwei"} {
		if c, err := b.Get(ref); err != nil || c.ID != two.ID {
			t.Errorf("%s: %v %v", ref, c.ID, err)
		}
	}
	if _, err := b.Get("none"); !errors.Is(err, linkspan.ErrNotFound) || err.Error() != "No such container: none" {
		t.Errorf("none: %v", err)
	}
	if _, err := b.Get(""); !errors.Is(err, linkspan.ErrNotFound) {
		t.Errorf("empty: %v", err)
	}
	// A name beats the beginning of an ID.
	three := b.create(t, "true", named(one.ID.Short()))
	if c, err := b.Get(one.ID.Short()); err != nil || c.ID != three.ID {
		t.Errorf("name like an ID: %v %v", c.ID, err)
	}
	if list := b.List(); len(list) != 3 || list[0].ID != three.ID || list[2].ID != one.ID {
		t.Errorf("list is not newest first: %v", list)
	}
	if err := b.Rename(t.Context(), "zwei", "drei"); err != nil {
		t.Error(err)
	}
	if err := b.Rename(t.Context(), "drei", three.Name); !errors.Is(err, linkspan.ErrConflict) {
		t.Errorf("rename to a taken name: %v", err)
	}
	if err := b.Rename(t.Context(), "drei", "drei"); !errors.Is(err, linkspan.ErrInvalid) {
		t.Errorf("rename to itself: %v", err)
	}
	b.create(t, "true", named("zwei"))
}

const ignoreTerm = "trap '' TERM; echo ready; while :; do sleep 0.1; done"

// ready waits for the first output.
func (b *bench) ready(tb testing.TB, c Container) {
	tb.Helper()
	if !nstest.Until(10*time.Second, func() bool { out, _ := b.output(tb, c); return out != "" }) {
		tb.Fatalf("%s does not say that it is ready", c.Name)
	}
}

func TestStop(t *testing.T) {
	b := open(t)
	c := b.start(t, "trap 'exit 3' TERM; echo ready; while :; do sleep 0.1; done")
	b.ready(t, c)
	if err := b.Stop(within(t, 9*time.Second), c.Name, StopOptions{}); err != nil {
		t.Fatal(err)
	}
	if got, _ := b.Get(c.Name); got.State.ExitCode != 3 || got.State.Status != container.StateExited || got.State.Pid != 0 {
		t.Errorf("after stop: %+v", got.State)
	}
	if err := b.Stop(t.Context(), c.Name, StopOptions{}); !errors.Is(err, linkspan.ErrNotModified) {
		t.Errorf("stopping twice: %v", err)
	}
	if got, want := b.actions(), "create start kill die stop"; got != want {
		t.Errorf("events %q, want %q", got, want)
	}

	c = b.start(t, ignoreTerm)
	b.ready(t, c)
	begin, timeout := time.Now(), 300*time.Millisecond
	if err := b.Stop(t.Context(), c.Name, StopOptions{Timeout: &timeout}); err != nil {
		t.Fatal(err)
	}
	if got, _ := b.Get(c.Name); got.State.ExitCode != 137 || time.Since(begin) < timeout {
		t.Errorf("after a stop that had to kill: %+v, %v", got.State, time.Since(begin))
	}

	c = b.start(t, "trap 'exit 4' USR1; echo ready; while :; do sleep 0.1; done", func(q *Request) { q.Config.StopSignal = "USR1" })
	b.ready(t, c)
	if err := b.Stop(within(t, 9*time.Second), c.Name, StopOptions{}); err != nil {
		t.Fatal(err)
	}
	if got, _ := b.Get(c.Name); got.State.ExitCode != 4 {
		t.Errorf("stop signal: %+v", got.State)
	}
	if err := b.Start(t.Context(), c.Name); err != nil {
		t.Errorf("starting again: %v", err)
	}
}

func TestKill(t *testing.T) {
	b := open(t)
	c := b.start(t, "trap 'echo got it' HUP; echo ready; while :; do sleep 0.1; done")
	b.ready(t, c)
	for _, name := range []string{"HUP", "SIGHUP", "1"} {
		if err := b.Kill(t.Context(), c.Name, name); err != nil {
			t.Error(err)
		}
	}
	if err := b.Kill(t.Context(), c.Name, "WHAT"); !errors.Is(err, linkspan.ErrInvalid) {
		t.Errorf("unknown signal: %v", err)
	}
	if !nstest.Until(5*time.Second, func() bool { out, _ := b.output(t, c); return strings.Contains(out, "got it") }) {
		t.Error("the signal did not arrive")
	}
	if err := b.Kill(within(t, 9*time.Second), c.Name, ""); err != nil {
		t.Fatal(err)
	}
	if got, _ := b.Get(c.Name); got.State.ExitCode != 137 {
		t.Errorf("after kill: %+v", got.State)
	}
	if err := b.Kill(t.Context(), c.Name, ""); !errors.Is(err, linkspan.ErrConflict) || !strings.Contains(err.Error(), "container "+string(c.ID)+" is not running") {
		t.Errorf("killing twice: %v", err)
	}
}

func TestPause(t *testing.T) {
	b := open(t)
	c := b.start(t, "while :; do echo tick; sleep 0.01; done")
	b.ready(t, c)
	if err := b.Pause(t.Context(), c.Name); err != nil {
		t.Fatal(err)
	}
	before, _ := b.output(t, c)
	time.Sleep(100 * time.Millisecond)
	if after, _ := b.output(t, c); len(after) > len(before)+10 {
		t.Errorf("%d bytes came while it was paused", len(after)-len(before))
	}
	if got, _ := b.Get(c.Name); got.State.Status != container.StatePaused {
		t.Errorf("state %+v", got.State)
	}
	if err := b.Pause(t.Context(), c.Name); !errors.Is(err, linkspan.ErrConflict) {
		t.Errorf("pausing twice: %v", err)
	}
	if err := b.Start(t.Context(), c.Name); !errors.Is(err, linkspan.ErrConflict) {
		t.Errorf("starting a paused one: %v", err)
	}
	if err := b.Unpause(t.Context(), c.Name); err != nil {
		t.Fatal(err)
	}
	if !nstest.Until(5*time.Second, func() bool { after, _ := b.output(t, c); return len(after) > len(before)+20 }) {
		t.Error("it does not go on")
	}
	if err := b.Pause(t.Context(), c.Name); err != nil {
		t.Fatal(err)
	}
	if err := b.Remove(within(t, 9*time.Second), c.Name, RemoveOptions{Force: true}); err != nil {
		t.Errorf("removing a paused one by force: %v", err)
	}
}

func TestRemove(t *testing.T) {
	b := open(t)
	c := b.start(t, "sleep 1000")
	if err := b.Remove(t.Context(), c.Name, RemoveOptions{}); !errors.Is(err, linkspan.ErrConflict) {
		t.Errorf("removing a running one: %v", err)
	}
	w, err := b.Waiter(c.Name, container.WaitConditionRemoved)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Remove(t.Context(), c.Name, RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	if state, err := w.Wait(within(t, 5*time.Second)); err != nil || state.ExitCode != 137 {
		t.Errorf("waiting for the removal: %+v %v", state, err)
	}
	if b.networks.count("Forget", c.ID) != 1 || b.networks.count("Detach", c.ID) == 0 {
		t.Errorf("networks: %v", b.networks.calls)
	}
	b.empty(t)
}

func TestWait(t *testing.T) {
	b := open(t)
	c := b.create(t, "exit 9")
	if state, err := b.Wait(within(t, time.Second), c.Name, container.WaitConditionNotRunning); err != nil || state.ExitCode != 0 {
		t.Errorf("a created container is not running: %+v %v", state, err)
	}
	if _, err := b.Waiter(c.Name, "whatever"); !errors.Is(err, linkspan.ErrInvalid) {
		t.Errorf("unknown condition: %v", err)
	}
	var waiters sync.WaitGroup
	for range 5 {
		w, err := b.Waiter(c.Name, container.WaitConditionNextExit)
		if err != nil {
			t.Fatal(err)
		}
		waiters.Go(func() {
			if state, err := w.Wait(within(t, 20*time.Second)); err != nil || state.ExitCode != 9 {
				t.Errorf("waiter: %+v %v", state, err)
			}
		})
	}
	if err := b.Start(t.Context(), c.Name); err != nil {
		t.Fatal(err)
	}
	waiters.Wait()
}

func TestAutoRemove(t *testing.T) {
	b := open(t)
	c := b.create(t, "exit 5", autoRemove)
	w, err := b.Waiter(c.Name, container.WaitConditionRemoved)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Start(t.Context(), c.Name); err != nil {
		t.Fatal(err)
	}
	if state, err := w.Wait(within(t, 20*time.Second)); err != nil || state.ExitCode != 5 {
		t.Errorf("%+v %v", state, err)
	}
	b.empty(t)
	if got, want := b.actions(), "create start die destroy"; got != want {
		t.Errorf("events %q, want %q", got, want)
	}
}

func TestOOM(t *testing.T) {
	b := open(t)
	state, _, _ := b.finished(t, "x=$(head -c 50000000 /dev/zero | tr '\\0' x); echo $x | wc -c", func(q *Request) {
		q.HostConfig.Memory, q.HostConfig.MemorySwap = 16<<20, 16<<20
		q.Config.Cmd = []string{"python3", "-c", "x = bytearray(50_000_000)"}
	})
	if !state.OOMKilled || state.ExitCode != 137 {
		t.Errorf("%+v", state)
	}
}

// TestParallel starts many at once: one network that hangs holds up nobody
// else, and all is back afterwards.
func TestParallel(t *testing.T) {
	b := open(t)
	var all sync.WaitGroup
	for i := range 12 {
		all.Go(func() {
			state, stdout, stderr := b.finished(t, fmt.Sprintf("echo %d; exit %d", i, i))
			if state.ExitCode != i || strings.TrimSpace(stdout) != fmt.Sprint(i) {
				t.Errorf("%d: %+v %q %q", i, state, stdout, stderr)
			}
		})
	}
	all.Wait()
}

func TestTop(t *testing.T) {
	b := open(t)
	c := b.start(t, "sleep 1000")
	top, err := b.Top(t.Context(), c.Name, "")
	if err != nil {
		t.Fatal(err)
	}
	if len(top.Processes) == 0 || !strings.Contains(strings.Join(top.Processes[len(top.Processes)-1], " "), "sleep 1000") {
		t.Errorf("%+v", top)
	}
	if _, err := b.Top(t.Context(), c.Name, "-o comm"); !errors.Is(err, linkspan.ErrInvalid) {
		t.Errorf("without a PID column: %v", err)
	}
}

// TestShimKilled: a container whose parent was killed does not go on
// unattended.
func TestShimKilled(t *testing.T) {
	b := open(t)
	c := b.start(t, "sleep 1000")
	shim, err := os.FindProcess(parent(t, b, c))
	if err != nil {
		t.Fatal(err)
	}
	if err := shim.Kill(); err != nil {
		t.Fatal(err)
	}
	if state := b.wait(t, c); state.ExitCode != 137 || !strings.Contains(state.Error, "shim") {
		t.Errorf("%+v", state)
	}
}

func TestKept(t *testing.T) {
	b := open(t)
	var made []*os.File
	for range 250 { // more than fit into one message
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		made = append(made, r)
		b.networks.files.Keep = append(b.networks.files.Keep, w)
	}
	c := b.start(t, "ls /proc/self/fd | wc -l; sleep 1000")
	b.ready(t, c)
	kept, err := b.Kept(c.ID)
	if err != nil {
		t.Fatal(err)
	}
	for i, file := range kept {
		if !sameFile(t, file, made[i]) { // both ends of a pipe are one file
			t.Errorf("descriptor %d is another one", i)
		}
		file.Close()
	}
	if len(kept) != len(b.networks.files.Keep) {
		t.Errorf("%d descriptors came back", len(kept))
	}
	for i, file := range b.networks.files.Keep {
		if !errors.Is(file.Close(), os.ErrClosed) {
			t.Errorf("descriptor %d was left open after the start", i)
		}
	}
	if out, _ := b.output(t, c); out != "4\n" {
		t.Errorf("the container has descriptors: %q", out)
	}
}

func sameFile(tb testing.TB, a, b *os.File) bool {
	tb.Helper()
	x, err := a.Stat()
	if err != nil {
		tb.Fatal(err)
	}
	y, err := b.Stat()
	if err != nil {
		tb.Fatal(err)
	}
	return os.SameFile(x, y)
}

func TestAttach(t *testing.T) {
	b := open(t)
	c := b.create(t, "", command("cat"), func(q *Request) { q.Config.OpenStdin, q.Config.StdinOnce = true, true })
	stream, err := b.Attach(t.Context(), c.Name, AttachOptions{Stdin: true, Stdout: true, Stderr: true})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	if err = b.Start(t.Context(), c.Name); err != nil {
		t.Fatal(err)
	}
	if _, err = stream.Write([]byte("to and fro\n")); err != nil {
		t.Fatal(err)
	}
	if err = stream.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if out, _ := unframe(t, readAll(t, stream)); out != "to and fro\n" {
		t.Errorf("got %q", out)
	}
	if state := b.wait(t, c); state.ExitCode != 0 {
		t.Errorf("%+v", state)
	}

	c = b.start(t, "echo before; read x; echo after $x >&2", func(q *Request) { q.Config.OpenStdin = true })
	b.ready(t, c)
	gone, err := b.Attach(t.Context(), c.Name, AttachOptions{Stdin: true, Stdout: true})
	if err != nil {
		t.Fatal(err)
	}
	gone.Close() // a client that dies takes nothing along
	stream, err = b.Attach(t.Context(), c.Name, AttachOptions{Stdin: true, Stdout: true, Stderr: true, Logs: true})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	if _, err := stream.Write([]byte("all\n")); err != nil {
		t.Fatal(err)
	}
	if out, errs := unframe(t, readAll(t, stream)); out != "before\n" || errs != "after all\n" {
		t.Errorf("got %q and %q", out, errs)
	}
}

func TestTerminal(t *testing.T) {
	b := open(t)
	c := b.create(t, "stty size; tty; test -t 0 && echo $TERM; stat -c %t /dev/console; read x; stty size; echo $x", func(q *Request) {
		q.Config.Tty, q.Config.OpenStdin = true, true
		q.HostConfig.ConsoleSize = [2]uint{25, 81}
	})
	stream, err := b.Attach(t.Context(), c.Name, AttachOptions{Stdin: true, Stdout: true})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	if err := b.Start(t.Context(), c.Name); err != nil {
		t.Fatal(err)
	}
	if err := b.Resize(t.Context(), c.Name, 30, 90); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Write([]byte("hello\n")); err != nil {
		t.Fatal(err)
	}
	got := strings.ReplaceAll(string(readAll(t, stream)), "\r\n", "\n")
	for _, want := range []string{"/dev/pts/0\n", "xterm\n", "\n88\n", "30 90\n", "hello\nhello\n"} {
		if want == "hello\nhello\n" { // echo and answer, in whatever order with the rest
			if strings.Count(got, "hello") != 2 {
				t.Errorf("got %q, want hello twice", got)
			}
		} else if !strings.Contains(got, want) {
			t.Errorf("got %q, want %q in it", got, want)
		}
	}
	if c := b.start(t, "sleep 1000"); b.Resize(t.Context(), c.Name, 1, 1) == nil {
		t.Error("resized a container without a terminal")
	}
}

func TestLogs(t *testing.T) {
	b := open(t)
	c := b.create(t, "for i in 1 2 3 4 5; do echo o$i; echo e$i >&2; sleep 0.02; done; printf end")
	var follow bytes.Buffer
	followed := make(chan error, 1)
	if err := b.Start(t.Context(), c.Name); err != nil {
		t.Fatal(err)
	}
	go func() {
		followed <- b.Logs(within(t, 20*time.Second), c.Name, LogOptions{Stdout: true, Follow: true, Tail: -1}, &follow)
	}()
	b.wait(t, c)
	if err := <-followed; err != nil {
		t.Error(err)
	}
	if out, _ := unframe(t, follow.Bytes()); out != "o1\no2\no3\no4\no5\nend" {
		t.Errorf("followed %q", out)
	}
	logs := func(o LogOptions) string {
		var buf bytes.Buffer
		if err := b.Logs(t.Context(), c.Name, o, &buf); err != nil {
			t.Fatal(err)
		}
		out, errs := unframe(t, buf.Bytes())
		return out + "|" + errs
	}
	tests := []struct {
		options LogOptions
		want    string
	}{
		{LogOptions{Stdout: true, Tail: 2}, "o5\nend|"},
		{LogOptions{Stderr: true, Tail: 2}, "|e4\ne5\n"},
		{LogOptions{Stdout: true, Stderr: true, Tail: 0}, "|"},
		{LogOptions{Stdout: true, Tail: 100}, "o1\no2\no3\no4\no5\nend|"},
		{LogOptions{Stdout: true, Tail: -1, Since: time.Now()}, "|"},
		{LogOptions{Stdout: true, Tail: -1, Until: c.Created}, "|"},
	}
	for _, test := range tests {
		if got := logs(test.options); got != test.want {
			t.Errorf("%+v: got %q, want %q", test.options, got, test.want)
		}
	}
	stamped := logs(LogOptions{Stdout: true, Tail: 1, Timestamps: true})
	if at, err := time.Parse(time.RFC3339Nano, strings.Fields(stamped)[0]); err != nil || time.Since(at) > time.Minute || !strings.HasSuffix(stamped, " end|") {
		t.Errorf("timestamps: %q %v", stamped, err)
	}
	if err := b.Logs(t.Context(), c.Name, LogOptions{}, &follow); !errors.Is(err, linkspan.ErrInvalid) {
		t.Errorf("no stream chosen: %v", err)
	}
}

// TestSlowClient: a client that does not read holds the container up, nothing
// is lost, and with the client gone the container goes on.
func TestSlowClient(t *testing.T) {
	b := open(t)
	c := b.create(t, "head -c 3000000 /dev/zero | tr '\\0' x; echo; echo done >&2")
	stream, err := b.Attach(t.Context(), c.Name, AttachOptions{Stdout: true})
	if err != nil {
		t.Fatal(err)
	}
	if err = b.Start(t.Context(), c.Name); err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond)
	if got, _ := b.Get(c.Name); !got.State.Running() {
		t.Error("3 MB went to a client that reads nothing")
	}
	if err = stream.Close(); err != nil {
		t.Fatal(err)
	}
	if state := b.wait(t, c); state.ExitCode != 0 {
		t.Errorf("%+v", state)
	}
	if out, errs := b.output(t, c); len(out) != 3_000_001 || errs != "done\n" {
		t.Errorf("%d bytes and %q in the log", len(out), errs)
	}
}
