package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan"
)

// Inside runs fn on a thread that is in the given namespace, and throws the
// thread away afterwards. fn must not start goroutines or child processes that
// rely on the namespace. Sockets that fn opens stay in the namespace.
func (h *Host) Inside(ns string, fn func() error) error {
	if ns == "" && h.native {
		return fn()
	}
	d, err := h.door(ns)
	if err != nil {
		return err
	}
	return onThrowawayThread(func() error {
		err := d.through(func(fd int) error { return unix.Setns(fd, unix.CLONE_NEWNET) })
		if err != nil {
			return fmt.Errorf("entering %s: %w", nameOf(ns), err)
		}
		return fn()
	})
}

// onThrowawayThread runs fn locked to a thread that ends with it. The main
// thread is never that thread: it would not end but stay, wedged, as the
// process's face in /proc/self.
func onThrowawayThread(fn func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// While this goroutine holds the main thread no other can land on it.
			result <- onThrowawayThread(fn)
			runtime.UnlockOSThread()
			return
		}
		result <- fn()
	}()
	return <-result
}

// PinNetns makes a new network namespace and pins it under NetnsDir: what ip
// netns add does. It fails if the name is taken.
func (h *Host) PinNetns(name string) error {
	if err := prepareNetnsDir(); err != nil {
		return err
	}
	target := Pin(name)
	file, err := os.OpenFile(target, os.O_CREATE|os.O_EXCL|os.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		if errors.Is(err, fs.ErrExist) {
			return linkspan.Errorf(linkspan.ErrConflict, "network namespace %s exists already (see: ip netns): %w", name, err)
		}
		return fmt.Errorf("making the pin of network namespace %s: %w", name, err)
	}
	file.Close()
	err = onThrowawayThread(func() error {
		if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("making network namespace %s: %w", name, err)
		}
		source := fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid())
		if err = unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("pinning network namespace %s at %s: %w", name, target, err)
		}
		return nil
	})
	if err != nil {
		os.Remove(target)
	}
	return err
}

// UnpinNetns lets go of a namespace: what ip netns del does. The kernel frees
// it, with all links inside, once the last process has left. A namespace that
// is gone already is success.
func (h *Host) UnpinNetns(name string) error {
	h.shut(name)
	target := Pin(name)
	for {
		err := unix.Unmount(target, unix.MNT_DETACH)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			break // not, or no longer, a mount point
		}
		if err != nil {
			return fmt.Errorf("unpinning network namespace %s: %w", name, err)
		}
	}
	if err := os.Remove(target); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing the pin of network namespace %s: %w", name, err)
	}
	return nil
}

// prepareNetnsDir makes NetnsDir a shared mount of its own, as ip-netns(8)
// does, so that pins reach every mount namespace that was cloned before.
func prepareNetnsDir() error {
	if err := os.MkdirAll(NetnsDir, 0o755); err != nil {
		return fmt.Errorf("making %s: %w", NetnsDir, err)
	}
	err := unix.Mount("", NetnsDir, "none", unix.MS_SHARED|unix.MS_REC, "")
	if errors.Is(err, unix.EINVAL) { // no mount point yet
		if err = unix.Mount(NetnsDir, NetnsDir, "none", unix.MS_BIND|unix.MS_REC, ""); err == nil {
			err = unix.Mount("", NetnsDir, "none", unix.MS_SHARED|unix.MS_REC, "")
		}
	}
	if err != nil {
		return fmt.Errorf("making %s a shared mount: %w", NetnsDir, err)
	}
	return nil
}
