package api

import (
	"context"
	"net/http"
	"regexp"
	"strconv"
	"strings"

	"github.com/linkspan/linkspan"
)

// Versions of the Docker Engine API that are spoken.
const (
	MaxVersion = "1.56"
	MinVersion = "1.24"
)

// version is a version of the API: 1.44 is 44, since there is no other major.
type version int

const (
	newest version = 56
	oldest version = 24
)

type versionKey struct{}

// versionOf returns what the client speaks.
func versionOf(r *http.Request) version {
	if v, ok := r.Context().Value(versionKey{}).(version); ok {
		return v
	}
	return newest
}

var versioned = regexp.MustCompile(`^/v([0-9]+)\.([0-9]+)((?:\.[0-9]+)?)(/.*)$`)

// readable are the pages that old plugins read in versions before the oldest:
// what they look for in networks, containers and events has not changed since.
var readable = regexp.MustCompile(`^/(networks|containers|events)(/|$)`)

// negotiate takes the version off the front of the path, and refuses one that
// is not spoken. A path without a version means the newest.
func (s *Server) negotiate(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.about.headers(w.Header())
		parts := versioned.FindStringSubmatch(r.URL.EscapedPath())
		if parts == nil {
			next.ServeHTTP(w, r)
			return
		}
		v, err := parseVersion(parts[1], parts[2])
		switch {
		case v < oldest && r.Method == http.MethodGet && readable.MatchString(parts[4]):
			v = oldest
		case err != nil:
			s.fail(w, r, err)
			return
		case parts[3] != "": // only ancient versions have three parts
			next.ServeHTTP(w, r)
			return
		}
		stripped := r.WithContext(context.WithValue(r.Context(), versionKey{}, v))
		url := *r.URL
		prefix := "/v" + parts[1] + "." + parts[2] + parts[3]
		url.Path, url.RawPath = strings.TrimPrefix(url.Path, prefix), strings.TrimPrefix(url.RawPath, prefix)
		stripped.URL = &url
		next.ServeHTTP(w, stripped)
	})
}

// parseVersion returns a version and why it is not spoken: it is below oldest or
// above newest then.
func parseVersion(major, minor string) (version, error) {
	text := major + "." + minor
	n, err := strconv.Atoi(minor)
	switch {
	case major == "0" || (major == "1" && err == nil && version(n) < oldest):
		return 0, linkspan.Errorf(linkspan.ErrInvalid, "client version %s is too old. Minimum supported API version is %s, please upgrade your client to a newer version", text, MinVersion)
	case major != "1" || err != nil || version(n) > newest:
		return newest + 1, linkspan.Errorf(linkspan.ErrInvalid, "client version %s is too new. Maximum supported API version is %s", text, MaxVersion)
	}
	return version(n), nil
}
