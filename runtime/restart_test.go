package runtime

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/internal/nstest"
)

func policy(name container.RestartPolicyMode, most int) setting {
	return func(q *Request) {
		q.HostConfig.RestartPolicy = container.RestartPolicy{Name: name, MaximumRetryCount: most}
	}
}

// until polls a container; what does not happen in a minute will not.
func (b *bench) until(tb testing.TB, ref, what string, holds func(Container) bool) Container {
	tb.Helper()
	var c Container
	if !nstest.Until(time.Minute, func() bool {
		var err error
		c, err = b.Get(ref)
		return err == nil && holds(c)
	}) {
		tb.Fatalf("%s: waited in vain for %s: %+v", ref, what, c.State)
	}
	return c
}

func isExited(c Container) bool { return c.State.Status == container.StateExited }

func TestRestartOnFailure(t *testing.T) {
	b := open(t)
	c := b.start(t, "echo run; exit 3", policy("on-failure", 2))
	c = b.until(t, string(c.ID), "the end", isExited)
	if c.State.RestartCount != 2 || c.State.ExitCode != 3 {
		t.Errorf("state %+v, want 2 restarts", c.State)
	}
	if out, _ := b.output(t, c); out != "run\nrun\nrun\n" {
		t.Errorf("output %q", out)
	}
	if got := b.actions(); got != "create start die start die start die" {
		t.Errorf("events: %s", got)
	}
	if err := b.Start(t.Context(), c.Name); err != nil {
		t.Fatal(err)
	}
	c = b.until(t, string(c.ID), "the end of the second life", func(c Container) bool {
		out, _ := b.output(t, c)
		return isExited(c) && strings.Count(out, "run") == 6
	})
	if c.State.RestartCount != 2 {
		t.Errorf("a start that was asked for does not count anew: %+v", c.State)
	}
	good := b.start(t, "true", policy("on-failure", 0))
	if s := b.wait(t, good); s.Status != container.StateExited || s.RestartCount != 0 {
		t.Errorf("a good end is restarted: %+v", s)
	}
}

func TestRestartUntilStopped(t *testing.T) {
	b := open(t)
	for _, end := range []string{"stop", "kill", "stop while it waits", "remove while it waits"} {
		script := "trap 'exit 0' TERM; sleep 0.05"
		if strings.Contains(end, "waits") {
			script = "false" // the pause grows
		}
		c := b.start(t, script, policy("always", 0))
		id := string(c.ID)
		b.until(t, id, "restarts", func(c Container) bool {
			waits := c.State.Status == container.StateRestarting
			return c.State.RestartCount >= 3 && (waits || !strings.Contains(end, "waits"))
		})
		var err error
		switch zero := time.Duration(0); end {
		case "kill":
			// What does not run at this moment cannot be killed, and is not restarted either.
			err = b.Kill(t.Context(), id, "")
		case "remove while it waits":
			if err = b.Remove(t.Context(), id, RemoveOptions{}); err == nil {
				t.Error("a restarting container was removed without force")
			}
			err = b.Remove(t.Context(), id, RemoveOptions{Force: true})
		default:
			err = b.Stop(t.Context(), id, StopOptions{Timeout: &zero})
		}
		if err != nil {
			t.Errorf("%s: %v", end, err)
		}
		if end == "remove while it waits" {
			continue
		}
		c = b.until(t, id, "the end", isExited)
		if !c.State.Stopped {
			t.Errorf("%s: %+v", end, c.State)
		}
		b.mu.Lock()
		b.events = nil
		b.mu.Unlock()
		e, err := b.find(id)
		if err != nil {
			t.Fatal(err)
		}
		limit, cancel := context.WithTimeout(t.Context(), 4*firstPause)
		if e.await(limit, func() bool { return e.c.State.Active() }) == nil {
			t.Errorf("%s: it runs again", end)
		}
		cancel()
	}
}

// TestStopAtTheEnd: a stop that meets the process's own end is a stop.
func TestStopAtTheEnd(t *testing.T) {
	b := open(t)
	c := b.create(t, "exit 0", policy("always", 0))
	for i := range 40 {
		if err := b.Start(t.Context(), string(c.ID)); err != nil && !errors.Is(err, linkspan.ErrNotModified) {
			t.Fatal(err)
		}
		pause, cancel := context.WithTimeout(t.Context(), time.Duration(i)*200*time.Microsecond)
		<-pause.Done()
		cancel()
		timeout := time.Duration(0)
		if err := b.Stop(t.Context(), string(c.ID), StopOptions{Timeout: &timeout}); err != nil && !errors.Is(err, linkspan.ErrNotModified) {
			t.Errorf("stop %d: %v", i, err)
		}
		if got, err := b.Get(string(c.ID)); err != nil || got.State.Active() {
			t.Errorf("after stop %d: %v %+v", i, err, got.State)
		}
	}
}

func TestRestartWait(t *testing.T) {
	b := open(t)
	c := b.start(t, "sleep 0.1; exit 4", policy("always", 0))
	// Each end is an end to those who wait.
	if s := b.wait(t, c); s.ExitCode != 4 {
		t.Errorf("state %+v", s)
	}
}

// TestResume: a daemon that comes up starts what the policies want.
func TestResume(t *testing.T) {
	b := open(t)
	gate := t.TempDir()
	bind := func(q *Request) { q.HostConfig.Binds = []string{gate + ":/gate"} }
	script := "test -e /gate/on && exec sleep 300; exit 5"
	stop := func(c Container) {
		zero := time.Duration(0)
		if err := b.Stop(t.Context(), string(c.ID), StopOptions{Timeout: &zero}); err != nil {
			t.Fatal(err)
		}
	}
	waiting := b.start(t, script, policy("always", 0), bind, named("waiting"))
	b.until(t, "waiting", "a restart", func(c Container) bool { return c.State.RestartCount > 0 })
	stoppedAlways := b.start(t, "sleep 300", policy("always", 0), named("stopped-always"))
	stop(stoppedAlways)
	stoppedUnless := b.start(t, "sleep 300", policy("unless-stopped", 0), named("stopped-unless"))
	stop(stoppedUnless)
	b.create(t, "sleep 300", policy("always", 0), named("created"))
	plain := b.start(t, "exit 1", named("plain"))
	b.wait(t, plain)
	if err := os.WriteFile(filepath.Join(gate, "on"), nil, 0o600); err != nil {
		t.Fatal(err)
	}

	b.reopen(t)
	if err := b.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.Resume()
	running := func(c Container) bool { return c.State.Status == container.StateRunning && c.State.Pid > 0 }
	b.until(t, string(waiting.ID), "its start", running)
	b.until(t, "stopped-always", "its start", running)
	for name, want := range map[string]container.ContainerState{"stopped-unless": "exited", "created": "created", "plain": "exited"} {
		if c, err := b.Get(name); err != nil || c.State.Status != want {
			t.Errorf("%s: %v %+v", name, err, c.State)
		}
	}
}
