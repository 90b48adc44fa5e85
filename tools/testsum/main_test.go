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

// again runs a script in place of go test, which reports what it is told to.
func runAgain(t *testing.T, events, second string) (bool, string) {
	t.Helper()
	var out strings.Builder
	sum := newSummary(&out, nil)
	if err := sum.read(strings.NewReader(events)); err != nil {
		t.Fatal(err)
	}
	if err := sum.again(t.TempDir(), []string{"sh", "-c", "echo '" + second + "'"}); err != nil {
		t.Fatal(err)
	}
	return sum.report(), out.String()
}

func TestAgain(t *testing.T) {
	const (
		failed = `{"Action":"pass","Package":"p","Test":"TestB"}
{"Action":"fail","Package":"p","Test":"TestA/part"}
{"Action":"fail","Package":"p","Test":"TestA"}
{"Action":"fail","Package":"p"}`
		passes = `{"Action":"pass","Package":"p","Test":"TestA"}`
		fails  = `{"Action":"fail","Package":"p","Test":"TestA"}`
	)
	tests := []struct {
		name, first, second string
		want                bool
		says                string
	}{
		{"passes alone", failed, passes, true, "FLAKY: failed, then passed alone: p TestA\n2 passed, 0 failed"},
		{"fails again", failed, fails, false, "FAILED: p TestA\n"},
		{"does not run again", failed, "", false, "FAILED: p TestA\n"},
		{"a sibling fails in the second run", failed, passes + "\n" + fails, false, "FAILED: p TestA\n"},
		{"build", `{"Action":"build-fail","ImportPath":"p"}`, passes, false, "FAILED: p (build)"},
		{"package failed outside its tests", failed + "\n" + `{"Action":"fail","Package":"q"}`, passes, false, "FAILED: p TestA"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			good, out := runAgain(t, test.first, test.second)
			if good != test.want || !strings.Contains(out, test.says) {
				t.Errorf("good = %v, want %v and %q in:\n%s", good, test.want, test.says, out)
			}
		})
	}
}
