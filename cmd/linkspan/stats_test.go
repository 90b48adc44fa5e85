package main

import (
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
)

func TestUsage(t *testing.T) {
	s := container.StatsResponse{
		ID: strings.Repeat("ab", 32), Name: "/web",
		CPUStats:    container.CPUStats{CPUUsage: container.CPUUsage{TotalUsage: 3e9}, SystemUsage: 12e9, OnlineCPUs: 4},
		PreCPUStats: container.CPUStats{CPUUsage: container.CPUUsage{TotalUsage: 2e9}, SystemUsage: 8e9},
		MemoryStats: container.MemoryStats{Usage: 96 << 20, Limit: 256 << 20, Stats: map[string]uint64{"total_inactive_file": 32 << 20}},
		PidsStats:   container.PidsStats{Current: 7},
		Networks:    map[string]container.NetworkStats{"eth0": {RxBytes: 1000, TxBytes: 10}, "eth1": {RxBytes: 500}},
		BlkioStats:  container.BlkioStats{IoServiceBytesRecursive: []container.BlkioStatEntry{{Op: "read", Value: 4096}, {Op: "Write", Value: 1}, {Op: "total", Value: 9}}},
	}
	want := usageRow{
		Container: "web", ID: "abababababab", Name: "web", CPUPerc: "100.00%", MemUsage: "64MiB / 256MiB", MemPerc: "25.00%",
		NetIO: "1.5kB / 10B", BlockIO: "4.1kB / 1B", PIDs: "7",
	}
	if got := usageOf(s, "web", false); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := usageOf(container.StatsResponse{}, "x", false); got.CPUPerc != "0.00%" || got.MemPerc != "0.00%" {
		t.Errorf("of nothing: %+v", got)
	}
}

func TestParseDevice(t *testing.T) {
	for text, want := range map[string]container.DeviceMapping{
		"/dev/a":           {PathOnHost: "/dev/a", PathInContainer: "/dev/a", CgroupPermissions: "rwm"},
		"/dev/a:r":         {PathOnHost: "/dev/a", PathInContainer: "/dev/a", CgroupPermissions: "r"},
		"/dev/a:/dev/b":    {PathOnHost: "/dev/a", PathInContainer: "/dev/b", CgroupPermissions: "rwm"},
		"/dev/a:/dev/b:rw": {PathOnHost: "/dev/a", PathInContainer: "/dev/b", CgroupPermissions: "rw"},
	} {
		if got, err := parseDevice(text); err != nil || got != want {
			t.Errorf("%s: %+v %v", text, got, err)
		}
	}
	for _, text := range []string{"", ":/dev/b", "/dev/a:/dev/b:x", "a:b:r:w"} {
		if got, err := parseDevice(text); err == nil {
			t.Errorf("%s: %+v", text, got)
		}
	}
}

// TestLimitsStory: what runs is looked at and changed by our own command.
func TestLimitsStory(t *testing.T) {
	s := newStory(t)
	s.start()
	s.do("run", "-d", "--name", "web", "--init", "--memory", "64m", "--restart", "on-failure:2", "--log-opt", "max-size=1m", "--rootfs", "/", "--", "sleep", "600")
	if got := s.do("stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}}", "web"); !strings.HasPrefix(got, "web ") || !strings.HasSuffix(got, " / 64MiB") {
		t.Errorf("stats: %s", got)
	}
	if got := s.do("update", "--memory", "128m", "--memory-swap", "128m", "--restart", "no", "web"); got != "web" {
		t.Errorf("update: %s", got)
	}
	if got := s.do("stats", "--no-stream", "--format", "{{.MemUsage}}"); !strings.HasSuffix(got, " / 128MiB") {
		t.Errorf("stats: %s", got)
	}
	if got := s.do("inspect", "--format", "{{.HostConfig.RestartPolicy.Name}} {{.HostConfig.Memory}}", "web"); got != "no 134217728" {
		t.Errorf("inspect: %s", got)
	}
	if got := s.do("top", "web"); !strings.Contains(got, "/sbin/docker-init -- sleep 600") {
		t.Errorf("top: %s", got)
	}
	if out, err := s.try("update", "--memory", "1", "web"); err == nil || !strings.Contains(out, "Minimum memory limit allowed is 6MB") {
		t.Errorf("too little: %v %s", err, out)
	}
	s.do("restart", "-t", "0", "web")
	s.do("pause", "web")
	s.do("unpause", "web")
	s.do("rename", "web", "web2")
	s.do("rm", "-f", "web2")
	s.leave()
}
