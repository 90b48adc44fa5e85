package lesson

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/lab"
	"github.com/linkspan/linkspan/op"
)

// Course leads a learner through lessons. What was done of each is in a file of
// its own under the labs' folder, which outlives the lab.
type Course struct{ Labs *lab.Engine }

// Progress is how far a learner is in a lesson, and what a teacher may see of it.
type Progress struct {
	Lesson string
	Seed   Seed
	Task   int // the current one, from 0
	Done   bool
	Tasks  []Record
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
	l, err := Find(name)
	if err != nil {
		return Progress{}, err
	}
	p := Progress{Lesson: name, Seed: seed}
	for _, t := range l.steps(p.Seed) {
		p.Tasks = append(p.Tasks, Record{Kind: string(t.kind)})
	}
	if _, err = c.Labs.Up(ctx, []byte(seed.fill(name, l.file)), ""); err != nil {
		return p, err
	}
	if err = c.save(p); err == nil {
		err = c.script(p, l.steps(p.Seed)[0].spoil)
	}
	if err != nil {
		return p, errors.Join(err, c.Labs.Down(ctx, name))
	}
	return p, nil
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
	return fmt.Sprintf("%s\n%s\n\nTask %d of %d (%s): %s\n", l.Title, l.About, p.Task+1, len(p.Tasks), t.kind, p.Seed.fill(name, t.text)), nil
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
	for i, t := range l.steps(p.Seed)[:p.Task+1] {
		if err = c.script(p, t.spoil); err != nil {
			return err
		}
		if i < p.Task {
			if err = c.script(p, t.solution); err != nil {
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
	p, err := c.load(name)
	if err != nil {
		return p, task{}, err
	}
	return p, l.steps(p.Seed)[min(p.Task, len(l.steps(p.Seed))-1)], nil
}

func (c Course) file(name string) string {
	return filepath.Join(c.Labs.Dir, ".lessons", filepath.Base(name)+".json")
}

func (c Course) save(p Progress) error {
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
	return p, nil
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
