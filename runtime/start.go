package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/runtime/cgroup"
	"github.com/linkspan/linkspan/runtime/launch"
)

// run is what belongs to one life of a container.
type run struct {
	conn    *launch.Conn // the exit status will come over it
	process *os.Process  // the shim, if it is our child
	group   cgroup.Group
	status  launch.Status // of the start
	over    context.Context
	end     context.CancelFunc // tells those who look after this run that it is over
}

// Start runs the container. A failed start leaves nothing in the kernel; the
// container keeps its status and tells by its State why, with the exit code
// that Docker gives: 127 for a missing command, 126 for one that cannot be
// executed, 128 for anything else. A running container is ErrNotModified.
func (r *Runtime) Start(ctx context.Context, ref string) error {
	e, err := r.find(ref)
	if err != nil {
		return err
	}
	e.verb.Lock()
	defer e.verb.Unlock()
	return r.start(ctx, e, true)
}

// start needs the verb lock. What was not asked for is a start by the restart
// policy, which counts them.
func (r *Runtime) start(ctx context.Context, e *entry, asked bool) error {
	c := e.get()
	switch {
	case e.isRemoved() || isStatus(c, container.StateRemoving, container.StateDead):
		return linkspan.Errorf(linkspan.ErrConflict, "container is marked for removal and cannot be started")
	case isStatus(c, container.StatePaused):
		return linkspan.Errorf(linkspan.ErrConflict, "cannot start a paused container, try unpause instead")
	case isStatus(c, container.StateRunning):
		return linkspan.Errorf(linkspan.ErrNotModified, "container %s is already running", c.ID)
	}
	// A client that hangs up does not leave half a container.
	ctx = context.WithoutCancel(ctx)
	started, err := r.launch(ctx, e, c)
	if err != nil {
		return r.startFailed(ctx, e, err, asked)
	}
	c = r.keep(e, "starting", func(c *Container) bool {
		count := c.State.RestartCount
		if asked {
			count, e.pause = 0, 0
		}
		c.State = State{
			Status: container.StateRunning, Pid: started.status.Pid, StartedAt: time.Unix(0, started.status.At).UTC(), BootID: r.bootID,
			FinishedAt: c.State.FinishedAt, RestartCount: count, Health: newHealth(c.Config.Healthcheck),
		}
		return true
	})
	r.event(c, "start")
	r.lookAfter(e, started)
	return nil
}

// lookAfter waits for the end of a run, and probes it until then.
func (r *Runtime) lookAfter(e *entry, started *run) {
	started.over, started.end = context.WithCancel(r.closing)
	r.watch(started.conn, func() { r.monitor(e, started) })
	r.watchHealth(e, started)
}

// launch does what a start takes. The directory in the exec root is the open
// intent: Recover undoes, or adopts, whatever it finds with it.
func (r *Runtime) launch(ctx context.Context, e *entry, c Container) (*run, error) {
	if _, err := os.Stat(r.execDir(c.ID)); err == nil { // what an earlier end could not undo
		if err := r.clean(ctx, c); err != nil {
			return nil, err
		}
	}
	if err := os.Mkdir(r.execDir(c.ID), 0o700); err != nil {
		return nil, fmt.Errorf("making the container's run directory: %w", err)
	}
	started := &run{group: r.cgroups.Group(c.group())}
	err := r.assemble(ctx, e, c, started)
	if err == nil {
		return started, nil
	}
	defer r.volumeEvents(c, "unmount")
	if started.conn != nil {
		started.conn.Close() // a shim that was not told to launch anything ends
	}
	if started.process != nil {
		started.process.Wait()
	}
	return nil, errors.Join(err, r.clean(ctx, c))
}

func (r *Runtime) assemble(ctx context.Context, e *entry, c Container, started *run) error {
	r.volumeEvents(c, "mount")
	if err := checkLayers(c); err != nil {
		return err
	}
	if err := r.checkNetworkDonor(c); err != nil {
		return err
	}
	err := makeSources(c)
	if err != nil {
		return err
	}
	if started.process, started.conn, err = r.spawn(c); err != nil {
		return err
	}
	attachment, err := r.options.Networks.Attach(ctx, c)
	defer attachment.Holds.Close() //nolint:staticcheck // an attachment that failed half-way may hold something already
	for _, file := range attachment.Keep {
		defer file.Close() //nolint:errcheck // the shim has its own, or there is no container
	}
	if err != nil {
		return err
	}
	limits, err := limitsOf(c.HostConfig)
	if err != nil {
		return err
	}
	devices, rules, err := devicesOf(c.HostConfig)
	if err != nil {
		return err
	}
	limits.Devices = rules
	if started.group, err = r.cgroups.Create(c.group(), limits); err != nil {
		return err
	}
	if err = r.makeUpper(c.ID); err != nil {
		return err
	}
	spec, err := r.spec(c, attachment, started.group.Dirs)
	if err != nil {
		return err
	}
	if err := r.share(c, spec); err != nil {
		return err
	}
	spec.Devices = devices
	spec.Keep, spec.Ports = len(attachment.Keep), launchPorts(attachment.Ports)
	return r.send(e, spec, attachment, started)
}

