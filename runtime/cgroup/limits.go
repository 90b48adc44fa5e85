package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan"
)

// Limits is what a container may use. Zero values set no limit.
type Limits struct {
	Memory      int64 // bytes
	MemorySwap  int64 // bytes of memory and swap together; -1 is no limit
	Reservation int64 // bytes; the soft limit
	CPUShares   int64 // relative weight, 2…262144; 1024 is usual
	CPUQuota    int64 // microseconds of CPU time in each period; Unlimited takes a limit away
	CPUPeriod   int64 // microseconds; 0 is 100 ms
	CpusetCPUs  string
	CpusetMems  string
	Pids        int64  // Unlimited takes a limit away that was set before
	Swappiness  *int64 // 0…100; nil is the machine's
	NoOOMKill   bool   // who wants more memory waits
	BlockWeight uint16 // relative, 10…1000
	Block       []BlockLimit
	AllDevices  bool     // no allow-list
	Devices     []string // lines of the allow-list beside those that every container has
}

// Unlimited is the value of a limit that is taken away.
const Unlimited = -1

// BlockLimit bounds the traffic with one block device.
type BlockLimit struct {
	Major, Minor uint32
	Kind         string // read_bps, write_bps, read_iops or write_iops
	Rate         uint64 // bytes or operations a second
}

// Check refuses what this kernel, the machine, or the way its cgroups are
// mounted could not keep.
func (t *Tree) Check(l Limits) error {
	wants := []struct {
		set        bool
		controller string
	}{
		{l.Memory > 0 || l.MemorySwap > 0 || l.Reservation > 0, "memory"},
		{l.CPUShares > 0 || l.CPUQuota > 0 || l.CPUPeriod > 0, "cpu"},
		{l.CpusetCPUs != "" || l.CpusetMems != "", "cpuset"},
		{l.Pids > 0, "pids"},
	}
	for _, w := range wants {
		if w.set && !t.Has(w.controller) {
			return linkspan.Errorf(linkspan.ErrUnsupported, "cannot limit %s: no mounted cgroup hierarchy has the controller (see /proc/cgroups and mount -t cgroup,cgroup2)", w.controller)
		}
	}
	return t.checkCpusets(l)
}

// devices is Docker's list: any node may be made, only harmless ones opened.
var devices = [...]string{
	"c *:* m", "b *:* m",
	"c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm", "c 1:8 rwm", "c 1:9 rwm", // null zero full random urandom
	"c 5:0 rwm", "c 5:1 rwm", "c 5:2 rwm", "c 136:* rwm", // tty console ptmx pts
}

// Without are the limits that this kernel does not have a file for: Create and
// Update leave those out.
func (t *Tree) Without(l Limits) []string {
	var missing []string
	if l.BlockWeight > 0 && !t.hasFile("blkio", "blkio.bfq.weight", "io.bfq.weight") && !t.hasFile("blkio", "blkio.weight", "io.weight") {
		missing = append(missing, "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.")
	}
	if len(l.Block) > 0 && !t.hasFile("blkio", "blkio.throttle.read_bps_device", "io.max") {
		missing = append(missing, "Your kernel does not support Block I/O limits or the cgroup is not mounted. Limits discarded.")
	}
	if l.Swappiness != nil && !t.hasFile("memory", "memory.swappiness", "") {
		missing = append(missing, "Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded.")
	}
	if l.NoOOMKill && !t.hasFile("memory", "memory.oom_control", "") {
		missing = append(missing, "Your kernel does not support OomKillDisable. OomKillDisable discarded.")
	}
	return missing
}

// hasFile looks for a file below the root of the controller's hierarchy, where
// alone some of version 2 are.
func (t *Tree) hasFile(controller, one, two string) bool {
	for _, h := range t.hierarchies {
		if !h.Unified && slices.Contains(h.Controllers, controller) {
			_, err := os.Stat(filepath.Join(h.Mount, one))
			return err == nil
		}
		if h.Unified && two != "" {
			if found, err := filepath.Glob(filepath.Join(h.Mount, "*", two)); err == nil && len(found) > 0 {
				return true
			}
		}
	}
	return false
}

func (l Limits) apply(d Dir) error {
	for _, c := range d.Controllers {
		for _, s := range l.settings(c, d.Unified) {
			err := write(d.Path, s[0], s[1])
			if errors.Is(err, unix.ENOENT) && (strings.Contains(s[0], "sw") || strings.Contains(s[0], "io.") || strings.Contains(s[0], "oom")) {
				continue // Without has said so; without account of swap the limit of memory holds alone
			}
			if err != nil {
				return err
			}
		}
		if c != "devices" || d.Unified || l.AllDevices {
			continue
		}
		if err := write(d.Path, "devices.deny", "a"); err != nil {
			return err
		}
		for _, rule := range slices.Concat(devices[:], l.Devices) {
			if err := write(d.Path, "devices.allow", rule); err != nil {
				return err
			}
		}
	}
	return nil
}

