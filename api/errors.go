package api

import (
	"encoding/json"
	"errors"
	"net/http"

	"github.com/moby/moby/api/types/common"

	"github.com/linkspan/linkspan"
)

// statuses is the only place where a kind of error becomes a status of HTTP
// (Docker Engine API, "Errors").
var statuses = [...]struct {
	kind   error
	status int
}{
	{linkspan.ErrNotFound, http.StatusNotFound},
	{linkspan.ErrInvalid, http.StatusBadRequest},
	{linkspan.ErrConflict, http.StatusConflict},
	{linkspan.ErrUnauthorized, http.StatusUnauthorized},
	{linkspan.ErrForbidden, http.StatusForbidden},
	{linkspan.ErrUnavailable, http.StatusServiceUnavailable},
	{linkspan.ErrNotModified, http.StatusNotModified},
	{linkspan.ErrNotImplemented, http.StatusNotImplemented},
	{linkspan.ErrUnsupported, http.StatusNotImplemented},
}

// statusOf returns the status of an error. A refusal may wrap one of another
// kind as its cause; the outer kind counts.
func statusOf(err error) int {
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return http.StatusRequestEntityTooLarge
	}
	if refusal := (*linkspan.Error)(nil); errors.As(err, &refusal) {
		err = refusal.Kind
	}
	for _, known := range statuses {
		if errors.Is(err, known.kind) {
			return known.status
		}
	}
	return http.StatusInternalServerError
}

// fail answers with an error.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	status := statusOf(err)
	if status == http.StatusNotModified {
		w.WriteHeader(status) // it has no body (RFC 9110, section 15.4.5)
		return
	}
	if status == http.StatusInternalServerError {
		s.logf("%s %s: %v", r.Method, r.URL.Path, err)
	}
	writeJSON(w, status, common.ErrorResponse{Message: err.Error()})
}

// writeJSON answers with a value. A client that does not take the answer is
// told nothing more: there is nobody to tell.
func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.Encode(v) //nolint:errcheck,errchkjson // see above
}

func notFound(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusNotFound, common.ErrorResponse{Message: "page not found"})
}
