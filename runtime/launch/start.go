package launch

import (
	"errors"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// onThread runs f on a thread that is thrown away afterwards: whatever f does
// to its thread (namespaces, root, cgroup) ends with it. The process's first
// thread cannot end, so it is held back while another one does the work.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			done <- onThread(f)
			runtime.UnlockOSThread()
			return
		}
		done <- f()
	}()
	return <-done
}

// startContainer walks the calling thread into new namespaces and a new root,
// and starts the container's first process there.
func startContainer(s *Spec, io *stdio) (int, error) {
	group, err := joinCgroups(s.Cgroups)
	if err != nil {
		return 0, err
	}
	if group >= 0 {
		defer unix.Close(group)
	}
	self := -1
	if s.Init {
		if self, err = ownProgram(); err != nil {
			return 0, doing("opening the init", err)
		}
		defer unix.Close(self)
	}
	if err = enterNamespaces(s); err != nil {
		return 0, err
	}
	sources, err := enterRoot(s)
	if err != nil {
		return 0, err
	}
	if err = furnish(s, sources); err != nil {
		return 0, err
	}
	id, program, err := prepare(&s.Process, true)
	if err != nil {
		return 0, err
	}
	if err := io.open(&s.Process, id); err != nil {
		return 0, err
	}
	if err := bindConsole(io); err != nil {
		return 0, err
	}
	if s.ReadonlyRoot {
		if err := unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
			return 0, doing("making the root read-only", err)
		}
	}
	c := newChild()
	c.stdio(io)
	if !s.HostCgroupns {
		c.call("unsharing the cgroup namespace", unix.SYS_UNSHARE, unix.CLONE_NEWCGROUP)
	}
	c.proc(s)
	if s.Init {
		c.becomeInit(&s.Process, id, self)
	} else {
		c.become(&s.Process, id, program)
	}
	if !s.Pid.own() {
		return c.start(0, group)
	}
	return c.start(unix.CLONE_NEWPID, group)
}

// ownProgram opens the shim's program, out of the way of initReport.
func ownProgram() (int, error) {
	fd, err := unix.Open("/proc/self/exe", oPath, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(fd)
	return unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 10)
}

// startExec walks the calling thread into the container of pid.
func startExec(s *Spec, p *Process, pid int, io *stdio) (int, error) {
	group, err := joinCgroups(s.Cgroups)
	if err != nil {
		return 0, err
	}
	if group >= 0 {
		defer unix.Close(group)
	}
	target, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return 0, doing("finding the container's process", err)
	}
	defer unix.Close(target)
	// A thread that shares its root and directory with others cannot change
	// the mount namespace.
	if err = unix.Unshare(unix.CLONE_FS); err != nil {
		return 0, doing("unsharing the root", err)
	}
	spaces := unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWNET | unix.CLONE_NEWPID
	if !s.HostCgroupns {
		spaces |= unix.CLONE_NEWCGROUP
	}
	if err = unix.Setns(target, spaces); err != nil {
		return 0, doing("entering the container's namespaces", err)
	}
	id, program, err := prepare(p, false)
	if err != nil {
		return 0, err
	}
	if err := io.open(p, id); err != nil {
		return 0, err
	}
	c := newChild()
	c.stdio(io)
	c.become(p, id, program)
	return c.start(0, group)
}

