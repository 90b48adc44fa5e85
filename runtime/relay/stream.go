package relay

import (
	"errors"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	patience = 30 * time.Second // with a container that does not answer
	inFlight = 256 << 10        // bytes asked of splice at once; a pipe holds 64 KiB unless told otherwise
)

// stream connects a client to the container, and moves bytes both ways until
// both ends have ended.
func stream(client int, to netip.AddrPort) {
	server, err := connect(to)
	if err != nil {
		reset(client)
		return
	}
	near, far := os.NewFile(uintptr(client), "client"), server
	var both sync.WaitGroup
	both.Add(2)
	for _, way := range [][2]*os.File{{near, far}, {far, near}} {
		go func() {
			defer both.Done()
			if pump(way[0], way[1]) != nil {
				// One way is broken: the other cannot mean anything any more.
				near.SetDeadline(time.Unix(1, 0))
				far.SetDeadline(time.Unix(1, 0))
			}
		}()
	}
	both.Wait()
	near.Close()
	far.Close()
}

// connect waits for the connection by the runtime's poller.
func connect(to netip.AddrPort) (*os.File, error) {
	family, sa := sockaddr(to)
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	begun := unix.Connect(fd, sa)
	if begun != nil && !errors.Is(begun, unix.EINPROGRESS) {
		unix.Close(fd)
		return nil, os.NewSyscallError("connect", begun)
	}
	file := os.NewFile(uintptr(fd), "server")
	file.SetWriteDeadline(time.Now().Add(patience))
	raw, err := file.SyscallConn()
	if err == nil {
		err = raw.Write(func(fd uintptr) bool {
			// Asked of the kernel, since the poller forgets what it has seen
			// before the wait.
			poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
			n, got := unix.Poll(poll, 0)
			return n > 0 || got != nil && !errors.Is(got, unix.EINTR)
		})
	}
	if err == nil {
		var failed int
		err = raw.Control(func(fd uintptr) { failed, _ = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR) })
		if failed != 0 {
			err = os.NewSyscallError("connect", syscall.Errno(failed))
		}
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	file.SetWriteDeadline(time.Time{})
	return file, nil
}

// pump moves bytes one way until the end, which it passes on.
func pump(from, to *os.File) error {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return os.NewSyscallError("pipe", err)
	}
	defer unix.Close(pipe[0])
	defer unix.Close(pipe[1])
	in, err := from.SyscallConn()
	if err != nil {
		return err
	}
	out, err := to.SyscallConn()
	if err != nil {
		return err
	}
	for {
		held, err := spliced(in.Read, func(fd int) (int64, error) {
			return unix.Splice(fd, nil, pipe[1], nil, inFlight, unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MOVE)
		})
		if err != nil {
			return err
		}
		if held == 0 {
			return out.Control(func(fd uintptr) { unix.Shutdown(int(fd), unix.SHUT_WR) })
		}
		for held > 0 {
			n, err := spliced(out.Write, func(fd int) (int64, error) {
				return unix.Splice(pipe[0], nil, fd, nil, int(held), unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MOVE)
			})
			if err != nil {
				return err
			}
			held -= n
		}
	}
}

// spliced repeats a call until the socket lets it happen. The pipe is empty
// when it is filled and has bytes when it is emptied, so only the socket can
// be what it waits for.
func spliced(wait func(func(uintptr) bool) error, call func(fd int) (int64, error)) (int64, error) {
	var n int64
	var got error
	err := wait(func(fd uintptr) bool {
		for {
			if n, got = call(int(fd)); !errors.Is(got, unix.EINTR) {
				return !errors.Is(got, unix.EAGAIN)
			}
		}
	})
	if err = errors.Join(err, got); err != nil {
		return 0, os.NewSyscallError("splice", err)
	}
	return n, nil
}
