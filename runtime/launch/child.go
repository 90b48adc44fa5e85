package launch

import (
	"encoding/binary"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// step is one system call of the child.
type step struct {
	what   string
	nr     uintptr
	args   [6]uintptr
	lax    bool // may fail: the object is one that not every kernel has
	opened bool // the first argument is the result of the step before
}

// child collects the system calls that the new process makes between clone and
// exec, and what they point to.
type child struct {
	steps    []step
	alive    []any  // what the uintptrs point to; the heap does not move, but would be freed
	handOver int    // the step that gives the report to the init; 0 for none
	text     []byte // strings, in one piece: each fresh page costs a fault, and the kernel copies it for the child
}

// newChild makes room for what a usual start takes.
func newChild() *child { return &child{steps: make([]step, 0, 128)} }

func (c *child) call(what string, nr uintptr, args ...uintptr) *step {
	s := step{what: what, nr: nr}
	copy(s.args[:], args)
	c.steps = append(c.steps, s)
	return &c.steps[len(c.steps)-1]
}

func (c *child) str(s string) uintptr {
	if s == "" {
		return 0
	}
	return c.bytes(s)
}

// bytes copies a string and its zero byte to where it stays.
func (c *child) bytes(s string) uintptr {
	if cap(c.text)-len(c.text) <= len(s) {
		c.text = make([]byte, 0, max(8<<10, len(s)+1))
		c.alive = append(c.alive, c.text[:1])
	}
	at := len(c.text)
	c.text = append(append(c.text, s...), 0)
	return uintptr(unsafe.Pointer(&c.text[at]))
}

func (c *child) mount(src, dst, fstype string, flags uintptr, data string) *step {
	return c.call("mounting on "+dst, unix.SYS_MOUNT, c.str(src), c.str(dst), c.str(fstype), flags, c.str(data))
}

func (c *child) vector(list []string) uintptr {
	p := make([]uintptr, len(list)+1)
	for i, s := range list {
		p[i] = c.bytes(s)
	}
	c.alive = append(c.alive, p)
	return uintptr(unsafe.Pointer(&p[0]))
}

// cloneArgs is struct clone_args of clone3(2), the version with a cgroup.
type cloneArgs struct {
	flags, pidfd, childTID, parentTID, exitSignal, stack, stackSize, tls, setTID, setTIDSize, cgroup uint64
}

// start clones and runs the steps, the last of which must be execve. It
// returns when exec has happened (the pid) or when a step has failed.
func (c *child) start(flags uint64, cgroup int) (int, error) {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return 0, doing("making a pipe", err)
	}
	// Out of the way of the child's own 0, 1 and 2.
	report, err := unix.FcntlInt(uintptr(pipe[1]), unix.F_DUPFD_CLOEXEC, 10)
	unix.Close(pipe[1])
	if err != nil {
		unix.Close(pipe[0])
		return 0, doing("making a pipe", err)
	}
	if c.handOver > 0 {
		c.steps[c.handOver].args[0] = uintptr(report)
	}
	args := &cloneArgs{flags: flags, exitSignal: uint64(unix.SIGCHLD)}
	if cgroup >= 0 {
		args.flags |= unix.CLONE_INTO_CGROUP
		args.cgroup = uint64(cgroup)
	}
	// A signal handler of the Go runtime must not run in the child: the threads
	// that it counts on are not there.
	var all, old unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	unix.PthreadSigmask(unix.SIG_SETMASK, &all, &old)
	var failure [2]uint64
	pid, errno := cloneAndRun(args, c.steps, uintptr(report), &failure)
	unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil)
	runtime.KeepAlive(c)
	unix.Close(report)
	if errno != 0 {
		unix.Close(pipe[0])
		return 0, doing("clone3", errno)
	}
	return int(pid), c.outcome(pipe[0], int(pid))
}

// outcome waits for exec, which closes the pipe, or for the report of the step
// that failed; the child is gone then.
func (c *child) outcome(fd, pid int) error {
	defer unix.Close(fd)
	var buf [16]byte
	n, err := unix.Read(fd, buf[:])
	for err == unix.EINTR {
		n, err = unix.Read(fd, buf[:])
	}
	if n < len(buf) {
		return nil
	}
	for {
		if _, err := unix.Wait4(pid, nil, 0, nil); err != unix.EINTR {
			break
		}
	}
	index := binary.NativeEndian.Uint64(buf[:])
	errno := syscall.Errno(binary.NativeEndian.Uint64(buf[8:]))
	if index == initFailed {
		return execError("exec", errno)
	}
	failed := &c.steps[index]
	if failed.nr == unix.SYS_EXECVE {
		return execError(failed.what, errno)
	}
	return doing(failed.what, errno)
}

// cloneAndRun is a fork whose child makes the given system calls. From the
// clone on, the child may not allocate, grow its stack, take a lock or be
// preempted, hence the pragmas and the bare loop.
//
//go:norace
//go:nosplit
//go:noinline
func cloneAndRun(args *cloneArgs, steps []step, report uintptr, failure *[2]uint64) (uintptr, syscall.Errno) {
	pid, _, errno := syscall.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(args)), unsafe.Sizeof(*args), 0)
	if errno != 0 || pid != 0 {
		return pid, errno
	}
	var last uintptr
	for i := 0; i < len(steps); i++ {
		s := &steps[i]
		first := s.args[0]
		if s.opened {
			first = last
		}
		last, _, errno = syscall.RawSyscall6(s.nr, first, s.args[1], s.args[2], s.args[3], s.args[4], s.args[5])
		if errno != 0 && !s.lax {
			failure[0], failure[1] = uint64(i), uint64(errno)
			syscall.RawSyscall(unix.SYS_WRITE, report, uintptr(unsafe.Pointer(failure)), 16)
			break
		}
	}
	for {
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, 125, 0, 0)
	}
}
