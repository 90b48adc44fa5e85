package linkspan

import (
	"errors"
	"fmt"
)

// The kinds of error. Ask with errors.Is; package api maps each to one HTTP
// status of the Docker Engine API.
var (
	ErrNotFound       = errors.New("not found")             // 404
	ErrInvalid        = errors.New("invalid")               // 400
	ErrConflict       = errors.New("conflict")              // 409
	ErrUnauthorized   = errors.New("unauthorized")          // 401: credentials that somebody else refused
	ErrForbidden      = errors.New("forbidden")             // 403
	ErrUnavailable    = errors.New("unavailable")           // 503
	ErrNotImplemented = errors.New("not implemented")       // 501
	ErrNotModified    = errors.New("not modified")          // 304
	ErrUnsupported    = errors.New("unsupported by kernel") // 501: the kernel lacks a feature
)

// Error is a refusal: its text is for the user and names the holder or the
// cause; its kind is for the program.
type Error struct {
	Kind error // one of the sentinels above
	Text string
	Err  error // the cause, or nil; already part of Text where it helps
}

func (e *Error) Error() string { return e.Text }

// Unwrap lets errors.Is see both the kind and the cause.
func (e *Error) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Kind}
	}
	return []error{e.Kind, e.Err}
}

// Errorf returns an Error of the given kind. The text is formatted as by
// fmt.Errorf; an operand of %w becomes the cause.
func Errorf(kind error, format string, args ...any) error {
	wrapped := fmt.Errorf(format, args...)
	return &Error{Kind: kind, Text: wrapped.Error(), Err: errors.Unwrap(wrapped)}
}
