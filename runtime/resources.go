package runtime

import (
	"runtime"

	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/runtime/cgroup"
)

const leastMemory = 6 << 20 // bytes: less, and nothing starts

// limitsOf translates HostConfig's resources, by Docker's rules.
func limitsOf(h *container.HostConfig) (cgroup.Limits, error) {
	l := cgroup.Limits{
		Memory: h.Memory, MemorySwap: h.MemorySwap, Reservation: h.MemoryReservation, CPUShares: h.CPUShares, CPUQuota: h.CPUQuota,
		CPUPeriod: h.CPUPeriod, CpusetCPUs: h.CpusetCpus, CpusetMems: h.CpusetMems, AllDevices: h.Privileged,
		NoOOMKill: h.OomKillDisable != nil && *h.OomKillDisable, BlockWeight: h.BlkioWeight,
	}
	if err := checkResources(h); err != nil {
		return l, err
	}
	if h.MemorySwappiness != nil && *h.MemorySwappiness != -1 {
		l.Swappiness = h.MemorySwappiness
	}
	if h.PidsLimit != nil {
		if l.Pids = *h.PidsLimit; l.Pids <= 0 {
			l.Pids = cgroup.Unlimited
		}
	}
	if h.Memory > 0 && h.MemorySwap == 0 {
		l.MemorySwap = 2 * h.Memory
	}
	if h.NanoCPUs > 0 {
		l.CPUPeriod = 100_000
		l.CPUQuota = h.NanoCPUs * l.CPUPeriod / 1_000_000_000
	}
	var err error
	l.Block, err = blockLimits(h)
	return l, err
}

// checkResources refuses limits that make no sense, alone or together, or on no
// machine like this.
func checkResources(h *container.HostConfig) error {
	refuse := func(format string, args ...any) error { return linkspan.Errorf(linkspan.ErrInvalid, format, args...) }
	cpus := int64(runtime.NumCPU())
	swappiness := int64(-1)
	if h.MemorySwappiness != nil {
		swappiness = *h.MemorySwappiness
	}
	switch {
	case h.Memory != 0 && h.Memory < leastMemory:
		return refuse("Minimum memory limit allowed is 6MB")
	case h.MemorySwap > 0 && h.MemorySwap < h.Memory:
		return refuse("Minimum memoryswap limit should be larger than memory limit, see usage")
	case h.MemorySwap > 0 && h.Memory == 0:
		return refuse("You should always set the Memory limit when using Memoryswap limit, see usage")
	case swappiness < -1 || swappiness > 100:
		return refuse("Invalid value: %d, valid memory swappiness range is 0-100", swappiness)
	case h.MemoryReservation != 0 && h.MemoryReservation < leastMemory:
		return refuse("Minimum memory reservation allowed is 6MB")
	case h.Memory > 0 && h.MemoryReservation > h.Memory:
		return refuse("Minimum memory limit can not be less than memory reservation limit, see usage")
	case h.OomScoreAdj < -1000 || h.OomScoreAdj > 1000:
		return refuse("Invalid value %d, range for oom score adj is [-1000, 1000]", h.OomScoreAdj)
	case h.ShmSize < 0:
		return refuse("SHM size can not be less than 0")
	case h.NanoCPUs > 0 && h.CPUPeriod > 0:
		return refuse("Conflicting options: Nano CPUs and CPU Period cannot both be set")
	case h.NanoCPUs > 0 && h.CPUQuota > 0:
		return refuse("Conflicting options: Nano CPUs and CPU Quota cannot both be set")
	case h.NanoCPUs < 0 || h.NanoCPUs > cpus*1_000_000_000:
		return refuse("range of CPUs is from 0.01 to %d.00, as there are only %d CPUs available", cpus, cpus)
	case h.CPUShares < 0:
		return refuse("invalid CPU shares (%d): value must be a positive integer", h.CPUShares)
	case h.CPUPeriod != 0 && (h.CPUPeriod < 1000 || h.CPUPeriod > 1_000_000):
		return refuse("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
	case h.CPUQuota > 0 && h.CPUQuota < 1000:
		return refuse("CPU cfs quota can not be less than 1ms (i.e. 1000)")
	case h.BlkioWeight != 0 && (h.BlkioWeight < 10 || h.BlkioWeight > 1000):
		return refuse("Range of blkio weight is from 10 to 1000")
	}
	return nil
}

// blockLimits looks up the devices of limits on block I/O.
func blockLimits(h *container.HostConfig) ([]cgroup.BlockLimit, error) {
	var list []cgroup.BlockLimit
	for _, family := range []struct {
		kind    string
		devices []*blkiodev.ThrottleDevice
	}{
		{"read_bps", h.BlkioDeviceReadBps},
		{"write_bps", h.BlkioDeviceWriteBps},
		{"read_iops", h.BlkioDeviceReadIOps},
		{"write_iops", h.BlkioDeviceWriteIOps},
	} {
		for _, d := range family.devices {
			if d == nil {
				return nil, linkspan.Errorf(linkspan.ErrInvalid, "invalid limit on block I/O: null")
			}
			var st unix.Stat_t
			if err := unix.Stat(d.Path, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFBLK {
				return nil, linkspan.Errorf(linkspan.ErrInvalid, "limiting block I/O: %s is not a block device", d.Path)
			}
			list = append(list, cgroup.BlockLimit{Major: unix.Major(st.Rdev), Minor: unix.Minor(st.Rdev), Kind: family.kind, Rate: d.Rate})
		}
	}
	return list, nil
}
