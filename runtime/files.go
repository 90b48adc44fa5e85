package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	goarchive "github.com/moby/go-archive"
	"github.com/moby/go-archive/compression"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/runtime/archive"
	"github.com/linkspan/linkspan/runtime/launch"
	"github.com/linkspan/linkspan/runtime/volume"
)

// visit runs f on a thread that has the container's root; bare, without what is
// mounted over it. A container that does not run is not started, changed or
// removed meanwhile.
func (r *Runtime) visit(ref string, bare bool, f func(c Container) error) error {
	e, err := r.find(ref)
	if err != nil {
		return err
	}
	if done, err := visitRunning(e.get(), bare, f); done {
		return err
	}
	e.verb.Lock()
	defer e.verb.Unlock()
	c := e.get()
	if e.isRemoved() {
		return linkspan.Errorf(linkspan.ErrNotFound, "No such container: %s", ref)
	}
	if done, err := visitRunning(c, bare, f); done {
		return err
	}
	s, err := r.view(c, bare)
	if err != nil {
		return err
	}
	return launch.VisitStopped(s, r.visitDir(), func() error { return f(c) })
}

// visitRunning is not done if the container does not run, or ended before f
// was called.
func visitRunning(c Container, bare bool, f func(Container) error) (done bool, err error) {
	if !c.State.Running() || c.State.Pid == 0 {
		return false, nil
	}
	err = launch.VisitRunning(c.State.Pid, bare, func() error {
		done = true
		return f(c)
	})
	return done, err
}

// visitDir is an empty directory, which visitors mount over.
func (r *Runtime) visitDir() string { return filepath.Join(r.options.ExecRoot, "visit") }

func (r *Runtime) view(c Container, bare bool) (*launch.Spec, error) {
	s := &launch.Spec{
		Lower: c.layers(), Upper: filepath.Join(r.dataDir(c.ID), "upper"), Work: filepath.Join(r.dataDir(c.ID), "work"), Brief: c.HostConfig.AutoRemove,
	}
	if err := r.makeUpper(c.ID); err != nil {
		return nil, err
	}
	if bare {
		return s, nil
	}
	for _, m := range c.Mounts {
		if m.Type == mount.TypeTmpfs {
			continue
		}
		if _, err := os.Stat(m.Source); err != nil {
			continue // a start would make it, or refuse
		}
		s.Mounts = append(s.Mounts, m.mounting())
	}
	return s, nil
}

// makeUpper makes what overlayfs writes to.
func (r *Runtime) makeUpper(id linkspan.ID) error {
	for _, dir := range []string{"upper", "work"} {
		if err := os.Mkdir(filepath.Join(r.dataDir(id), dir), 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return fmt.Errorf("making the container's %s directory: %w", dir, err)
		}
	}
	return nil
}

// notThere is in Docker's words. ref is the container as the client calls it.
func notThere(err error, path, ref string) error {
	if errors.Is(err, fs.ErrNotExist) {
		return linkspan.Errorf(linkspan.ErrNotFound, "Could not find the file %s in container %s", path, ref)
	}
	var known *linkspan.Error
	var at *fs.PathError
	if !errors.As(err, &known) && errors.As(err, &at) {
		return linkspan.Errorf(linkspan.ErrInvalid, "%s in container %s: %w", path, ref, err)
	}
	return err
}

// PathStat describes a file of a container, running or not.
func (r *Runtime) PathStat(_ context.Context, ref, path string) (stat container.PathStat, err error) {
	err = r.visit(ref, false, func(c Container) error {
		found, serr := archive.Stat(path)
		stat = found
		return notThere(serr, path, ref)
	})
	return stat, err
}

// CopyOut writes a file of a container, or a folder with all in it, as a tar
// archive. begin is told what it is, before the first byte, and returns where
// the archive goes.
func (r *Runtime) CopyOut(ctx context.Context, ref, path string, begin func(container.PathStat) io.Writer) error {
	return r.visit(ref, false, func(c Container) error {
		stat, err := archive.Stat(path)
		if err != nil {
			return notThere(err, path, ref)
		}
		r.event(c, "archive-path", "path", path)
		return archive.Out(path, until{ctx, begin(stat)})
	})
}

// until stops writing when its context has ended.
type until struct {
	ctx context.Context
	io.Writer
}

func (u until) Write(p []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.Writer.Write(p)
}

// CopyIn unpacks a tar archive, compressed or not, into a folder of a container.
// With own, everything is to belong to the container's user.
func (r *Runtime) CopyIn(_ context.Context, ref, path string, content io.Reader, keepKinds, own bool) error {
	c, err := r.Get(ref)
	if err != nil {
		return err
	}
	o := archive.InOptions{KeepKinds: keepKinds}
	if own && c.Config.User != "" { // one that names nobody leaves it to the archive
		if o.Owner, err = r.ownerIn(c); err != nil {
			return err
		}
	}
	if c.HostConfig.ReadonlyRootfs && !writable(c, path) {
		return errReadonly()
	}
	stream, err := compression.DecompressStream(content)
	if err != nil {
		return linkspan.Errorf(linkspan.ErrInvalid, "reading archive: %w", err)
	}
	defer stream.Close() //nolint:errcheck // it only read
	unpacker, err := archive.NewUnpacker(o)
	if err != nil {
		return err
	}
	defer unpacker.Close()
	return r.visit(string(c.ID), false, func(c Container) error {
		// A link in a volume may lead back to the root.
		if at, lerr := filepath.EvalSymlinks(filepath.Join("/", path)); lerr == nil && c.HostConfig.ReadonlyRootfs && !writable(c, at) {
			return errReadonly()
		}
		err := notThere(unpacker.In(path, stream), path, ref)
		if err == nil {
			r.event(c, "extract-to-dir", "path", path)
		}
		return err
	})
}

