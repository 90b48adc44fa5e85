// Package lesson teaches container networks on labs: build by hand, predict,
// check, break, find, mend.
//
// A lesson is a lab and a list of tasks on it. A check goes by outcome, the state
// that netlink shows and a probe packet, never by what was typed: ip, brctl or a
// program of the learner's own all pass, and half a solution gets a hint that
// names the object that is missing or wrong. Names and addresses come from a seed,
// so that neighbours in a classroom cannot copy.
package lesson

import (
	"context"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/lab"
)

// Lesson is a stage of the course.
type Lesson struct {
	Name  string // an argument of lab start
	Title string
	About string // what it teaches, and why a container engine cares

	file  string // of the lab, with the words of Seed.fill
	tasks []task
	// faults are found and mended after the tasks, in an order that the seed
	// chooses. Each leaves the lab as it found it when it is mended.
	faults []task
}

// steps are the tasks of a learner, in order.
func (l Lesson) steps(seed Seed) []task {
	steps := slices.Clone(l.tasks)
	faults := slices.Clone(l.faults)
	for i := len(faults); i > 0; i-- {
		chosen := seed.number(fmt.Sprintf("fault %s %d", l.Name, i), i)
		steps = append(steps, faults[chosen])
		faults = slices.Delete(faults, chosen, chosen+1)
	}
	return steps
}

// kind is what a task asks for.
type kind string

const (
	build   kind = "build"   // make something by hand
	predict kind = "predict" // say what will be seen, then see
	mend    kind = "mend"    // find what was broken, and put it right
)

type task struct {
	kind  kind
	text  string   // what to do
	hints []string // from vague to exact
	// spoil breaks something when the task begins (mend).
	spoil string
	// solution is a script that passes; it runs on the lab's machine.
	solution string
	// answer is the right prediction (predict).
	answer func(*bench) (string, error)
	check  func(*bench) error
}

// Lessons are the stages in order.
func Lessons() []Lesson {
	return []Lesson{namespaceLesson(), cableLesson(), switchLesson(), hostDoorLesson(), outLesson(), inLesson(), namesLesson(), addressesLesson()}
}

// Find returns a lesson by name, or by that of what is built in it.
func Find(name string) (Lesson, error) {
	var names []string
	for _, l := range Lessons() {
		if l.Name == name || l.Name == "switch" && name == "bridge" {
			return l, nil
		}
		names = append(names, l.Name)
	}
	return Lesson{}, linkspan.Errorf(linkspan.ErrNotFound, "there is no lesson %q: there are %s", name, strings.Join(names, ", "))
}

// Seed varies a lesson: the same one gives the same names and addresses.
type Seed string

// number is a small number made of the seed and a purpose.
func (s Seed) number(purpose string, below int) int {
	sum := fnv.New32a()
	fmt.Fprintf(sum, "%s/%s", s, purpose)
	return int(sum.Sum32() % uint32(below))
}

// fill replaces NET by the first three numbers of a subnet, FAR by those of
// another, A, B and C in braces by names, X by one of these and I by which, LAB by
// the lab's.
func (s Seed) fill(lesson, text string) string {
	names := [][3]string{{"anna", "ben", "cleo"}, {"red", "blue", "green"}, {"oak", "elm", "ash"}, {"mars", "venus", "earth"}}[s.number("names", 4)]
	victim := s.number("victim", 3)
	return strings.NewReplacer(
		"{X}", names[victim], "{I}", fmt.Sprint(victim+1),
		"{A}", names[0], "{B}", names[1], "{C}", names[2],
		"{NET}", fmt.Sprintf("10.%d.%d", 10+s.number("net", 90), s.number("subnet", 200)),
		"{FAR}", fmt.Sprintf("10.%d.%d", 110+s.number("far", 90), s.number("farnet", 200)),
		"{LAB}", "lab-"+lesson, "{PORT}", fmt.Sprint(8000+s.number("port", 900)),
	).Replace(text)
}

// bench is what a check looks at: the lab's machine and the words of the seed.
type bench struct {
	ctx    context.Context //nolint:containedctx // a bench lives as long as one check
	root   *kernel.Host
	lesson string
	seed   Seed
}

func (b *bench) fill(text string) string { return b.seed.fill(b.lesson, text) }

// netns is the name of a node's namespace; "" for the lab's machine itself.
func (b *bench) netns(node string) string {
	if node == "" {
		return ""
	}
	return lab.Netns(b.lesson, b.fill(node))
}

// wrong is a hint: what is not yet as it should be, and how to see it.
func wrong(format string, args ...any) error {
	return linkspan.Errorf(linkspan.ErrInvalid, format, args...)
}
