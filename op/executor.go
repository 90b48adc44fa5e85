package op

import (
	"context"
	"errors"
	"fmt"
	"slices"
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
// so far are undone in reverse order. An error of kind ErrLeft says that not all
// of them could be.
func (x *Executor) Do(ctx context.Context, plan Plan) error {
	_, err := x.Ask(ctx, plan)
	return err
}

// Ask is Do for a plan whose rest depends on answers: it returns the plan with
// the answers to its questions in it (see Asker), as far as it was done.
func (x *Executor) Ask(ctx context.Context, plan Plan) (Plan, error) {
	plan = slices.Clone(plan)
	for i, step := range plan {
		answered, err := x.do(ctx, i, step)
		if err == nil {
			plan[i].Op = answered
			continue
		}
		done := plan[:i]
		if errors.Is(err, ErrLeft) {
			done = plan[:i+1]
		}
		err = fmt.Errorf("%w (step %d of %d: %s)", err, i+1, len(plan), firstLine(step.Op.String()))
		if undoErr := x.Undo(ctx, done); undoErr != nil {
			err = fmt.Errorf("%w; undoing what was done before: %w", err, Left(undoErr))
		}
		return plan, err
	}
	return plan, nil
}

func (x *Executor) do(ctx context.Context, i int, step Step) (Op, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if x.Before != nil {
		if err := x.Before(i, step); err != nil {
			return nil, err
		}
	}
	done, err := step.Op, error(nil)
	refused := around(ctx, x.Host, Did, step, func() Event {
		start := time.Now()
		if asker, asks := step.Op.(Asker); asks {
			done, err = asker.Ask(ctx, x.Host)
		} else {
			err = step.Op.Do(ctx, x.Host)
		}
		return x.trace(Did, step, start, err)
	})
	if refused != nil {
		return nil, refused
	}
	return done, err
}

// Undo takes a plan back, last step first, without the steps that go with an
// earlier one (see Bearer). It goes on past errors and reports them together
// (see OnlyOwed). It is not cancelled with ctx but has UndoTimeout, without the
// time that a Watcher takes.
func (x *Executor) Undo(ctx context.Context, plan Plan) error {
	ctx = context.WithoutCancel(ctx)
	left := UndoTimeout
	var errs []error
	for i := len(plan) - 1; i >= 0; i-- {
		if borne(plan, i) {
			continue
		}
		acted, err := false, error(nil)
		undo := func() Event {
			start := time.Now()
			within, cancel := context.WithTimeout(ctx, left)
			defer cancel()
			acted, err = true, plan[i].Op.Undo(within, x.Host)
			left -= time.Since(start)
			return x.trace(Undid, plan[i], start, err)
		}
		if around(ctx, x.Host, Undid, plan[i], undo); !acted { //nolint:errcheck // undoing goes on past errors
			undo()
		}
		if err != nil {
			if _, outside := plan[i].Op.(Outsider); outside {
				err = owing{err}
			}
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

func (x *Executor) trace(verb Verb, step Step, start time.Time, err error) Event {
	event := Event{verb, step, time.Since(start), err}
	if x.Trace != nil {
		x.Trace(event)
	}
	return event
}

func firstLine(s string) string {
	for i := range len(s) {
		if s[i] == '\n' {
			return s[:i] + " …"
		}
	}
	return s
}
