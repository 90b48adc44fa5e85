package op

import (
	"context"
	"errors"
	"slices"

	"github.com/linkspan/linkspan/kernel"
)

// Asker is an Op that learns something by being done: an answer that the rest of
// a plan depends on, and its own Undo. An Op that was answered is another value,
// so a plan that is stored after its questions holds the answers.
type Asker interface {
	Op

	// Ask is Do, and returns the op with the answer in it.
	Ask(context.Context, *kernel.Host) (Op, error)
}

// Outsider is an Op that is carried out by a program outside the kernel and the
// daemon, which may be away or slow: whoever must not wait leaves it for later.
type Outsider interface {
	Op

	// Party names the program.
	Party() string
}

// Parties returns the programs that the ops of a plan depend on.
func Parties(plan Plan) []string {
	var names []string
	for _, step := range plan {
		if outsider, ok := step.Op.(Outsider); ok && !slices.Contains(names, outsider.Party()) {
			names = append(names, outsider.Party())
		}
	}
	return names
}

// Owed returns the steps of a plan whose ops depend on a program: what must be
// undone even when all that the kernel had of the plan is gone.
func Owed(plan Plan) Plan {
	var owed Plan
	for _, step := range plan {
		if _, ok := step.Op.(Outsider); ok {
			owed = append(owed, step)
		}
	}
	return owed
}

// ErrLeft is the kind of an error after which something is left that could not
// be undone, or may be. Whoever holds the plan keeps it and undoes it later.
var ErrLeft = errors.New("something is left that could not be undone")

// Left marks an error with ErrLeft.
func Left(err error) error { return left{err} }

type left struct{ err error }

func (l left) Error() string { return l.err.Error() }

func (l left) Unwrap() []error { return []error{ErrLeft, l.err} }

// owing is the failure to undo an op of a program.
type owing struct{ error }

func (o owing) Unwrap() error { return o.error }

// OnlyOwed tells whether an undo failed at nothing but ops of programs: all else
// of the plan is gone, and what is left must wait for them.
func OnlyOwed(err error) bool {
	switch e := err.(type) { //nolint:errorlint // it walks the tree itself: all branches count
	case owing:
		return true
	case interface{ Unwrap() []error }:
		return !slices.ContainsFunc(e.Unwrap(), func(branch error) bool { return !OnlyOwed(branch) })
	case interface{ Unwrap() error }:
		return OnlyOwed(e.Unwrap())
	}
	return false
}
