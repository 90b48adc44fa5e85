package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/moby/moby/api/types/container"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/runtime/launch"
)

// Recover takes over what an earlier daemon left: it reconnects to the shims
// that run, ends what ended meanwhile, undoes what was half made, and finishes
// removals. One bad record is named and left alone; it stops nobody else. To be
// called once, before any other method. Restart policies rest until Resume.
func (r *Runtime) Recover(ctx context.Context) error {
	r.held = make(chan struct{})
	entries, err := os.ReadDir(filepath.Join(r.options.DataRoot, "containers"))
	if err != nil {
		return fmt.Errorf("reading containers: %w", err)
	}
	known := map[linkspan.ID]bool{}
	for _, dir := range entries {
		id := linkspan.ID(dir.Name())
		known[id] = true
		c, err := r.load(id)
		switch {
		case errors.Is(err, errNoRecord):
			err = r.erase(ctx, Container{ID: id})
		case err == nil:
			err = r.adopt(ctx, c)
		}
		if err != nil {
			r.options.Logf("recovering container %s: %v", id.Short(), err)
		}
	}
	return r.sweep(ctx, known)
}

// sweep undoes runs whose container's record is gone.
func (r *Runtime) sweep(ctx context.Context, known map[linkspan.ID]bool) error {
	runs, err := os.ReadDir(filepath.Join(r.options.ExecRoot, "containers"))
	if err != nil {
		return fmt.Errorf("reading runs: %w", err)
	}
	for _, dir := range runs {
		id := linkspan.ID(dir.Name())
		if known[id] {
			continue
		}
		if err := r.clean(ctx, Container{ID: id}); err != nil {
			r.options.Logf("clearing up after container %s: %v", id.Short(), err)
		}
	}
	return nil
}

// adopt puts one container among ours and sees to its last run.
func (r *Runtime) adopt(ctx context.Context, c Container) error {
	e := &entry{c: c, changed: make(chan struct{})}
	r.mu.Lock()
	holder, taken := r.names[c.Name]
	if !taken {
		r.names[c.Name] = c.ID
	}
	r.entries[c.ID] = e
	r.mu.Unlock()
	var errs []error
	if taken {
		errs = append(errs, fmt.Errorf("its name %s is also that of container %s; use its ID", c.Name, holder.Short()))
	}
	if isStatus(c, container.StateRemoving, container.StateDead) {
		return errors.Join(append(errs, r.remove(ctx, e))...)
	}
	if _, err := os.Stat(r.execDir(c.ID)); err == nil {
		return errors.Join(append(errs, r.adoptRun(ctx, e, c))...)
	}
	return errors.Join(append(errs, r.settle(ctx, e, c))...)
}

// settle brings a container without a run to a state that it can be in.
func (r *Runtime) settle(ctx context.Context, e *entry, c Container) error {
	autoRemove := c.HostConfig.AutoRemove && c.State.Status != container.StateCreated
	switch {
	case autoRemove && !c.State.Running():
		return r.remove(ctx, e)
	case c.State.Running() || c.State.Status == "":
		// The machine went down with it.
		c = e.update(func(c *Container) {
			c.State.Status, c.State.Pid, c.State.ExitCode, c.State.FinishedAt = container.StateExited, 0, 255, time.Now().UTC()
			c.State.Health = endedHealth(c.State.Health)
		})
		if autoRemove {
			return r.remove(ctx, e)
		}
		return r.saveState(c)
	}
	return nil
}

