package archive

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/moby/go-archive"
	"golang.org/x/sys/unix"
)

// PackOptions say how a tree is written. The zero value takes all as it is.
type PackOptions struct {
	Whiteouts bool                  // overlayfs's marks for what is gone become those of image layers
	Skip      func(rel string) bool // a file, or a folder with all in it, by its path below the top; may be nil
}

// Pack writes what is at a path, with all below it, as a tar archive in which
// that is called name. Sockets, which no archive can hold, are left out.
func Pack(w io.Writer, top, name string, o PackOptions) error {
	p := packer{tar: tar.NewWriter(w), top: top, name: name, o: o, seen: map[inode]string{}}
	err := filepath.WalkDir(top, p.visit)
	if err != nil {
		return fmt.Errorf("archiving %s: %w", top, err)
	}
	return p.tar.Close()
}

type inode struct{ device, number uint64 }

type packer struct {
	tar       *tar.Writer
	top, name string
	o         PackOptions
	seen      map[inode]string
}

func (p *packer) visit(file string, _ fs.DirEntry, err error) error {
	rel := ""
	if file != p.top {
		rel = strings.TrimPrefix(strings.TrimPrefix(file, filepath.Clean(p.top)), "/")
	}
	switch {
	case errors.Is(err, fs.ErrNotExist) && rel != "":
		return nil // gone since the folder was read
	case err != nil:
		return err
	}
	info, err := os.Lstat(file)
	if errors.Is(err, fs.ErrNotExist) && rel != "" {
		return nil
	}
	if err != nil {
		return err
	}
	if rel != "" && p.o.Skip != nil && p.o.Skip(rel) {
		if info.IsDir() {
			return fs.SkipDir
		}
		return nil
	}
	return p.add(file, p.called(rel), info)
}

// called is the name in the archive. The top called / is Docker's way to say
// that its own name is to be replaced.
func (p *packer) called(rel string) string {
	switch {
	case p.name == "":
		return rel
	case rel == "":
		return p.name
	case p.name == "/":
		return "/" + rel
	}
	return p.name + "/" + rel
}

func (p *packer) add(file, name string, info fs.FileInfo) error {
	if name == "" || info.Mode()&fs.ModeSocket != 0 {
		return nil
	}
	link := ""
	if info.Mode()&fs.ModeSymlink != 0 {
		var err error
		if link, err = os.Readlink(file); err != nil {
			return err
		}
	}
	header, err := archive.FileInfoHeader(name, info, link)
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if ok && !info.IsDir() && st.Nlink > 1 {
		id := inode{uint64(st.Dev), st.Ino}
		if first, again := p.seen[id]; again {
			header.Typeflag, header.Linkname, header.Size = tar.TypeLink, first, 0
		} else {
			p.seen[id] = header.Name
		}
	}
	opaque, err := attributes(file, header)
	if err != nil {
		return err
	}
	if p.o.Whiteouts && ok && st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0 {
		dir, base := path.Split(header.Name)
		header = &tar.Header{Name: dir + archive.WhiteoutPrefix + base, Typeflag: tar.TypeReg, Mode: 0o600, ModTime: header.ModTime}
	}
	if err := p.write(file, header); err != nil {
		return err
	}
	if p.o.Whiteouts && opaque {
		return p.tar.WriteHeader(&tar.Header{Name: path.Join(name, archive.WhiteoutOpaqueDir), Typeflag: tar.TypeReg, Mode: 0o600, ModTime: header.ModTime})
	}
	return nil
}

// attributes puts the extended attributes into a header, and tells whether
// overlayfs takes what is below for all that there is.
func attributes(file string, header *tar.Header) (opaque bool, err error) {
	if header.Typeflag != tar.TypeReg && header.Typeflag != tar.TypeDir {
		return false, nil
	}
	names := make([]byte, 4096)
	n, err := unix.Llistxattr(file, names)
	if errors.Is(err, unix.ERANGE) {
		names = make([]byte, 64<<10)
		n, err = unix.Llistxattr(file, names)
	}
	if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, &os.PathError{Op: "listxattr", Path: file, Err: err}
	}
	value := make([]byte, 64<<10)
	for name := range strings.SplitSeq(string(names[:n]), "\x00") {
		if name == "" || name == "security.selinux" {
			continue
		}
		n, err := unix.Lgetxattr(file, name, value)
		if err != nil {
			continue // gone, or not for us
		}
		if strings.HasPrefix(name, "trusted.overlay.") {
			opaque = opaque || name == "trusted.overlay.opaque" && string(value[:n]) == "y"
			continue
		}
		if header.PAXRecords == nil {
			header.PAXRecords = map[string]string{}
		}
		header.PAXRecords["SCHILY.xattr."+name] = string(value[:n])
	}
	return opaque, nil
}

func (p *packer) write(file string, header *tar.Header) error {
	if header.Typeflag != tar.TypeReg || header.Size == 0 {
		return p.tar.WriteHeader(header)
	}
	// It may be another thing by now: not one that we wait for.
	source, err := os.OpenFile(file, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ELOOP) {
		return nil
	}
	if err != nil {
		return err
	}
	defer source.Close() //nolint:errcheck // it was only read
	if info, err := source.Stat(); err != nil || !info.Mode().IsRegular() {
		return err
	}
	if err := p.tar.WriteHeader(header); err != nil {
		return err
	}
	n, err := io.Copy(p.tar, io.LimitReader(source, header.Size))
	if err != nil {
		return err
	}
	_, err = io.CopyN(p.tar, zeros{}, header.Size-n)
	return err
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
