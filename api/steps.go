package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/op"
)

// A request can be carried out step by step: the daemon does it as ever, but waits
// before each op until the client has acknowledged it, and shows the thing
// before and after.
//
//	POST /linkspan/v1/steps          {"Method","Path","Body"}: streams a StepLine a line
//	POST /linkspan/v1/steps/{id}     the next op may be done; with stop=1 it is not
//
// The daemon acts, not the client, so what was done is recorded as ever and
// survives either of them. A client that goes away is one that says stop: what was
// done so far is undone. Nobody else waits for it: no lock is held while a plan is
// carried out.

// StepLine is a line of the answer of POST /linkspan/v1/steps. Before an op it
// has Command, after it Took, at the end Status.
type StepLine struct {
	ID      string        `json:",omitempty"` // to be acknowledged at /linkspan/v1/steps/ID
	Verb    string        `json:",omitempty"` // do or undo
	Why     string        `json:",omitempty"`
	Command string        `json:",omitempty"` // the shell command with the same effect as do
	Before  string        `json:",omitempty"` // what the command changes, as it is now
	After   string        `json:",omitempty"` // and when it is done
	Took    time.Duration `json:",omitempty"` // nanoseconds
	Error   string        `json:",omitempty"`

	Status int             `json:",omitempty"` // of the request
	Answer json.RawMessage `json:",omitempty"`
}

// stepper is a request under way, of which one op at a time waits.
type stepper struct {
	id      string
	ctx     context.Context //nolint:containedctx // the client's: it lives as long as the stepper
	dialect op.Dialect
	answers chan bool // true: go on
	send    func(StepLine) error

	mu      sync.Mutex // held by the op that waits or acts
	stopped bool
}

var errStopped = linkspan.Errorf(linkspan.ErrConflict, "stopped before this step, at the client's wish or because it went away: what was done before is undone")

// Around shows the thing, waits for the client, lets it happen, and shows it again.
func (s *stepper) Around(h *kernel.Host, verb op.Verb, step op.Step, act func() op.Event) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped = s.stopped || !s.wanted(h, verb, step); s.stopped {
		return errStopped
	}
	event := act()
	line := StepLine{After: op.Look(s.ctx, h, step.Op), Took: max(event.Took, 1)}
	if event.Err != nil {
		line.Error = event.Err.Error()
	}
	s.send(line) //nolint:errcheck // the next step finds that the client is gone
	return nil
}

func (s *stepper) wanted(h *kernel.Host, verb op.Verb, step op.Step) bool {
	err := s.send(StepLine{ID: s.id, Verb: string(verb), Why: step.Why, Command: s.dialect.Command(step.Op), Before: op.Look(s.ctx, h, step.Op)})
	if err != nil || s.ctx.Err() != nil {
		return false
	}
	select {
	case goOn := <-s.answers:
		return goOn
	case <-s.ctx.Done():
		return false
	}
}

// steppers are the requests under way, by ID.
type steppers struct {
	mu   sync.Mutex
	open map[string]*stepper
}

func (s *steppers) add(one *stepper) (remove func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		s.open = make(map[string]*stepper)
	}
	s.open[one.id] = one
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.open, one.id)
	}
}

func (s *steppers) get(id string) (*stepper, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	one, known := s.open[id]
	return one, known
}

// stepThrough carries a request out step by step.
func (s *Server) stepThrough(w http.ResponseWriter, r *http.Request) error {
	var q question
	if err := readJSON(w, r, &q); err != nil {
		return err
	}
	r, err := inDialect(r)
	if err != nil {
		return err
	}
	if _, _, err = explanationOf(r, q); err != nil { // streams, and what changes nothing
		return err
	}
	ctx, stop := s.streaming(r)
	defer stop()
	lines, flush := json.NewEncoder(w), http.NewResponseController(w)
	one := &stepper{
		id: string(linkspan.NewID()), ctx: ctx, dialect: dialectOf(ctx), answers: make(chan bool),
		send: func(line StepLine) error { return errors.Join(lines.Encode(line), flush.Flush()) },
	}
	defer s.steppers.add(one)()
	request, err := http.NewRequestWithContext(op.Watched(ctx, one), q.Method, q.Path, bytes.NewReader(q.Body))
	if err != nil {
		return linkspan.Errorf(linkspan.ErrInvalid, "invalid request: %w", err)
	}
	if len(q.Body) > 0 {
		request.Header.Set("Content-Type", "application/json")
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.WriteHeader(http.StatusOK)
	answer := &recorder{header: http.Header{}, status: http.StatusOK}
	s.handler.ServeHTTP(answer, request)
	line := StepLine{Status: answer.status}
	if text := bytes.TrimSpace(answer.body.Bytes()); json.Valid(text) {
		line.Answer = text
	}
	one.send(line) //nolint:errcheck // a client that is gone reads no answer
	return nil
}

// acknowledgeStep lets the op that waits be done, or not.
func (s *Server) acknowledgeStep(w http.ResponseWriter, r *http.Request) error {
	one, known := s.steppers.get(variable(r, "id"))
	if !known {
		return linkspan.Errorf(linkspan.ErrNotFound, "nothing waits under the ID %s: it is done, or was undone", strings.TrimSpace(variable(r, "id")))
	}
	select {
	case one.answers <- !boolean(r, "stop"):
		return done(w, nil)
	case <-one.ctx.Done():
		return linkspan.Errorf(linkspan.ErrConflict, "the client that wanted to see the steps is gone: what was done is undone")
	case <-r.Context().Done():
		return r.Context().Err()
	}
}

// recorder keeps the answer of a request that has no client of its own.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(status int)      { r.status = status }
func (r *recorder) Write(p []byte) (int, error) { return r.body.Write(p) }
