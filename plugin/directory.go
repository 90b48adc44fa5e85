package plugin

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/plugin/wire"
)

// Options say where plugins are and how long to wait for them. Zero durations
// stand for the defaults.
type Options struct {
	// Dirs are searched first, for sockets and for files; then Sockets; then
	// Specs. A nil Sockets or Specs stands for Docker's places.
	Dirs, Sockets, Specs []string

	Deadline time.Duration // of a call; 30 s
	Brief    time.Duration // of a call that takes something back, or asks for a state; 3 s
	Patience time.Duration // how long a plugin may take to listen; 2 s

	// Meet, if set, says to a process that answers for the first time what it must
	// hear before anything else: all other calls wait for it, but not longer than
	// they would wait for an answer. Its own calls must have its context.
	Meet func(ctx context.Context, name string)
	// Up, if set, is told that a plugin answers again, or for the first time
	// since somebody asked for it in vain. It must not block.
	Up func(name string)
	// Logf, if set, gets what went wrong where nobody waits for an answer.
	Logf func(format string, args ...any)
}

// Directory finds plugins and holds a line to each. It is safe for concurrent
// use.
type Directory struct {
	o       Options
	folders []folder
	stop    context.CancelFunc
	life    context.Context //nolint:containedctx // the life of the lines' own questions, ended by Close
	asking  sync.WaitGroup

	mu    sync.Mutex
	lines map[string]*Line
	nodes []wire.Node // of the cluster
}

// NewDirectory returns a Directory. Nothing is looked for before it is needed.
func NewDirectory(o Options) *Directory {
	d := &Directory{o: o, lines: make(map[string]*Line)}
	d.life, d.stop = context.WithCancel(context.Background())
	if d.o.Sockets == nil {
		d.o.Sockets = []string{DockerSockets}
	}
	if d.o.Specs == nil {
		d.o.Specs = DockerSpecs()
	}
	if d.o.Logf == nil {
		d.o.Logf = func(string, ...any) {}
	}
	if d.o.Up == nil {
		d.o.Up = func(string) {}
	}
	if d.o.Meet == nil {
		d.o.Meet = func(context.Context, string) {}
	}
	for _, wait := range []struct {
		option *time.Duration
		normal time.Duration
	}{{&d.o.Deadline, 30 * time.Second}, {&d.o.Brief, 3 * time.Second}, {&d.o.Patience, 2 * time.Second}} {
		if *wait.option == 0 {
			*wait.option = wait.normal
		}
	}
	for _, dir := range o.Dirs {
		d.folders = append(d.folders, folder{dir, true, true})
	}
	for _, dir := range d.o.Sockets {
		d.folders = append(d.folders, folder{dir, true, false})
	}
	for _, dir := range d.o.Specs {
		d.folders = append(d.folders, folder{dir, false, true})
	}
	return d
}

// Close ends the lines' own questions. Plugins are told nothing.
func (d *Directory) Close() {
	d.stop()
	d.asking.Wait()
}

// background does something that nobody waits for, or at once if the directory is
// closed: then all its questions end at once.
func (d *Directory) background(f func()) {
	if d.life.Err() != nil {
		f()
		return
	}
	d.asking.Go(f)
}

// Line returns the line to a plugin. It asks nobody, and does not even look
// whether there is such a plugin.
func (d *Directory) Line(name string) *Line {
	d.mu.Lock()
	defer d.mu.Unlock()
	l := d.lines[name]
	if l == nil {
		l = &Line{directory: d, name: name, process: 1}
		d.lines[name] = l
	}
	return l
}

// Wake makes sure that a plugin listens and offers a kind of driver, such as
// wire.NetworkDriver. If it has been asked before, that takes no time.
func (d *Directory) Wake(ctx context.Context, name, kind string) error {
	about, err := d.Line(name).About(ctx)
	if err != nil {
		return err
	}
	if !slices.Contains(about.Implements, kind) {
		// It may be another program by now.
		d.Line(name).lose()
		if about, err = d.Line(name).About(ctx); err != nil {
			return err
		}
	}
	if !slices.Contains(about.Implements, kind) {
		return linkspan.Errorf(errOther, "legacy plugin: Plugin does not implement the requested driver: plugin=%q, requested implementation=%q", name, kind)
	}
	return nil
}

// Places returns the plugins that are there or were used, by name, without
// asking them.
func (d *Directory) Places() []Place {
	places := scan(d.folders)
	d.mu.Lock()
	defer d.mu.Unlock()
	for name, line := range d.lines {
		known := func(p Place) bool { return p.Name == name }
		if line.wanted() && !slices.ContainsFunc(places, known) {
			places = append(places, Place{Name: name})
		}
	}
	slices.SortFunc(places, func(a, b Place) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return places
}

// Names returns the plugins that offer a kind of driver, by name. It asks those
// that were never asked, all at once and briefly, and leaves out who does not
// answer.
func (d *Directory) Names(ctx context.Context, kind string) []string {
	ctx, cancel := context.WithTimeoutCause(ctx, d.o.Brief, errSilent)
	defer cancel()
	var mu sync.Mutex
	var names []string
	var wg sync.WaitGroup
	for _, place := range d.Places() {
		wg.Go(func() {
			about, err := d.Line(place.Name).Glance(ctx)
			if err == nil && slices.Contains(about.Implements, kind) {
				mu.Lock()
				defer mu.Unlock()
				names = append(names, place.Name)
			}
		})
	}
	wg.Wait()
	slices.Sort(names)
	return names
}

// Used returns the plugins that somebody depends on and that answered last, by
// name.
func (d *Directory) Used() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var names []string
	for name, line := range d.lines {
		if line.wanted() && line.State() == nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Abandon stops looking for a plugin, until somebody calls it or depends on it
// again.
func (d *Directory) Abandon(name string) {
	line := d.Line(name)
	line.mu.Lock()
	defer line.mu.Unlock()
	line.used, line.cut, line.about, line.wire = false, nil, nil, nil
}

// Socket returns the URL at which a plugin listened when it was last found, or
// the most likely one. It does not look.
func (d *Directory) Socket(name string) string {
	if url := d.Line(name).url(); url != "" {
		return url
	}
	return "unix://" + DockerSockets + "/" + name + ".sock"
}

// Watch says that somebody depends on a plugin: when it is away it is asked for
// until it comes. It returns what is wrong with it, as far as is known without
// asking, or nil.
func (d *Directory) Watch(name string) error {
	line := d.Line(name)
	line.mu.Lock()
	defer line.mu.Unlock()
	line.used = true
	return line.refusal()
}
