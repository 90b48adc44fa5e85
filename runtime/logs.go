package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan"
)

// LogOptions choose what Logs writes.
type LogOptions struct {
	Stdout, Stderr bool
	Follow         bool // go on until the container stops
	Timestamps     bool // RFC 3339 and a blank before each line
	Details        bool // what the log driver's options labels and env choose, before each line
	Since, Until   time.Time
	Tail           int // the last lines only; negative is all
}

// logLine is one line of Docker's json-file format.
type logLine struct {
	Log    string    `json:"log"`
	Stream string    `json:"stream"`
	Time   time.Time `json:"time"`
}

// Logs writes what the container has put out, over all its runs: as Docker's
// frames, or raw if it has a terminal.
func (r *Runtime) Logs(ctx context.Context, ref string, o LogOptions, w io.Writer) error {
	if !o.Stdout && !o.Stderr {
		return linkspan.Errorf(linkspan.ErrInvalid, "Bad parameters: you must choose at least one stream")
	}
	e, err := r.find(ref)
	if err != nil {
		return err
	}
	c := e.get()
	if c.HostConfig.LogConfig.Type == "none" {
		return linkspan.Errorf(linkspan.ErrNotImplemented, "configured logging driver does not support reading")
	}
	if !o.Follow {
		return r.readLog(ctx, c, o, -1, w)
	}
	return r.followLog(ctx, e, o, w)
}

// readLog writes the log up to a length in bytes of the newest file; negative
// is all there is.
func (r *Runtime) readLog(ctx context.Context, c Container, o LogOptions, length int64, w io.Writer) error {
	l, err := r.openLog(c, o, w)
	if err != nil {
		return err
	}
	defer l.close()
	return l.all(ctx, length)
}

// followLog reads to the end, and again at each change of the file, until the
// container has stopped before the last reading began.
func (r *Runtime) followLog(ctx context.Context, e *entry, o LogOptions, w io.Writer) error {
	c := e.get()
	path := r.logFile(c)
	watch, err := newWatch()
	if err != nil {
		return fmt.Errorf("watching the log of container %s: %w", c.ID.Short(), err)
	}
	defer watch.close()
	l, err := r.openLog(c, o, w)
	if err != nil {
		return err
	}
	defer l.close()
	newest := l.files[len(l.files)-1]
	if err = watch.add(newest); err == nil {
		err = l.all(ctx, -1)
	}
	if err != nil {
		return err
	}
	for {
		e.mu.Lock()
		running, changed := e.c.State.Active() && !e.removed, e.changed
		e.mu.Unlock()
		rotated := l.rotated(path) // asked before the reading, which then gets all of it
		if err := l.copy(ctx); err != nil || l.past {
			return err
		}
		if rotated {
			if err := l.next(ctx, path); err != nil {
				return err
			}
			if err := watch.add(l.files[0]); err != nil {
				return err
			}
			continue
		}
		if !running {
			return nil
		}
		select {
		case <-watch.written:
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// watch tells of writes to files, and that they were renamed.
type watch struct {
	file    *os.File
	raw     syscall.RawConn
	written chan struct{}
}

func newWatch() (*watch, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("inotify_init", err)
	}
	w := &watch{file: os.NewFile(uintptr(fd), "inotify"), written: make(chan struct{}, 1)}
	if w.raw, err = w.file.SyscallConn(); err != nil {
		return nil, errors.Join(err, w.file.Close())
	}
	go func() {
		buf := make([]byte, 4<<10)
		for {
			if _, err := w.file.Read(buf); err != nil {
				return
			}
			select {
			case w.written <- struct{}{}:
			default:
			}
		}
	}()
	return w, nil
}

func (w *watch) close() { w.file.Close() }

// add watches an open file, which may have another name by now.
func (w *watch) add(file *os.File) error {
	fd, err := descriptor(file)
	if err != nil {
		return fmt.Errorf("watching the log: %w", err)
	}
	var added error
	err = w.raw.Control(func(inotify uintptr) {
		_, added = unix.InotifyAddWatch(int(inotify), "/proc/self/fd/"+strconv.Itoa(fd), unix.IN_MODIFY|unix.IN_MOVE_SELF)
	})
	if err = errors.Join(err, os.NewSyscallError("inotify_add_watch", added)); err != nil {
		return fmt.Errorf("watching the log: %w", err)
	}
	return nil
}
