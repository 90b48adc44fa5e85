package plugintest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/linkspan/linkspan/internal/nstest"
)

// Request is the body of a call.
type Request map[string]any

// Text returns a field that is a string, or "".
func (q Request) Text(key string) string {
	text, _ := q[key].(string)
	return text
}

// In returns a field that is an object, or nothing.
func (q Request) In(key string) Request {
	inner, _ := q[key].(map[string]any)
	return inner
}

// Answers serves calls by their name, as plugins do that were written with no
// library for it: the answer is plain text to judge by its header, an error has
// status 500, and what is not there is a page that was not found.
type Answers map[string]func(q Request) (any, error)

// ServeHTTP answers a call.
func (a Answers) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	answer, known := a[strings.TrimPrefix(r.URL.Path, "/")]
	if !known {
		http.NotFound(w, r)
		return
	}
	var q Request
	json.NewDecoder(r.Body).Decode(&q) //nolint:errcheck // some calls have no body
	value, err := answer(q)
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		value = map[string]string{"Err": err.Error()}
	}
	json.NewEncoder(w).Encode(value) //nolint:errcheck // the caller has hung up
}

// double is what the plugins that stand for others' share.
type double struct {
	machine *nstest.Machine
	mu      sync.Mutex
	calls   []string
}

// Calls returns the calls so far, in order.
func (d *double) Calls() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.calls)
}

// noted returns a handler that notes the calls.
func (d *double) noted(answers Answers) Handler {
	noting := make(Answers, len(answers))
	for name, answer := range answers {
		noting[name] = func(q Request) (any, error) {
			d.mu.Lock()
			d.calls = append(d.calls, name[strings.Index(name, ".")+1:])
			d.mu.Unlock()
			return answer(q)
		}
	}
	return HTTP{Handler: noting}
}

func (d *double) sh(format string, args ...any) error {
	out, err := d.machine.TrySh(fmt.Sprintf(format, args...))
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// fixed is an answer that never changes.
func fixed(value any) func(Request) (any, error) {
	return func(Request) (any, error) { return value, nil }
}
