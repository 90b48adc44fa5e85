package image

import (
	"errors"
	"io/fs"
	"syscall"
)

// errnoOf returns the kernel's reason within an error, or 0.
func errnoOf(err error) syscall.Errno {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return 0
}

// isOurs tells of reasons that no other archive would have changed.
func isOurs(errno syscall.Errno) bool {
	return errno == syscall.ENOSPC || errno == syscall.EDQUOT || errno == syscall.EIO || errno == syscall.EROFS || errno == syscall.EMFILE || errno == syscall.ENFILE
}

func inodeOf(info fs.FileInfo) (inode, links uint64) {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Ino, uint64(st.Nlink)
	}
	return 0, 1
}
