package nstest

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// keeperEnv tells a test binary, and every process below it, that it runs in
// namespaces of its own. Its value is the process ID of the keeper.
const keeperEnv = "LINKSPAN_NSTEST_KEEPER"

// Runner runs tests: a *testing.M, or what wraps one.
type Runner interface{ Run() int }

// Main runs the tests of m in namespaces of their own and exits with their
// code. Call it, and nothing else, in TestMain. Without root rights it fails:
// a test that was skipped has shown nothing.
func Main(m Runner) { os.Exit(Isolate(m).Run()) }

// Isolate is Main for a TestMain that must hand a Runner on, such as one whose
// binary is also the commands of a script.
func Isolate(m Runner) Runner { return isolated{m} }

type isolated struct{ tests Runner }

func (i isolated) Run() int {
	if os.Getenv(keeperEnv) == "" {
		code, err := keep()
		if err != nil {
			fmt.Fprintln(os.Stderr, "nstest:", err)
		}
		return code
	}
	if err := settle(); err != nil {
		fmt.Fprintln(os.Stderr, "nstest:", err)
		return 1
	}
	return i.tests.Run()
}

// keep starts the test binary again in new namespaces and waits for it. It
// adopts the orphans of the tests, so that they can be told from everybody
// else's processes, and leaves none alive.
func keep() (int, error) {
	if os.Geteuid() != 0 {
		return 1, errors.New("these tests make network namespaces and need root (try: sudo env PATH=$PATH go test …)")
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return 1, fmt.Errorf("becoming the reaper of orphans: %w", err)
	}
	if err := makeCgroups(); err != nil {
		return 1, err
	}
	runtime.LockOSThread() // Pdeathsig fires when the starting thread ends, not the process
	defer runtime.UnlockOSThread()
	child, err := os.StartProcess("/proc/self/exe", os.Args, &os.ProcAttr{
		Env:   append(os.Environ(), fmt.Sprintf("%s=%d", keeperEnv, os.Getpid())),
		Files: inherited(),
		Sys: &syscall.SysProcAttr{
			Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWUTS,
			Pdeathsig:  unix.SIGKILL,
		},
	})
	if err != nil {
		return 1, errors.Join(fmt.Errorf("starting the tests in new namespaces: %w", err), removeCgroups())
	}
	passOn(child)
	code, err := reap(child.Pid)
	return code, errors.Join(err, removeCgroups())
}

// inherited returns every open descriptor that an exec is to keep: besides the
// usual three, go test's fuzzing and coverage machinery passes pipes.
func inherited() []*os.File {
	files := []*os.File{os.Stdin, os.Stdout, os.Stderr}
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return files
	}
	for fd := uintptr(3); int(fd) < 3+len(entries); fd++ {
		flags, err := unix.FcntlInt(fd, unix.F_GETFD, 0)
		if err != nil || flags&unix.FD_CLOEXEC != 0 {
			files = append(files, nil)
			continue
		}
		files = append(files, os.NewFile(fd, fmt.Sprintf("inherited %d", fd)))
	}
	return files
}

// passOn hands the signals by which go test and users stop a test to the tests.
func passOn(child *os.Process) {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT)
	go func() {
		for sig := range signals {
			child.Signal(sig) //nolint:errcheck // it has ended: nobody left to tell
		}
	}()
}

// reap waits for the tests, then ends whatever they left running.
func reap(child int) (int, error) {
	code := 1
	for over := false; ; {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ECHILD):
			return code, nil
		case err != nil:
			return 1, fmt.Errorf("waiting for the tests: %w", err)
		}
		if pid == child {
			over = true
			if code = status.ExitStatus(); status.Signaled() {
				fmt.Fprintf(os.Stderr, "nstest: the tests were ended by signal %s\n", status.Signal())
				code = 128 + int(status.Signal())
			}
		}
		if over {
			killChildren()
		}
	}
}

// killChildren kills the children of the calling process: their own children
// become its children and are next.
func killChildren() {
	procs, err := processes()
	if err != nil {
		return
	}
	for _, p := range procs {
		if p.parent == os.Getpid() {
			syscall.Kill(p.pid, syscall.SIGKILL) //nolint:errcheck // it has ended by itself
		}
	}
}

// settle furnishes the new namespaces: no mount leaks out, /run, /sys and the
// cgroup trees are this test's own, lo is up.
func settle() error {
	if os.Getenv("LINKSPAN_NSTEST_SETTLED") != "" {
		return nil // a process below the tests, such as a fuzz worker
	}
	os.Setenv("LINKSPAN_NSTEST_SETTLED", "1")
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making the mounts private: %w", err)
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"); err != nil {
		return fmt.Errorf("mounting a tmpfs on /run: %w", err)
	}
	if err := enterCgroups(); err != nil {
		return err
	}
	if err := ownSys(); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte("nstest")); err != nil {
		return fmt.Errorf("setting the host name: %w", err)
	}
	return plain()
}

// ownSys mounts a sysfs of the calling thread's network namespace on /sys, in
// its own mount namespace. Without it /sys/class/net, and brctl with it, would
// show the links of whoever mounted /sys. The cgroup trees, which a new sysfs
// lacks, are moved back.
func ownSys() error {
	const cgroups, aside = "/sys/fs/cgroup", "/run/nstest-cgroup"
	if err := os.MkdirAll(aside, 0o755); err != nil {
		return fmt.Errorf("making a place for the cgroup trees: %w", err)
	}
	if err := unix.Mount(cgroups, aside, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("binding the cgroup trees: %w", err)
	}
	if err := unix.Unmount("/sys", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("taking the old /sys away: %w", err)
	}
	if err := unix.Mount("sysfs", "/sys", "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mounting a sysfs on /sys: %w", err)
	}
	if err := unix.Mount(aside, cgroups, "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("moving the cgroup trees back: %w", err)
	}
	return nil
}

// loopbackUp brings lo up in the calling thread's namespace: what ip link set
// lo up does (netdevice(7)).
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("bringing lo up: %w", err)
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return fmt.Errorf("bringing lo up: %w", err)
	}
	req.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil {
		return fmt.Errorf("bringing lo up: %w", err)
	}
	return nil
}

// plain brings up lo and gives the namespace the settings of a machine that
// nobody has touched: the kernel copies IPv4's from the first namespace of all,
// where a router or a container engine may forward.
func plain() error {
	const forwarding = "/proc/sys/net/ipv4/ip_forward"
	if err := os.WriteFile(forwarding, []byte("0"), 0); err != nil {
		return fmt.Errorf("making the new machine no router: %w", err)
	}
	return loopbackUp()
}

// process is one line of the process table.
type process struct {
	pid, parent int
	state       byte // as in proc(5): 'Z' is a zombie
	command     string
}

// processes lists all processes that the caller can see.
func processes() ([]process, error) {
	paths, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	var all []process
	for _, path := range paths {
		raw, err := os.ReadFile(path)
		if err != nil {
			continue // ended since the directory was read
		}
		// The command is in parentheses and may hold any character.
		head, tail, _ := strings.Cut(string(raw), " (")
		end := strings.LastIndex(tail, ") ")
		if end < 0 {
			continue
		}
		p := process{command: tail[:end]}
		fmt.Sscan(head, &p.pid)
		var state string
		fmt.Sscan(tail[end+2:], &state, &p.parent)
		p.state = state[0]
		all = append(all, p)
	}
	return all, nil
}

// keeper returns the process whose descendants are the tests and what they
// started.
func keeper() int {
	var pid int
	fmt.Sscan(os.Getenv(keeperEnv), &pid)
	return pid
}
