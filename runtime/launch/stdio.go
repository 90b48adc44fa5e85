package launch

import (
	"os"

	"golang.org/x/sys/unix"
)

// stdio is the pair of ends of a process's streams.
type stdio struct {
	tty       bool
	slaveName string
	theirs    [3]int   // closed once the process has them
	stdin     *os.File // ours; nil for none
	stdout    *os.File // with a terminal its master, for stdin as well
	stderr    *os.File
}

// open makes the streams, in the root of the calling thread.
func (io *stdio) open(p *Process, id identity) error {
	if p.Tty {
		return io.openTerminal(p, id)
	}
	if p.Stdin {
		theirs, ours, err := pipeEnds(id, 0)
		if err != nil {
			return err
		}
		io.theirs[0], io.stdin = theirs, os.NewFile(uintptr(ours), "stdin")
	} else {
		fd, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return doing("opening /dev/null", err)
		}
		io.theirs[0] = fd
	}
	for i, file := range []**os.File{&io.stdout, &io.stderr} {
		theirs, ours, err := pipeEnds(id, 1)
		if err != nil {
			return err
		}
		io.theirs[i+1], *file = theirs, os.NewFile(uintptr(ours), "output")
	}
	return nil
}

// pipeEnds makes a pipe whose end number "theirs" blocks, as programs expect,
// belongs to the process's user, so that it may open /dev/stdout again, and
// whose other end is ready for the poller.
func pipeEnds(id identity, theirs int) (int, int, error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return -1, -1, doing("making a pipe", err)
	}
	ours := fds[1-theirs]
	if err := unix.SetNonblock(ours, true); err != nil {
		return -1, -1, doing("making a pipe", err)
	}
	if id.uid != 0 {
		if err := unix.Fchown(fds[theirs], id.uid, -1); err != nil {
			return -1, -1, doing("giving a pipe to its user", err)
		}
	}
	return fds[theirs], ours, nil
}

func (io *stdio) openTerminal(p *Process, id identity) error {
	io.tty = true
	master, err := unix.Open("/dev/pts/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return doing("opening a terminal", err)
	}
	io.stdout = os.NewFile(uintptr(master), "terminal")
	var st unix.Stat_t
	// The container may have put something of its own in the place of ptmx.
	if err = unix.Fstat(master, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != unix.Mkdev(5, 2) {
		return doing("opening a terminal", unix.ENOTTY)
	}
	if err = unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		return doing("unlocking the terminal", err)
	}
	number, err := unix.IoctlGetInt(master, unix.TIOCGPTN)
	if err != nil {
		return doing("naming the terminal", err)
	}
	io.slaveName = "/dev/pts/" + itoa(number)
	slave, err := openPeer(master)
	if err != nil {
		return doing("opening the terminal's other end", err)
	}
	if id.uid != 0 {
		if err := unix.Fchown(slave, id.uid, -1); err != nil {
			return doing("giving the terminal to its user", err)
		}
	}
	if p.Rows > 0 && p.Cols > 0 {
		size := &unix.Winsize{Row: uint16(p.Rows), Col: uint16(p.Cols)}
		if err := unix.IoctlSetWinsize(master, unix.TIOCSWINSZ, size); err != nil {
			return doing("sizing the terminal", err)
		}
	}
	io.theirs = [3]int{slave, slave, slave}
	return nil
}

// openPeer opens the other end without a path, which the container could have
// changed.
func openPeer(master int) (int, error) {
	fd, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(master), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}

// closeTheirs leaves the process as the only holder of its ends.
func (io *stdio) closeTheirs() {
	for i, fd := range io.theirs {
		if fd >= 0 && (i == 0 || fd != io.theirs[0]) {
			unix.Close(fd)
		}
	}
}

func (io *stdio) closeOurs() {
	for _, file := range []*os.File{io.stdin, io.stdout, io.stderr} {
		if file != nil {
			file.Close()
		}
	}
}
