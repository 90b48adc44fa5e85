package runtime

import (
	"bufio"
	"bytes"
	"context"
	"os"
	goruntime "runtime"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
)

// Stats reads what the container uses at this moment. One that does not run
// uses nothing: the answer then has the name alone.
func (r *Runtime) Stats(_ context.Context, ref string) (container.StatsResponse, error) {
	e, err := r.find(ref)
	if err != nil {
		return container.StatsResponse{}, err
	}
	c := e.get()
	s := container.StatsResponse{}
	if c.State.Running() {
		s = r.cgroups.Group(c.group()).Usage()
		s.Read = time.Now().UTC()
		s.CPUStats.SystemUsage, s.CPUStats.OnlineCPUs = machineTime(), uint32(goruntime.NumCPU())
		if total := machineMemory(); s.MemoryStats.Limit == 0 || s.MemoryStats.Limit > total {
			s.MemoryStats.Limit = total
		}
		if !c.HostConfig.NetworkMode.IsHost() {
			s.Networks = linkCounters(c.State.Pid)
		}
	}
	s.ID, s.Name, s.OSType = string(c.ID), "/"+c.Name, "linux"
	return s, nil
}

// linkCounters reads the counters of all links but lo of a process's network
// stack (proc(5), net/dev).
func linkCounters(pid int) map[string]container.NetworkStats {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/net/dev")
	if err != nil {
		return nil // it has ended
	}
	counters := map[string]container.NetworkStats{}
	for line := range strings.Lines(string(text)) {
		name, rest, found := strings.Cut(line, ":")
		fields := strings.Fields(rest)
		if name = strings.TrimSpace(name); !found || len(fields) < 16 || name == "lo" {
			continue
		}
		column := func(i int) uint64 {
			n, _ := strconv.ParseUint(fields[i], 10, 64) //nolint:errcheck // the kernel wrote it
			return n
		}
		counters[name] = container.NetworkStats{
			RxBytes: column(0), RxPackets: column(1), RxErrors: column(2), RxDropped: column(3),
			TxBytes: column(8), TxPackets: column(9), TxErrors: column(10), TxDropped: column(11),
		}
	}
	return counters
}

// machineTime is the time of all processors since boot in nanoseconds, busy
// and idle (proc(5), stat), which shares of a container are reckoned from.
func machineTime() uint64 {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := bytes.Cut(text, []byte("\n"))
	ticks := uint64(0)
	for i, field := range strings.Fields(string(line)) {
		if i == 0 || i > 7 { // guest time is in user time already
			continue
		}
		n, err := strconv.ParseUint(field, 10, 64)
		if err != nil {
			return 0
		}
		ticks += n
	}
	return ticks * 1e7
}

// machineMemory is in bytes.
func machineMemory() uint64 {
	file, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0
	}
	defer file.Close()
	scanner := bufio.NewScanner(file)
	for scanner.Scan() {
		if rest, ok := strings.CutPrefix(scanner.Text(), "MemTotal:"); ok {
			kib, _ := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64) //nolint:errcheck // the kernel wrote it
			return kib << 10
		}
	}
	return 0
}
