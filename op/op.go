package op

import (
	"context"

	"github.com/linkspan/linkspan/kernel"
)

// Op is one change to the kernel: plain data whose JSON form is kept as long
// as what it made exists. Methods are safe for concurrent use.
type Op interface {
	// Do makes the change. It fails if the thing is there already, and whenever
	// it fails it leaves nothing behind.
	Do(context.Context, *kernel.Host) error

	// Undo takes the change back. Gone already is success; there but not ours
	// is an error of kind linkspan.ErrConflict, and the thing is left alone.
	Undo(context.Context, *kernel.Host) error

	// Check returns nil if the kernel is as Do left it, else the difference and
	// the command that shows it.
	Check(context.Context, *kernel.Host) error

	// String returns the shell command with the same effect as Do.
	String() string
}

// Step is an Op and the reason for it, a sentence for the reader of the plan.
type Step struct {
	Why string
	Op  Op
}
