package cgroup

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
)

// Usage reads the counters of the group into the words that Docker's API has
// for them. What a kernel does not count stays zero.
func (g Group) Usage() container.StatsResponse {
	var s container.StatsResponse
	if d, ok := g.unified(); ok {
		unifiedUsage(d.Path, &s)
	}
	if d, ok := g.dir("cpuacct"); ok && !d.Unified {
		s.CPUStats.CPUUsage.TotalUsage = number(d.Path, "cpuacct.usage")
		for field := range strings.FieldsSeq(text(d.Path, "cpuacct.usage_percpu")) {
			if n, err := strconv.ParseUint(field, 10, 64); err == nil {
				s.CPUStats.CPUUsage.PercpuUsage = append(s.CPUStats.CPUUsage.PercpuUsage, n)
			}
		}
		ticks := table(d.Path, "cpuacct.stat") // of 10 ms: USER_HZ is 100 on every machine
		s.CPUStats.CPUUsage.UsageInUsermode, s.CPUStats.CPUUsage.UsageInKernelmode = ticks["user"]*1e7, ticks["system"]*1e7
	}
	if d, ok := g.dir("cpu"); ok && !d.Unified {
		stat := table(d.Path, "cpu.stat")
		s.CPUStats.ThrottlingData = container.ThrottlingData{Periods: stat["nr_periods"], ThrottledPeriods: stat["nr_throttled"], ThrottledTime: stat["throttled_time"]}
	}
	if d, ok := g.dir("memory"); ok && !d.Unified {
		s.MemoryStats = container.MemoryStats{
			Usage: number(d.Path, "memory.usage_in_bytes"), MaxUsage: number(d.Path, "memory.max_usage_in_bytes"),
			Limit: number(d.Path, "memory.limit_in_bytes"), Failcnt: number(d.Path, "memory.failcnt"), Stats: table(d.Path, "memory.stat"),
		}
	}
	if d, ok := g.dir("pids"); ok {
		s.PidsStats = container.PidsStats{Current: number(d.Path, "pids.current"), Limit: number(d.Path, "pids.max")}
	}
	if d, ok := g.dir("blkio"); ok && !d.Unified {
		s.BlkioStats.IoServiceBytesRecursive = blockEntries(text(d.Path, "blkio.throttle.io_service_bytes_recursive"))
		s.BlkioStats.IoServicedRecursive = blockEntries(text(d.Path, "blkio.throttle.io_serviced_recursive"))
	}
	return s
}

// unifiedUsage reads version 2, which counts time in microseconds.
func unifiedUsage(dir string, s *container.StatsResponse) {
	cpu := table(dir, "cpu.stat")
	s.CPUStats.CPUUsage = container.CPUUsage{TotalUsage: cpu["usage_usec"] * 1000, UsageInUsermode: cpu["user_usec"] * 1000, UsageInKernelmode: cpu["system_usec"] * 1000}
	s.CPUStats.ThrottlingData = container.ThrottlingData{Periods: cpu["nr_periods"], ThrottledPeriods: cpu["nr_throttled"], ThrottledTime: cpu["throttled_usec"] * 1000}
	s.MemoryStats = container.MemoryStats{
		Usage: number(dir, "memory.current"), MaxUsage: number(dir, "memory.peak"), Limit: number(dir, "memory.max"),
		Failcnt: table(dir, "memory.events")["oom"], Stats: table(dir, "memory.stat"),
	}
	for line := range strings.Lines(text(dir, "io.stat")) { // 8:0 rbytes=1 wbytes=2 …
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		major, minor := deviceNumber(fields[0])
		for _, field := range fields[1:] {
			name, value, _ := strings.Cut(field, "=")
			n, err := strconv.ParseUint(value, 10, 64)
			if op := map[string]string{"rbytes": "read", "wbytes": "write"}[name]; err == nil && op != "" {
				s.BlkioStats.IoServiceBytesRecursive = append(s.BlkioStats.IoServiceBytesRecursive, container.BlkioStatEntry{Major: major, Minor: minor, Op: op, Value: n})
			}
		}
	}
}

// blockEntries reads lines such as "8:0 Read 4096"; the total has no device.
func blockEntries(text string) []container.BlkioStatEntry {
	list := []container.BlkioStatEntry{}
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) != 3 {
			continue
		}
		n, err := strconv.ParseUint(fields[2], 10, 64)
		if err != nil {
			continue
		}
		major, minor := deviceNumber(fields[0])
		list = append(list, container.BlkioStatEntry{Major: major, Minor: minor, Op: strings.ToLower(fields[1]), Value: n})
	}
	return list
}

func deviceNumber(text string) (major, minor uint64) {
	a, b, _ := strings.Cut(text, ":")
	major, _ = strconv.ParseUint(a, 10, 32) //nolint:errcheck // the kernel wrote it
	minor, _ = strconv.ParseUint(b, 10, 32) //nolint:errcheck // the kernel wrote it
	return major, minor
}

func text(dir, name string) string {
	content, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(content))
}

// number reads a file with one number; "max" and what is missing are 0.
func number(dir, name string) uint64 {
	n, err := strconv.ParseUint(text(dir, name), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// table reads a file of lines with a name and a number.
func table(dir, name string) map[string]uint64 {
	values := map[string]uint64{}
	for line := range strings.Lines(text(dir, name)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if n, err := strconv.ParseUint(value, 10, 64); err == nil {
			values[key] = n
		}
	}
	return values
}
