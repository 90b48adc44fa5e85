package op

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/linkspan/linkspan/kernel"
)

// UndoTimeout bounds an undo, which runs without its caller's cancellation.
const UndoTimeout = 30 * time.Second

// Verb says what an Executor did with an op.
type Verb string

// The verbs of an Executor.
const (
	Did   Verb = "do"
	Undid Verb = "undo"
)

// Event is one op carried out, for whoever watches.
type Event struct {
	Verb Verb
	Step Step
	Took time.Duration
	Err  error // nil if it succeeded
}

// Executor carries out plans on one machine. It is safe for concurrent use; two
// plans run side by side, and what order they need the caller keeps.
type Executor struct {
	Host *kernel.Host

	// Trace, if not nil, is called after each op. It must not block.
	Trace func(Event)

	// Before, if not nil, is called before step i of a plan is done; its error
	// takes the place of the step. Tests use it to fail or stop at every step.
	Before func(i int, step Step) error
}

// Do carries out a plan: all of it or, if a step fails, nothing: the steps done
// so far are undone in reverse order.
func (x *Executor) Do(ctx context.Context, plan Plan) error {
	for i, step := range plan {
		err := x.do(ctx, i, step)
		if err == nil {
			continue
		}
		err = fmt.Errorf("%w (step %d of %d: %s)", err, i+1, len(plan), firstLine(step.Op.String()))
		if undoErr := x.Undo(ctx, plan[:i]); undoErr != nil {
			err = errors.Join(err, fmt.Errorf("undoing what was done before: %w", undoErr))
		}
		return err
	}
	return nil
}

func (x *Executor) do(ctx context.Context, i int, step Step) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if x.Before != nil {
		if err := x.Before(i, step); err != nil {
			return err
		}
	}
	start := time.Now()
	err := step.Op.Do(ctx, x.Host)
	x.trace(Did, step, start, err)
	return err
}

// Undo takes a plan back, last step first. It goes on past errors and reports
// them together. It is not cancelled with ctx but has UndoTimeout.
func (x *Executor) Undo(ctx context.Context, plan Plan) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), UndoTimeout)
	defer cancel()
	var errs []error
	for i := len(plan) - 1; i >= 0; i-- {
		start := time.Now()
		err := plan[i].Op.Undo(ctx, x.Host)
		x.trace(Undid, plan[i], start, err)
		if err != nil {
			errs = append(errs, fmt.Errorf("undoing %q: %w", firstLine(plan[i].Op.String()), err))
		}
	}
	return errors.Join(errs...)
}

// Check compares the kernel with a plan that was done and returns all
// differences together.
func (x *Executor) Check(ctx context.Context, plan Plan) error {
	var errs []error
	for _, step := range plan {
		if err := step.Op.Check(ctx, x.Host); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (x *Executor) trace(verb Verb, step Step, start time.Time, err error) {
	if x.Trace != nil {
		x.Trace(Event{verb, step, time.Since(start), err})
	}
}

func firstLine(s string) string {
	for i := range len(s) {
		if s[i] == '\n' {
			return s[:i] + " …"
		}
	}
	return s
}
