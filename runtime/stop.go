package runtime

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"syscall"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/sys/signal"
	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/runtime/launch"
)

const (
	defaultStop = 10 * time.Second
	// afterKill is how long the end of a killed process may take; one that the
	// kernel holds in a disk request cannot die.
	afterKill = 10 * time.Second
)

// StopOptions override what the container's configuration says.
type StopOptions struct {
	Signal  string         // "" is Config.StopSignal, else SIGTERM
	Timeout *time.Duration // until SIGKILL; nil is Config.StopTimeout, else 10 s; negative waits for ever
	Restart bool           // a start follows: the container is not removed at its exit, whatever it was created with
}

// Stop asks the container to end, and kills it when its time is over. It
// returns when the container has stopped. One that does not run is
// ErrNotModified.
func (r *Runtime) Stop(ctx context.Context, ref string, o StopOptions) error {
	e, err := r.find(ref)
	if err != nil {
		return err
	}
	e.verb.Lock()
	defer e.verb.Unlock()
	c, exits := e.snapshot()
	if !c.State.Active() {
		return linkspan.Errorf(linkspan.ErrNotModified, "container %s is not running", c.ID)
	}
	number, timeout, err := stopPlan(c, o)
	if err != nil {
		return err
	}
	r.askedToEnd(e)
	e.setReturns(o.Restart)
	if r.noRestart(e) {
		return r.stopped(ctx, e, o)
	}
	if err := r.signal(c, number); err != nil {
		// The shim is gone, or about to go since the process has just ended:
		// what cannot be asked to end is seen to its end.
		if err := r.kill(ctx, e, exits); err != nil {
			return fmt.Errorf("cannot stop container: %s: %w", ref, err)
		}
		return r.stopped(ctx, e, o)
	}
	if isStatus(c, container.StatePaused) {
		// The signal arrives when the processes go on.
		if err := r.thaw(ctx, e); err != nil {
			return fmt.Errorf("cannot stop container: %s: %w", ref, err)
		}
	}
	limit := ctx
	if timeout >= 0 {
		var cancel context.CancelFunc
		limit, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	if err := e.await(limit, func() bool { return e.exits > exits }); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := r.kill(ctx, e, exits); err != nil {
			return fmt.Errorf("cannot stop container: %s: %w", ref, err)
		}
	}
	return r.stopped(ctx, e, o)
}

// stopped tells of the stop and, so that the name is free at once, sees to the
// removal of a container that goes at its exit. It needs the verb lock.
func (r *Runtime) stopped(ctx context.Context, e *entry, o StopOptions) error {
	c := e.get()
	r.event(c, "stop")
	if o.Restart || !c.HostConfig.AutoRemove {
		return nil
	}
	return r.remove(context.WithoutCancel(ctx), e)
}

// setReturns notes whether a restart is under way, and tells whether one was.
func (e *entry) setReturns(returns bool) (was bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	was, e.returns = e.returns, returns
	return was
}

func stopPlan(c Container, o StopOptions) (syscall.Signal, time.Duration, error) {
	name := o.Signal
	if name == "" {
		name = c.Config.StopSignal
	}
	number := syscall.SIGTERM
	if name != "" {
		var err error
		if number, err = signalByName(name); err != nil {
			return 0, 0, err
		}
	}
	switch {
	case o.Timeout != nil:
		return number, *o.Timeout, nil
	case c.Config.StopTimeout != nil:
		return number, time.Duration(*c.Config.StopTimeout) * time.Second, nil
	}
	return number, defaultStop, nil
}

// signalByName takes 9, KILL and SIGKILL.
func signalByName(name string) (syscall.Signal, error) {
	number, err := signal.ParseSignal(name)
	if err != nil || !signal.ValidSignalForPlatform(number) {
		return 0, linkspan.Errorf(linkspan.ErrInvalid, "invalid signal: %s", name)
	}
	return number, nil
}

