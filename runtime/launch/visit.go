package launch

import (
	"errors"
	"os"
	"path"
	"slices"

	"golang.org/x/sys/unix"
)

// A Visit is a look at a container's files from the daemon: f runs on a thread
// whose root directory is the container's, so the kernel itself resolves every
// path and symbolic link within it. The thread is thrown away afterwards; what
// other goroutines do that f starts is not done there.

// VisitRunning runs f where the process sees its files: by nsenter --mount. With
// alone, the root's file system is seen without what is mounted on top of it.
func VisitRunning(pid int, alone bool, f func() error) error {
	return onThread(func() error {
		target, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			return doing("finding the container's process", err)
		}
		defer unix.Close(target)
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return doing("unsharing the root", err)
		}
		if err := unix.Setns(target, unix.CLONE_NEWNS); err != nil {
			return doing("entering the container's mount namespace", err)
		}
		if !alone {
			return f()
		}
		tree, err := unix.OpenTree(unix.AT_FDCWD, "/", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		if err != nil {
			return doing("taking the container's root", err)
		}
		defer unix.Close(tree)
		if err := unix.Fchdir(tree); err != nil {
			return doing("entering the container's root", err)
		}
		if err := unix.Chroot("."); err != nil {
			return doing("entering the container's root", err)
		}
		return f()
	})
}

// VisitStopped runs f in the files of a container that does not run: its overlay
// and the binds of the spec are mounted where nobody else sees them. A spec
// without Upper is of files that no container has changed; what f writes there
// goes to a tmpfs and is forgotten. dir is an empty directory, which is mounted
// over.
func VisitStopped(s *Spec, dir string, f func() error) error {
	return onThread(func() error {
		if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
			return doing("making a mount namespace", err)
		}
		sources, err := takeSources(slices.DeleteFunc(slices.Clone(s.Mounts), func(m Mount) bool { return m.Type != "bind" }))
		if err != nil {
			return err
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			drop(sources)
			return doing("making mounts private", err)
		}
		view := *s
		view.Dir = dir
		if s.Upper == "" {
			if err := forgetful(&view); err != nil {
				drop(sources)
				return err
			}
		}
		return visit(&view, sources, f)
	})
}

// forgetful gives a spec an upper directory on a tmpfs.
func forgetful(s *Spec) error {
	base := s.Dir
	if err := unix.Mount("tmpfs", base, "tmpfs", noExec, "mode=700"); err != nil {
		return doing("mounting tmpfs on "+base, err)
	}
	s.Upper, s.Work, s.Dir = path.Join(base, "upper"), path.Join(base, "work"), path.Join(base, "root")
	for _, dir := range []string{s.Upper, s.Work, s.Dir} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return doing("making "+dir, err)
		}
	}
	return nil
}

func visit(s *Spec, sources []source, f func() error) error {
	home, err := unix.Open("/", oPath|unix.O_DIRECTORY, 0)
	if err != nil {
		drop(sources)
		return doing("opening the root", err)
	}
	defer unix.Close(home)
	if err := mountOverlay(s); err != nil {
		drop(sources)
		return err
	}
	if err := unix.Chroot(s.Dir); err != nil {
		return doing("entering the container's root", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return doing("entering the container's root", err)
	}
	for n, src := range sources {
		if err := place(src); err != nil {
			drop(sources[n+1:])
			return errors.Join(err, leave(home, s.Dir))
		}
	}
	err = f()
	// At once, not when the thread has died: the next start mounts the same
	// directories.
	return errors.Join(err, leave(home, s.Dir))
}

func leave(home int, dir string) error {
	if err := unix.Fchdir(home); err != nil {
		return doing("leaving the container's root", err)
	}
	if err := unix.Chroot("."); err != nil {
		return doing("leaving the container's root", err)
	}
	return doing("unmounting "+dir, unix.Unmount(dir, unix.MNT_DETACH))
}

// Confined runs f on a thread whose root is a directory: by chroot.
func Confined(dir string, f func() error) error {
	return onThread(func() error {
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return doing("unsharing the root", err)
		}
		if err := unix.Chroot(dir); err != nil {
			return doing("entering "+dir, err)
		}
		if err := unix.Chdir("/"); err != nil {
			return doing("entering "+dir, err)
		}
		return f()
	})
}

// Owner looks a user[:group] up in the files of the calling thread's root.
func Owner(user string) (uid, gid int, err error) {
	id, err := lookUp(user, nil)
	return id.uid, id.gid, err
}
