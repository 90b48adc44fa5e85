package lesson

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/lab"
	"github.com/linkspan/linkspan/op"
)

// Course leads a learner through lessons. What was done of each is in a file of
// its own under the labs' folder, which outlives the lab.
type Course struct {
	Labs *lab.Engine

	// Key, if not nil, signs what was done, and refuses what it has not signed.
	Key ed25519.PrivateKey
}

// Progress is how far a learner is in a lesson, and what a teacher may see of it.
type Progress struct {
	Lesson  string
	Seed    Seed
	Started time.Time
	Task    int // the current one, from 0
	Done    bool
	Tasks   []Record

	Signature []byte `json:",omitempty"` // by the teacher's key
}

// Record is one task of a learner.
type Record struct {
	Kind     string
	Attempts int       // checks that failed
	Hints    int       // hints that were asked for
	Shown    bool      // the solution was looked at
	Passed   time.Time `json:",omitzero"`
}

// Start builds a lesson's lab and begins with its first task.
func (c Course) Start(ctx context.Context, name string, seed Seed) (Progress, error) {
	return c.StartAt(ctx, name, seed, 1)
}

// StartAt begins with a later task, counted from 1, in the state that the solutions
// of those before it leave: for whoever has fallen behind.
func (c Course) StartAt(ctx context.Context, name string, seed Seed, number int) (Progress, error) {
	l, err := Find(name)
	if err != nil {
		return Progress{}, err
	}
	steps := l.steps(seed)
	if number < 1 || number > len(steps) {
		return Progress{}, linkspan.Errorf(linkspan.ErrInvalid, "lesson %s has no task %d: there are 1 to %d", l.Name, number, len(steps))
	}
	p := Progress{Lesson: l.Name, Seed: seed, Started: time.Now(), Task: number - 1}
	for _, t := range steps {
		p.Tasks = append(p.Tasks, Record{Kind: string(t.kind)})
	}
	if _, err = c.Labs.Up(ctx, []byte(seed.fill(l.Name, l.file)), ""); err != nil {
		return p, err
	}
	if err = c.save(p); err == nil {
		err = c.reach(p, steps)
	}
	if err != nil {
		return p, errors.Join(err, c.Labs.Down(ctx, l.Name))
	}
	return p, nil
}

// Current is the lesson that was started last, of those whose lab is up.
func (c Course) Current() (string, error) {
	up, err := c.Labs.Names()
	if err != nil {
		return "", err
	}
	all, err := c.Report()
	if err != nil {
		return "", err
	}
	var last Progress
	for _, p := range all {
		if slices.Contains(up, p.Lesson) && (last.Lesson == "" || p.Started.After(last.Started)) {
			last = p
		}
	}
	if last.Lesson == "" {
		return "", linkspan.Errorf(linkspan.ErrNotFound, "no lesson is under way (see: linkspan lab lessons; linkspan lab start LESSON)")
	}
	return last.Lesson, nil
}

// Stop takes a lesson's lab down, and what the learner made by hand in its name.
func (c Course) Stop(ctx context.Context, name string) error {
	p, err := c.load(name)
	if err != nil {
		return err
	}
	return errors.Join(c.handMade(ctx, p), c.Labs.Down(ctx, name))
}

// handMade removes the namespaces that tasks ask for and the lab's file does not.
func (c Course) handMade(ctx context.Context, p Progress) error {
	l, err := Find(p.Lesson)
	if err != nil {
		return err
	}
	f, _, err := lab.Parse([]byte(p.Seed.fill(p.Lesson, l.file)))
	if err != nil {
		return err
	}
	x := op.Executor{Host: c.Labs.Real}
	for _, word := range []string{"{A}", "{B}", "{C}"} {
		node := p.Seed.fill(p.Lesson, word)
		if _, ofLab := f.Nodes[node]; !ofLab {
			err = errors.Join(err, x.Undo(ctx, op.Plan{{Op: op.AddNetns{Name: lab.Netns(p.Lesson, node)}}}))
		}
	}
	return err
}

