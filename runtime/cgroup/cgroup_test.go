package cgroup

import (
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
)

func TestParseMounts(t *testing.T) {
	tests := []struct {
		name, mountinfo string
		want            []Hierarchy
	}{
		{
			"version 1 with controllers mounted together, and twice",
			`25 1 0:22 / / rw - ext4 /dev/sda rw
31 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 / /mnt/again rw - cgroup cgroup rw,cpu,cpuacct
33 30 0:31 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/lib/x,name=systemd`,
			[]Hierarchy{
				{Mount: "/sys/fs/cgroup/cpu,cpuacct", Controllers: []string{"cpu", "cpuacct"}},
				{Mount: "/sys/fs/cgroup/systemd", Controllers: []string{"name=systemd"}},
			},
		},
		{
			"version 2, at a place with a blank",
			`31 30 0:28 / /sys/fs/c\040group rw shared:1 master:2 - cgroup2 cgroup2 rw,nsdelegate`,
			[]Hierarchy{{Mount: "/sys/fs/c group", Unified: true}},
		},
		{"nothing, and nonsense", "\n31 30\n - cgroup cgroup\n1 2 3 4 5 6 - cgroup", nil},
	}
	for _, test := range tests {
		got, err := parseMounts(strings.NewReader(test.mountinfo))
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
		if diff := gocmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s: %s", test.name, diff)
		}
	}
}

func TestSettings(t *testing.T) {
	tests := []struct {
		name   string
		limits Limits
		v1, v2 string
	}{
		{"none", Limits{}, "", ""},
		{
			"memory",
			Limits{Memory: 64 << 20, MemorySwap: 128 << 20, Reservation: 1 << 20},
			"memory.limit_in_bytes=67108864 memory.soft_limit_in_bytes=1048576 memory.memsw.limit_in_bytes=134217728",
			"memory.max=67108864 memory.low=1048576 memory.swap.max=67108864",
		},
		{"memory with any swap", Limits{Memory: 8 << 20, MemorySwap: -1}, "memory.limit_in_bytes=8388608", "memory.max=8388608 memory.swap.max=max"},
		{"cpu", Limits{CPUQuota: 50_000, CPUShares: 1024}, "cpu.cfs_period_us=100000 cpu.cfs_quota_us=50000 cpu.shares=1024", "cpu.max=50000 100000 cpu.weight=39"},
		{"least and most shares", Limits{CPUShares: 2}, "cpu.shares=2", "cpu.weight=1"},
		{"most shares", Limits{CPUShares: 262144}, "cpu.shares=262144", "cpu.weight=10000"},
		{"period", Limits{CPUPeriod: 50_000}, "cpu.cfs_period_us=50000", "cpu.max=max 50000"},
		{"taken away", Limits{CPUQuota: Unlimited, Pids: Unlimited}, "cpu.cfs_period_us=100000 cpu.cfs_quota_us=-1 pids.max=max", "cpu.max=max 100000 pids.max=max"},
		{"cpuset and pids", Limits{CpusetCPUs: "0-1", CpusetMems: "0", Pids: 10}, "cpuset.cpus=0-1 cpuset.mems=0 pids.max=10", "cpuset.cpus=0-1 cpuset.mems=0 pids.max=10"},
	}
	for _, test := range tests {
		for unified, want := range map[bool]string{false: test.v1, true: test.v2} {
			var got []string
			for _, controller := range []string{"memory", "cpu", "cpuset", "pids"} {
				for _, s := range test.limits.settings(controller, unified) {
					got = append(got, s[0]+"="+s[1])
				}
			}
			if strings.Join(got, " ") != want {
				t.Errorf("%s, unified %v: got %q, want %q", test.name, unified, strings.Join(got, " "), want)
			}
		}
	}
}