// startError is a refusal of the shim.
type startError struct {
	code int
	text string
}

func (s *startError) Error() string { return s.text }

// send launches, with the streams of those who attached before.
func (r *Runtime) send(e *entry, spec *launch.Spec, attachment Attachment, started *run) error {
	waiting := e.takePending()
	fds := make([]int, 0, len(waiting)+len(attachment.Keep)+len(attachment.Holds))
	for _, p := range waiting {
		defer unix.Close(p.fd)
		fds = append(fds, p.fd)
		spec.Attached = append(spec.Attached, p.want)
	}
	for _, file := range attachment.Keep {
		fd, err := descriptor(file)
		if err != nil {
			return fmt.Errorf("handing %s to the shim: %w", file.Name(), err)
		}
		fds = append(fds, fd)
	}
	fds = append(fds, attachment.Holds...)
	if err := started.conn.SendFiles(fds); err != nil {
		return fmt.Errorf("handing descriptors to the shim: %w", err)
	}
	if err := started.conn.Send(launch.ReqLaunch, launch.Encode(spec)); err != nil {
		return fmt.Errorf("talking to the shim: %w", err)
	}
	kind, payload, err := started.conn.Receive()
	if err != nil {
		return fmt.Errorf("hearing from the shim: %w%s", err, r.complaint(linkspan.ID(spec.ID)))
	}
	if err := launch.Decode(payload, &started.status); err != nil {
		return fmt.Errorf("hearing from the shim: %w", err)
	}
	if kind != launch.Started {
		return &startError{started.status.Code, "unable to start container process: " + started.status.Text}
	}
	return nil
}

// descriptor does not take the file out of non-blocking mode, as File.Fd may.
func descriptor(file *os.File) (int, error) {
	raw, err := file.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd := -1
	err = raw.Control(func(n uintptr) { fd = int(n) })
	return fd, err
}

// complaint is what a shim that broke down said.
func (r *Runtime) complaint(id linkspan.ID) string {
	text, err := os.ReadFile(filepath.Join(r.execDir(id), "shim.err"))
	if err != nil || len(text) == 0 {
		return ""
	}
	return ": " + string(text[:min(len(text), 2000)])
}

// startFailed records why, and removes a container that was to be removed
// when it ends. A start by the restart policy that fails is as good as a run
// that does.
func (r *Runtime) startFailed(ctx context.Context, e *entry, err error, asked bool) error {
	code, kind := 128, linkspan.ErrInvalid
	var refused *startError
	if errors.As(err, &refused) {
		code = refused.code
	} else if known := (*linkspan.Error)(nil); errors.As(err, &known) {
		kind = known.Kind
	} else {
		kind = nil
	}
	c := r.keep(e, "starting", func(c *Container) bool {
		c.State.ExitCode, c.State.Error = code, err.Error()
		if c.State.Status == container.StateRestarting {
			c.State.Status, c.State.FinishedAt = container.StateExited, time.Now().UTC()
		}
		if !asked && e.again(c, 0) {
			c.State.Status = container.StateRestarting
		}
		e.exits++
		return true
	})
	if isStatus(c, container.StateRestarting) {
		r.restartLater(e)
	}
	r.dropPending(e)
	if c.HostConfig.AutoRemove {
		if rerr := r.remove(ctx, e); rerr != nil {
			r.options.Logf("removing container %s after a failed start: %v", c.ID.Short(), rerr)
		}
	}
	if kind == nil {
		return fmt.Errorf("starting container %s: %w", c.ID.Short(), err)
	}
	return linkspan.Errorf(kind, "%w", err)
}

// clean undoes all that a run may have made. It goes on past errors; the
// directory stays as long as anything else does.
func (r *Runtime) clean(ctx context.Context, c Container) error {
	tell, err := r.release(ctx, c)
	tell()
	return err
}

