package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
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
	if err := root.Inside(ns, cmd.Start); err != nil {
		return fmt.Errorf("running a command in node %s of lab %s (see: linkspan lab status %s): %w", node, name, name, err)
	}
	return nil
}

// start runs a node's process, whose output goes to a file in the lab's folder.
// Nobody waits for it: it is found again by the namespace that it is in.
func (e *Engine) start(root *kernel.Host, name, node, run string) error {
	log, err := os.Create(filepath.Join(e.folder(name), node+".log"))
	if err != nil {
		return fmt.Errorf("starting node %s: %w", node, err)
	}
	defer log.Close()
	cmd := Command(node, "sh", "-c", run)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr.Setsid = true
	if err = root.Inside(Netns(name, node), cmd.Start); err != nil {
		return fmt.Errorf("starting %q in node %s: %w", run, node, err)
	}
	return cmd.Process.Release()
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

// killTimeout is how long a killed process may take to go.
const killTimeout = 10 * time.Second

// killIn ends every process in the namespaces and waits until all are gone.
func killIn(namespaces ...string) error {
	for deadline := time.Now().Add(killTimeout); ; time.Sleep(2 * time.Millisecond) {
		left := 0
		for _, ns := range namespaces {
			pids, err := processes(ns)
			if err != nil {
				return fmt.Errorf("looking for processes in %s: %w", ns, err)
			}
			for _, pid := range pids {
				if pid == os.Getpid() {
					continue // a thread of ours looked in
				}
				left++
				if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
					return fmt.Errorf("ending process %d in %s: %w", pid, ns, err)
				}
			}
		}
		if left == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d processes in %v do not end (see: ip netns pids)", left, namespaces)
		}
	}
}
