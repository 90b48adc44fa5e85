package runtime

import (
	"io/fs"
	"os"
	"syscall"
)

// likeness gives a folder the owner, rights and time of another.
func likeness(of fs.FileInfo, path string) error {
	if st, ok := of.Sys().(*syscall.Stat_t); ok {
		if err := os.Lchown(path, int(st.Uid), int(st.Gid)); err != nil {
			return err
		}
	}
	if err := os.Chmod(path, of.Mode()); err != nil {
		return err
	}
	return os.Chtimes(path, of.ModTime(), of.ModTime())
}