// Kill sends a signal ("" is SIGKILL) to the container's PID 1. With SIGKILL it
// returns when the container has stopped.
func (r *Runtime) Kill(ctx context.Context, ref, name string) error {
	e, err := r.find(ref)
	if err != nil {
		return err
	}
	number := syscall.SIGKILL
	if name != "" {
		if number, err = signalByName(name); err != nil {
			return err
		}
	}
	c, exits := e.snapshot()
	if ends(c, number) {
		r.askedToEnd(e)
	}
	if isStatus(e.get(), container.StateRestarting) {
		e.verb.Lock()
		gaveUp := r.noRestart(e)
		e.verb.Unlock()
		if gaveUp {
			return nil
		}
		c, exits = e.snapshot()
	}
	if !c.State.Running() {
		return linkspan.Errorf(linkspan.ErrConflict, "cannot kill container: %s: %w", ref, errNotRunning(c))
	}
	// Not a verb that waits its turn: it must reach a container that somebody
	// is stopping.
	if number != syscall.SIGKILL {
		err := r.signal(c, number)
		if errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.ENOENT) { // it has just ended
			err = errNotRunning(c)
		}
		if err != nil {
			return fmt.Errorf("cannot kill container: %s: %w", ref, err)
		}
		return nil
	}
	if err := r.kill(ctx, e, exits); err != nil {
		return fmt.Errorf("cannot kill container: %s: %w", ref, err)
	}
	return nil
}

// ends tells whether a signal is a wish that the container stops, against
// which no restart policy acts.
func ends(c Container, number syscall.Signal) bool {
	wish, _, err := stopPlan(c, StopOptions{})
	return number == syscall.SIGKILL || err == nil && number == wish
}

// signal sends through the shim, which as the parent knows that the process
// number is still that process's. It tells of it before, since the end of the
// process is told of by somebody else, who may be quick.
func (r *Runtime) signal(c Container, number syscall.Signal) error {
	r.event(c, "kill", "signal", strconv.Itoa(int(number)))
	return r.control(c, launch.ReqSignal, launch.Control{A: int(number)})
}

// kill ends the container for certain: the kernel kills a PID namespace with
// its PID 1. A shim that cannot be asked is dead or about to end, and killing
// the cgroup is right then.
func (r *Runtime) kill(ctx context.Context, e *entry, exits int) error {
	c := e.get()
	group := r.cgroups.Group(c.group())
	if err := r.signal(c, syscall.SIGKILL); err != nil {
		if err := group.Kill(); err != nil {
			return err
		}
	}
	if isStatus(c, container.StatePaused) {
		if err := group.Thaw(ctx); err != nil { // a frozen v1 process does not even die
			r.options.Logf("thawing container %s: %v", c.ID.Short(), err)
		}
	}
	limit, cancel := context.WithTimeout(ctx, afterKill)
	defer cancel()
	if err := e.await(limit, func() bool { return e.exits > exits }); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("container %s did not end %v after SIGKILL; processes %v are held by the kernel (see /proc/PID/stack)", c.ID.Short(), afterKill, group.Pids())
	}
	return nil
}

// Pause freezes all processes of the container.
func (r *Runtime) Pause(ctx context.Context, ref string) error {
	e, err := r.find(ref)
	if err != nil {
		return err
	}
	e.verb.Lock()
	defer e.verb.Unlock()
	c := e.get()
	switch {
	case isStatus(c, container.StatePaused):
		return linkspan.Errorf(linkspan.ErrConflict, "container %s is already paused", c.ID)
	case isStatus(c, container.StateRestarting):
		return errRestarting(ref)
	case !c.State.Running():
		return errNotRunning(c)
	}
	group := r.cgroups.Group(c.group())
	if err := group.Freeze(ctx); err != nil {
		undo, cancel := undoing(ctx)
		defer cancel()
		return errors.Join(fmt.Errorf("cannot pause container %s: %w", ref, err), group.Thaw(undo))
	}
	r.setPaused(e, true)
	r.event(c, "pause")
	return nil
}

// Unpause lets them go on.
func (r *Runtime) Unpause(ctx context.Context, ref string) error {
	e, err := r.find(ref)
	if err != nil {
		return err
	}
	e.verb.Lock()
	defer e.verb.Unlock()
	if c := e.get(); !isStatus(c, container.StatePaused) {
		return linkspan.Errorf(linkspan.ErrConflict, "Container %s is not paused", c.ID)
	}
	return r.thaw(ctx, e)
}

func (r *Runtime) thaw(ctx context.Context, e *entry) error {
	c := e.get()
	if err := r.cgroups.Group(c.group()).Thaw(ctx); err != nil {
		return fmt.Errorf("cannot unpause container %s: %w", c.ID.Short(), err)
	}
	r.setPaused(e, false)
	r.event(c, "unpause")
	return nil
}

// setPaused leaves a container alone that has ended meanwhile.
func (r *Runtime) setPaused(e *entry, paused bool) {
	r.keep(e, "pausing", func(c *Container) bool {
		switch {
		case paused && c.State.Status == container.StateRunning:
			c.State.Status = container.StatePaused
		case !paused && c.State.Status == container.StatePaused:
			c.State.Status = container.StateRunning
		}
		return c.State.Running()
	})
}
