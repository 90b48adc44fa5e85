package runtime

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan"
)

// RemoveOptions say how a container is removed.
type RemoveOptions struct {
	Force   bool // kill it if it runs
	Volumes bool // those without a name of their own go with it; so they do at an automatic removal
}

// Remove removes a container and all that it wrote. A running one is killed
// first with force, and refused without.
func (r *Runtime) Remove(ctx context.Context, ref string, o RemoveOptions) error {
	force := o.Force
	e, err := r.find(ref)
	if err != nil {
		return err
	}
	e.verb.Lock()
	defer e.verb.Unlock()
	c, exits := e.snapshot()
	if e.isRemoved() {
		return linkspan.Errorf(linkspan.ErrNotFound, "No such container: %s", ref)
	}
	if isStatus(c, container.StateRestarting) {
		if !force {
			return linkspan.Errorf(linkspan.ErrConflict, "cannot remove container %q: container is restarting: stop the container before removing or force remove", "/"+c.Name)
		}
		r.noRestart(e)
	}
	if c.State.Running() {
		switch {
		case !force && isStatus(c, container.StatePaused):
			return linkspan.Errorf(linkspan.ErrConflict, "cannot remove container %q: container is paused and must be unpaused first", "/"+c.Name)
		case !force:
			return linkspan.Errorf(linkspan.ErrConflict, "cannot remove container %q: container is running: stop the container before removing or force remove", "/"+c.Name)
		}
		r.askedToEnd(e)
		if err := r.kill(ctx, e, exits); err != nil {
			return fmt.Errorf("cannot remove container %q: %w", "/"+c.Name, err)
		}
	}
	if o.Volumes {
		e.update(func(c *Container) { c.State.WithVolumes = true })
	}
	return r.remove(context.WithoutCancel(ctx), e)
}

// remove needs the verb lock. What fails leaves the container dead, to be
// removed by another attempt.
func (r *Runtime) remove(ctx context.Context, e *entry) error {
	if e.isRemoved() {
		return nil
	}
	c := e.update(func(c *Container) { c.State.Status = container.StateRemoving })
	err := r.intend(c)
	if err == nil {
		err = r.erase(ctx, c)
	}
	if err != nil {
		c = e.update(func(c *Container) { c.State.Status = container.StateDead })
		return errors.Join(fmt.Errorf("removing container %s: %w", c.ID.Short(), err), r.saveState(c))
	}
	r.mu.Lock()
	delete(r.entries, c.ID)
	if r.names[c.Name] == c.ID {
		delete(r.names, c.Name)
	}
	for id, x := range r.execs {
		if x.container == c.ID {
			delete(r.execs, id)
		}
	}
	r.mu.Unlock()
	r.dropPending(e)
	r.event(c, "destroy")
	e.mu.Lock()
	e.removed = true
	e.wake()
	e.mu.Unlock()
	return nil
}

// intend notes that a container is to go, so that a removal which a crash cuts
// short is finished by Recover. A full disk has no room for a note, and removing
// containers is how it gets some: there the record goes first, since a directory
// without one is to go as well.
func (r *Runtime) intend(c Container) error {
	err := r.saveState(c)
	if !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) {
		return err
	}
	if err := os.Remove(filepath.Join(r.dataDir(c.ID), recordFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing its record, as the disk is full: %w", err)
	}
	return nil
}

// erase gives up what the container holds outside its directory, then that.
func (r *Runtime) erase(ctx context.Context, c Container) error {
	if _, err := os.Stat(r.execDir(c.ID)); err == nil {
		if err := r.clean(ctx, c); err != nil {
			return err
		}
	}
	undo, cancel := undoing(ctx)
	defer cancel()
	if err := r.options.Networks.Forget(undo, c.ID); err != nil {
		return fmt.Errorf("giving up its networks: %w", err)
	}
	if err := r.discardVolumes(c); err != nil {
		return err
	}
	if err := os.RemoveAll(r.dataDir(c.ID)); err != nil {
		return fmt.Errorf("removing its files: %w", err)
	}
	return nil
}

func (r *Runtime) discardVolumes(c Container) error {
	if !c.State.WithVolumes && (c.HostConfig == nil || !c.HostConfig.AutoRemove) {
		return nil
	}
	var errs []error
	for _, m := range c.Mounts {
		if m.Anonymous {
			errs = append(errs, r.volumes.Discard(m.Name, c.ID))
		}
	}
	return errors.Join(errs...)
}

// Rename changes the name of a container.
func (r *Runtime) Rename(_ context.Context, ref, name string) error {
	name = strings.TrimPrefix(name, "/")
	if ref == "" || name == "" {
		return linkspan.Errorf(linkspan.ErrInvalid, "Neither old nor new names may be empty")
	}
	e, err := r.find(ref)
	if err != nil {
		return err
	}
	if err := checkName(name); err != nil {
		return linkspan.Errorf(linkspan.ErrInvalid, "Error when allocating new name: %w", err)
	}
	e.verb.Lock()
	defer e.verb.Unlock()
	c := e.get()
	old := c.Name
	if old == name {
		return linkspan.Errorf(linkspan.ErrInvalid, "Renaming a container with the same name as its current name")
	}
	if _, err := r.takeName(c.ID, name); err != nil {
		return linkspan.Errorf(linkspan.ErrConflict, "Error when allocating new name: %w", err)
	}
	c.Name = name
	if err := r.saveRecord(c); err != nil {
		r.mu.Lock()
		delete(r.names, name)
		r.mu.Unlock()
		return fmt.Errorf("renaming container %s: %w", old, err)
	}
	e.update(func(c *Container) { c.Name = name })
	r.mu.Lock()
	delete(r.names, old)
	r.mu.Unlock()
	r.event(c, "rename", "oldName", "/"+old)
	return nil
}
