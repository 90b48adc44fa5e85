package runtime

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Size tells how many bytes of files the container has written and, if the
// whole is wanted, how many they are with the layers of its image. A file with
// several names counts once; what is mounted below counts not at all, nor does a
// folder of the host that the container runs over.
func (r *Runtime) Size(ctx context.Context, ref string, whole bool) (written, all int64, err error) {
	e, err := r.find(ref)
	if err != nil {
		return 0, 0, err
	}
	c := e.get()
	written, err = sizeOf(ctx, filepath.Join(r.dataDir(c.ID), "upper"))
	if err != nil || !whole || c.Rootfs != "" {
		return written, written, err
	}
	all = written
	for _, layer := range c.Lower {
		n, err := r.layerSize(ctx, layer)
		if err != nil {
			return 0, 0, err
		}
		all += n
	}
	return written, all, nil
}

// layerSize measures a layer of an image once: it never changes.
func (r *Runtime) layerSize(ctx context.Context, layer string) (int64, error) {
	if n, known := r.sizes.Load(layer); known {
		return n.(int64), nil //nolint:errcheck // nothing else is stored
	}
	n, err := sizeOf(ctx, layer)
	if err == nil {
		r.sizes.Store(layer, n)
	}
	return n, err
}

// sizeOf goes past what it may not read or what has just gone.
func sizeOf(ctx context.Context, dir string) (int64, error) {
	var top unix.Stat_t
	if err := unix.Lstat(dir, &top); errors.Is(err, fs.ErrNotExist) {
		return 0, nil // it has never run
	} else if err != nil {
		return 0, err
	}
	total := int64(0)
	seen := map[uint64]bool{} // inodes with several names
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		var st unix.Stat_t
		if err != nil || unix.Lstat(path, &st) != nil {
			return nil //nolint:nilerr // see above
		}
		if st.Dev != top.Dev {
			if entry.IsDir() {
				return filepath.SkipDir
			}
			return nil
		}
		if st.Nlink > 1 && !entry.IsDir() {
			if seen[st.Ino] {
				return nil
			}
			seen[st.Ino] = true
		}
		total += st.Size
		return nil
	})
	return total, err
}
