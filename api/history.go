package api

import (
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"github.com/linkspan/linkspan/op"
)

// History is the kernel operations of late: each op that was done or undone, in
// the order in which they ended.
//
// Safe for concurrent use.
type History struct {
	*ring[traced]
	now func() time.Time
}

type traced struct {
	at    time.Time
	event op.Event
}

// NewHistory returns a History without a past. Its method Trace is the hook that
// executors report to.
func NewHistory() *History { return &History{newRing[traced](), time.Now} }

// Trace reports an operation. What it costs is a slot: words are made of it when
// somebody reads them.
func (h *History) Trace(event op.Event) { h.add(traced{h.now(), event}) }

// Operation is a line of GET /linkspan/v1/history.
type Operation struct {
	Time    time.Time // of its end
	Verb    string    // do or undo
	Why     string
	Command string        // the shell command with the same effect as do
	Took    time.Duration // nanoseconds
	Error   string        `json:",omitempty"`
}

func (m traced) operation(dialect op.Dialect) Operation {
	o := Operation{
		Time: m.at, Verb: string(m.event.Verb), Why: m.event.Step.Why, Command: strings.TrimSuffix(dialect.Command(m.event.Step.Op), "\n"), Took: m.event.Took,
	}
	if m.event.Err != nil {
		o.Error = m.event.Err.Error()
	}
	return o
}

// watchHistory streams operations, a JSON object a line: those remembered, then with
// follow=1 those to come.
func (s *Server) watchHistory(w http.ResponseWriter, r *http.Request) error {
	r, err := inDialect(r)
	if err != nil {
		return err
	}
	ctx, stop := s.streaming(r)
	defer stop()
	if !boolean(r, "follow") {
		stop() // what there is already is sent all the same
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.WriteHeader(http.StatusOK)
	lines := json.NewEncoder(w)
	flush := http.NewResponseController(w)
	return s.history.follow(ctx, s.history.oldest(), func(batch []traced) error {
		for _, m := range batch {
			if err := lines.Encode(m.operation(dialectOf(ctx))); err != nil {
				return http.ErrAbortHandler
			}
		}
		return flush.Flush()
	})
}