// settings lists the files to write, in an order that the kernel accepts.
func (l Limits) settings(controller string, unified bool) [][2]string {
	number := func(n int64) string { return strconv.FormatInt(n, 10) }
	var list [][2]string
	set := func(name, value string) { list = append(list, [2]string{name, value}) }
	switch controller {
	case "memory":
		return l.memory(unified)
	case "cpu":
		period := l.CPUPeriod
		if period == 0 {
			period = 100_000
		}
		switch {
		case unified && l.CPUQuota < 0:
			set("cpu.max", fmt.Sprintf("max %d", period))
		case unified && l.CPUQuota > 0:
			set("cpu.max", fmt.Sprintf("%d %d", l.CPUQuota, period))
		case l.CPUQuota != 0:
			set("cpu.cfs_period_us", number(period))
			set("cpu.cfs_quota_us", number(l.CPUQuota))
		case unified && l.CPUPeriod != 0:
			set("cpu.max", fmt.Sprintf("max %d", period))
		case l.CPUPeriod != 0:
			set("cpu.cfs_period_us", number(period))
		}
		switch {
		case unified && l.CPUShares > 0:
			// The usual conversion of 2…262144 to 1…10000.
			set("cpu.weight", number(1+(max(l.CPUShares, 2)-2)*9999/262142))
		case l.CPUShares > 0:
			set("cpu.shares", number(l.CPUShares))
		}
	case "cpuset":
		if l.CpusetCPUs != "" {
			set("cpuset.cpus", l.CpusetCPUs)
		}
		if l.CpusetMems != "" {
			set("cpuset.mems", l.CpusetMems)
		}
	case "pids":
		switch {
		case l.Pids < 0:
			set("pids.max", "max")
		case l.Pids > 0:
			set("pids.max", number(l.Pids))
		}
	case "blkio", "io":
		return l.block(unified)
	}
	return list
}

// block is all of block I/O. The weights of the two versions have the same
// middle of 100, or of 500.
func (l Limits) block(unified bool) [][2]string {
	var list [][2]string
	prefix := map[bool]string{false: "blkio.", true: "io."}[unified]
	if l.BlockWeight > 0 {
		weight := strconv.Itoa(int(l.BlockWeight))
		list = append(list, [2]string{prefix + "bfq.weight", weight})
		if unified {
			weight = strconv.Itoa(1 + (int(l.BlockWeight)-10)*9999/990)
		}
		list = append(list, [2]string{prefix + "weight", weight})
	}
	for _, b := range l.Block {
		device := fmt.Sprintf("%d:%d", b.Major, b.Minor)
		if unified {
			key := map[string]string{"read_bps": "rbps", "write_bps": "wbps", "read_iops": "riops", "write_iops": "wiops"}[b.Kind]
			list = append(list, [2]string{"io.max", fmt.Sprintf("%s %s=%d", device, key, b.Rate)})
			continue
		}
		list = append(list, [2]string{"blkio.throttle." + b.Kind + "_device", fmt.Sprintf("%s %d", device, b.Rate)})
	}
	return list
}

// memory counts swap with memory in version 1 and apart in version 2.
func (l Limits) memory(unified bool) [][2]string {
	number := func(n int64) string { return strconv.FormatInt(n, 10) }
	var list [][2]string
	if l.Memory > 0 {
		name := map[bool]string{false: "memory.limit_in_bytes", true: "memory.max"}[unified]
		list = append(list, [2]string{name, number(l.Memory)})
	}
	if l.Reservation > 0 {
		name := map[bool]string{false: "memory.soft_limit_in_bytes", true: "memory.low"}[unified]
		list = append(list, [2]string{name, number(l.Reservation)})
	}
	switch {
	case l.MemorySwap < 0 && unified:
		list = append(list, [2]string{"memory.swap.max", "max"})
	case l.MemorySwap > 0 && unified:
		list = append(list, [2]string{"memory.swap.max", number(l.MemorySwap - l.Memory)})
	case l.MemorySwap > 0:
		list = append(list, [2]string{"memory.memsw.limit_in_bytes", number(l.MemorySwap)})
	}
	if l.Swappiness != nil && !unified {
		list = append(list, [2]string{"memory.swappiness", number(*l.Swappiness)})
	}
	if l.NoOOMKill && !unified {
		list = append(list, [2]string{"memory.oom_control", "1"})
	}
	return list
}
