package lab_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/lab"
)

// fifty is a lab of 50 nodes and 100 cables.
func fifty() []byte {
	var text strings.Builder
	text.WriteString("name: lan\nswitches: {s: {}, r: {}}\nnodes:\n")
	for i := range 50 {
		fmt.Fprintf(&text, "  n%d: {addresses: {eth0: [10.0.0.%d/24], eth1: [10.0.1.%d/24]}}\n", i, i+1, i+1)
	}
	text.WriteString("links:\n")
	for i := range 50 {
		fmt.Fprintf(&text, "  - [n%d:eth0, s]\n  - [n%d:eth1, r]\n", i, i)
	}
	return []byte(text.String())
}

// TestFifty has time to spare: what is wanted are two seconds each way, which the
// benchmark measures.
func TestFifty(t *testing.T) {
	m, e := engine(t)
	before := m.Dump(t)
	start := time.Now()
	_, err := e.Up(t.Context(), fifty(), "")
	must(t, err)
	built := time.Now()
	if out, err := run(t, e, "n0", "ping", "-c1", "-W10", "10.0.1.50"); err != nil {
		t.Errorf("n0 does not reach n49:\n%s", out)
	}
	pulled := time.Now()
	down(t, e)
	if took := built.Sub(start); took > time.Minute {
		t.Errorf("50 nodes and 100 cables took %v to come up", took)
	}
	if took := time.Since(pulled); took > time.Minute {
		t.Errorf("50 nodes and 100 cables took %v to go", took)
	}
	if diff := nstest.Diff(before, m.Dump(t)); diff != "" {
		t.Errorf("the lab left something:\n%s", diff)
	}
}

// BenchmarkFifty is a lab of 50 nodes and 100 cables.
func BenchmarkFifty(b *testing.B) {
	m := nstest.New(b)
	e := &lab.Engine{Dir: filepath.Join(b.TempDir(), "labs"), Real: m.Host()}
	var ups, downs time.Duration
	for b.Loop() {
		start := time.Now()
		if _, err := e.Up(b.Context(), fifty(), ""); err != nil {
			b.Fatal(err)
		}
		ups += time.Since(start)
		start = time.Now()
		if err := e.Down(b.Context(), "lan"); err != nil {
			b.Fatal(err)
		}
		downs += time.Since(start)
	}
	b.ReportMetric(ups.Seconds()/float64(b.N), "s/up")
	b.ReportMetric(downs.Seconds()/float64(b.N), "s/down")
}
