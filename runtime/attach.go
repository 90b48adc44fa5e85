package runtime

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/runtime/launch"
)

// maxPending bounds how many may attach to a container that nobody starts.
const maxPending = 64

// Stream is one client's connection to a process: what it reads is the
// process's output, as Docker's frames or, with a terminal, raw; what it writes
// is the process's input.
type Stream interface {
	io.ReadWriteCloser
	CloseWrite() error // end of input
}

// AttachOptions choose the streams.
type AttachOptions struct {
	Stdin, Stdout, Stderr bool
	Logs                  bool // begin with what has been logged
}

// pending is a client that attached before the start.
type pending struct {
	conn *launch.Conn // the client's end
	fd   int          // the shim's
	want launch.Attach
}

// Attach connects to the container's own process. If it does not run yet, the
// stream comes to life with the start, from the first byte on.
func (r *Runtime) Attach(ctx context.Context, ref string, o AttachOptions) (Stream, error) {
	e, err := r.find(ref)
	if err != nil {
		return nil, err
	}
	c := e.get()
	if isStatus(c, container.StatePaused) {
		return nil, linkspan.Errorf(linkspan.ErrConflict, "container %s is paused, unpause the container before attach", ref)
	}
	if isStatus(c, container.StateRestarting) {
		return nil, errRestarting(ref)
	}
	want := launch.Attach{Stdin: o.Stdin && c.Config.OpenStdin, Stdout: o.Stdout, Stderr: o.Stderr}
	if !c.State.Running() {
		later, refused := e.attachLater(want)
		if refused != nil {
			return nil, refused
		}
		r.event(c, "attach")
		return later, nil
	}
	conn, kind, payload, err := r.ask(c, launch.ReqAttach, launch.Encode(&want))
	if err != nil {
		return nil, err
	}
	var ack launch.Ack
	if kind != launch.OK {
		err = errNotRunning(c)
	} else if derr := launch.Decode(payload, &ack); derr != nil {
		err = fmt.Errorf("hearing the shim of container %s: %w", c.ID.Short(), derr)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	r.event(c, "attach")
	if !o.Logs {
		return conn, nil
	}
	var before bytes.Buffer
	err = r.readLog(ctx, c, LogOptions{Stdout: o.Stdout, Stderr: o.Stderr, Tail: -1}, ack.Offset, &before)
	if err != nil {
		conn.Close()
		return nil, err
	}
	return &replayed{Stream: conn, reader: io.MultiReader(&before, conn)}, nil
}

// replayed is a stream that begins with the log.
type replayed struct {
	Stream
	reader io.Reader
}

func (s *replayed) Read(p []byte) (int, error) { return s.reader.Read(p) }

func (e *entry) attachLater(want launch.Attach) (*launch.Conn, error) {
	conn, fd, err := launch.Pair()
	if err != nil {
		return nil, fmt.Errorf("attaching: %w", err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.removed || len(e.pending) >= maxPending {
		conn.Close()
		unix.Close(fd)
		return nil, linkspan.Errorf(linkspan.ErrConflict, "too many clients are attached to container %s, which is not running", e.c.ID.Short())
	}
	e.pending = append(e.pending, pending{conn, fd, want})
	return conn, nil
}

func (e *entry) takePending() []pending {
	e.mu.Lock()
	defer e.mu.Unlock()
	taken := e.pending
	e.pending = nil
	return taken
}

// dropPending lets those who wait for a start that will not come read an end.
func (r *Runtime) dropPending(e *entry) {
	for _, p := range e.takePending() {
		unix.Close(p.fd)
	}
}

// Resize sets the size of the container's terminal, in characters.
func (r *Runtime) Resize(_ context.Context, ref string, rows, cols int) error {
	e, err := r.find(ref)
	if err != nil {
		return err
	}
	c := e.get()
	if !c.State.Running() {
		return errNotRunning(c)
	}
	if err := r.resize(c, "", rows, cols); err != nil {
		return err
	}
	r.event(c, "resize", "height", fmt.Sprint(rows), "width", fmt.Sprint(cols))
	return nil
}

func (r *Runtime) resize(c Container, session string, rows, cols int) error {
	if rows < 0 || cols < 0 || rows > 1<<16-1 || cols > 1<<16-1 {
		return linkspan.Errorf(linkspan.ErrInvalid, "invalid terminal size %d×%d", rows, cols)
	}
	if err := r.control(c, launch.ReqResize, launch.Control{Session: session, A: rows, B: cols}); err != nil {
		return fmt.Errorf("resizing the terminal of container %s: %w", c.ID.Short(), err)
	}
	return nil
}
