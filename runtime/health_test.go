package runtime

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/container"

	"github.com/linkspan/linkspan/internal/nstest"
)

func check(h v1.HealthcheckConfig) setting { return func(q *Request) { q.Config.Healthcheck = &h } }

func health(status container.HealthStatus) func(Container) bool {
	return func(c Container) bool { return c.State.Health != nil && c.State.Health.Status == status }
}

func TestHealth(t *testing.T) {
	b := open(t)
	dir := t.TempDir()
	bind := func(q *Request) { q.HostConfig.Binds = []string{dir + ":/state"} }
	c := b.start(t, "sleep 300", bind, check(v1.HealthcheckConfig{
		Test: []string{"CMD-SHELL", "echo probed; test -e /state/good"}, Interval: 20 * time.Millisecond, Retries: 2,
	}))
	if c, _ = b.Get(string(c.ID)); c.State.Health == nil || c.State.Health.Status != container.Starting {
		t.Errorf("at the start: %+v", c.State.Health)
	}
	c = b.until(t, string(c.ID), "failures", health(container.Unhealthy))
	if h := c.State.Health; h.FailingStreak < 2 || h.Log[0].ExitCode != 1 || h.Log[0].Output != "probed\n" || h.Log[0].End.Before(h.Log[0].Start) {
		t.Errorf("unhealthy: %+v %+v", h, h.Log[0])
	}
	if err := os.WriteFile(filepath.Join(dir, "good"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c = b.until(t, string(c.ID), "a success", health(container.Healthy))
	if c.State.Health.FailingStreak != 0 {
		t.Errorf("healthy: %+v", c.State.Health)
	}
	b.until(t, string(c.ID), "a full log", func(c Container) bool { return len(c.State.Health.Log) == probesKept })
	// A daemon's restart changes nothing, and probing goes on.
	b.reopen(t)
	if err := b.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if c, _ = b.Get(string(c.ID)); c.State.Health == nil || c.State.Health.Status != container.Healthy {
		t.Errorf("after a restart of the daemon: %+v", c.State.Health)
	}
	if err := os.Remove(filepath.Join(dir, "good")); err != nil {
		t.Fatal(err)
	}
	b.until(t, string(c.ID), "failures after a restart of the daemon", health(container.Unhealthy))
	if err := b.Kill(t.Context(), string(c.ID), ""); err != nil {
		t.Fatal(err)
	}
	if s := b.wait(t, c); s.Health == nil || s.Health.Status != container.Unhealthy {
		t.Errorf("ended: %+v", s.Health)
	}
	if got := b.actions(); !strings.Contains(got, "health_status: unhealthy") || !strings.Contains(got, "health_status: healthy") {
		t.Errorf("events: %s", got)
	}
	if !nstest.Until(time.Minute, func() bool {
		b.Runtime.mu.Lock()
		defer b.Runtime.mu.Unlock()
		return len(b.execs) == 0
	}) {
		t.Error("records of probes are kept")
	}
}

func TestHealthTimeout(t *testing.T) {
	b := open(t)
	const said = ": so far\n"
	c := b.start(t, "sleep 300", check(v1.HealthcheckConfig{
		Test: []string{"CMD", "sh", "-c", "echo so far; sleep 200"}, Interval: 10 * time.Millisecond, Timeout: time.Second, Retries: 1,
	}))
	c = b.until(t, string(c.ID), "a timeout", health(container.Unhealthy))
	if log := c.State.Health.Log[0]; log.ExitCode != -1 || !strings.HasPrefix(log.Output, "Health check exceeded timeout (1s)") || !strings.HasSuffix(log.Output, said) {
		t.Errorf("result %+v", log)
	}
	if err := b.Kill(t.Context(), string(c.ID), ""); err != nil {
		t.Fatal(err)
	}
}

func TestNextHealth(t *testing.T) {
	good, bad := container.HealthcheckResult{}, container.HealthcheckResult{ExitCode: 1}
	config := &v1.HealthcheckConfig{StartPeriod: time.Minute}
	tests := []struct {
		status container.HealthStatus
		streak int
		result container.HealthcheckResult
		age    time.Duration
		want   container.HealthStatus
		left   int
	}{
		{container.Starting, 0, bad, time.Second, container.Starting, 0},
		{container.Starting, 0, good, time.Second, container.Healthy, 0},
		{container.Healthy, 0, bad, time.Second, container.Healthy, 1},
		{container.Starting, 1, bad, 2 * time.Minute, container.Starting, 2},
		{container.Starting, 2, bad, 2 * time.Minute, container.Unhealthy, 3},
		{container.Healthy, 2, bad, 2 * time.Minute, container.Unhealthy, 3},
		{container.Unhealthy, 7, good, 2 * time.Minute, container.Healthy, 0},
	}
	for _, test := range tests {
		got := nextHealth(container.Health{Status: test.status, FailingStreak: test.streak}, config, test.result, test.age)
		if got.Status != test.want || got.FailingStreak != test.left {
			t.Errorf("%+v: got %s %d", test, got.Status, got.FailingStreak)
		}
	}
	c := Container{Config: &container.Config{Healthcheck: config}, State: State{StartedAt: time.Now(), Health: &container.Health{Status: container.Starting}}}
	if got := probePause(c); got != probeStartInterval {
		t.Errorf("pause in the start period: %v", got)
	}
	c.State.Health = &container.Health{Status: container.Healthy}
	if got := probePause(c); got != probeInterval {
		t.Errorf("pause after a success: %v", got)
	}
}
