package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/op"
)

// Engine puts labs up and takes them down. It keeps what it knows of each in a
// folder of its own under Dir, so that every process that opens the same Dir
// sees the same labs. A lock is held on a lab for as long as a verb works on it.
type Engine struct {
	Dir  string       // on a tmpfs: namespaces do not outlive a boot either
	Real *kernel.Host // the machine that the labs are on

	// Trace, if not nil, is called after each op.
	Trace func(op.Event)
}

// state is what is stored of a lab: all of it before the first step.
type state struct {
	Text  string          // of the file
	Path  string          // where it was
	Since time.Time       // when it was put up
	Plan  json.RawMessage // of the lab's machine
}

// Up builds the lab of a file and starts its nodes' processes: all of it, or
// nothing. path only says where the text is from. It returns the warnings of Parse.
func (e *Engine) Up(ctx context.Context, text []byte, path string) (warnings []string, err error) {
	f, warnings, err := Parse(text)
	if err != nil {
		return nil, err
	}
	plan, err := f.planHere()
	if err != nil {
		return warnings, err
	}
	unlock, err := e.lock(f.Name)
	if err != nil {
		return warnings, err
	}
	defer unlock()
	if _, err = e.load(f.Name); err == nil {
		return warnings, linkspan.Errorf(linkspan.ErrConflict, "lab %s is up already (see: linkspan lab status %s; linkspan lab down %s)", f.Name, f.Name, f.Name)
	}
	if err = f.free(); err != nil {
		return warnings, err
	}
	if err = e.store(f.Name, state{Text: string(text), Path: path, Since: time.Now()}, plan); err != nil {
		return warnings, err
	}
	if err = e.build(ctx, f, plan); err != nil {
		return warnings, errors.Join(err, e.demolish(ctx, f.Name))
	}
	return warnings, nil
}

// free refuses to build where somebody else has namespaces of the same names:
// taking the lab down would take those.
func (f File) free() error {
	names := []string{Root(f.Name)}
	for _, node := range sorted(f.Nodes) {
		names = append(names, Netns(f.Name, node))
	}
	for _, name := range names {
		if _, err := os.Lstat(kernel.Pin(name)); err == nil {
			return linkspan.Errorf(linkspan.ErrConflict, "network namespace %s is there already and is no lab's (see: ip netns; ip netns del %s)", name, name)
		}
	}
	return nil
}

func (e *Engine) build(ctx context.Context, f File, plan op.Plan) error {
	if err := e.executor(e.Real).Do(ctx, f.rootPlan()); err != nil {
		return err
	}
	root, err := e.open(f.Name)
	if err != nil {
		return err
	}
	defer root.Close()
	if err = e.executor(root).Do(ctx, plan); err != nil {
		return err
	}
	for _, name := range sorted(f.Nodes) {
		for _, command := range f.Nodes[name].Start {
			if err = e.prepare(ctx, root, f.Name, name, command); err != nil {
				return err
			}
		}
	}
	for _, name := range sorted(f.Nodes) {
		if run := f.Nodes[name].Run; run != "" {
			if err = e.start(root, f.Name, name, run); err != nil {
				return err
			}
		}
	}
	return nil
}

// planHere is the plan for the kernel that this is.
func (f File) planHere() (op.Plan, error) {
	netem := false
	for _, link := range f.Links {
		if link.Impairment != (Impairment{}) {
			lacks, err := kernel.LacksQueue("netem")
			if err != nil {
				return nil, err
			}
			netem = !lacks
			break
		}
	}
	return f.plan(netem)
}

// Down takes a lab down, whatever state it is in. A lab that is not there is
// success: so it may be called twice, and after a crash.
func (e *Engine) Down(ctx context.Context, name string) error {
	unlock, err := e.lock(name)
	if err != nil {
		return err
	}
	defer unlock()
	return e.demolish(ctx, name)
}

func (e *Engine) demolish(ctx context.Context, name string) error {
	s, err := e.load(name)
	if errors.Is(err, fs.ErrNotExist) {
		return os.RemoveAll(e.folder(name)) // nothing was stored: nothing was built
	}
	if err != nil {
		return err
	}
	plan, err := s.plan(name)
	if err != nil {
		return err
	}
	// All that a lab is lives in its namespaces and goes with them, whatever somebody
	// made of it since.
	made := slices.Concat(File{Name: name}.rootPlan(), namespaces(plan))
	if err = errors.Join(e.kill(name, nodes(made)...), e.executor(e.Real).Undo(ctx, namespaces(made))); err != nil {
		return fmt.Errorf("taking lab %s down: %w", name, err)
	}
	return os.RemoveAll(e.folder(name))
}

// namespaces is the part of a plan that makes namespaces.
func namespaces(plan op.Plan) op.Plan {
	return slices.DeleteFunc(slices.Clone(plan), func(step op.Step) bool {
		_, is := step.Op.(op.AddNetns)
		return !is
	})
}

