package launch

import (
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// stdio makes the given descriptors the child's 0, 1 and 2 in a session of its
// own.
func (c *child) stdio(io *stdio) {
	c.call("making a session", unix.SYS_SETSID)
	if io.tty {
		c.call("taking the terminal", unix.SYS_IOCTL, uintptr(io.theirs[0]), unix.TIOCSCTTY, 0)
	}
	for i, fd := range io.theirs {
		c.call("connecting the streams", unix.SYS_DUP3, uintptr(fd), uintptr(i), 0)
	}
}

// proc mounts the PID namespace's own procfs and hides in it, as Docker does,
// what tells about the host or changes it.
func (c *child) proc(s *Spec) {
	c.mount("proc", "/proc", "proc", noExec, "")
	c.sysctls(s.Sysctls)
	if s.Privileged {
		return
	}
	for _, p := range s.ReadonlyPaths {
		c.mount(p, p, "", unix.MS_BIND|unix.MS_REC, "").lax = true
		c.mount("", p, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|noExec, "").lax = true
	}
	for _, p := range s.MaskedPaths {
		// Whichever of the two does not fit a file, or a directory, fails.
		c.mount("/dev/null", p, "", unix.MS_BIND, "").lax = true
		c.mount("tmpfs", p, "tmpfs", unix.MS_RDONLY|noExec, "size=0k").lax = true
	}
}

// sysctls sets parameters of the container's namespaces. A procfs that is older
// than the container would do, since its entries follow the thread, but its cache
// of names grows with every namespace that was ever looked into.
func (c *child) sysctls(settings []string) {
	cwd := unix.AT_FDCWD
	for _, setting := range settings {
		key, value, _ := strings.Cut(setting, "=")
		c.call("setting sysctl "+setting, unix.SYS_OPENAT, uintptr(cwd), c.str("/proc/sys/"+strings.ReplaceAll(key, ".", "/")), unix.O_WRONLY|unix.O_CLOEXEC, 0)
		c.call("setting sysctl "+setting, unix.SYS_WRITE, 0, c.bytes(value), uintptr(len(value))).opened = true
	}
}

// oomAdj undoes what a protected daemon hands down. Without CAP_SYS_RESOURCE
// that fails where there is nothing to undo but a handicap.
func (c *child) oomAdj(adj int) {
	cwd := unix.AT_FDCWD
	text := itoa(adj)
	c.call("opening oom_score_adj", unix.SYS_OPENAT, uintptr(cwd), c.str("/proc/self/oom_score_adj"), unix.O_WRONLY|unix.O_CLOEXEC, 0)
	set := c.call("setting oom_score_adj", unix.SYS_WRITE, 0, c.str(text), uintptr(len(text)))
	set.opened, set.lax = true, adj == 0
}

// capHeader and capData are the arguments of capset(2), version 3.
type capHeader struct {
	version uint32
	pid     int32
}

type capData struct {
	effective, permitted uint32
	_                    uint32 // inheritable: none
}

// become gives up what the process may not have and replaces the program.
func (c *child) become(p *Process, id identity, program string) {
	c.giveUp(p, id)
	c.call("exec "+p.Args[0], unix.SYS_EXECVE, c.str(program), c.vector(p.Args), c.vector(p.Env))
}

// becomeInit does the same for our own init, whose program has no path in the
// container: the descriptor is of ours. It takes over the report, so that a
// start is over when the program runs, and a signal after it finds it.
func (c *child) becomeInit(p *Process, id identity, program int) {
	c.giveUp(p, id)
	c.handOver = len(c.steps)
	c.call("handing over the report", unix.SYS_DUP3, 0, initReport, 0)
	args := append([]string{InitName, "--"}, p.Args...)
	c.call("exec "+InitName, unix.SYS_EXECVEAT, uintptr(program), c.bytes(""), c.vector(args), c.vector(p.Env), unix.AT_EMPTY_PATH)
}

// giveUp gives up what the process may not have. The filter needs CAP_SYS_ADMIN
// or no_new_privs: without the latter it must come before the capabilities go,
// and then filters the steps after it as well.
func (c *child) giveUp(p *Process, id identity) {
	c.oomAdj(p.OOMAdj)
	c.limits(p)
	if p.NoNewPrivs {
		c.call("setting no_new_privs", unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	}
	for bit := uintptr(0); bit < 64; bit++ {
		if p.Caps&(1<<bit) == 0 {
			c.call("dropping capabilities", unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, bit, 0, 0, 0).lax = true // past the last one
		}
	}
	c.call("clearing ambient capabilities", unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0).lax = true
	c.signals()
	c.call("closing descriptors", unix.SYS_CLOSE_RANGE, 3, uintptr(^uint32(0)), unix.CLOSE_RANGE_CLOEXEC).lax = true
	if !p.NoNewPrivs {
		c.seccomp(p.Seccomp)
	}
	c.identity(id)
	if id.uid == 0 { // the change to another user has dropped all
		data := &[2]capData{}
		for i := range data {
			half := uint32(p.Caps >> (32 * i))
			data[i] = capData{effective: half, permitted: half}
		}
		header := &capHeader{version: unix.LINUX_CAPABILITY_VERSION_3}
		c.alive = append(c.alive, data, header)
		c.call("setting capabilities", unix.SYS_CAPSET, uintptr(unsafe.Pointer(header)), uintptr(unsafe.Pointer(data)))
	}
	if p.NoNewPrivs {
		c.seccomp(p.Seccomp)
	}
}

func (c *child) limits(p *Process) {
	for _, l := range p.Rlimits {
		value := &unix.Rlimit{Cur: l.Soft, Max: l.Hard}
		c.alive = append(c.alive, value)
		c.call("setting a limit", unix.SYS_PRLIMIT64, 0, uintptr(l.Resource), uintptr(unsafe.Pointer(value)), 0)
	}
	c.call("setting umask", unix.SYS_UMASK, uintptr(p.Umask))
}

// inheritable lists the signals that the Go runtime does not handle, so that
// they stay ignored over exec if the daemon was started so: CONT, TSTP, TTIN,
// TTOU and those that C libraries use within themselves. For others exec turns
// Go's handler into the default.
var inheritable = [...]uintptr{18, 20, 21, 22, 32, 33, 34}

// signals undoes what nohup(1) or a shell's job control did to the daemon.
func (c *child) signals() {
	action := &[4]uint64{} // struct sigaction with SIG_DFL, long enough everywhere
	mask := &[1]uint64{}
	c.alive = append(c.alive, action, mask)
	for _, number := range inheritable {
		c.call("resetting signals", unix.SYS_RT_SIGACTION, number, uintptr(unsafe.Pointer(action)), 0, 8).lax = true
	}
	c.call("unblocking signals", unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(mask)), 0, 8)
}

func (c *child) identity(id identity) {
	groups := make([]uint32, max(len(id.groups), 1))
	for i, g := range id.groups {
		groups[i] = uint32(g)
	}
	c.alive = append(c.alive, groups)
	c.call("setting groups", unix.SYS_SETGROUPS, uintptr(len(id.groups)), uintptr(unsafe.Pointer(&groups[0])))
	gid, uid := uintptr(id.gid), uintptr(id.uid)
	c.call("setting the group", unix.SYS_SETRESGID, gid, gid, gid)
	c.call("setting the user", unix.SYS_SETRESUID, uid, uid, uid)
}

// seccomp installs a filter made by the daemon.
func (c *child) seccomp(filter []byte) {
	const size = int(unsafe.Sizeof(unix.SockFilter{}))
	if len(filter) < size {
		return
	}
	instructions := make([]unix.SockFilter, len(filter)/size)
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&instructions[0])), len(instructions)*size), filter)
	program := &unix.SockFprog{Len: uint16(len(instructions)), Filter: &instructions[0]}
	c.alive = append(c.alive, program, instructions)
	c.call("installing the seccomp filter", unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(program)))
	runtime.KeepAlive(filter)
}
