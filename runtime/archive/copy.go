package archive

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/go-archive"
	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan"
)

// place makes a path absolute, and keeps an end in / or /. , which asks for a
// folder's content.
func place(path string) string {
	return archive.PreserveTrailingDotOrSeparator(filepath.Join("/", path), path)
}

// Stat describes what is at a path; a link itself, with where it leads.
func Stat(path string) (container.PathStat, error) {
	at := place(path)
	info, err := os.Lstat(at)
	if err != nil {
		return container.PathStat{}, err
	}
	stat := container.PathStat{Name: filepath.Base(at), Size: info.Size(), Mode: info.Mode(), Mtime: info.ModTime()}
	if info.Mode()&fs.ModeSymlink != 0 {
		stat.LinkTarget = follow(at)
	}
	return stat, nil
}

// follow resolves a link as far as there is something: what it leads to may be
// missing.
func follow(at string) string {
	if target, err := filepath.EvalSymlinks(at); err == nil {
		return target
	}
	target, err := os.Readlink(at)
	if err != nil {
		return ""
	}
	if !filepath.IsAbs(target) {
		target = filepath.Join(filepath.Dir(at), target)
	}
	return filepath.Clean(target)
}

// Out writes what is at a path as an archive, under its own name.
func Out(path string, w io.Writer) error {
	at := place(path)
	return Pack(w, strings.TrimRight(at, "/")+rootOf(at), filepath.Base(at), PackOptions{})
}

// rootOf keeps the only slash that is not one too many. What ends in a slash is
// the folder behind a link.
func rootOf(at string) string {
	if strings.TrimRight(at, "/") == "" {
		return "/"
	}
	if strings.HasSuffix(at, "/") {
		return "/."
	}
	return ""
}

// InOptions say how an archive is unpacked.
type InOptions struct {
	KeepKinds bool               // refuse to put a file where a folder is, and the other way round
	Owner     *archive.ChownOpts // whose all is to be; nil: as the archive says
}

// Unpacker unpacks one archive. It holds what is not in sight from where that
// is done.
type Unpacker struct {
	options *archive.TarOptions
	close   func()
}

// NewUnpacker is called before the thread goes where In is to be called, and
// Close after.
func NewUnpacker(o InOptions) (*Unpacker, error) {
	options, done, err := archive.WithProcSelfFD(&archive.TarOptions{NoOverwriteDirNonDir: o.KeepKinds, ChownOpts: o.Owner, BestEffortXattrs: true})
	if err != nil {
		return nil, fmt.Errorf("preparing to unpack: %w", err)
	}
	return &Unpacker{options, done}, nil
}

// Close lets go of what the Unpacker holds.
func (u *Unpacker) Close() { u.close() }

// In unpacks an archive, compressed or not, into a folder, which must be there.
func (u *Unpacker) In(path string, r io.Reader) error {
	at, err := filepath.EvalSymlinks(place(path))
	if err != nil {
		return err
	}
	info, err := os.Stat(at)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return linkspan.Errorf(linkspan.ErrInvalid, "extraction point is not a directory")
	}
	err = archive.Unpack(r, at, u.options)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EROFS):
		return linkspan.Errorf(linkspan.ErrForbidden, "%s is read-only: %w", path, err)
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EIO), errors.Is(err, unix.EDQUOT):
		return fmt.Errorf("unpacking archive: %w", err)
	}
	return linkspan.Errorf(linkspan.ErrInvalid, "unpacking archive: %w", err)
}
