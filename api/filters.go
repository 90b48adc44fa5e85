package api

import (
	"encoding/json"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/linkspan/linkspan"
)

// filters are the conditions of a list: a value of each field must match one
// of the field's values.
type filters map[string][]string

// parseFilters reads {"name":{"x":true}} and the older {"name":["x"]}.
func parseFilters(text string) (filters, error) {
	if text == "" {
		return filters{}, nil
	}
	invalid := func(err error) error { return linkspan.Errorf(linkspan.ErrInvalid, "invalid filter: %w", err) }
	var fields map[string]json.RawMessage
	if err := json.Unmarshal([]byte(text), &fields); err != nil {
		return nil, invalid(err)
	}
	parsed := make(filters, len(fields))
	for name, raw := range fields {
		var set map[string]bool
		var list []string
		if err := json.Unmarshal(raw, &set); err == nil {
			for value := range set {
				list = append(list, value)
			}
		} else if err := json.Unmarshal(raw, &list); err != nil {
			return nil, invalid(err)
		}
		slices.Sort(list)
		parsed[name] = slices.Compact(list)
	}
	return parsed, nil
}

// filtersOf reads the filters of a request and refuses those that the route
// does not know.
func filtersOf(r *http.Request, known ...string) (filters, error) {
	f, err := parseFilters(r.URL.Query().Get("filters"))
	if err != nil {
		return nil, err
	}
	for name := range f {
		if len(known) > 0 && !slices.Contains(known, name) {
			return nil, linkspan.Errorf(linkspan.ErrInvalid, "invalid filter '%s'", name)
		}
	}
	return f, nil
}

// exact tells whether a value is one of those asked for, if any are.
func (f filters) exact(field string, value string) bool {
	return len(f[field]) == 0 || slices.Contains(f[field], value)
}

// like is exact, or a match of a regular expression anywhere in the value.
func (f filters) like(field string, values ...string) bool {
	if len(f[field]) == 0 {
		return true
	}
	for _, pattern := range f[field] {
		re, err := regexp.Compile(pattern)
		for _, value := range values {
			if value == pattern || (err == nil && re.MatchString(value)) {
				return true
			}
		}
	}
	return false
}

// labels tells whether all conditions key or key=value of the filter label hold.
func (f filters) labels(labels map[string]string) bool {
	for _, want := range f["label"] {
		if !hasLabel(labels, want) {
			return false
		}
	}
	return true
}

func hasLabel(labels map[string]string, want string) bool {
	key, value, valued := strings.Cut(want, "=")
	has, ok := labels[key]
	return ok && (!valued || has == value)
}

// prunable tells whether something may be pruned by the filters label, label!
// and until, which all prune routes share.
func (f filters) prunable(labels map[string]string, created, until time.Time) bool {
	for _, not := range f["label!"] {
		if hasLabel(labels, not) {
			return false
		}
	}
	return f.labels(labels) && (until.IsZero() || created.Before(until))
}

// pruneFilters reads the filters of a prune route.
func pruneFilters(r *http.Request, now time.Time) (f filters, until time.Time, err error) {
	if f, err = filtersOf(r, "label", "label!", "until"); err != nil {
		return nil, until, err
	}
	switch values := f["until"]; len(values) {
	case 0:
	case 1:
		until, err = parseTime(values[0], now)
	default:
		err = linkspan.Errorf(linkspan.ErrInvalid, "more than one until filter specified")
	}
	return f, until, err
}

// oneBool reads a filter that takes a single truth value. The second result
// tells whether it was given.
func (f filters) oneBool(field string) (value, given bool, err error) {
	switch values := f[field]; {
	case len(values) == 0:
		return false, false, nil
	case len(values) > 1:
		return false, true, linkspan.Errorf(linkspan.ErrInvalid, "got more than one value for filter key %q", field)
	case values[0] == "true" || values[0] == "1":
		return true, true, nil
	case values[0] == "false" || values[0] == "0":
		return false, true, nil
	}
	return false, true, linkspan.Errorf(linkspan.ErrInvalid, `invalid value for filter '%s', must be "true" (or "1"), or "false" (or "0")`, field)
}
