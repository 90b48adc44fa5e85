package plugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan"
)

// Failure is a call that brought no answer, or none that can be read. It is of
// kind linkspan.ErrUnavailable.
type Failure struct {
	Plugin, Method string
	Sent           bool // the plugin may have heard the call
	Lives          bool // it hung up on this call, but goes on to answer others
	Err            error
}

func (f *Failure) Error() string {
	doubt := ""
	if f.Sent {
		doubt = "; whether it took effect is not known"
	}
	return fmt.Sprintf("plugin %q did not answer %s: %v%s (see: linkspan plugin inspect %s)", f.Plugin, f.Method, f.Err, doubt, f.Plugin)
}

// Unwrap gives the kind and the cause.
func (f *Failure) Unwrap() []error { return []error{linkspan.ErrUnavailable, f.Err} }

// Refusal is a plugin's answer that it will not. It has no kind: only the plugin
// knows what it means.
type Refusal struct {
	Plugin, Method string
	Status         int // of HTTP; drivers refuse with 200 as well
	Text           string
}

func (r *Refusal) Error() string {
	if r.Status == http.StatusOK {
		return fmt.Sprintf("remote: %s (plugin %q refused %s)", r.Text, r.Plugin, r.Method)
	}
	return fmt.Sprintf("%s: %s (plugin %q refused with status %d)", r.Method, r.Text, r.Plugin, r.Status)
}

// InDoubt tells whether a call failed in such a way that the plugin may have
// acted on it.
func InDoubt(err error) bool {
	var failure *Failure
	return errors.As(err, &failure) && failure.Sent
}

// Crashed tells whether a call failed because the plugin broke down over it, and
// the plugin itself goes on: servers in Go outlive a panic in an answer.
func Crashed(err error) bool {
	var failure *Failure
	return errors.As(err, &failure) && failure.Lives
}

// Refused tells whether a call failed because the plugin answered that it will
// not.
func Refused(err error) bool {
	var refusal *Refusal
	return errors.As(err, &refusal)
}

// Unsupported tells whether the plugin does not know the call: many leave the
// optional ones out.
func Unsupported(err error) bool {
	var refusal *Refusal
	return errors.As(err, &refusal) && (refusal.Status == http.StatusNotFound || refusal.Status == http.StatusNotImplemented)
}

// unreached marks an error from before the first byte was sent.
type unreached struct{ err error }

func (u unreached) Error() string { return u.err.Error() }
func (u unreached) Unwrap() error { return u.err }

// causeOf puts the failure of an exchange into words.
func causeOf(ctx context.Context, err error) error {
	var reach unreached
	switch {
	case errors.As(err, &reach):
		return reach.err
	case errors.Is(context.Cause(ctx), errSilent):
		return errSilent
	case hungUp(err):
		return fmt.Errorf("it closed the connection without an answer (did it crash?): %w", err)
	}
	return err
}

// hungUp tells whether the plugin closed the connection without an answer.
func hungUp(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE)
}

// errSilent is the cause of a deadline's end.
var errSilent = errors.New("there was no answer in time")
