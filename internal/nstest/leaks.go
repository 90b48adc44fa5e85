package nstest

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/linkspan/linkspan/kernel"
)

// patience is how long what works behind its caller's back (the reaper, a
// dying process) has to finish before it counts as left behind.
const patience = 3 * time.Second

// inventory is what machines share and a test may leave behind.
type inventory []string

// survey lists what exists now.
func survey(tb testing.TB) inventory {
	tb.Helper()
	var inv inventory
	for _, list := range []func() ([]string, error){pins, mounts, cgroups, descendants} {
		lines, err := list()
		if err != nil {
			tb.Fatal(err)
		}
		inv = append(inv, lines...)
	}
	return inv
}

// Leaks reports, as failures of the test, what the test has left behind when it
// ends: links that are marked or doomed and the table linkspan in the process's
// own network namespace, pins under /run/netns, mounts, cgroups of Linkspan's,
// processes. [New] does the same, for its machine as well; call Leaks in tests
// that make no machine.
func Leaks(tb testing.TB) {
	tb.Helper()
	before := survey(tb)
	tb.Cleanup(func() {
		report(tb, before, func() ([]string, error) { return marked("/proc/self/ns/net") })
	})
}

func (m *Machine) reportLeaks(tb testing.TB, before inventory) {
	tb.Helper()
	report(tb, before, func() ([]string, error) { return marked(kernel.Pin(m.name)) })
}

func report(tb testing.TB, before inventory, marked func() ([]string, error)) {
	tb.Helper()
	var left []string
	Until(patience, func() bool {
		ours, err := marked()
		if err != nil {
			tb.Errorf("looking for what was left behind: %v", err)
			return true
		}
		left = slices.DeleteFunc(append(ours, survey(tb)...), func(line string) bool { return slices.Contains(before, line) })
		return len(left) == 0
	})
	for _, line := range left {
		tb.Errorf("left behind: %s", line)
	}
}

// marked lists what bears our mark in the network namespace at path.
func marked(path string) ([]string, error) {
	var left []string
	raw, err := inNetns(path, "ip", "-json", "-details", "link", "show")
	if err != nil {
		return nil, err
	}
	var links []struct {
		Name  string `json:"ifname"`
		Group string `json:"group"`
	}
	if err = json.Unmarshal(raw, &links); err != nil {
		return nil, fmt.Errorf("reading the output of ip link: %w", err)
	}
	for _, link := range links {
		switch link.Group {
		case fmt.Sprint(kernel.Mark):
			left = append(left, "link "+link.Name+" (marked)")
		case fmt.Sprint(kernel.Doomed):
			left = append(left, "link "+link.Name+" (doomed, but not reaped)")
		}
	}
	if raw, err = inNetns(path, "nft", "list", "tables"); err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(raw)) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[2] == "linkspan" {
			left = append(left, "nft "+strings.TrimSpace(line))
		}
	}
	return left, nil
}

// pins lists the pinned namespaces that are no machines of ours.
func pins() ([]string, error) {
	entries, err := os.ReadDir(kernel.NetnsDir)
	if err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	var names []string
	for _, entry := range entries {
		if !strings.HasPrefix(entry.Name(), machinePrefix) {
			names = append(names, "network namespace "+entry.Name()+" (pinned)")
		}
	}
	return names, nil
}

// mounts lists the mount points, less those of pins.
func mounts() ([]string, error) {
	raw, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var points []string
	for line := range strings.Lines(string(raw)) {
		fields := strings.Fields(line)
		if len(fields) < 5 || strings.HasPrefix(fields[4], kernel.NetnsDir) {
			continue
		}
		points = append(points, "mount on "+fields[4])
	}
	return points, nil
}

// cgroups lists the cgroups of Linkspan's in every tree, version 1 and 2.
func cgroups() ([]string, error) {
	var groups []string
	for _, pattern := range []string{"/sys/fs/cgroup/linkspan*", "/sys/fs/cgroup/*/linkspan*"} {
		roots, err := filepath.Glob(pattern)
		if err != nil {
			return nil, err
		}
		for _, root := range roots {
			err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
				if err == nil && entry.IsDir() {
					groups = append(groups, "cgroup "+path)
				}
				return nil // what vanishes under the walk was not left behind
			})
			if err != nil {
				return nil, err
			}
		}
	}
	return groups, nil
}

// descendants lists what the tests started, orphans included: the keeper
// adopts those.
func descendants() ([]string, error) {
	procs, err := processes()
	if err != nil {
		return nil, err
	}
	parents := make(map[int]int)
	for _, p := range procs {
		parents[p.pid] = p.parent
	}
	var lines []string
	for _, p := range procs {
		if p.pid == os.Getpid() || p.state == 'Z' {
			continue
		}
		for up := p.parent; up > 1; up = parents[up] {
			if up == keeper() {
				lines = append(lines, fmt.Sprintf("process %d (%s)", p.pid, p.command))
				break
			}
		}
	}
	return lines, nil
}
