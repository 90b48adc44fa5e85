package runtime

import (
	"cmp"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/runtime/launch"
)

// checkShares refuses modes of namespaces that make no sense, and donors that
// do not exist. One that does not run is the start's business.
func (r *Runtime) checkShares(cfg *container.Config, h *container.HostConfig) error {
	switch {
	case !h.PidMode.Valid() || h.PidMode.IsContainer() && h.PidMode.Container() == "":
		return linkspan.Errorf(linkspan.ErrInvalid, "invalid PID mode: %s", h.PidMode)
	case !h.IpcMode.Valid() || h.IpcMode.IsContainer() && h.IpcMode.Container() == "":
		return linkspan.Errorf(linkspan.ErrInvalid, "invalid IPC mode: %s", h.IpcMode)
	case !h.UTSMode.Valid():
		return linkspan.Errorf(linkspan.ErrInvalid, "invalid UTS mode: %s", h.UTSMode)
	case h.UTSMode.IsHost() && cfg.Hostname != "":
		return linkspan.Errorf(linkspan.ErrInvalid, "conflicting options: hostname and the UTS mode")
	}
	for _, donor := range []string{h.PidMode.Container(), h.IpcMode.Container()} {
		if donor == "" {
			continue
		}
		if _, err := r.Get(donor); err != nil {
			return linkspan.Errorf(linkspan.ErrInvalid, "%w", err)
		}
	}
	return nil
}

// share fills in whose namespaces a start is to have.
func (r *Runtime) share(c Container, s *launch.Spec) error {
	h := c.HostConfig
	s.HostUts = h.UTSMode.IsHost()
	s.Pid.Host, s.Ipc.Host = h.PidMode.IsHost(), h.IpcMode.IsHost()
	s.NoShm = h.IpcMode.IsNone()
	if h.PidMode.IsContainer() {
		donor, err := r.donor(c, h.PidMode.Container(), "PID")
		if err != nil {
			return err
		}
		s.Pid.Pid = donor.State.Pid
	}
	if h.IpcMode.IsContainer() {
		donor, err := r.donor(c, h.IpcMode.Container(), "IPC")
		if err != nil {
			return err
		}
		if mode := donor.HostConfig.IpcMode; !mode.IsShareable() && !mode.IsHost() {
			return linkspan.Errorf(linkspan.ErrInvalid, "can't join IPC of container %s: non-shareable IPC (hint: use IpcMode:shareable for the donor container)", donor.ID)
		}
		s.Ipc.Pid = donor.State.Pid
	}
	return nil
}

// checkNetworkDonor refuses a start on the network stack of a container that has
// none at the moment, in the words for its state.
func (r *Runtime) checkNetworkDonor(c Container) error {
	mode := c.HostConfig.NetworkMode
	if !mode.IsContainer() {
		return nil
	}
	donor, err := r.donor(c, mode.ConnectedContainer(), "network")
	if donor.ID != "" && donor.ID != c.ID && !donor.State.Running() && !isStatus(donor, container.StateRestarting) {
		return linkspan.Errorf(linkspan.ErrConflict, "cannot join network namespace of a non running container: container %s is %s", donor.Name, donor.State.Status)
	}
	return err
}

// donor finds the running container whose namespace is to be shared.
func (r *Runtime) donor(c Container, ref, kind string) (Container, error) {
	donor, err := r.Get(ref)
	switch {
	case err != nil:
		return donor, fmt.Errorf("joining %s namespace of container: %w", kind, err)
	case donor.ID == c.ID:
		return donor, linkspan.Errorf(linkspan.ErrInvalid, "cannot join own %s namespace", kind)
	case isStatus(donor, container.StateRestarting):
		return donor, linkspan.Errorf(linkspan.ErrConflict, "cannot join %s namespace of container: %w", kind, errRestarting(ref))
	case !donor.State.Running():
		return donor, fmt.Errorf("failed to join %s namespace: container %s is not running", kind, donor.ID)
	}
	return donor, nil
}