// nodes are the namespaces that a plan makes.
func nodes(plan op.Plan) []string {
	var names []string
	for _, step := range namespaces(plan) {
		names = append(names, step.Op.(op.AddNetns).Name)
	}
	return names
}

// Reset takes a lab down and puts it up again from the text that it was built
// from, even if the file has changed since.
func (e *Engine) Reset(ctx context.Context, name string) error {
	s, err := e.known(name)
	if err != nil {
		return err
	}
	if err = e.Down(ctx, name); err != nil {
		return err
	}
	_, err = e.Up(ctx, []byte(s.Text), s.Path)
	return err
}

// Explain returns the script that puts a lab up.
func Explain(text []byte) (string, error) {
	f, _, err := Parse(text)
	if err != nil {
		return "", err
	}
	plan, err := f.planHere()
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s\n# All that follows is done on the lab's machine: nsenter --net=%s sh\n\n%s", f.rootPlan(), kernel.Pin(Root(f.Name)), plan), nil
}

// Names lists the labs that are up, or were left half-way.
func (e *Engine) Names() ([]string, error) {
	entries, err := os.ReadDir(e.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing labs: %w", err)
	}
	var names []string
	for _, entry := range entries {
		if entry.IsDir() && !strings.HasPrefix(entry.Name(), ".") {
			names = append(names, entry.Name())
		}
	}
	return names, nil
}

// NameOf returns the lab that an argument stands for: the name of one that is up,
// or a file's, by its path or by its text.
func (e *Engine) NameOf(arg string) (string, error) {
	names, err := e.Names()
	if err != nil {
		return "", err
	}
	if slices.Contains(names, arg) {
		return arg, nil
	}
	path, err := filepath.Abs(arg)
	if err != nil {
		return "", err
	}
	for _, name := range names {
		if s, err := e.load(name); err == nil && s.Path == path {
			return name, nil
		}
	}
	if text, err := os.ReadFile(arg); err == nil {
		f, _, err := Parse(text)
		return f.Name, err
	}
	if plainName.MatchString(arg) {
		return arg, nil
	}
	return "", linkspan.Errorf(linkspan.ErrNotFound, "%s is no lab that is up and no file (see: linkspan lab status)", arg)
}

func (e *Engine) known(name string) (state, error) {
	s, err := e.load(name)
	if errors.Is(err, fs.ErrNotExist) {
		return s, linkspan.Errorf(linkspan.ErrNotFound, "lab %s is not up (see: linkspan lab status)", name)
	}
	return s, err
}

func (e *Engine) executor(host *kernel.Host) *op.Executor {
	return &op.Executor{Host: host, Trace: e.Trace}
}

func (e *Engine) open(name string) (*kernel.Host, error) {
	return kernel.OpenAt(kernel.Pin(Root(name)))
}

func (e *Engine) folder(name string) string { return filepath.Join(e.Dir, name) }

// lock keeps other processes from the same lab until the function that it
// returns is called.
func (e *Engine) lock(name string) (unlock func(), err error) {
	if err = os.MkdirAll(e.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("making the folder of labs: %w", err)
	}
	file, err := os.OpenFile(filepath.Join(e.Dir, "."+name+".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking lab %s: %w", name, err)
	}
	if err = unix.Flock(int(file.Fd()), unix.LOCK_EX); err != nil {
		file.Close()
		return nil, fmt.Errorf("locking lab %s: %w", name, err)
	}
	return func() { file.Close() }, nil
}

// plan returns what was stored of a lab's plan.
func (s state) plan(name string) (op.Plan, error) {
	plan, err := op.NewCodec().Unmarshal(s.Plan)
	if err != nil {
		return nil, fmt.Errorf("lab %s: %w", name, err)
	}
	return plan, nil
}

func (e *Engine) store(name string, s state, plan op.Plan) error {
	var err error
	if s.Plan, err = op.NewCodec().Marshal(plan); err != nil {
		return fmt.Errorf("storing lab %s: %w", name, err)
	}
	text, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("storing lab %s: %w", name, err)
	}
	folder := e.folder(name)
	if err = os.MkdirAll(folder, 0o755); err != nil {
		return fmt.Errorf("storing lab %s: %w", name, err)
	}
	temporary := filepath.Join(folder, "lab.json.new")
	if err = os.WriteFile(temporary, text, 0o600); err == nil {
		err = os.Rename(temporary, filepath.Join(folder, "lab.json"))
	}
	if err != nil {
		return fmt.Errorf("storing lab %s: %w", name, err)
	}
	return nil
}

// load reads what is stored of a lab; none is fs.ErrNotExist.
func (e *Engine) load(name string) (state, error) {
	var s state
	text, err := os.ReadFile(filepath.Join(e.folder(name), "lab.json"))
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(text, &s); err != nil {
		return s, fmt.Errorf("reading what is stored of lab %s: %w", name, err)
	}
	return s, nil
}
