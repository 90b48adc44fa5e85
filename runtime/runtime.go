package runtime

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/api/types/container"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/runtime/cgroup"
	"github.com/linkspan/linkspan/runtime/launch"
	"github.com/linkspan/linkspan/runtime/volume"
)

// Options wires a Runtime. All but Shim and Links are required.
type Options struct {
	DataRoot string // absolute; durable
	ExecRoot string // absolute; tmpfs where possible
	Networks Networks
	Links    Links                // nil: there are none
	Volumes  func(volume.Event)   // what happens to volumes; nil: nobody wants to know
	Events   func(Event)          // called in order for one container; must not call verbs
	Logf     func(string, ...any) // for the operator
	Shim     string               // path of the shim's binary; "" is the embedded one
}

// Event is something that happened to a container, under Docker's name for it
// (Engine API, /events).
type Event struct {
	Action     string // create, start, die, kill, stop, destroy, attach, exec_start: CMD, …
	ID         linkspan.ID
	Attributes map[string]string // labels, image, name, and the action's own
	Time       time.Time
}

// Runtime looks after the containers of one data root. Its methods may be
// called concurrently.
type Runtime struct {
	options Options
	shim    *os.File // sealed copy of the shim's binary in memory
	cgroups *cgroup.Tree
	volumes *volume.Store
	caps    uint64 // what the daemon has to give
	filters filters
	bootID  string

	mu      sync.Mutex // guards the maps and closed; held for moments only
	entries map[linkspan.ID]*entry
	names   map[string]linkspan.ID
	execs   map[string]*session
	conns   map[*launch.Conn]bool // on which monitors listen
	closed  bool

	monitors sync.WaitGroup // goroutines that belong to no caller

	sizes   sync.Map        // bytes of layers of images, by folder
	closing context.Context // done by Close
	close   context.CancelFunc
	held    chan struct{} // closed when containers may be started by their restart policies
	turns   chan struct{} // how many of them may start at once
}

// entry is a container in memory.
type entry struct {
	verb sync.Mutex // one verb at a time
	file sync.Mutex // held while the state changes together with its file; taken after verb

	mu      sync.Mutex // guards what follows; held for moments only
	c       Container
	exits   int           // how many runs have ended
	removed bool          // gone for good
	changed chan struct{} // closed and replaced at each change
	pending []pending     // attached before the start
	pause   time.Duration // before the next start by the restart policy
	returns bool          // the end of this run is part of a restart: no automatic removal
}

// New opens the roots. Containers of an earlier daemon appear after Recover.
func New(o Options) (*Runtime, error) {
	for _, dir := range []string{o.DataRoot, o.ExecRoot} {
		if !filepath.IsAbs(dir) {
			return nil, linkspan.Errorf(linkspan.ErrInvalid, "root %q is not an absolute path", dir)
		}
		if err := os.MkdirAll(filepath.Join(dir, "containers"), 0o711); err != nil {
			return nil, fmt.Errorf("making root: %w", err)
		}
	}
	if err := checkUpper(o.DataRoot); err != nil {
		return nil, err
	}
	if o.Volumes == nil {
		o.Volumes = func(volume.Event) {}
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, fmt.Errorf("reading boot id: %w", err)
	}
	r := &Runtime{
		options: o, bootID: strings.TrimSpace(string(boot)),
		entries: map[linkspan.ID]*entry{}, names: map[string]linkspan.ID{}, execs: map[string]*session{}, conns: map[*launch.Conn]bool{},
	}
	r.closing, r.close = context.WithCancel(context.Background())
	r.held, r.turns = make(chan struct{}), make(chan struct{}, startsAtOnce)
	close(r.held)
	if r.caps, err = ownCapabilities(); err != nil {
		return nil, err
	}
	if r.cgroups, err = cgroup.Open(); err != nil {
		return nil, err
	}
	if r.shim, err = openShim(o.Shim); err != nil {
		return nil, err
	}
	if err := r.forgetOldBoot(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(r.visitDir(), 0o700); err != nil {
		return nil, fmt.Errorf("making root: %w", err)
	}
	r.volumes, err = volume.Open(volume.Options{DataRoot: o.DataRoot, Users: r.volumeUsers, Events: o.Volumes, Logf: o.Logf})
	return r, err
}

// forgetOldBoot empties an exec root that is not on tmpfs, after a reboot.
func (r *Runtime) forgetOldBoot() error {
	name := filepath.Join(r.options.ExecRoot, "boot-id")
	if text, err := os.ReadFile(name); err == nil && string(text) == r.bootID {
		return nil
	}
	dir := filepath.Join(r.options.ExecRoot, "containers")
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("emptying the exec root of an earlier boot: %w", err)
	}
	if err := os.Mkdir(dir, 0o711); err != nil {
		return fmt.Errorf("emptying the exec root of an earlier boot: %w", err)
	}
	if err := os.WriteFile(name, []byte(r.bootID), 0o600); err != nil {
		return fmt.Errorf("noting the boot id: %w", err)
	}
	return nil
}

