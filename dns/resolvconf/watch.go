package resolvconf

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
)

// quiet is how long a file must rest before it is read again: an editor
// empties it first and fills it then.
const quiet = 20 * time.Millisecond

// maxLinks is how many symbolic links the kernel follows (path_resolution(7)).
const maxLinks = 40

// Watch calls changed, from one goroutine of its own, whenever one of the files
// may read otherwise than before, until the returned function is called, which
// waits for that goroutine. A file may be replaced, be a symbolic link whose
// target is replaced, or come and go. A folder that does not exist is not
// watched. See inotify(7).
func Watch(ctx context.Context, changed func(), paths ...string) (stop func(), err error) {
	notify, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("watching %v: %w", paths, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	w := watcher{notify: notify, paths: paths}
	w.arm()
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer notify.Close()
		w.run(ctx, changed)
	}()
	return func() { cancel(); <-done }, nil
}

type watcher struct {
	notify *fsnotify.Watcher
	paths  []string
	names  map[string]bool // of the files and links that lead to content
}

func (w *watcher) run(ctx context.Context, changed func()) {
	rest := time.NewTimer(quiet)
	rest.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case event, open := <-w.notify.Events:
			if !open {
				return
			}
			if w.names[event.Name] {
				rest.Reset(quiet)
			}
		case _, open := <-w.notify.Errors: // too many events to tell apart: anything may have changed
			if !open {
				return
			}
			rest.Reset(quiet)
		case <-rest.C:
			w.arm() // first, so that no change falls between reading and watching
			changed()
		}
	}
}

// arm watches every folder that holds the file or a link on the way to it, and
// the file itself, which may be bound to its place from elsewhere.
func (w *watcher) arm() {
	w.names = make(map[string]bool)
	wanted := make(map[string]bool)
	for _, path := range w.paths {
		for range maxLinks {
			w.names[path] = true
			wanted[filepath.Dir(path)] = true
			target, err := os.Readlink(path)
			if err != nil {
				break
			}
			if !filepath.IsAbs(target) {
				target = filepath.Join(filepath.Dir(path), target)
			}
			path = target
		}
		wanted[path] = true
	}
	for _, old := range w.notify.WatchList() {
		if !wanted[old] {
			w.notify.Remove(old) //nolint:errcheck // gone with what it watched
		}
	}
	for path := range wanted {
		if !slices.Contains(w.notify.WatchList(), path) {
			w.notify.Add(path) //nolint:errcheck // it does not exist; its folder tells when it does
		}
	}
}