// devicesOf looks up the nodes that the container is to have, and returns them
// with the lines of the cgroup's allow-list. A folder stands for all devices in
// it; a privileged container has all of the host.
func devicesOf(h *container.HostConfig) ([]launch.Device, []string, error) {
	wanted := h.Devices
	if h.Privileged {
		wanted = append([]container.DeviceMapping{{PathOnHost: "/dev", PathInContainer: "/dev"}}, wanted...)
	}
	var list []launch.Device
	rules := append([]string{}, h.DeviceCgroupRules...)
	for _, m := range wanted {
		target, rights := cmp.Or(m.PathInContainer, m.PathOnHost), cmp.Or(m.CgroupPermissions, "rwm")
		if !filepath.IsAbs(target) || strings.Trim(rights, "rwm") != "" {
			return nil, nil, linkspan.Errorf(linkspan.ErrInvalid, "invalid device mapping %s:%s:%s", m.PathOnHost, m.PathInContainer, m.CgroupPermissions)
		}
		found, err := nodesAt(m.PathOnHost, target)
		if err != nil {
			return nil, nil, linkspan.Errorf(linkspan.ErrInvalid, "error gathering device information while adding custom device %q: %w", m.PathOnHost, err)
		}
		for _, d := range found {
			kind := "c"
			if d.Mode&unix.S_IFMT == unix.S_IFBLK {
				kind = "b"
			}
			rules = append(rules, fmt.Sprintf("%s %d:%d %s", kind, d.Major, d.Minor, rights))
		}
		list = append(list, found...)
	}
	return list, rules, nil
}

// nodesAt returns the device at a path, or those in the folder there, but for
// what a container has of its own.
func nodesAt(host, target string) ([]launch.Device, error) {
	if d, ok, err := nodeAt(host, target); ok || err != nil {
		return []launch.Device{d}, err
	}
	var list []launch.Device
	err := filepath.WalkDir(host, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			switch entry.Name() {
			case "pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev":
				return filepath.SkipDir
			}
			return nil
		}
		if entry.Type()&fs.ModeDevice == 0 || entry.Name() == "console" {
			return nil
		}
		d, ok, err := nodeAt(path, target+strings.TrimPrefix(path, host))
		if ok {
			list = append(list, d)
		}
		return err
	})
	if err == nil && len(list) == 0 {
		err = linkspan.Errorf(linkspan.ErrInvalid, "not a device node")
	}
	return list, err
}

func nodeAt(host, target string) (launch.Device, bool, error) {
	var st unix.Stat_t
	if err := unix.Stat(host, &st); err != nil {
		return launch.Device{}, false, &os.PathError{Op: "stat", Path: host, Err: err}
	}
	kind := st.Mode & unix.S_IFMT
	if kind != unix.S_IFCHR && kind != unix.S_IFBLK {
		return launch.Device{}, false, nil
	}
	return launch.Device{
		Target: target, Mode: int(st.Mode), Major: int(unix.Major(st.Rdev)), Minor: int(unix.Minor(st.Rdev)), UID: int(st.Uid), GID: int(st.Gid),
	}, true, nil
}

// checkDevices looks at the rules that go to the kernel as they are.
func checkDevices(h *container.HostConfig) error {
	for _, rule := range h.DeviceCgroupRules {
		var kind, number, rights string
		n, _ := fmt.Sscanf(rule, "%s %s %s", &kind, &number, &rights) //nolint:errcheck // the count tells
		if n != 3 || !strings.Contains("abc", kind) || len(kind) != 1 || strings.Trim(number, "0123456789:*") != "" || strings.Trim(rights, "rwm") != "" {
			return linkspan.Errorf(linkspan.ErrInvalid, "invalid device cgroup rule format: '%s'", rule)
		}
	}
	return nil
}