func errReadonly() error {
	return linkspan.Errorf(linkspan.ErrForbidden, "container rootfs is marked read-only")
}

// writable tells whether a path is on something mounted that may be written.
func writable(c Container, path string) bool {
	clean := filepath.Join("/", path)
	best, rw := "", false
	for _, m := range c.Mounts {
		if (clean == m.Destination || strings.HasPrefix(clean, m.Destination+"/")) && len(m.Destination) > len(best) {
			best, rw = m.Destination, m.RW
		}
	}
	return rw
}

// ownerIn looks the container's user up in its own files.
func (r *Runtime) ownerIn(c Container) (owner *goarchive.ChownOpts, err error) {
	err = r.visit(string(c.ID), false, func(c Container) error {
		uid, gid, lerr := launch.Owner(c.Config.User)
		owner = &goarchive.ChownOpts{UID: uid, GID: gid}
		return lerr
	})
	return owner, err
}

// Export writes all files of a container, without what is mounted over them, as
// a tar archive. begin is called before the first byte.
func (r *Runtime) Export(ctx context.Context, ref string, begin func() io.Writer) error {
	return r.visit(ref, true, func(c Container) error {
		r.event(c, "export")
		return archive.Pack(until{ctx, begin()}, "/", "", archive.PackOptions{})
	})
}

// Changes tells what a container has changed of the files that it started
// from.
func (r *Runtime) Changes(_ context.Context, ref string) (list []container.FilesystemChange, err error) {
	c, err := r.Get(ref)
	if err != nil {
		return nil, err
	}
	if err := r.makeUpper(c.ID); err != nil {
		return nil, err
	}
	upper, err := os.OpenRoot(filepath.Join(r.dataDir(c.ID), "upper"))
	if err != nil {
		return nil, fmt.Errorf("comparing with the image: %w", err)
	}
	defer upper.Close() //nolint:errcheck // it was only read
	err = launch.VisitStopped(&launch.Spec{Lower: c.layers()}, r.visitDir(), func() error {
		list, err = archive.Changes(upper, isOurs)
		return err
	})
	return list, err
}

// isOurs tells of places that a start makes to mount something on: they are no
// change of the container's.
func isOurs(rel string) bool {
	switch rel {
	case "dev", "proc", "sys", "etc/hosts", "etc/hostname", "etc/resolv.conf":
		return true
	}
	return false
}

// Layer writes what a container has changed, as a layer of an image. A running
// one should be paused: it may change more meanwhile.
func (r *Runtime) Layer(ctx context.Context, ref string, w io.Writer) error {
	c, err := r.Get(ref)
	if err != nil {
		return err
	}
	if err := r.makeUpper(c.ID); err != nil {
		return err
	}
	return launch.Confined(filepath.Join(r.dataDir(c.ID), "upper"), func() error {
		return archive.Pack(until{ctx, w}, "/", "", archive.PackOptions{Whiteouts: true, Skip: isOurs})
	})
}

// populate copies into the container's new volumes what the files that it
// starts from have in their places.
func (r *Runtime) populate(ctx context.Context, c Container) error {
	var fresh []Mount
	for _, m := range c.Mounts {
		if m.Type != mount.TypeVolume || m.NoCopy || m.Subpath != "" || m.Driver != volume.Driver {
			continue
		}
		entries, err := os.ReadDir(m.Source)
		if err != nil {
			return fmt.Errorf("looking at volume %s: %w", m.Name, err)
		}
		if len(entries) == 0 {
			fresh = append(fresh, m)
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	return launch.VisitStopped(&launch.Spec{Lower: c.layers()}, r.visitDir(), func() error {
		for _, m := range fresh {
			if err := r.copyUp(ctx, m); err != nil {
				return fmt.Errorf("filling volume %s from %s: %w", m.Name, m.Destination, err)
			}
		}
		return nil
	})
}

// copyUp is called on a thread that does not see the volume: what it reads goes
// through a pipe to one that does.
func (r *Runtime) copyUp(ctx context.Context, m Mount) error {
	from, err := filepath.EvalSymlinks(m.Destination)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	info, err := os.Stat(from)
	if err != nil || !info.IsDir() {
		return err
	}
	reader, writer := io.Pipe()
	done := make(chan error, 1)
	go func() {
		uerr := goarchive.Unpack(reader, m.Source, nil)
		reader.CloseWithError(uerr)
		if uerr == nil {
			uerr = likeness(info, m.Source)
		}
		done <- uerr
	}()
	err = archive.Pack(until{ctx, writer}, from, "", archive.PackOptions{})
	writer.CloseWithError(err)
	return errors.Join(err, <-done)
}
