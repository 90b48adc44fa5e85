package runtime

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/sys/capability"
	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/runtime/seccomp"
)

// defaultCaps is Docker's list.
var defaultCaps = [...]capability.Cap{
	capability.CAP_CHOWN, capability.CAP_DAC_OVERRIDE, capability.CAP_FSETID, capability.CAP_FOWNER, capability.CAP_MKNOD,
	capability.CAP_NET_RAW, capability.CAP_SETGID, capability.CAP_SETUID, capability.CAP_SETFCAP, capability.CAP_SETPCAP,
	capability.CAP_NET_BIND_SERVICE, capability.CAP_SYS_CHROOT, capability.CAP_KILL, capability.CAP_AUDIT_WRITE,
}

func ownCapabilities() (uint64, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return 0, fmt.Errorf("reading own capabilities: %w", err)
	}
	return uint64(data[1].Permitted)<<32 | uint64(data[0].Permitted), nil
}

// capabilities returns the mask of what a process gets: Docker's default,
// without the dropped, with the added ones; ALL is understood in both lists.
// What the daemon has not got it cannot give.
func (r *Runtime) capabilities(h *container.HostConfig, privileged bool) (uint64, error) {
	if privileged {
		return r.caps, nil
	}
	add, err := parseCaps(h.CapAdd)
	if err != nil {
		return 0, fmt.Errorf("invalid CapAdd: %w", err)
	}
	drop, err := parseCaps(h.CapDrop)
	if err != nil {
		return 0, fmt.Errorf("invalid CapDrop: %w", err)
	}
	mask := uint64(0)
	for _, c := range defaultCaps {
		mask |= 1 << uint(c)
	}
	// An explicit name is stronger than ALL on the other side.
	switch {
	case slices.ContainsFunc(h.CapDrop, isAll):
		mask = add
	case slices.ContainsFunc(h.CapAdd, isAll):
		mask = add &^ drop
	default:
		mask = mask&^drop | add
	}
	if !r.cgroups.Has("devices") && !r.hasDeviceFilter() {
		// Without the devices list the right to make nodes is the right to
		// read the host's disks.
		mask &^= 1 << uint(capability.CAP_MKNOD)
	}
	return mask & r.caps, nil
}

// hasDeviceFilter: version 2 filters devices by a BPF program, which is not
// written yet.
func (r *Runtime) hasDeviceFilter() bool { return false }

func isAll(name string) bool { return strings.EqualFold(name, "ALL") }

func parseCaps(names []string) (uint64, error) {
	mask := uint64(0)
	for _, name := range names {
		if isAll(name) {
			mask |= 1<<63 - 1
			continue
		}
		wanted := strings.TrimPrefix(strings.ToLower(name), "cap_")
		i := slices.IndexFunc(capability.ListKnown(), func(c capability.Cap) bool { return c.String() == wanted })
		if i < 0 {
			return 0, linkspan.Errorf(linkspan.ErrInvalid, "unknown capability: %q", name)
		}
		mask |= 1 << uint(capability.ListKnown()[i])
	}
	return mask, nil
}

func capNames(mask uint64) []string {
	var names []string
	for _, c := range capability.ListKnown() {
		if mask&(1<<uint(c)) != 0 {
			names = append(names, "CAP_"+strings.ToUpper(c.String()))
		}
	}
	return names
}

// security is --security-opt.
type security struct {
	noNewPrivs bool
	unconfined bool   // no filter
	profile    string // JSON; "" is the default one
	openPaths  bool   // no masked and read-only paths
	cgroups    bool   // /sys/fs/cgroup can be written to
}

func parseSecurity(options []string) (security, error) {
	var s security
	for _, o := range options {
		key, value, found := strings.Cut(o, "=")
		if !found {
			key, value, found = strings.Cut(o, ":")
		}
		switch {
		case key == "no-new-privileges":
			s.noNewPrivs = !found || value == "true"
		case key == "seccomp" && value == "unconfined":
			s.unconfined = true
		case key == "seccomp" && value == "builtin":
		case key == "seccomp":
			s.profile = value
		case key == "systempaths" && value == "unconfined":
			s.openPaths = true
		case (key == "apparmor" || key == "label") && found: // this kernel's daemon has neither to apply
		case key == "writable-cgroups" && (!found || value == "true" || value == "false"):
			s.cgroups = !found || value == "true"
		case found:
			return s, linkspan.Errorf(linkspan.ErrInvalid, "invalid --security-opt 2: %q", o)
		default:
			return s, linkspan.Errorf(linkspan.ErrInvalid, "invalid --security-opt 1: %q", o)
		}
	}
	return s, nil
}

// filters keeps compiled default filters, of which there are as many as sets
// of capabilities in use.
type filters struct {
	mu     sync.Mutex
	byCaps map[uint64][]byte
}

func (f *filters) forProcess(s security, caps uint64, privileged bool) ([]byte, error) {
	if s.unconfined || privileged && s.profile == "" {
		return nil, nil
	}
	if s.profile != "" {
		return seccomp.Profile(s.profile, capNames(caps))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if filter, ok := f.byCaps[caps]; ok {
		return filter, nil
	}
	filter, err := seccomp.Default(capNames(caps))
	if err != nil {
		return nil, err
	}
	if f.byCaps == nil {
		f.byCaps = map[uint64][]byte{}
	}
	f.byCaps[caps] = filter
	return filter, nil
}
