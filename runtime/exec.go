package runtime

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/runtime/launch"
)

// keepExec is how long a process that has ended can be asked about.
const keepExec = 5 * time.Minute

// Exec is a further process in a container, as it stands.
type Exec struct {
	ID        string
	Container linkspan.ID
	Request   container.ExecCreateRequest
	Running   bool
	ExitCode  *int // nil before the end
	Pid       int
}

// session lives in memory only: after a restart of the daemon the process goes on
// but has no record, as with Docker.
type session struct {
	container linkspan.ID

	mu      sync.Mutex
	state   Exec
	started bool
	ended   time.Time
	done    chan struct{} // closed at the end
}

// ExecCreate prepares a further process in a running container.
func (r *Runtime) ExecCreate(_ context.Context, ref string, q container.ExecCreateRequest) (string, error) {
	e, err := r.find(ref)
	if err != nil {
		return "", err
	}
	c := e.get()
	switch {
	case len(q.Cmd) == 0 || q.Cmd[0] == "":
		return "", linkspan.Errorf(linkspan.ErrInvalid, "No exec command specified")
	case isStatus(c, container.StatePaused):
		return "", linkspan.Errorf(linkspan.ErrConflict, "Container %s is paused, unpause the container before exec", c.ID)
	case isStatus(c, container.StateRestarting):
		return "", errRestarting(string(c.ID))
	case !c.State.Running():
		return "", errNotRunning(c)
	}
	id := string(linkspan.NewID())
	x := &session{container: c.ID, state: Exec{ID: id, Container: c.ID, Request: q}, done: make(chan struct{})}
	r.mu.Lock()
	for old, x := range r.execs {
		if x.expired() {
			delete(r.execs, old)
		}
	}
	r.execs[id] = x
	r.mu.Unlock()
	r.event(c, "exec_create: "+strings.Join(q.Cmd, " "), "execID", id)
	return id, nil
}

func (x *session) expired() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return !x.ended.IsZero() && time.Since(x.ended) > keepExec
}

func (r *Runtime) findExec(id string) (*session, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if x, ok := r.execs[id]; ok {
		return x, nil
	}
	return nil, linkspan.Errorf(linkspan.ErrNotFound, "No such exec instance: %s", id)
}

// Execs lists the IDs of those that were prepared in a container and have not
// ended, in their order as texts; nil if there are none.
func (r *Runtime) Execs(id linkspan.ID) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []string
	for exec, x := range r.execs {
		if x.container == id && x.isOpen() {
			list = append(list, exec)
		}
	}
	slices.Sort(list)
	return list
}

func (x *session) isOpen() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.ended.IsZero()
}

