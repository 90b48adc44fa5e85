package nstest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cgroupTrees returns the mount points of all cgroup hierarchies, version 1 and
// 2, as the calling process sees them (proc(5), mountinfo).
func cgroupTrees() ([]string, error) {
	raw, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("looking for the cgroup trees: %w", err)
	}
	var points []string
	for line := range strings.Lines(string(raw)) {
		left, right, _ := strings.Cut(line, " - ")
		mount, kind := strings.Fields(left), strings.Fields(right)
		if len(mount) < 5 || len(kind) < 1 || kind[0] != "cgroup" && kind[0] != "cgroup2" {
			continue
		}
		if point := mount[4]; strings.HasPrefix(point, "/sys/fs/cgroup") && !slices.Contains(points, point) {
			points = append(points, point)
		}
	}
	return points, nil
}

// ownCgroups returns the name of the directory that a keeper makes in every
// tree. The tests see it as the whole tree, so that test binaries that run side
// by side do not take each other's cgroups for something left behind.
func ownCgroups(keeper int) string { return fmt.Sprintf("%s%d", machinePrefix, keeper) }

// makeCgroups makes the keeper's directories, and sweeps up those of keepers
// that were killed. A tree that cannot be written is left out: no test can make
// a cgroup there either.
func makeCgroups() error {
	trees, err := cgroupTrees()
	if err != nil {
		return err
	}
	for _, tree := range trees {
		sweepCgroups(tree)
		dir := filepath.Join(tree, ownCgroups(os.Getpid()))
		err := os.Mkdir(dir, 0o755)
		if errors.Is(err, unix.EROFS) || errors.Is(err, fs.ErrPermission) {
			continue
		}
		if err != nil {
			return fmt.Errorf("making a cgroup: %w", err)
		}
		// A new v1 cpuset is empty and would take no process.
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			if value, err := os.ReadFile(filepath.Join(tree, file)); err == nil {
				os.WriteFile(filepath.Join(dir, file), value, 0) //nolint:errcheck // absent in version 2, where nothing need be filled
			}
		}
	}
	return nil
}

func sweepCgroups(tree string) {
	left, err := filepath.Glob(filepath.Join(tree, machinePrefix+"*"))
	if err != nil {
		return
	}
	for _, dir := range left {
		pid, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(dir), machinePrefix))
		if err == nil && errors.Is(unix.Kill(pid, 0), unix.ESRCH) {
			removeCgroup(dir)
		}
	}
}

// removeCgroups removes the keeper's directories and all that is in them.
func removeCgroups() error {
	trees, err := cgroupTrees()
	if err != nil {
		return err
	}
	var errs []error
	for _, tree := range trees {
		dir := filepath.Join(tree, ownCgroups(os.Getpid()))
		// The kernel takes a moment to let go of processes that were killed.
		Until(time.Second, func() bool { err = removeCgroup(dir); return err == nil })
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// removeCgroup removes a cgroup and those below it, the lowest first. Its files
// go with it.
func removeCgroup(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, entry := range entries {
		if entry.IsDir() {
			removeCgroup(filepath.Join(dir, entry.Name())) //nolint:errcheck // the removal of dir fails then, too
		}
	}
	return os.Remove(dir)
}

// enterCgroups puts the keeper's directories in place of the trees, in the
// mount namespace of the tests. The processes stay in the groups that they are
// in; what the tests make is below.
func enterCgroups() error {
	trees, err := cgroupTrees()
	if err != nil {
		return err
	}
	const aside = "/run/nstest-tree"
	if err := os.MkdirAll(aside, 0o755); err != nil {
		return fmt.Errorf("making a place for a cgroup tree: %w", err)
	}
	for _, tree := range trees {
		dir := filepath.Join(tree, ownCgroups(keeper()))
		if _, err := os.Stat(dir); err != nil {
			continue
		}
		err := errors.Join(
			unix.Mount(dir, aside, "", unix.MS_BIND, ""),
			unix.Unmount(tree, unix.MNT_DETACH),
			unix.Mount(aside, tree, "", unix.MS_MOVE, ""),
		)
		if err != nil {
			return fmt.Errorf("mounting %s on %s: %w", dir, tree, err)
		}
	}
	return os.Remove(aside)
}
