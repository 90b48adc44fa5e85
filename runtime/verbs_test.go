package runtime

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"

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

// A full disk is no reason to keep a container: its removal is what makes room.
// One that is cut short there is finished by the next daemon.
func TestRemoveOnFullDisk(t *testing.T) {
	b := open(t)
	if err := unix.Mount("tmpfs", b.data, "tmpfs", 0, "size=256k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(b.data, unix.MNT_DETACH) })
	b.reopen(t)
	first, second := b.create(t, "true", named("first")), b.create(t, "true", named("second"))
	fill, err := os.Create(filepath.Join(b.data, "fill"))
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = fill.Write(make([]byte, 4096))
	}
	if err := errors.Join(fill.Close(), b.Remove(t.Context(), "first", RemoveOptions{})); err != nil {
		t.Errorf("removing a container on a full disk: %v", err)
	}
	if _, err := os.Stat(b.dataDir(first.ID)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("its files are there still: %v", err)
	}
	fill, err = os.OpenFile(fill.Name(), os.O_APPEND|os.O_WRONLY, 0)
	for err == nil {
		_, err = fill.Write(make([]byte, 4096))
	}
	b.networks.refuse = map[string]error{"Forget": errors.New("not now")}
	if err := b.Remove(t.Context(), "second", RemoveOptions{}); err == nil {
		t.Error("a container whose networks cannot be given up is removed")
	}
	b.networks.refuse = nil
	b.reopen(t)
	if err := errors.Join(fill.Close(), b.Recover(t.Context())); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(b.dataDir(second.ID)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the next daemon has not finished the removal: %v", err)
	}
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

// One that goes at its exit is gone when it has been stopped.
func TestStopRemoves(t *testing.T) {
	b := open(t)
	c := b.start(t, "sleep 1000", autoRemove)
	timeout := time.Duration(0)
	if err := b.Stop(t.Context(), c.Name, StopOptions{Timeout: &timeout}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Get(c.Name); !errors.Is(err, linkspan.ErrNotFound) {
		t.Errorf("after the stop: %v", err)
	}
	if got := b.actions(); !strings.HasSuffix(got, " die stop destroy") {
		t.Errorf("events %q", got)
	}
}

// The end is told when it is seen, before the networks tell that they were left,
// and not while they are being left.
func TestDieIsSeen(t *testing.T) {
	b := open(t)
	var early string
	b.networks.leaving = func() func() {
		early = b.actions()
		return func() { b.hear(Event{Action: "disconnect"}) }
	}
	b.until(t, b.start(t, "exit 5").Name, "the end", isExited)
	if got, want := early+" | "+b.actions(), "create start | create start die disconnect"; got != want {
		t.Errorf("events %q, want %q", got, want)
	}
}

// A container that is to be removed at its exit survives a restart, and no more
// than that. What it writes need not reach the disk, and is there all the same.
func TestRestartKeepsIt(t *testing.T) {
	b := open(t)
	c := b.start(t, "trap 'exit 0' TERM; echo x >>/mark; echo ready; while :; do sleep 0.02; done", autoRemove)
	b.ready(t, c)
	lasting := b.start(t, "sleep 1000")
	if b.isBrief(t, lasting) || !b.isBrief(t, c) {
		t.Error("an overlay that never syncs is for containers that are removed at their exit, and for no others")
	}
	if err := b.Remove(t.Context(), string(lasting.ID), RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	if err := b.Stop(t.Context(), c.Name, StopOptions{Restart: true}); err != nil {
		t.Fatal(err)
	}
	b.until(t, string(c.ID), "the end of the run", func(c Container) bool { return c.State.Status == container.StateExited })
	if got := b.copied(t, c, "/mark"); got["mark"] != "x\n" {
		t.Errorf("between its runs it has %q", got)
	}
	if err := b.Start(t.Context(), c.Name); err != nil {
		t.Fatal(err)
	}
	b.until(t, string(c.ID), "its second run", func(c Container) bool { return b.copied(t, c, "/mark")["mark"] == "x\nx\n" })
	w, err := b.Waiter(c.Name, container.WaitConditionRemoved)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Kill(t.Context(), c.Name, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Wait(within(t, 20*time.Second)); err != nil {
		t.Error(err)
	}
	b.empty(t)
}

// isBrief tells whether the overlay of a running container never syncs.
func (b *bench) isBrief(t *testing.T, c Container) bool {
	t.Helper()
	running, err := b.Get(string(c.ID))
	if err != nil {
		t.Fatal(err)
	}
	mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mounts", running.State.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.HasPrefix(line, "overlay / overlay ") {
			return strings.Contains(line, "volatile") // in newer kernels it is fsync=volatile
		}
	}
	t.Fatalf("its root is no overlay:\n%s", mounts)
	return false
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
