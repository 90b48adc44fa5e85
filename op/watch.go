package op

import (
	"context"

	"github.com/linkspan/linkspan/kernel"
)

// Watcher stands around every op that is carried out for one request. It may let
// an op wait for as long as it likes.
type Watcher interface {
	// Around calls act, or returns why it does not. That takes the place of doing
	// an op; undoing goes on past errors, and past this one.
	Around(h *kernel.Host, verb Verb, step Step, act func() Event) error
}

type watcherKey struct{}

// Watched returns a context by which a Watcher sees what every Executor does
// with it.
func Watched(ctx context.Context, w Watcher) context.Context {
	return context.WithValue(ctx, watcherKey{}, w)
}

// around lets the Watcher of a context, if there is one, stand around an op.
func around(ctx context.Context, h *kernel.Host, verb Verb, step Step, act func() Event) error {
	if w, ok := ctx.Value(watcherKey{}).(Watcher); ok {
		return w.Around(h, verb, step, act)
	}
	act()
	return nil
}
