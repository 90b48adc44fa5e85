package main

import (
	"io"
	"strings"
	"testing"
)

func TestSummary(t *testing.T) {
	tests := []struct {
		name, events, skips string
		want                bool
		says                string
	}{
		{"all pass", `{"Action":"pass","Package":"p","Test":"TestA"}`, "", true, "1 passed, 0 failed, 0 skipped"},
		{"nothing ran", `{"Action":"pass","Package":"p"}`, "", false, "no test passed"},
		{"empty", ``, "", false, "no test passed"},
		{
			"fails", `{"Action":"output","Package":"p","Test":"TestA","Output":"why\n"}` + "\n" +
				`{"Action":"fail","Package":"p","Test":"TestA"}` + "\n" + `{"Action":"fail","Package":"p"}`, "", false, "why\n",
		},
		{"does not build", `{"Action":"build-fail","ImportPath":"p"}`, "", false, "FAILED: p (build)"},
		{
			"skip", `{"Action":"pass","Package":"p","Test":"TestA"}` + "\n" + `{"Action":"skip","Package":"p","Test":"TestB"}`,
			"", false, "SKIPPED without a reason on the list: p TestB",
		},
		{
			"skip with reason", `{"Action":"pass","Package":"p","Test":"TestA"}` + "\n" + `{"Action":"skip","Package":"p","Test":"TestB"}`,
			"# why\np TestB needs a kernel with netem", true, "1 passed, 0 failed, 1 skipped",
		},
		{
			"stale reason", `{"Action":"pass","Package":"p","Test":"TestB"}`,
			"p TestB needs a kernel with netem", false, "on the list of skips but not skipped: p TestB",
		},
		{"package without tests", `{"Action":"pass","Package":"p","Test":"TestA"}` + "\n" + `{"Action":"skip","Package":"q"}`, "", true, "0 skipped"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			allowed, err := parseSkips(test.skips)
			if err != nil {
				t.Fatal(err)
			}
			var out strings.Builder
			sum := newSummary(&out, allowed)
			if err := sum.read(strings.NewReader(test.events)); err != nil {
				t.Fatal(err)
			}
			if got := sum.report(); got != test.want {
				t.Errorf("report = %v, want %v; output:\n%s", got, test.want, out.String())
			}
			if !strings.Contains(out.String(), test.says) {
				t.Errorf("output lacks %q:\n%s", test.says, out.String())
			}
		})
	}
}

func TestSkipsNeedReason(t *testing.T) {
	if _, err := parseSkips("p TestB\n"); err == nil {
		t.Error("a line without a reason was accepted")
	}
	if newSummary(io.Discard, nil).report() {
		t.Error("a run of no tests was called good")
	}
}
