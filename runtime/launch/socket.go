package launch

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// SocketFile is the name of the shim's socket in the container's directory of
// the exec-root.
const SocketFile = "shim.sock"

// Listen makes the shim's socket in a directory and returns it listening. The
// daemon does so and hands it over: it can then connect before the shim runs.
func Listen(dir string) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	err = within(dir, func(address *unix.SockaddrUnix) error {
		if err = unix.Bind(fd, address); err != nil {
			return os.NewSyscallError("bind", err)
		}
		return os.NewSyscallError("listen", unix.Listen(fd, 128))
	})
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// Dial connects to the shim whose socket is in the directory. ECONNREFUSED
// and ENOENT mean that there is none (any more).
func Dial(dir string) (*Conn, error) {
	// Blocking, as a full backlog would otherwise be an error.
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	err = within(dir, func(address *unix.SockaddrUnix) error {
		for {
			if err = unix.Connect(fd, address); !errors.Is(err, unix.EINTR) {
				return os.NewSyscallError("connect", err)
			}
		}
	})
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return NewConn(fd)
}

// Pair makes two connected ends: a Conn, and a descriptor to send to a shim.
func Pair() (*Conn, int, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, -1, os.NewSyscallError("socketpair", err)
	}
	conn, err := NewConn(fds[0])
	if err != nil {
		unix.Close(fds[0])
		unix.Close(fds[1])
		return nil, -1, err
	}
	return conn, fds[1], nil
}

// within gets round the 108 bytes that a socket's path may have.
func within(dir string, f func(*unix.SockaddrUnix) error) error {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(fd)
	return f(&unix.SockaddrUnix{Name: "/proc/self/fd/" + itoa(fd) + "/" + SocketFile})
}