// Text is what the current task asks for.
func (c Course) Text(name string) (string, error) {
	p, t, err := c.current(name)
	if err != nil {
		return "", err
	}
	l, err := Find(name)
	if err != nil {
		return "", err
	}
	if p.Done {
		return fmt.Sprintf("%s\nAll %d tasks are done.%s\n", l.Title, len(p.Tasks), after(l)), nil
	}
	return fmt.Sprintf("%s\n%s\n\nTask %d of %d (%s): %s\n", l.Title, l.About, p.Task+1, len(p.Tasks), t.kind, p.Seed.fill(name, t.text)), nil
}

// after says how to go on when a lesson is done.
func after(l Lesson) string {
	text := " Take the lab down with: linkspan lab stop " + l.Name
	all := Lessons()
	i := slices.IndexFunc(all, func(other Lesson) bool { return other.Name == l.Name })
	if i+1 < len(all) {
		text += "; go on with: linkspan lab start " + all[i+1].Name
	}
	return text
}

// Hint gives the next hint of the current task; the last one again if there are
// no more.
func (c Course) Hint(name string) (string, error) {
	p, t, err := c.current(name)
	if err != nil {
		return "", err
	}
	record := &p.Tasks[p.Task]
	hint := t.hints[min(record.Hints, len(t.hints)-1)]
	record.Hints++
	return p.Seed.fill(name, hint), c.save(p)
}

// Solution gives a script that passes, to be run on the lab's machine; for a
// prediction, the answer.
func (c Course) Solution(ctx context.Context, name string) (string, error) {
	p, t, err := c.current(name)
	if err != nil {
		return "", err
	}
	p.Tasks[p.Task].Shown = true
	text := p.Seed.fill(name, t.solution)
	if t.kind == predict {
		err = c.onBench(ctx, p, func(b *bench) error {
			text, err = t.answer(b)
			return err
		})
	}
	return text, errors.Join(err, c.save(p))
}

// Check looks whether the current task is done; answer is the prediction, where one
// is asked for. An error of kind linkspan.ErrInvalid is a hint.
func (c Course) Check(ctx context.Context, name, answer string) error {
	p, t, err := c.current(name)
	if err != nil {
		return err
	}
	err = c.onBench(ctx, p, func(b *bench) error {
		if t.kind != predict {
			return t.check(b)
		}
		right, lookErr := t.answer(b)
		if lookErr == nil && !strings.EqualFold(strings.TrimSpace(answer), right) {
			lookErr = wrong("%q is not what will be seen (answer with: linkspan lab check %s ANSWER)", answer, name)
		}
		return lookErr
	})
	record := &p.Tasks[p.Task]
	switch {
	case errors.Is(err, linkspan.ErrInvalid):
		record.Attempts++
	case err == nil && record.Passed.IsZero():
		record.Passed = time.Now()
	}
	return errors.Join(err, c.save(p))
}

// Next goes to the next task. Unless skip is set the current one must have
// passed its check; skipping it loads the state that its solution leaves.
func (c Course) Next(ctx context.Context, name string, skip bool) error {
	p, _, err := c.current(name)
	if err != nil {
		return err
	}
	passed := !p.Tasks[p.Task].Passed.IsZero()
	if !passed && !skip {
		return linkspan.Errorf(linkspan.ErrConflict, "task %d of lesson %s has not passed yet (see: linkspan lab check %s; to go on all the same: linkspan lab next --skip %s)", p.Task+1, name, name, name)
	}
	if p.Task+1 == len(p.Tasks) {
		p.Done = true
		return c.save(p)
	}
	p.Task++
	if !passed {
		return errors.Join(c.rebuild(ctx, p), c.save(p))
	}
	l, err := Find(name)
	if err != nil {
		return err
	}
	return errors.Join(c.script(p, l.steps(p.Seed)[p.Task].spoil), c.save(p))
}

// Undo brings the lab back to the beginning of the current task, whatever was
// done since.
func (c Course) Undo(ctx context.Context, name string) error {
	p, _, err := c.current(name)
	if err != nil {
		return err
	}
	return c.rebuild(ctx, p)
}

