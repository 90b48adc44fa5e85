package api

import (
	"encoding/json"
	"slices"
	"testing"
	"time"
)

// Whatever is accepted means the same in both spellings, and has no value
// twice.
func FuzzFilters(f *testing.F) {
	for _, seed := range []string{`{"name":{"a":true,"b":false}}`, `{"name":["b","a","b"]}`, `{}`, `null`, `{"a":null}`, `{"a":{}}`, `["x"]`, `{"a":["\u0000"]}`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		parsed, err := parseFilters(text)
		if err != nil {
			return
		}
		lists, sets := map[string][]string{}, map[string]map[string]bool{}
		for field, values := range parsed {
			if !slices.IsSorted(values) || len(slices.Compact(slices.Clone(values))) != len(values) {
				t.Fatalf("%q: %q is not a set", text, values)
			}
			lists[field], sets[field] = values, map[string]bool{}
			for _, value := range values {
				sets[field][value] = true
			}
		}
		for _, spelling := range []any{lists, sets} {
			raw, err := json.Marshal(spelling)
			if err != nil {
				t.Fatal(err)
			}
			again, err := parseFilters(string(raw))
			if err != nil {
				t.Fatalf("%q became %s: %v", text, raw, err)
			}
			for field, values := range parsed {
				if !slices.Equal(values, again[field]) {
					t.Fatalf("%q: %q became %q", text, values, again[field])
				}
			}
		}
	})
}

func TestParseTime(t *testing.T) {
	for text, want := range map[string]time.Time{
		"":                     {},
		"0":                    time.Unix(0, 0),
		"1772600767":           moment.Truncate(time.Second),
		"1772600767.000000089": moment,
		"1772600767.5":         moment.Truncate(time.Second).Add(500 * time.Millisecond),
		"10m":                  moment.Add(-10 * time.Minute),
		"2026-03-04T05:06:07Z": moment.Truncate(time.Second),
	} {
		got, err := parseTime(text, moment)
		if err != nil || !got.Equal(want) {
			t.Errorf("%q: %v %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"x", "1.2.3", "1.0000000001", "1.-5", "2026-13-01"} {
		if got, err := parseTime(text, moment); err == nil {
			t.Errorf("%q: %v", text, got)
		}
	}
}

func TestPrunable(t *testing.T) {
	labels := map[string]string{"keep": "1"}
	for text, want := range map[string]bool{
		``: true, `{"label":["keep"]}`: true, `{"label":["keep=2"]}`: false, `{"label":["keep=1","x"]}`: false, `{"label!":["keep"]}`: false, `{"label!":["x"]}`: true,
	} {
		f, err := parseFilters(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := f.prunable(labels, moment, time.Time{}); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
	if (filters{}).prunable(nil, moment, moment) || !(filters{}).prunable(nil, moment, moment.Add(1)) {
		t.Error("until is not a bound")
	}
}
