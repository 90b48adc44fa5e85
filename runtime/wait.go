package runtime

import (
	"context"

	"github.com/moby/moby/api/types/container"

	"github.com/linkspan/linkspan"
)

// Waiter waits for one container. It counts from its making on: an exit in
// between is not missed.
type Waiter struct {
	e         *entry
	condition container.WaitCondition
	exits     int
}

// Waiter prepares to wait. The condition "" is not-running.
func (r *Runtime) Waiter(ref string, condition container.WaitCondition) (*Waiter, error) {
	switch condition {
	case "":
		condition = container.WaitConditionNotRunning
	case container.WaitConditionNotRunning, container.WaitConditionNextExit, container.WaitConditionRemoved:
	default:
		return nil, linkspan.Errorf(linkspan.ErrInvalid, "invalid condition: %q", condition)
	}
	e, err := r.find(ref)
	if err != nil {
		return nil, err
	}
	return &Waiter{e: e, condition: condition, exits: e.exitCount()}, nil
}

// Wait blocks until the condition holds, and returns the state of that moment:
// its ExitCode and Error are those of the last run. It fails only with ctx.
func (w *Waiter) Wait(ctx context.Context) (State, error) {
	err := w.e.await(ctx, func() bool {
		switch {
		case w.e.removed:
			return true
		case w.condition == container.WaitConditionRemoved:
			return false
		case w.condition == container.WaitConditionNextExit:
			return w.e.exits > w.exits
		}
		return !w.e.c.State.Active() || w.e.exits > w.exits
	})
	return w.e.get().State, err
}

// Wait is Waiter and its Wait in one.
func (r *Runtime) Wait(ctx context.Context, ref string, condition container.WaitCondition) (State, error) {
	w, err := r.Waiter(ref, condition)
	if err != nil {
		return State{}, err
	}
	return w.Wait(ctx)
}

// await blocks until the condition, which is asked with mu held.
func (e *entry) await(ctx context.Context, condition func() bool) error {
	for {
		e.mu.Lock()
		holds, changed := condition(), e.changed
		e.mu.Unlock()
		if holds {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (e *entry) exitCount() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.exits
}
