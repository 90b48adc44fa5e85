package archive

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"
)

// Changes compares an upper directory of overlayfs with what is below it, which
// is the root of the calling thread. A changed file's folders count as changed.
// Paths that skip picks do not count.
func Changes(upper *os.Root, skip func(rel string) bool) ([]container.FilesystemChange, error) {
	c := changes{upper: upper, skip: skip, found: map[string]container.ChangeType{}}
	if err := c.dir("", true); err != nil {
		return nil, fmt.Errorf("comparing with the image: %w", err)
	}
	list := make([]container.FilesystemChange, 0, len(c.found))
	for name, kind := range c.found {
		list = append(list, container.FilesystemChange{Kind: kind, Path: "/" + name})
	}
	slices.SortFunc(list, func(a, b container.FilesystemChange) int { return strings.Compare(a.Path, b.Path) })
	return list, nil
}

type changes struct {
	upper *os.Root
	skip  func(string) bool
	found map[string]container.ChangeType
}

// dir looks at a folder of the upper directory. below tells whether there is a
// folder of this name in what is below.
func (c *changes) dir(name string, below bool) error {
	entries, err := c.read(name)
	if err != nil {
		return err
	}
	here := map[string]bool{}
	for _, entry := range entries {
		rel := path.Join(name, entry.Name())
		here[entry.Name()] = true
		if c.skip(rel) {
			continue
		}
		if err := c.entry(rel, entry, below); err != nil {
			return err
		}
	}
	if below && name != "" && c.isOpaque(name) {
		return c.hidden(name, here)
	}
	return nil
}

func (c *changes) read(name string) ([]os.DirEntry, error) {
	dir, err := c.upper.Open(path.Join(".", name))
	if err != nil {
		return nil, err
	}
	defer dir.Close() //nolint:errcheck // it was only read
	return dir.ReadDir(-1)
}

func (c *changes) entry(rel string, entry os.DirEntry, below bool) error {
	info, err := entry.Info()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var old os.FileInfo
	if below {
		if old, err = os.Lstat("/" + rel); err != nil {
			old = nil
		}
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0 {
		if old != nil {
			c.note(rel, container.ChangeDelete)
		}
		return nil
	}
	switch {
	case old == nil:
		c.note(rel, container.ChangeAdd)
	case !info.IsDir() || !old.IsDir() || !sameFolder(info, old):
		c.note(rel, container.ChangeModify)
	}
	if info.IsDir() {
		return c.dir(rel, old != nil && old.IsDir())
	}
	return nil
}

// sameFolder tells of folders that are in the upper directory only for what is
// in them.
func sameFolder(a, b os.FileInfo) bool {
	x, ok := a.Sys().(*syscall.Stat_t)
	y, also := b.Sys().(*syscall.Stat_t)
	return ok && also && x.Mode == y.Mode && x.Uid == y.Uid && x.Gid == y.Gid
}

// note counts a change, and one of each folder above that has no other.
func (c *changes) note(rel string, kind container.ChangeType) {
	c.found[rel] = kind
	for dir := path.Dir(rel); dir != "."; dir = path.Dir(dir) {
		if _, known := c.found[dir]; known {
			return
		}
		c.found[dir] = container.ChangeModify
	}
}

func (c *changes) isOpaque(name string) bool {
	dir, err := c.upper.Open(name)
	if err != nil {
		return false
	}
	defer dir.Close() //nolint:errcheck // it was only read
	value := make([]byte, 1)
	n, err := unix.Fgetxattr(int(dir.Fd()), "trusted.overlay.opaque", value)
	return err == nil && n == 1 && value[0] == 'y'
}

// hidden notes as deleted what an opaque folder hides.
func (c *changes) hidden(name string, here map[string]bool) error {
	old, err := os.ReadDir("/" + name)
	if err != nil {
		return err
	}
	for _, entry := range old {
		if !here[entry.Name()] {
			c.note(path.Join(name, entry.Name()), container.ChangeDelete)
		}
	}
	return nil
}
