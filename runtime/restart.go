package runtime

import (
	"context"
	"time"

	"github.com/moby/moby/api/types/container"
)

const (
	// firstPause is how long the first start by a restart policy waits; each
	// further one waits twice as long, up to longestPause. A run that lasted
	// longRun begins anew.
	firstPause   = 100 * time.Millisecond
	longestPause = time.Minute
	longRun      = 10 * time.Second
	// startsAtOnce bounds how many containers a daemon that comes up starts
	// side by side.
	startsAtOnce = 8
)

// again decides whether the restart policy starts a container that has just
// ended, and counts that start. It is the only place where that is decided, but
// for what Resume adds at the daemon's start. The entry's mu must be held.
func (e *entry) again(c *Container, ran time.Duration) bool {
	if c.State.Stopped || !wanted(c) {
		return false
	}
	if ran >= longRun {
		e.pause = 0
	}
	e.pause = min(max(2*e.pause, firstPause), longestPause)
	c.State.RestartCount++
	return true
}

// wanted tells whether the policy wants a container to run whose last run ended
// by itself.
func wanted(c *Container) bool {
	policy := c.HostConfig.RestartPolicy
	switch {
	case policy.IsAlways(), policy.IsUnlessStopped():
		return true
	case policy.IsOnFailure():
		return c.State.ExitCode != 0 && (policy.MaximumRetryCount == 0 || c.State.RestartCount < policy.MaximumRetryCount)
	}
	return false
}

// restartLater starts the container when its pause is over, unless somebody
// starts, stops or removes it before.
func (r *Runtime) restartLater(e *entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return // the next daemon sees the state
	}
	r.monitors.Go(func() {
		e.mu.Lock()
		pause := e.pause
		e.mu.Unlock()
		select {
		case <-r.held:
		case <-r.closing.Done():
			return
		}
		limit, cancel := context.WithTimeout(r.closing, pause)
		defer cancel()
		if e.await(limit, func() bool { return e.removed || e.c.State.Status != container.StateRestarting }) == nil || r.isClosed() {
			return
		}
		select {
		case r.turns <- struct{}{}:
		case <-r.closing.Done():
			return
		}
		defer func() { <-r.turns }()
		e.verb.Lock()
		defer e.verb.Unlock()
		if c := e.get(); isStatus(c, container.StateRestarting) && !r.isClosed() {
			if err := r.start(context.Background(), e, false); err != nil {
				r.options.Logf("starting container %s by its restart policy: %v", c.ID.Short(), err)
			}
		}
	})
}

// noRestart gives up a start that restartLater was to make. It needs the verb
// lock, and tells whether there was one.
func (r *Runtime) noRestart(e *entry) bool {
	had := false
	r.keep(e, "stopping", func(c *Container) bool {
		if had = c.State.Status == container.StateRestarting; had {
			c.State.Status, c.State.Stopped = container.StateExited, true
		}
		return had
	})
	return had
}

// askedToEnd notes that the end of this run is somebody's wish. Only a policy
// that could want it otherwise makes it worth a file.
func (r *Runtime) askedToEnd(e *entry) {
	r.keep(e, "stopping", func(c *Container) bool {
		if !c.State.Running() {
			return false
		}
		c.State.Stopped = true
		return !c.HostConfig.RestartPolicy.IsNone()
	})
}

// Resume lets restart policies act after Recover: it starts what the policies
// want to run and does not. "always" means after a stop, too, once the daemon
// comes up again. It does not wait for the starts.
func (r *Runtime) Resume() {
	r.mu.Lock()
	entries := make([]*entry, 0, len(r.entries))
	for _, e := range r.entries {
		entries = append(entries, e)
	}
	r.mu.Unlock()
	for _, e := range entries {
		e.mu.Lock()
		exited := e.c.State.Status == container.StateExited
		start := exited && (e.c.HostConfig.RestartPolicy.IsAlways() || !e.c.State.Stopped && wanted(&e.c))
		waits := e.c.State.Status == container.StateRestarting && e.pause == 0 // for a daemon that is gone
		if start {
			e.c.State.Status, e.c.State.Stopped = container.StateRestarting, false
			e.wake()
		}
		e.mu.Unlock()
		if start || waits {
			r.restartLater(e)
		}
	}
	close(r.held)
}
