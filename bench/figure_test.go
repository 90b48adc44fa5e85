package bench

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// figure is one line of the table.
type figure struct {
	what   string
	got    float64
	unit   string // ms, µs, x, MB, or empty
	more   bool   // the target is a lower bound
	target float64
	note   string
}

func (f figure) met() bool {
	if f.more {
		return f.got >= f.target
	}
	return f.got <= f.target
}

func (f figure) bound() string {
	if f.more {
		return fmt.Sprintf("≥ %g %s", f.target, f.unit)
	}
	return fmt.Sprintf("≤ %g %s", f.target, f.unit)
}

// table prints figures side by side with their targets.
func table(figures []figure) string {
	var out strings.Builder
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "figure\there\ttarget\tmet\t")
	for _, f := range figures {
		met := "yes"
		if !f.met() {
			met = "NO"
		}
		fmt.Fprintf(w, "%s\t%.3g %s\t%s\t%s\t%s\n", f.what, f.got, f.unit, f.bound(), met, f.note)
	}
	w.Flush() //nolint:errcheck // a Builder takes everything
	return out.String()
}

// sample is the durations of one thing that was done several times.
type sample []time.Duration

func (s *sample) add(d time.Duration) { *s = append(*s, d) }

// took adds how long fn takes.
func (s *sample) took(fn func()) {
	began := time.Now()
	fn()
	s.add(time.Since(began))
}

// at returns a percentile.
func (s sample) at(percent int) time.Duration {
	sorted := slices.Sorted(slices.Values(s))
	return sorted[min(len(sorted)*percent/100, len(sorted)-1)]
}

func (s sample) median() time.Duration  { return s.at(50) }
func (s sample) fastest() time.Duration { return s.at(0) }

func (s sample) String() string {
	return fmt.Sprintf("%s (%s) ms", millis(s.median()), millis(s.fastest()))
}

func millis(d time.Duration) string { return fmt.Sprintf("%.2f", ms(d)) }
func ms(d time.Duration) float64    { return float64(d.Nanoseconds()) / 1e6 }
func µs(d time.Duration) float64    { return float64(d.Nanoseconds()) / 1e3 }

// atMost is a figure in milliseconds.
func atMost(what string, s sample, target float64) figure {
	return figure{what: what, got: ms(s.median()), unit: "ms", target: target, note: "min " + millis(s.fastest())}
}

// times is how many times as long one sample takes as another.
func times(what string, s, base sample, target float64) figure {
	return figure{
		what: what, got: float64(s.median()) / float64(base.median()), unit: "x", target: target,
		note: fmt.Sprintf("%s against %s; of the fastest %.2f x", s, base, float64(s.fastest())/float64(base.fastest())),
	}
}

func micros(s sample) string { return fmt.Sprintf("%.1f µs", µs(s.fastest())) }
