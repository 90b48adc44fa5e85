package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan/kernel"
)

// settle gives a process of a node the view that it would have on a machine of
// its own: /sys of its own namespace, so that brctl shows its own bridges and not
// the host's, and the node's name. A fresh sysfs hides the cgroup trees, which are
// bound back. All other mounts stay shared: a namespace that ip netns makes in a
// node is pinned for everybody.
const settle = `mount --make-private /sys && exec 9</sys/fs/cgroup && mount -t sysfs sysfs /sys && mount -c --rbind /proc/self/fd/9 /sys/fs/cgroup && exec 9<&- && hostname "$1" && shift && exec "$@"`

// Command returns a command that runs in a node when it is started by Start.
func Command(node string, args ...string) *exec.Cmd {
	cmd := exec.Command("sh", append([]string{"-c", settle, "sh", node}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWUTS}
	return cmd
}

// Exec starts a command in a node of a lab that is up, or on the lab's machine if
// node is empty; the caller waits for it.
func (e *Engine) Exec(name, node string, cmd *exec.Cmd) error {
	if _, err := e.known(name); err != nil {
		return err
	}
	root, err := e.open(name)
	if err != nil {
		return err
	}
	defer root.Close()
	ns := ""
	if node != "" {
		ns = Netns(name, node)
	}
	cmd.Env = append(cmd.Environ(), e.mark(name))
	if err := root.Inside(ns, cmd.Start); err != nil {
		return fmt.Errorf("running a command in node %s of lab %s (see: linkspan lab status %s): %w", node, name, name, err)
	}
	return nil
}

// mark is in the environment of all that runs in a lab, so that a process is found
// whatever has become of the namespace that it was started in.
func (e *Engine) mark(name string) string { return "LINKSPAN_LAB=" + e.folder(name) }

// start runs a node's process, whose output goes to a file in the lab's folder.
// Nobody waits for it.
func (e *Engine) start(root *kernel.Host, name, node, run string) error {
	log, err := e.log(name, node)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := Command(node, "sh", "-c", run)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(cmd.Environ(), e.mark(name))
	cmd.SysProcAttr.Setsid = true
	if err = root.Inside(Netns(name, node), cmd.Start); err != nil {
		return fmt.Errorf("starting %q in node %s: %w", run, node, err)
	}
	if err = os.WriteFile(e.pidFile(name, node), []byte(strconv.Itoa(cmd.Process.Pid)), 0o600); err != nil {
		return fmt.Errorf("starting %q in node %s: %w", run, node, err)
	}
	return cmd.Process.Release()
}

// prepare runs a start command of a node to its end.
func (e *Engine) prepare(ctx context.Context, root *kernel.Host, name, node, command string) error {
	log, err := e.log(name, node)
	if err != nil {
		return err
	}
	defer log.Close()
	var said bytes.Buffer
	cmd := Command(node, "sh", "-c", command)
	cmd.Stdout, cmd.Stderr = io.MultiWriter(log, &said), io.MultiWriter(log, &said)
	cmd.Env = append(cmd.Environ(), e.mark(name))
	if err = root.Inside(Netns(name, node), cmd.Start); err == nil {
		stop := context.AfterFunc(ctx, func() { cmd.Process.Kill() }) //nolint:errcheck // it has ended by itself
		err = cmd.Wait()
		stop()
	}
	if err != nil {
		return fmt.Errorf("start command %q of node %s: %w: %s", command, node, errors.Join(err, ctx.Err()), strings.TrimSpace(said.String()))
	}
	return nil
}

func (e *Engine) log(name, node string) (*os.File, error) {
	log, err := os.OpenFile(e.logFile(name, node), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("starting node %s: %w", node, err)
	}
	return log, nil
}

func (e *Engine) logFile(name, node string) string { return filepath.Join(e.folder(name), node+".log") }

func (e *Engine) pidFile(name, node string) string { return filepath.Join(e.folder(name), node+".pid") }

// running returns the ID of the process that start left in a node, if it is one of
// those that are in it now; 0 if it has ended.
func (e *Engine) running(name, node string, now []int) int {
	text, err := os.ReadFile(e.pidFile(name, node))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(string(text))
	if err != nil || !slices.Contains(now, pid) {
		return 0
	}
	return pid
}

// processes finds the processes whose network namespace is pinned under a name.
func processes(ns string) ([]int, error) {
	pinned, err := os.Stat(kernel.Pin(ns))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		of, err := os.Stat(fmt.Sprintf("/proc/%d/ns/net", pid))
		if err == nil && os.SameFile(of, pinned) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// strays finds the processes that have a mark in the environment that they were
// started with.
func strays(mark string) ([]int, error) {
	paths, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, path := range paths {
		environ, err := os.ReadFile(path)
		if err != nil || !slices.Contains(strings.Split(string(environ), "\x00"), mark) {
			continue // ended, or somebody else's
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// killTimeout is how long a killed process may take to go.
const killTimeout = 10 * time.Second

// kill ends every process of a lab, by the namespaces that they are in and by the
// mark that they bear, and waits until all are gone.
func (e *Engine) kill(name string, namespaces ...string) error {
	for deadline := time.Now().Add(killTimeout); ; time.Sleep(2 * time.Millisecond) {
		pids, err := strays(e.mark(name))
		if err != nil {
			return fmt.Errorf("looking for processes of lab %s: %w", name, err)
		}
		for _, ns := range namespaces {
			in, err := processes(ns)
			if err != nil {
				return fmt.Errorf("looking for processes in %s: %w", ns, err)
			}
			pids = append(pids, in...)
		}
		pids = slices.DeleteFunc(pids, func(pid int) bool { return pid == os.Getpid() }) // a thread of ours looked in
		for _, pid := range pids {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("ending process %d of lab %s: %w", pid, name, err)
			}
		}
		if len(pids) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("processes %v of lab %s do not end (see: ps -p %d -o pid,stat,wchan,args)", pids, name, pids[0])
		}
	}
}