// joinCgroups puts the calling thread into the container's directory of each
// v1 hierarchy, where threads count one by one and children are born beside
// them. A v2 hierarchy moves whole processes only; its directory is returned
// for clone3, or -1.
func joinCgroups(groups []Cgroup) (int, error) {
	unified := -1
	for _, g := range groups {
		if g.Unified {
			fd, err := unix.Open(g.Path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
			if err != nil {
				return -1, doing("opening "+g.Path, err)
			}
			unified = fd
			continue
		}
		if err := writeFile(g.Path+"/tasks", "0"); err != nil {
			return unified, doing("joining "+g.Path, err)
		}
	}
	return unified, nil
}

// killAll ends what the main process left behind in a PID namespace that is not
// the container's own: there the kernel does not, and the orphans would keep
// its streams and what is mounted. It returns once nobody new has come up.
func killAll(groups []Cgroup) {
	for _, g := range groups {
		if g.Unified && writeFile(g.Path+"/cgroup.kill", "1") == nil {
			return
		}
	}
	killed := map[int]bool{os.Getpid(): true}
	for again := true; again; {
		again = false
		for _, g := range groups {
			text, err := os.ReadFile(g.Path + "/cgroup.procs")
			if err != nil {
				continue
			}
			for field := range strings.FieldsSeq(string(text)) {
				pid, err := strconv.Atoi(field)
				if err != nil || pid <= 0 || killed[pid] { // 0 is of a namespace outside ours
					continue
				}
				unix.Kill(pid, unix.SIGKILL)
				killed[pid], again = true, true
			}
		}
	}
}

func enterNamespaces(s *Spec) error {
	if s.Netns != "" {
		fd, err := unix.Open(s.Netns, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return doing("opening network namespace "+s.Netns, err)
		}
		err = unix.Setns(fd, unix.CLONE_NEWNET)
		unix.Close(fd)
		if err != nil {
			return doing("entering network namespace "+s.Netns, err)
		}
	}
	spaces := unix.CLONE_NEWNS
	if !s.HostUts {
		spaces |= unix.CLONE_NEWUTS
	}
	if s.Ipc.own() {
		spaces |= unix.CLONE_NEWIPC
	}
	if err := unix.Unshare(spaces); err != nil {
		return doing("unsharing namespaces", err)
	}
	if err := join(s.Ipc.Pid, unix.CLONE_NEWIPC); err != nil {
		return doing("entering the IPC namespace of process "+itoa(s.Ipc.Pid), err)
	}
	// Only children will be in it.
	if err := join(s.Pid.Pid, unix.CLONE_NEWPID); err != nil {
		return doing("entering the PID namespace of process "+itoa(s.Pid.Pid), err)
	}
	if !s.HostUts {
		if err := unix.Sethostname([]byte(s.Host)); err != nil {
			return doing("setting the host name", err)
		}
		if s.Domain != "" {
			if err := unix.Setdomainname([]byte(s.Domain)); err != nil {
				return doing("setting the domain name", err)
			}
		}
	}
	return nil
}

// join brings the calling thread into namespaces of a process; 0 is none.
func join(pid, spaces int) error {
	if pid == 0 {
		return nil
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Setns(fd, spaces)
}

// prepare finds in the new root what exec will need. The container's own process
// gets a working directory that is missing.
func prepare(p *Process, makeDir bool) (identity, string, error) {
	id, err := lookUp(p.User, p.Groups)
	if err != nil {
		return id, "", err
	}
	dir := p.Dir
	if dir == "" {
		dir = "/"
	}
	err = unix.Chdir(dir)
	if makeDir && errors.Is(err, unix.ENOENT) {
		if err = os.MkdirAll(dir, 0o755); err == nil {
			err = unix.Chdir(dir)
		}
	}
	if err != nil {
		return id, "", execError("entering working directory "+dir, err)
	}
	if variable(p.Env, "HOME") == "" {
		p.Env = slices.DeleteFunc(p.Env, func(kv string) bool { return strings.HasPrefix(kv, "HOME=") })
		p.Env = append(p.Env, "HOME="+id.home)
	}
	if len(p.Args) == 0 {
		return id, "", &startError{code: 127, text: "no command specified"}
	}
	program, err := findProgram(p.Args[0], p.Env)
	return id, program, err
}

// bindConsole gives the container's terminal the name that programs look for.
func bindConsole(io *stdio) error {
	if !io.tty {
		return nil
	}
	fd, err := unix.Open("/dev/console", unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o620)
	if err != nil {
		return doing("making /dev/console", err)
	}
	unix.Close(fd)
	return doing("mounting /dev/console", unix.Mount(io.slaveName, "/dev/console", "", unix.MS_BIND, ""))
}

func writeFile(name, text string) error {
	fd, err := unix.Open(name, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	_, err = unix.Write(fd, []byte(text))
	unix.Close(fd)
	return err
}
