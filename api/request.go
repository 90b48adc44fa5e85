package api

import (
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/gorilla/mux"

	"github.com/linkspan/linkspan"
)

// maxBody is how long a JSON request may be, in bytes.
const maxBody = 16 << 20

// variable returns a part of the path, such as the {name} of a container.
func variable(r *http.Request, name string) string {
	raw := mux.Vars(r)[name]
	if text, err := url.PathUnescape(raw); err == nil {
		return text
	}
	return raw
}

// readJSON decodes the body of a request, by Docker's rules: it must be called
// JSON, be one value and nothing after it. Fields that are not known are
// passed over. An empty body leaves v as it is. w may be nil; else it closes the
// connection of a body that is too long.
func readJSON(w http.ResponseWriter, r *http.Request, v any) error {
	if r.ContentLength == 0 {
		return nil
	}
	kind := r.Header.Get("Content-Type")
	if media, _, err := mime.ParseMediaType(kind); err != nil || media != "application/json" {
		return linkspan.Errorf(linkspan.ErrInvalid, "unsupported Content-Type header (%s): must be 'application/json'", kind)
	}
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	switch err := decoder.Decode(v); {
	case errors.Is(err, io.EOF):
		return linkspan.Errorf(linkspan.ErrInvalid, "invalid JSON: got EOF while reading request body")
	case err != nil:
		return linkspan.Errorf(linkspan.ErrInvalid, "invalid JSON: %w", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return linkspan.Errorf(linkspan.ErrInvalid, "unexpected content after JSON")
	}
	return nil
}

// boolean reads a switch of the query as Docker does: anything that is not one
// of five words for no is a yes.
func boolean(r *http.Request, name string) bool {
	switch strings.ToLower(strings.TrimSpace(r.URL.Query().Get(name))) {
	case "", "0", "no", "false", "none":
		return false
	}
	return true
}

// strictBool reads a switch that must be a truth value; absent is false.
func strictBool(r *http.Request, name string) (bool, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return false, nil
	}
	value, err := strconv.ParseBool(text)
	if err != nil {
		return false, linkspan.Errorf(linkspan.ErrInvalid, "invalid value for %s: %s: %w", name, text, err)
	}
	return value, nil
}

// number reads a number of the query; absent is the given default.
func number(r *http.Request, name string, absent int) (int, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return absent, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0, linkspan.Errorf(linkspan.ErrInvalid, "invalid value for %q: %q is not a number", name, text)
	}
	return n, nil
}

// parseTime reads a moment as clients write it: seconds since 1970, with or
// without a fraction; RFC 3339; a date; or a duration before now, such as 10m.
// An empty text is the zero time.
func parseTime(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if t, ok := unixTime(text); ok {
		return t, nil
	}
	if d, err := time.ParseDuration(text); err == nil {
		return now.Add(-d), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02T15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, text, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, linkspan.Errorf(linkspan.ErrInvalid, "invalid time %q: want seconds since 1970, RFC 3339, or a duration such as 10m", text)
}

// unixTime reads 1136073600.000000001: as a number it would lose digits.
func unixTime(text string) (time.Time, bool) {
	whole, fraction, _ := strings.Cut(text, ".")
	seconds, err := strconv.ParseInt(whole, 10, 64)
	if err != nil || len(fraction) > 9 {
		return time.Time{}, false
	}
	nanos := int64(0)
	if fraction != "" {
		n, err := strconv.ParseUint(fraction, 10, 64)
		if err != nil {
			return time.Time{}, false
		}
		nanos = int64(n)
		for range 9 - len(fraction) {
			nanos *= 10
		}
	}
	return time.Unix(seconds, nanos), true
}

// timeParam reads a moment of the query.
func timeParam(r *http.Request, name string, now time.Time) (time.Time, error) {
	t, err := parseTime(r.URL.Query().Get(name), now)
	if err != nil {
		return t, linkspan.Errorf(linkspan.ErrInvalid, "invalid value for %q: %w", name, err)
	}
	return t, nil
}
