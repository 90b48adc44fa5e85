package api

import (
	"encoding/json"
	"net/http"
	"time"
)

// body is an answer of bytes that may take long: a client that has stopped
// reading is dropped, not waited for. It begins with the first byte, so that
// what fails before is answered with a status.
type body struct {
	w        http.ResponseWriter
	r        *http.Request
	control  *http.ResponseController
	kind     string
	patience time.Duration
	begun    bool
	logf     func(string, ...any)
}

func (s *Server) body(w http.ResponseWriter, r *http.Request, kind string) *body {
	return &body{w: w, r: r, control: http.NewResponseController(w), kind: kind, patience: s.patience, logf: s.logf}
}

// Write sends bytes.
func (b *body) Write(p []byte) (int, error) {
	if !b.begun {
		b.begun = true
		b.w.Header().Set("Content-Type", b.kind)
	}
	if err := b.r.Context().Err(); err != nil {
		return 0, err
	}
	b.control.SetWriteDeadline(time.Now().Add(b.patience)) //nolint:errcheck // what has none does not block
	return b.w.Write(p)
}

// end cuts an answer that has failed off, so that no client takes it for
// whole; before its first byte there is a better way.
func (b *body) end(err error) error {
	if err == nil || !b.begun {
		return err
	}
	if b.r.Context().Err() == nil {
		b.logf("%s %s: %v", b.r.Method, b.r.URL.Path, err)
	}
	panic(http.ErrAbortHandler)
}

func unmarshal(text string, v any) error { return json.Unmarshal([]byte(text), v) }