// rebuild loads the reference state of a task: the lab anew, and the solutions of all
// tasks before it.
func (c Course) rebuild(ctx context.Context, p Progress) error {
	l, err := Find(p.Lesson)
	if err != nil {
		return err
	}
	if err = errors.Join(c.handMade(ctx, p), c.Labs.Reset(ctx, p.Lesson)); err != nil {
		return err
	}
	return c.reach(p, l.steps(p.Seed))
}

// reach goes from the lab as it was put up to the beginning of the current task.
func (c Course) reach(p Progress, steps []task) error {
	for i, t := range steps[:p.Task+1] {
		if err := c.script(p, t.spoil); err != nil {
			return err
		}
		if i < p.Task {
			if err := c.script(p, t.solution); err != nil {
				return err
			}
		}
	}
	return nil
}

// script runs a script on the lab's machine.
func (c Course) script(p Progress, text string) error {
	if text == "" {
		return nil
	}
	cmd := lab.Command(p.Lesson, "sh", "-eu", "-c", p.Seed.fill(p.Lesson, text))
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := c.Labs.Exec(p.Lesson, "", cmd); err != nil {
		return err
	}
	if err := cmd.Wait(); err != nil {
		var ended *exec.ExitError
		if errors.As(err, &ended) {
			return fmt.Errorf("preparing lesson %s: %w: %s", p.Lesson, err, strings.TrimSpace(out.String()))
		}
		return err
	}
	return nil
}

func (c Course) onBench(ctx context.Context, p Progress, look func(*bench) error) error {
	root, err := kernel.OpenAt(kernel.Pin(lab.Root(p.Lesson)))
	if err != nil {
		return err
	}
	defer root.Close()
	return look(&bench{ctx: ctx, root: root, lesson: p.Lesson, seed: p.Seed})
}

// current returns the progress of a lesson that is under way, and its task.
func (c Course) current(name string) (Progress, task, error) {
	l, err := Find(name)
	if err != nil {
		return Progress{}, task{}, err
	}
	p, err := c.load(l.Name)
	if err != nil {
		return p, task{}, err
	}
	return p, l.steps(p.Seed)[min(p.Task, len(l.steps(p.Seed))-1)], nil
}

func (c Course) file(name string) string {
	return filepath.Join(c.Labs.Dir, ".lessons", filepath.Base(name)+".json")
}

func (c Course) save(p Progress) error {
	p.Signature = nil
	if c.Key != nil {
		signed, err := p.signed()
		if err != nil {
			return fmt.Errorf("signing the progress of lesson %s: %w", p.Lesson, err)
		}
		p.Signature = ed25519.Sign(c.Key, signed)
	}
	text, err := json.Marshal(p)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(c.file(p.Lesson)), 0o755)
	}
	if err == nil {
		err = os.WriteFile(c.file(p.Lesson), text, 0o600)
	}
	if err != nil {
		return fmt.Errorf("storing the progress of lesson %s: %w", p.Lesson, err)
	}
	return nil
}

func (c Course) load(name string) (p Progress, err error) {
	text, err := os.ReadFile(c.file(name))
	if errors.Is(err, fs.ErrNotExist) {
		return p, linkspan.Errorf(linkspan.ErrNotFound, "lesson %s was not started (see: linkspan lab start %s)", name, name)
	}
	if err == nil {
		err = json.Unmarshal(text, &p)
	}
	if err != nil {
		return p, fmt.Errorf("reading the progress of lesson %s: %w", name, err)
	}
	if c.Key == nil {
		return p, nil
	}
	public, _ := c.Key.Public().(ed25519.PublicKey)
	return p, p.Verify(public)
}

// Report returns the progress of all lessons that were ever started.
func (c Course) Report() ([]Progress, error) {
	var all []Progress
	for _, l := range Lessons() {
		p, err := c.load(l.Name)
		if errors.Is(err, linkspan.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}
