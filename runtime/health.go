package runtime

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/runtime/launch"
)

// Docker's values for what a health check leaves open.
const (
	probeInterval      = 30 * time.Second
	probeStartInterval = 5 * time.Second
	probeTimeout       = 30 * time.Second
	probeRetries       = 3
	probeOutput        = 4096 // bytes that are kept of one probe's output
	probesKept         = 5
)

// probeCommand returns what to run, nil for a container without a check.
func probeCommand(c *container.Config) []string {
	if c.Healthcheck == nil || len(c.Healthcheck.Test) == 0 {
		return nil
	}
	switch kind, rest := c.Healthcheck.Test[0], c.Healthcheck.Test[1:]; {
	case kind == "CMD" && len(rest) > 0:
		return rest
	case kind == "CMD-SHELL" && len(rest) > 0:
		shell := c.Shell
		if len(shell) == 0 {
			shell = []string{"/bin/sh", "-c"}
		}
		return append(slices.Clone(shell), rest[0])
	}
	return nil
}

// checkHealth refuses times that make no sense; 0 is the default.
func checkHealth(h *v1.HealthcheckConfig) error {
	if h == nil {
		return nil
	}
	for name, d := range map[string]time.Duration{"Interval": h.Interval, "Timeout": h.Timeout, "StartPeriod": h.StartPeriod, "StartInterval": h.StartInterval} {
		if d != 0 && d < time.Millisecond {
			return linkspan.Errorf(linkspan.ErrInvalid, "%s in Healthcheck cannot be less than %s", name, time.Millisecond)
		}
	}
	if h.Retries < 0 {
		return linkspan.Errorf(linkspan.ErrInvalid, "Retries in Healthcheck cannot be negative")
	}
	return nil
}

// newHealth is the state of a check at the start, nil if there is none.
func newHealth(h *v1.HealthcheckConfig) *container.Health {
	if probeCommand(&container.Config{Healthcheck: h}) == nil {
		return nil
	}
	return &container.Health{Status: container.Starting, Log: []*container.HealthcheckResult{}}
}

// endedHealth is the state of a check whose container has ended.
func endedHealth(h *container.Health) *container.Health {
	if h == nil {
		return nil
	}
	return &container.Health{Status: container.Unhealthy, FailingStreak: h.FailingStreak, Log: h.Log}
}

// watchHealth probes a run until its end.
func (r *Runtime) watchHealth(e *entry, started *run) {
	c := e.get()
	command := probeCommand(c.Config)
	if command == nil {
		return
	}
	if c.State.Health == nil { // a record of a release that did not check
		e.update(func(c *Container) { c.State.Health = newHealth(c.Config.Healthcheck) })
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	r.monitors.Go(func() {
		timer := time.NewTimer(probePause(e.get()))
		defer timer.Stop()
		for {
			select {
			case <-started.over.Done():
				return
			case <-timer.C:
			}
			// A paused container cannot answer, which is no fault of its own.
			if c := e.get(); c.State.Status == container.StateRunning {
				r.probed(e, started, r.probe(started.over, c, command))
			}
			timer.Reset(probePause(e.get()))
		}
	})
}

// probePause is the time until the next probe.
func probePause(c Container) time.Duration {
	h := c.Config.Healthcheck
	if c.State.Health != nil && c.State.Health.Status == container.Starting && time.Since(c.State.StartedAt) < h.StartPeriod {
		return or(h.StartInterval, probeStartInterval)
	}
	return or(h.Interval, probeInterval)
}

func or(d, absent time.Duration) time.Duration {
	if d <= 0 {
		return absent
	}
	return d
}

// probed takes in one result: a success makes healthy at once, failures in a
// row make unhealthy, and those of the start period do not count as long as
// there was no success.
func (r *Runtime) probed(e *entry, started *run, result container.HealthcheckResult) {
	if started.over.Err() != nil {
		return
	}
	changed := false
	c := r.keep(e, "checking", func(c *Container) bool {
		if c.State.Health == nil || !c.State.Running() {
			return false
		}
		h := nextHealth(*c.State.Health, c.Config.Healthcheck, result, result.Start.Sub(c.State.StartedAt))
		changed = h.Status != c.State.Health.Status
		c.State.Health = &h
		return changed
	})
	if !changed {
		return
	}
	r.event(c, "health_status: "+string(c.State.Health.Status))
}

func nextHealth(h container.Health, config *v1.HealthcheckConfig, result container.HealthcheckResult, age time.Duration) container.Health {
	h.Log = append(slices.Clone(h.Log[max(len(h.Log)-probesKept+1, 0):]), &result)
	retries := config.Retries
	if retries <= 0 {
		retries = probeRetries
	}
	switch {
	case result.ExitCode == 0:
		h.FailingStreak, h.Status = 0, container.Healthy
	case h.Status == container.Starting && age < config.StartPeriod:
	default:
		h.FailingStreak++
		if h.FailingStreak >= retries {
			h.Status = container.Unhealthy
		}
	}
	return h
}

// probe runs the check once, as a further process in the container.
func (r *Runtime) probe(ctx context.Context, c Container, command []string) container.HealthcheckResult {
	result := container.HealthcheckResult{Start: time.Now(), ExitCode: -1}
	id, err := r.ExecCreate(ctx, string(c.ID), container.ExecCreateRequest{Cmd: command, AttachStdout: true, AttachStderr: true})
	var stream Stream
	if err == nil {
		defer r.forgetExec(id)
		stream, err = r.ExecStart(ctx, id, container.ExecStartRequest{})
	}
	if err != nil {
		result.End, result.Output = time.Now(), err.Error()
		return result
	}
	output := make(chan string, 1)
	go func() {
		kept := &head{limit: probeOutput}
		stdcopy.StdCopy(kept, kept, stream) //nolint:errcheck // what came so far is what there is
		output <- kept.String()
	}()
	timeout := or(c.Config.Healthcheck.Timeout, probeTimeout)
	limit, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	x, err := r.ExecWait(limit, id)
	if err != nil {
		r.control(c, launch.ReqSignal, launch.Control{Session: id, A: int(unix.SIGKILL)}) //nolint:errcheck // it may have ended by now
		stream.Close()                                                                    //nolint:errcheck // nobody reads on
		said := <-output
		result.End = time.Now()
		if errors.Is(err, context.DeadlineExceeded) {
			result.Output = fmt.Sprintf("Health check exceeded timeout (%v)", timeout)
			if said != "" {
				result.Output += ": " + said
			}
		}
		return result
	}
	result.Output = <-output
	stream.Close() //nolint:errcheck // it is at its end
	result.End = time.Now()
	if x.ExitCode != nil {
		result.ExitCode = *x.ExitCode
	}
	return result
}

func (r *Runtime) forgetExec(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.execs, id)
}

// head keeps the beginning of what is written to it.
type head struct {
	bytes.Buffer
	limit int
}

var _ io.Writer = (*head)(nil)

func (h *head) Write(p []byte) (int, error) {
	room := min(max(h.limit-h.Len(), 0), len(p))
	h.Buffer.Write(p[:room])
	return len(p), nil
}