// adoptRun finds out how far a run has come: its shim runs the container, has
// left its exit status, or neither, which means that the launch did not happen
// or that the shim was killed.
func (r *Runtime) adoptRun(ctx context.Context, e *entry, c Container) error {
	started := &run{group: r.cgroups.Group(c.group())}
	conn, kind, payload, err := r.ask(c, launch.ReqWait, nil)
	if err == nil && kind == launch.Started {
		started.conn = conn
		if err = launch.Decode(payload, &started.status); err != nil {
			conn.Close()
			return err
		}
		e.update(func(c *Container) {
			if !c.State.Running() {
				c.State.StartedAt = time.Unix(0, started.status.At).UTC()
				c.State.Status = container.StateRunning
			}
			c.State.Pid, c.State.BootID, c.State.Error, c.State.ExitCode = started.status.Pid, r.bootID, "", 0
		})
		r.lookAfter(e, started)
		return r.saveState(e.get())
	}
	if err == nil {
		conn.Close()
	}
	status, err := r.leftBehind(c)
	switch {
	case err == nil && status.Text != "": // a launch that failed
		return r.undoStart(ctx, e, status)
	case err == nil || c.State.Running():
		if err != nil {
			status = launch.Status{Code: 137, Text: "the shim of the container died", At: time.Now().UnixNano()}
		}
		return r.endRun(e, started, status)
	}
	return r.undoStart(ctx, e, launch.Status{Code: 128, Text: "the daemon ended during the start"})
}

func (r *Runtime) undoStart(ctx context.Context, e *entry, status launch.Status) error {
	c := e.get()
	err := r.clean(ctx, c)
	c = e.update(func(c *Container) {
		c.State.ExitCode, c.State.Error = status.Code, status.Text
		if c.State.Status == container.StateRestarting { // for Resume to see
			c.State.Status = container.StateExited
		}
	})
	err = errors.Join(err, r.saveState(c))
	if c.HostConfig.AutoRemove || isStatus(c, container.StateRemoving) {
		err = errors.Join(err, r.remove(ctx, e))
	}
	return err
}

// endRun treats an exit that nobody saw like one that was seen.
func (r *Runtime) endRun(e *entry, started *run, status launch.Status) error {
	if err := started.group.Kill(); err != nil {
		return err
	}
	if c := e.get(); isStatus(c, container.StatePaused) {
		if err := started.group.Thaw(context.Background()); err != nil {
			return err
		}
	}
	e.update(func(c *Container) {
		if c.State.StartedAt.IsZero() {
			c.State.StartedAt = time.Unix(0, status.At).UTC()
		}
	})
	r.finish(e, started, status)
	return nil
}

// Keep hands descriptors to the shim of a running container, which keeps them
// as it does those of Attachment.Keep, in place of the ones that it kept until
// now. The files remain the caller's.
func (r *Runtime) Keep(id linkspan.ID, files []*os.File) error {
	fds := make([]int, 0, len(files))
	for _, file := range files {
		fd, err := descriptor(file)
		if err != nil {
			return fmt.Errorf("handing %s to the shim: %w", file.Name(), err)
		}
		fds = append(fds, fd)
	}
	conn, err := launch.Dial(r.execDir(id))
	if err != nil {
		return fmt.Errorf("connecting to the shim of container %s: %w", id.Short(), err)
	}
	defer conn.Close()
	if err = conn.SendFiles(fds); err == nil {
		err = conn.Send(launch.ReqKeep, launch.Encode(&launch.Ack{}))
	}
	if err == nil {
		_, _, err = conn.Receive()
	}
	if err != nil {
		return fmt.Errorf("handing sockets to the shim of container %s: %w", id.Short(), err)
	}
	return nil
}

// Kept returns copies of the descriptors that the shim of a running container
// keeps, in the order of Attachment.Keep. The caller closes them.
func (r *Runtime) Kept(id linkspan.ID) ([]*os.File, error) {
	e, err := r.find(string(id))
	if err != nil {
		return nil, err
	}
	c := e.get()
	if !c.State.Running() {
		return nil, errNotRunning(c)
	}
	conn, _, _, err := r.ask(c, launch.ReqKept, nil)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	var files []*os.File
	for _, fd := range conn.TakeFiles() {
		files = append(files, os.NewFile(uintptr(fd), "kept by container "+id.Short()))
	}
	return files, nil
}
