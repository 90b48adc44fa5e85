// Command testsum reads the JSON that `go test -json` writes, prints what a
// reader wants of it, and fails when a test failed or was skipped without a
// reason that somebody wrote down.
//
//	go test -json ./... | testsum -skips skips.txt
//
// With a go test command as arguments it runs the tests that failed once more,
// in the folder given by -dir, and says which passed only then:
//
//	go test -race -json ./... | testsum -skips skips.txt go test -race
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

func main() {
	listed := flag.String("skips", "", "`file` of tests that may be skipped: package, test, reason on each line")
	dir := flag.String("dir", ".", "`folder` for the second run of failed tests")
	flag.Parse()
	allowed, err := readSkips(*listed)
	if err != nil {
		fmt.Fprintln(os.Stderr, "testsum:", err)
		os.Exit(2)
	}
	sum := newSummary(os.Stdout, allowed)
	if err := sum.read(os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "testsum:", err)
		os.Exit(2)
	}
	if command := flag.Args(); len(command) > 0 {
		if err := sum.again(*dir, command); err != nil {
			fmt.Fprintln(os.Stderr, "testsum: running failed tests again:", err)
		}
	}
	if !sum.report() {
		os.Exit(1)
	}
}

// test names a test: sub-tests are named by their whole path.
type test struct{ Package, Name string }

// readSkips returns the reason for each test that may be skipped.
func readSkips(name string) (map[test]string, error) {
	if name == "" {
		return nil, nil
	}
	content, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("reading list of skips: %w", err)
	}
	return parseSkips(string(content))
}

func parseSkips(content string) (map[test]string, error) {
	reasons := map[test]string{}
	for i, line := range strings.Split(content, "\n") {
		fields := strings.Fields(line)
		if len(fields) == 0 || strings.HasPrefix(line, "#") {
			continue
		}
		if len(fields) < 3 {
			return nil, fmt.Errorf("list of skips, line %d: want package, test, reason; got %q", i+1, line)
		}
		reasons[test{fields[0], fields[1]}] = strings.Join(fields[2:], " ")
	}
	return reasons, nil
}

// event is a line of `go test -json`: see `go doc test2json`.
type event struct {
	Action     string
	Package    string
	ImportPath string // instead of Package, when a build writes output
	Test       string
	Output     string
	Elapsed    float64 // seconds
}

type summary struct {
	out     io.Writer
	allowed map[test]string
	output  map[test][]string // of tests that are not over yet
	skipped []test
	failed  []test
	flaky   []test // failed, then passed in a run of their own
	good    []test // top-level tests that passed
	passed  int
}

func newSummary(out io.Writer, allowed map[test]string) *summary {
	return &summary{out: out, allowed: allowed, output: map[test][]string{}}
}

func (s *summary) read(in io.Reader) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			fmt.Fprintln(s.out, lines.Text()) // the go command's own words
			continue
		}
		s.take(e)
	}
	return lines.Err()
}

func (s *summary) take(e event) {
	id := test{e.Package, e.Test}
	switch e.Action {
	case "output":
		s.output[id] = append(s.output[id], e.Output)
	case "build-output":
		fmt.Fprint(s.out, e.Output)
	case "build-fail":
		s.failed = append(s.failed, test{e.ImportPath, "(build)"})
	case "pass", "fail", "skip":
		s.end(id, e)
	}
}

func (s *summary) end(id test, e event) {
	output := s.output[id]
	delete(s.output, id)
	if id.Name == "" {
		s.endPackage(id, e, output)
		return
	}
	switch e.Action {
	case "pass":
		s.passed++
		if !strings.Contains(id.Name, "/") {
			s.good = append(s.good, id)
		}
	case "fail":
		s.failed = append(s.failed, id)
		fmt.Fprint(s.out, strings.Join(output, ""))
	case "skip":
		s.skipped = append(s.skipped, id)
		fmt.Fprint(s.out, strings.Join(output, ""))
	}
}

// endPackage prints the package's last line, or all its lines when it failed.
func (s *summary) endPackage(id test, e event, output []string) {
	if e.Action == "fail" {
		s.failed = append(s.failed, id)
		fmt.Fprint(s.out, strings.Join(output, ""))
		// Tests that were running when the package died have no end of their own.
		for running, lines := range s.output {
			if running.Package == id.Package {
				fmt.Fprint(s.out, strings.Join(lines, ""))
			}
		}
		return
	}
	if e.Action == "pass" {
		fmt.Fprintf(s.out, "ok    %-58s %6.2fs\n", id.Package, e.Elapsed)
	}
}

// report prints the totals and says whether all is well.
func (s *summary) report() bool {
	good := len(s.failed) == 0
	seen := map[test]bool{}
	for _, id := range s.skipped {
		seen[id] = true
		if s.allowed[id] == "" {
			fmt.Fprintf(s.out, "SKIPPED without a reason on the list: %s %s\n", id.Package, id.Name)
			good = false
		}
	}
	var stale []string
	for id := range s.allowed {
		if !seen[id] {
			stale = append(stale, id.Package+" "+id.Name)
		}
	}
	slices.Sort(stale)
	for _, line := range stale {
		fmt.Fprintf(s.out, "on the list of skips but not skipped: %s\n", line)
		good = false
	}
	for _, id := range s.failed {
		fmt.Fprintf(s.out, "FAILED: %s %s\n", id.Package, id.Name)
	}
	for _, id := range s.flaky {
		fmt.Fprintf(s.out, "FLAKY: failed, then passed alone: %s %s\n", id.Package, id.Name)
	}
	if s.passed == 0 {
		fmt.Fprintln(s.out, "no test passed")
		good = false
	}
	fmt.Fprintf(s.out, "%d passed, %d failed, %d skipped\n", s.passed, len(s.failed), len(s.skipped))
	return good
}
