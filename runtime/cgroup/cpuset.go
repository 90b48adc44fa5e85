package cgroup

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/linkspan/linkspan"
)

// most bounds the numbers of CPUs and memory nodes that are believed.
const most = 8192

// checkCpusets refuses CPUs and memory nodes that the machine does not have, in
// Docker's words. What the machine has is not always known: the kernel has the
// last word then.
func (t *Tree) checkCpusets(l Limits) error {
	for _, set := range []struct{ wanted, file, what, name string }{
		{l.CpusetCPUs, "cpuset.cpus", "CPUs", "cpus"},
		{l.CpusetMems, "cpuset.mems", "memory nodes", "mems"},
	} {
		wanted, ok := parseList(set.wanted)
		if !ok {
			return linkspan.Errorf(linkspan.ErrInvalid, "Invalid value %s for cpuset %s", set.wanted, set.name)
		}
		available := t.machineHas(set.file)
		has, known := parseList(available)
		for n := range wanted {
			if known && len(has) > 0 && !has[n] {
				return linkspan.Errorf(linkspan.ErrInvalid, "Requested %s are not available - requested %s, available: %s", set.what, set.wanted, available)
			}
		}
	}
	return nil
}

// machineHas returns the list of a cpuset's file that the machine's own
// processes have, or "".
func (t *Tree) machineHas(file string) string {
	if list, known := t.cpuset[file]; known {
		return list
	}
	for _, h := range t.hierarchies {
		if h.Unified {
			text, err := os.ReadFile(filepath.Join(h.Mount, file+".effective"))
			if err == nil {
				return strings.TrimSpace(string(text))
			}
		}
	}
	return ""
}

// parseList reads "0-3,7" (cpuset(7), "List format").
func parseList(text string) (set map[int]bool, ok bool) {
	set = make(map[int]bool)
	if text == "" {
		return set, true
	}
	for part := range strings.SplitSeq(text, ",") {
		low, high, isRange := strings.Cut(part, "-")
		from, err := strconv.Atoi(low)
		to := from
		if err == nil && isRange {
			to, err = strconv.Atoi(high)
		}
		if err != nil || from < 0 || to < from || to >= most {
			return nil, false
		}
		for n := from; n <= to; n++ {
			set[n] = true
		}
	}
	return set, true
}