// release is clean for one that has an event to tell before the networks tell
// theirs, by tell, which is never nil.
func (r *Runtime) release(ctx context.Context, c Container) (tell func(), err error) {
	undo, cancel := undoing(ctx)
	defer cancel()
	errs := []error{r.cgroups.Group(c.group()).Remove(undo)}
	tell, err = r.options.Networks.Detach(undo, c.ID)
	if err != nil {
		errs = append(errs, fmt.Errorf("detaching container %s from its networks: %w", c.ID.Short(), err))
	}
	if err := errors.Join(errs...); err != nil {
		return tell, err
	}
	if err := os.RemoveAll(r.execDir(c.ID)); err != nil {
		return tell, fmt.Errorf("removing the container's run directory: %w", err)
	}
	return tell, nil
}

// monitor waits for the end of a run and sees to what follows from it.
func (r *Runtime) monitor(e *entry, started *run) {
	c := e.get()
	status, err := r.awaitExit(c, started)
	started.end()
	if r.isClosed() {
		return // the next daemon finds the exit status
	}
	if err != nil {
		r.options.Logf("container %s: %v", c.ID.Short(), err)
	}
	r.finish(e, started, status)
}

// awaitExit hears the status from the shim, or reads what it left behind, or,
// if the shim was killed, ends what it left running.
func (r *Runtime) awaitExit(c Container, started *run) (launch.Status, error) {
	kind, payload, err := started.conn.Receive()
	var status launch.Status
	if err == nil && kind == launch.Exited {
		if err = launch.Decode(payload, &status); err == nil {
			return status, nil
		}
	}
	if r.isClosed() {
		return status, nil
	}
	if status, err = r.leftBehind(c); err == nil {
		return status, nil
	}
	text := "the shim of the container died" + r.complaint(c.ID)
	if err := started.group.Kill(); err != nil {
		return status, err
	}
	return launch.Status{Code: 128 + int(unix.SIGKILL), Text: text, At: time.Now().UnixNano()}, errors.New(text)
}

// leftBehind is the exit status that a shim keeps for a daemon that is away.
func (r *Runtime) leftBehind(c Container) (launch.Status, error) {
	var status launch.Status
	text, err := os.ReadFile(filepath.Join(r.execDir(c.ID), launch.ExitFile))
	if err != nil {
		return status, err
	}
	return status, launch.Decode(text, &status)
}

// finish tells of the exit, gives everything back, and only then lets anyone
// see the container as stopped: who sees that may start it again.
func (r *Runtime) finish(e *entry, started *run, status launch.Status) {
	ctx := context.Background()
	oom := started.group.OOMKilled()
	c := e.get()
	at := time.Unix(0, status.At).UTC()
	if oom {
		r.event(c, "oom")
	}
	tell, err := r.release(ctx, c)
	if err != nil {
		r.options.Logf("ending container %s: %v", c.ID.Short(), err)
	}
	r.volumeEvents(c, "unmount")
	if started.process != nil {
		started.process.Wait() // it ends beside us; nothing of it is to be left when the exit is seen
	}
	// The file first, so that nobody is told what a crash could take back.
	e.file.Lock()
	e.mu.Lock()
	c.State = State{
		Status: container.StateExited, ExitCode: status.Code, Error: status.Text, OOMKilled: oom,
		StartedAt: c.State.StartedAt, FinishedAt: at, BootID: r.bootID,
		RestartCount: e.c.State.RestartCount, Stopped: e.c.State.Stopped, Health: endedHealth(e.c.State.Health),
	}
	if e.again(&c, at.Sub(c.State.StartedAt)) {
		c.State.Status = container.StateRestarting
	}
	e.mu.Unlock()
	// One that goes at once has its next state saved in a moment, and is removed as
	// well by a daemon that finds it without a run.
	goes := c.HostConfig.AutoRemove && !e.setReturns(false)
	if !goes {
		if err := r.saveState(c); err != nil {
			r.options.Logf("ending container %s: %v", c.ID.Short(), err)
		}
	}
	c = e.update(func(live *Container) {
		live.State = c.State
		e.exits++
		// In one with the state: who hears of the end finds the container ended, and
		// who finds it ended has been told.
		r.event(*live, "die", "exitCode", strconv.Itoa(status.Code), "execDuration", strconv.Itoa(int(at.Sub(c.State.StartedAt).Seconds())))
		tell()
	})
	e.file.Unlock()
	if isStatus(c, container.StateRestarting) {
		r.restartLater(e)
	}
	if goes {
		e.verb.Lock()
		defer e.verb.Unlock()
		if err := r.remove(ctx, e); err != nil {
			r.options.Logf("removing container %s at its exit: %v", c.ID.Short(), err)
		}
	}
}

func (r *Runtime) isClosed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.closed
}

func (e *entry) isRemoved() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.removed
}
