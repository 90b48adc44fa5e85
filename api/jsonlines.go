package api

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/moby/moby/api/types/jsonstream"
)

// jsonLines is an answer that grows while something goes on: one JSON object
// to a line. It begins with the first of them, so that what fails before is
// answered with a status, and what fails later by a line.
type jsonLines struct {
	w        http.ResponseWriter
	encoder  *json.Encoder
	control  *http.ResponseController
	patience time.Duration // with a client that does not read
}

func (s *Server) jsonLines(w http.ResponseWriter) *jsonLines {
	return &jsonLines{w: w, control: http.NewResponseController(w), patience: s.patience}
}

// tell writes a line. A client that does not take it is not told the rest
// either: the work goes on, or ends by the request's context.
func (l *jsonLines) tell(m jsonstream.Message) { l.write(m) }

func (l *jsonLines) write(v any) {
	if l.encoder == nil {
		l.w.Header().Set("Content-Type", "application/json")
		l.w.WriteHeader(http.StatusOK)
		l.encoder = json.NewEncoder(l.w)
		l.encoder.SetEscapeHTML(false)
	}
	l.control.SetWriteDeadline(time.Now().Add(l.patience)) //nolint:errcheck // what has none does not block
	if l.encoder.Encode(v) == nil {
		l.control.Flush() //nolint:errcheck // see above
	}
}

// lineOfError is the line that ends an answer that has failed; older clients
// read error, newer ones errorDetail.
type lineOfError struct {
	Detail jsonstream.Error `json:"errorDetail"`
	Error  string           `json:"error"`
}

// end answers with an error in the way that there still is.
func (l *jsonLines) end(err error) error {
	if err == nil || l.encoder == nil {
		return err
	}
	l.write(lineOfError{Detail: jsonstream.Error{Code: statusOf(err), Message: err.Error()}, Error: err.Error()})
	return nil
}