// Close lets go of the containers without stopping any. An exit that it
// overtakes is for the next daemon to see.
func (r *Runtime) Close() error {
	r.close()
	r.mu.Lock()
	r.closed = true
	for conn := range r.conns {
		conn.Close()
	}
	r.mu.Unlock()
	r.monitors.Wait()
	return r.shim.Close()
}

// watch runs f, which listens on the connection, beside the caller until its
// end or Close.
func (r *Runtime) watch(conn *launch.Conn, f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.conns[conn] = true
	if r.closed {
		conn.Close()
	}
	r.monitors.Go(func() {
		defer func() {
			r.mu.Lock()
			delete(r.conns, conn)
			r.mu.Unlock()
			conn.Close()
		}()
		f()
	})
}

// List returns all containers, newest first.
func (r *Runtime) List() []Container {
	r.mu.Lock()
	entries := slices.Collect(maps.Values(r.entries))
	r.mu.Unlock()
	list := make([]Container, 0, len(entries))
	for _, e := range entries {
		list = append(list, e.get())
	}
	slices.SortFunc(list, func(a, b Container) int {
		return cmp.Or(b.Created.Compare(a.Created), strings.Compare(string(a.ID), string(b.ID)))
	})
	return list
}

// Get returns the container that ref names: a full ID, else a name, else an
// unambiguous beginning of an ID.
func (r *Runtime) Get(ref string) (Container, error) {
	e, err := r.find(ref)
	if err != nil {
		return Container{}, err
	}
	return e.get(), nil
}

func (r *Runtime) find(ref string) (*entry, error) {
	if ref = strings.TrimPrefix(ref, "/"); ref == "" {
		return nil, linkspan.Errorf(linkspan.ErrInvalid, "invalid name or ID supplied: %q", ref)
	}
	if strings.Contains(ref, "/") && r.options.Links != nil {
		if target, ok := r.options.Links.LinkTarget(ref); ok {
			ref = string(target)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if e, ok := r.entries[linkspan.ID(ref)]; ok {
		return e, nil
	}
	if id, ok := r.names[ref]; ok && r.entries[id] != nil {
		return r.entries[id], nil
	}
	var found *entry
	for id, e := range r.entries {
		if !strings.HasPrefix(string(id), ref) {
			continue
		}
		if found != nil {
			return nil, linkspan.Errorf(linkspan.ErrInvalid, "multiple IDs found with provided prefix: %s", ref)
		}
		found = e
	}
	if found == nil {
		return nil, linkspan.Errorf(linkspan.ErrNotFound, "No such container: %s", ref)
	}
	return found, nil
}

func (e *entry) get() Container {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.c
}

// update changes the container and wakes whoever waits for a change.
func (e *entry) update(f func(*Container)) Container {
	e.mu.Lock()
	defer e.mu.Unlock()
	f(&e.c)
	e.wake()
	return e.c
}

// snapshot returns the container, and how many of its runs had ended then: who
// waits for the end of the run that it sees here must not count later.
func (e *entry) snapshot() (Container, int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.c, e.exits
}

// keep changes the container and writes its state if f says so. An end that
// nobody asked for may come at any time, and writes as well.
func (r *Runtime) keep(e *entry, doing string, f func(*Container) bool) Container {
	e.file.Lock()
	defer e.file.Unlock()
	write := false
	c := e.update(func(c *Container) { write = f(c) })
	if !write {
		return c
	}
	if err := r.saveState(c); err != nil {
		r.options.Logf("%s container %s: %v", doing, c.ID.Short(), err)
	}
	return c
}

// wake must be called with mu held.
func (e *entry) wake() {
	close(e.changed)
	e.changed = make(chan struct{})
}

func (r *Runtime) event(c Container, action string, extra ...string) {
	attributes := map[string]string{}
	maps.Copy(attributes, c.Config.Labels)
	attributes["name"] = c.Name
	attributes["image"] = c.Config.Image
	for i := 0; i+1 < len(extra); i += 2 {
		attributes[extra[i]] = extra[i+1]
	}
	r.options.Events(Event{Action: action, ID: c.ID, Attributes: attributes, Time: time.Now()})
}

// errNotRunning is Docker's wording, which clients look for.
func errNotRunning(c Container) error {
	return linkspan.Errorf(linkspan.ErrConflict, "container %s is not running", c.ID)
}

// errRestarting is for what needs processes.
func errRestarting(ref string) error {
	return linkspan.Errorf(linkspan.ErrConflict, "Container %s is restarting, wait until the container is running", ref)
}

// undoing gives a step that must happen the time for it, whoever gave up.
func undoing(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
}

func isStatus(c Container, statuses ...container.ContainerState) bool {
	return slices.Contains(statuses, c.State.Status)
}
