package main

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// A machine that is busy with something else can make a test miss its deadline
// once. A fault of the code is still there when the test runs a second time and
// alone, so that run decides, and what passes only then is named in the totals
// for somebody to mend.

// maxAgain is the number of failed tests, all packages together, above which no
// second run is made: so many at once are a fault.
const maxAgain = 12

// failures returns the top-level tests that failed, by package. It is nil when a
// second run cannot tell more: the build failed, a package failed outside its
// tests, or too many failed.
func (s *summary) failures() map[string][]string {
	byPackage := map[string][]string{}
	count := 0
	for _, id := range s.failed {
		name, _, _ := strings.Cut(id.Name, "/")
		switch {
		case id.Name == "(build)":
			return nil
		case name == "" || slices.Contains(byPackage[id.Package], name):
		default:
			byPackage[id.Package] = append(byPackage[id.Package], name)
			count++
		}
	}
	if count > maxAgain {
		return nil
	}
	for _, id := range s.failed {
		if len(byPackage[id.Package]) == 0 {
			return nil
		}
	}
	return byPackage
}

// again runs the failed tests once more, a package at a time, with a go test
// command line, and takes those that pass off the list of failures.
func (s *summary) again(dir string, command []string) error {
	for pkg, names := range s.failures() {
		fmt.Fprintf(s.out, "running again, alone: %s %s\n", pkg, strings.Join(names, " "))
		second := newSummary(s.out, s.allowed)
		arguments := append(slices.Clone(command[1:]), "-json", "-count=1", "-run", "^("+strings.Join(names, "|")+")$", pkg)
		test := exec.Command(command[0], arguments...)
		test.Dir, test.Stderr = dir, os.Stderr
		output, err := test.StdoutPipe()
		if err != nil {
			return err
		}
		if err = test.Start(); err != nil {
			return err
		}
		err = second.read(output)
		test.Wait() //nolint:errcheck // its status repeats what its events say
		if err != nil {
			return err
		}
		s.forgive(pkg, names, second)
	}
	return nil
}

// forgive moves the tests of a package from failed to flaky if a second run of
// them was good as a whole.
func (s *summary) forgive(pkg string, names []string, second *summary) {
	for _, name := range names {
		if len(second.failed) > 0 || !slices.Contains(second.good, test{pkg, name}) {
			return
		}
	}
	s.failed = slices.DeleteFunc(s.failed, func(id test) bool { return id.Package == pkg })
	s.passed += second.passed
	for _, name := range names {
		s.flaky = append(s.flaky, test{pkg, name})
	}
}
