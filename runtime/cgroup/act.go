package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan"
)

// patience is how long the kernel may take to let go of processes that are
// dying; an interrupted disk request is the usual reason for more.
const patience = 5 * time.Second

// Remove removes the directories, and those that the container made in them.
// Processes that are left are killed first. Gone already is success.
func (g Group) Remove(ctx context.Context) error {
	var errs []error
	for _, d := range g.Dirs {
		errs = append(errs, g.removeDir(ctx, d.Path))
	}
	return errors.Join(errs...)
}

func (g Group) removeDir(ctx context.Context, dir string) error {
	deadline := time.Now().Add(patience)
	for pause := 200 * time.Microsecond; ; pause *= 2 {
		err := unix.Rmdir(dir)
		if err == nil || errors.Is(err, unix.ENOENT) {
			if ours := filepath.Dir(dir); filepath.Base(ours) == parent {
				unix.Rmdir(ours) // refused while there are other containers
			}
			return nil
		}
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) || ctx.Err() != nil {
			return fmt.Errorf("removing cgroup %s, in use by processes %v: %w", dir, pidsOf(dir), err)
		}
		removeChildren(dir)
		if err := g.Kill(); err != nil {
			return err
		}
		time.Sleep(min(pause, 50*time.Millisecond))
	}
}

// removeChildren goes on past errors: what is busy is tried again.
func removeChildren(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if e.IsDir() {
			child := filepath.Join(dir, e.Name())
			removeChildren(child)
			unix.Rmdir(child)
		}
	}
}

// Kill sends SIGKILL to all that is in the group. It does not wait.
func (g Group) Kill() error {
	if d, ok := g.unified(); ok && write(d.Path, "cgroup.kill", "1") == nil {
		return nil
	}
	var errs []error
	for _, d := range g.Dirs {
		for _, pid := range pidsOf(d.Path) {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				errs = append(errs, fmt.Errorf("killing process %d: %w", pid, err))
			}
		}
	}
	return errors.Join(errs...)
}

// Pids lists the processes of the group, without those of groups that the
// container made itself.
func (g Group) Pids() []int {
	for _, d := range g.Dirs {
		if pids := pidsOf(d.Path); len(pids) > 0 {
			return pids
		}
	}
	return nil
}

func pidsOf(dir string) []int {
	text, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return nil
	}
	var pids []int
	for field := range strings.FieldsSeq(string(text)) {
		if pid, err := strconv.Atoi(field); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	return pids
}

// Freeze stops all processes of the group where they are, and returns when
// they have stopped.
func (g Group) Freeze(ctx context.Context) error {
	if d, ok := g.dir("freezer"); ok {
		return await(ctx, d.Path, "freezer.state", "FROZEN", "freezer.state", "FROZEN")
	}
	if d, ok := g.unified(); ok {
		return await(ctx, d.Path, "cgroup.freeze", "1", "cgroup.events", "frozen 1")
	}
	return linkspan.Errorf(linkspan.ErrUnsupported, "cannot pause: no mounted cgroup hierarchy has the freezer")
}

// Thaw lets them go on.
func (g Group) Thaw(ctx context.Context) error {
	if d, ok := g.dir("freezer"); ok {
		return await(ctx, d.Path, "freezer.state", "THAWED", "freezer.state", "THAWED")
	}
	if d, ok := g.unified(); ok {
		return await(ctx, d.Path, "cgroup.freeze", "0", "cgroup.events", "frozen 0")
	}
	return nil
}

// await writes a wish and polls, since neither version tells otherwise when a
// process in the kernel has come to rest. Version 1 wants the wish repeated.
func await(ctx context.Context, dir, file, value, state, want string) error {
	deadline := time.Now().Add(patience)
	for pause := 100 * time.Microsecond; ; pause *= 2 {
		if err := write(dir, file, value); err != nil {
			return err
		}
		text, err := os.ReadFile(filepath.Join(dir, state))
		if err != nil {
			return fmt.Errorf("reading cgroup %s: %w", dir, err)
		}
		for line := range strings.Lines(string(text)) {
			if strings.TrimSpace(line) == want {
				return nil
			}
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("setting %s of cgroup %s: state is still %q", file, dir, strings.TrimSpace(string(text)))
		}
		time.Sleep(min(pause, 20*time.Millisecond))
	}
}

// OOMKilled tells whether the kernel killed a process of the group for want of
// memory.
func (g Group) OOMKilled() bool {
	d, ok := g.dir("memory")
	if !ok {
		return false
	}
	file := "memory.oom_control"
	if d.Unified {
		file = "memory.events"
	}
	text, err := os.ReadFile(filepath.Join(d.Path, file))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "oom_kill "); ok {
			return rest != "0"
		}
	}
	return false
}

// Exists tells whether any directory of the group is there.
func (g Group) Exists() bool {
	for _, d := range g.Dirs {
		if _, err := os.Stat(d.Path); !errors.Is(err, fs.ErrNotExist) {
			return true
		}
	}
	return false
}

// Update sets limits of a group that is in use. In version 1 the limit of
// memory must not be above that of memory and swap at any moment, so which of
// the two comes first depends on the direction.
func (t *Tree) Update(path string, limits Limits) error {
	for _, d := range t.Group(path).Dirs {
		if d.isCpuset() {
			if err := t.updateCpuset(path, d, limits); err != nil {
				return err
			}
			continue
		}
		for _, c := range d.Controllers {
			settings := limits.settings(c, d.Unified)
			var again [][2]string
			for _, s := range settings {
				err := write(d.Path, s[0], s[1])
				switch {
				case errors.Is(err, unix.EINVAL) && c == "memory" && !d.Unified:
					again = append(again, s)
				case err != nil && !errors.Is(err, unix.ENOENT):
					return err
				}
			}
			for _, s := range again {
				if err := write(d.Path, s[0], s[1]); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// updateCpuset makes the directory if the container had no need of it so far.
func (t *Tree) updateCpuset(path string, d Dir, limits Limits) error {
	if limits.CpusetCPUs == "" && limits.CpusetMems == "" {
		return nil
	}
	if _, err := os.Stat(d.Path); errors.Is(err, fs.ErrNotExist) {
		if err := t.makeDir(d); err != nil {
			return err
		}
		for _, pid := range t.Group(path).Pids() {
			if err := write(d.Path, "cgroup.procs", strconv.Itoa(pid)); err != nil && !errors.Is(err, unix.ESRCH) {
				return err
			}
		}
	}
	for _, s := range limits.settings("cpuset", false) {
		if err := write(d.Path, s[0], s[1]); err != nil {
			return err
		}
	}
	return nil
}