// ExecInspect tells how the process stands.
func (r *Runtime) ExecInspect(id string) (Exec, error) {
	x, err := r.findExec(id)
	if err != nil {
		return Exec{}, err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.state, nil
}

// ExecWait blocks until the process has ended.
func (r *Runtime) ExecWait(ctx context.Context, id string) (Exec, error) {
	x, err := r.findExec(id)
	if err != nil {
		return Exec{}, err
	}
	select {
	case <-x.done:
		return r.ExecInspect(id)
	case <-ctx.Done():
		return Exec{}, ctx.Err()
	}
}

// ExecStart starts it. Unless detached it returns the stream of the process's
// output and input. A command that cannot run is ErrInvalid and leaves exit
// code 126 or 127.
func (r *Runtime) ExecStart(_ context.Context, id string, o container.ExecStartRequest) (Stream, error) {
	x, err := r.findExec(id)
	if err != nil {
		return nil, err
	}
	e, err := r.find(string(x.container))
	if err != nil {
		return nil, err
	}
	c := e.get()
	if !c.State.Running() {
		return nil, errNotRunning(c)
	}
	x.mu.Lock()
	again, q := x.started, x.state.Request
	x.started = true
	running := x.state.Running
	x.mu.Unlock()
	switch {
	case again && running:
		return nil, linkspan.Errorf(linkspan.ErrConflict, "exec command %s is already running", id)
	case again:
		return nil, linkspan.Errorf(linkspan.ErrConflict, "exec command %s has already run", id)
	}
	stream, err := r.execLaunch(c, x, q, o)
	if err == nil {
		return stream, nil
	}
	code := 126
	if refused := (*startError)(nil); errors.As(err, &refused) {
		code = refused.code
		err = linkspan.Errorf(linkspan.ErrInvalid, "%w", err)
	}
	r.execEnded(c, x, code)
	return nil, err
}

func (r *Runtime) execProcess(c Container, q container.ExecCreateRequest, size *[2]uint) (launch.Process, error) {
	p, err := r.process(c, c.HostConfig.Privileged || q.Privileged)
	if err != nil {
		return p, err
	}
	p.Args, p.Tty, p.Stdin, p.StdinOnce = slices.Clone(q.Cmd), q.Tty, q.AttachStdin || q.Tty, true
	p.Rows, p.Cols = 0, 0
	if size != nil {
		p.Rows, p.Cols = int(size[0]), int(size[1])
	}
	p.Env = override(r.environment(c, q.Tty), q.Env)
	if q.User != "" {
		p.User = q.User
	}
	if q.WorkingDir != "" {
		if !filepath.IsAbs(q.WorkingDir) {
			return p, linkspan.Errorf(linkspan.ErrInvalid, "working directory %q: Cwd must be an absolute path", q.WorkingDir)
		}
		p.Dir = q.WorkingDir
	}
	return p, nil
}

func (r *Runtime) execLaunch(c Container, x *session, q container.ExecCreateRequest, o container.ExecStartRequest) (Stream, error) {
	size := o.ConsoleSize
	if size == nil {
		size = q.ConsoleSize
	}
	process, err := r.execProcess(c, q, size)
	if err != nil {
		return nil, err
	}
	request := launch.Exec{ID: x.state.ID, Process: process}
	conn, err := launch.Dial(r.execDir(c.ID))
	if err != nil {
		return nil, errNotRunning(c)
	}
	var stream *launch.Conn
	if !o.Detach {
		var fd int
		if stream, fd, err = launch.Pair(); err == nil {
			request.Attached = []launch.Attach{{Stdin: q.AttachStdin, Stdout: q.AttachStdout, Stderr: q.AttachStderr}}
			err = conn.SendFiles([]int{fd})
			unix.Close(fd)
		}
	}
	var status launch.Status
	if err == nil {
		status, err = execHandshake(conn, &request)
	}
	if err != nil {
		conn.Close()
		if stream != nil {
			stream.Close()
		}
		return nil, err
	}
	x.mu.Lock()
	x.state.Running, x.state.Pid = true, status.Pid
	x.mu.Unlock()
	r.event(c, "exec_start: "+strings.Join(q.Cmd, " "), "execID", x.state.ID)
	r.watch(conn, func() { r.execMonitor(c, x, conn) })
	if stream == nil {
		return nil, nil
	}
	return stream, nil
}

func execHandshake(conn *launch.Conn, request *launch.Exec) (launch.Status, error) {
	var status launch.Status
	if err := conn.Send(launch.ReqExec, launch.Encode(request)); err != nil {
		return status, fmt.Errorf("talking to the shim: %w", err)
	}
	kind, payload, err := conn.Receive()
	if err != nil {
		return status, fmt.Errorf("hearing from the shim: %w", err)
	}
	if err := launch.Decode(payload, &status); err != nil {
		return status, fmt.Errorf("hearing from the shim: %w", err)
	}
	if kind != launch.Started {
		return status, &startError{status.Code, "unable to start container process: " + status.Text}
	}
	return status, nil
}

func (r *Runtime) execMonitor(c Container, x *session, conn *launch.Conn) {
	code := 137 // the container ended, and its shim before it could tell
	if kind, payload, err := conn.Receive(); err == nil && kind == launch.Exited {
		var status launch.Status
		if launch.Decode(payload, &status) == nil {
			code = status.Code
		}
	}
	if !r.isClosed() {
		r.execEnded(c, x, code)
	}
}

// execEnded may be called twice, by the process's end and the container's.
func (r *Runtime) execEnded(c Container, x *session, code int) {
	x.mu.Lock()
	over := !x.ended.IsZero()
	if !over {
		x.ended = time.Now()
		x.state.Running, x.state.ExitCode, x.state.Pid = false, &code, 0
		close(x.done)
	}
	x.mu.Unlock()
	if !over {
		r.event(c, "exec_die", "execID", x.state.ID, "exitCode", strconv.Itoa(code))
	}
}

// ExecResize sets the size of the process's terminal, in characters.
func (r *Runtime) ExecResize(_ context.Context, id string, rows, cols int) error {
	x, err := r.findExec(id)
	if err != nil {
		return err
	}
	e, err := r.find(string(x.container))
	if err != nil {
		return err
	}
	x.mu.Lock()
	running := x.state.Running
	x.mu.Unlock()
	if !running {
		return linkspan.Errorf(linkspan.ErrConflict, "exec process %s is not running", id)
	}
	return r.resize(e.get(), id, rows, cols)
}
