package kernel

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// ReadSysctl returns the value of a sysctl, named with dots or slashes, as a
// thread in the given namespace sees it.
func (h *Host) ReadSysctl(ns, key string) (string, error) {
	var value string
	err := h.withSysctl(ns, key, os.O_RDONLY, func(file *os.File) error {
		raw, err := io.ReadAll(file)
		value = strings.TrimSpace(string(raw))
		return err
	})
	if err != nil {
		return "", fmt.Errorf("reading sysctl %s in %s: %w", key, nameOf(ns), err)
	}
	return value, nil
}

// WriteSysctl sets a sysctl as a thread in the given namespace sees it.
func (h *Host) WriteSysctl(ns, key, value string) error {
	err := h.withSysctl(ns, key, os.O_WRONLY|os.O_TRUNC, func(file *os.File) error {
		_, err := file.WriteString(value)
		return err
	})
	if err != nil {
		return fmt.Errorf("setting sysctl %s to %s in %s: %w", key, value, nameOf(ns), err)
	}
	return nil
}

// withSysctl calls fn with the open file of a sysctl.
func (h *Host) withSysctl(ns, key string, flags int, fn func(*os.File) error) error {
	tree := h.trees.take()
	defer h.trees.give(tree)
	return h.Inside(ns, func() error {
		file, err := tree.open(sysctlName(key), flags)
		if err != nil {
			return err
		}
		return errors.Join(fn(file), file.Close())
	})
}

// sysctlName accepts both spellings of sysctl(8): dots separate unless the key
// has a slash, which is how a link name with a dot in it is written.
func sysctlName(key string) string {
	if !strings.Contains(key, "/") {
		key = strings.ReplaceAll(key, ".", "/")
	}
	return "sys/" + key
}

// treeUses is after how many look-ups a tree is replaced. Making one takes as
// long as a look-up among a hundred namespaces.
const treeUses = 64

// sysctlTrees hands out a procfs that is mounted nowhere, and a fresh one now and
// then: the kernel's cache of names does not tell namespaces apart, so that in a
// lasting procfs every look-up would pass all namespaces that were ever looked
// into.
type sysctlTrees struct {
	mu      sync.Mutex
	current *sysctlTree
	closing sync.WaitGroup
}

type sysctlTree struct {
	root  int // descriptor of the mount; -1: this machine does not let us, and /proc must do
	uses  int // so far
	users int // now
	old   bool
}

// take returns a tree that stays open until it is given back.
func (t *sysctlTrees) take() *sysctlTree {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.current != nil && t.current.uses >= treeUses {
		t.retire()
	}
	if t.current == nil {
		t.current = &sysctlTree{root: mountProc()}
	}
	t.current.uses++
	t.current.users++
	return t.current
}

func (t *sysctlTrees) give(tree *sysctlTree) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if tree.users--; tree.users == 0 && tree.old {
		t.discard(tree)
	}
}

// retire needs the lock.
func (t *sysctlTrees) retire() {
	tree := t.current
	t.current, tree.old = nil, true
	if tree.users == 0 {
		t.discard(tree)
	}
}

// discard closes a tree behind the caller's back: the kernel empties its cache
// meanwhile.
func (t *sysctlTrees) discard(tree *sysctlTree) {
	if tree.root >= 0 {
		t.closing.Go(func() { unix.Close(tree.root) })
	}
}

func (t *sysctlTrees) close() {
	t.mu.Lock()
	if t.current != nil {
		t.retire()
	}
	t.mu.Unlock()
	t.closing.Wait()
}

// mountProc returns a procfs as fsmount(2) makes it: not in the tree of mounts,
// and gone with its descriptor. It returns -1 if the kernel is too old for that,
// or forbids it.
func mountProc() int {
	context, err := unix.Fsopen("proc", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1
	}
	defer unix.Close(context)
	if err = unix.FsconfigCreate(context); err != nil {
		return -1
	}
	root, err := unix.Fsmount(context, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return -1
	}
	return root
}

// open opens a file of the tree as the calling thread sees it.
func (t *sysctlTree) open(name string, flags int) (*os.File, error) {
	if t.root < 0 {
		return os.OpenFile("/proc/"+name, flags, 0)
	}
	for {
		fd, err := unix.Openat(t.root, name, flags|unix.O_CLOEXEC, 0)
		if err == nil {
			return os.NewFile(uintptr(fd), "/proc/"+name), nil
		}
		if !errors.Is(err, unix.EINTR) {
			return nil, &os.PathError{Op: "open", Path: "/proc/" + name, Err: err}
		}
	}
}
