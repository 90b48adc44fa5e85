package runtime

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/mount"
	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/runtime/launch"
)

// mountings are what the shim is to mount: the user's things, and our files in
// /etc unless the user has put something there.
func mountings(c Container, a Attachment) ([]launch.Mount, error) {
	list := make([]launch.Mount, 0, len(c.Mounts)+3)
	for _, m := range c.Mounts {
		list = append(list, m.mounting())
	}
	for target, options := range c.HostConfig.Tmpfs {
		flags, data, err := tmpfsOptions(options)
		if err != nil {
			return nil, err
		}
		list = append(list, launch.Mount{Target: target, Type: "tmpfs", Flags: flags, Data: data})
	}
	for _, own := range [][2]string{{a.Hosts, "/etc/hosts"}, {a.ResolvConf, "/etc/resolv.conf"}, {a.Hostname, "/etc/hostname"}} {
		taken := slices.ContainsFunc(list, func(m launch.Mount) bool { return filepath.Clean(m.Target) == own[1] })
		if own[0] != "" && !taken {
			m := launch.Mount{Source: own[0], Target: own[1], Type: "bind"}
			if c.HostConfig.ReadonlyRootfs {
				m.Flags |= unix.MS_RDONLY
			}
			list = append(list, m)
		}
	}
	// A mount below another must come after it.
	slices.SortStableFunc(list, func(a, b launch.Mount) int {
		return strings.Count(filepath.Clean(a.Target), "/") - strings.Count(filepath.Clean(b.Target), "/")
	})
	return list, nil
}

func (m Mount) mounting() launch.Mount {
	if m.Type == mount.TypeTmpfs {
		flags := m.Flags
		if !m.RW {
			flags |= unix.MS_RDONLY
		}
		return launch.Mount{Target: m.Destination, Type: "tmpfs", Flags: flags, Data: m.Data}
	}
	out := launch.Mount{Source: m.Source, Target: m.Destination, Type: "bind", Subpath: m.Subpath, TopOnly: m.TopOnly}
	if !m.NonRecursive {
		out.Flags |= unix.MS_REC
	}
	if !m.RW {
		out.Flags |= unix.MS_RDONLY
	}
	switch m.Propagation {
	case mount.PropagationShared, mount.PropagationRShared:
		out.Flags |= unix.MS_SHARED
	case mount.PropagationSlave, mount.PropagationRSlave:
		out.Flags |= unix.MS_SLAVE
	case mount.PropagationPrivate, mount.PropagationRPrivate:
	}
	return out
}

// parseTmpfs checks an entry of HostConfig.Tmpfs and returns its place.
func parseTmpfs(target, options string) (string, error) {
	clean, err := destination(target, target)
	if err != nil {
		return "", err
	}
	_, _, err = tmpfsOptions(options)
	return clean, err
}

// tmpfsOf reads the options of a mount of type tmpfs.
func tmpfsOf(m mount.Mount) (flags int, data string, err error) {
	o := m.TmpfsOptions
	if o == nil {
		return tmpfsOptions("")
	}
	var words []string
	for _, option := range o.Options {
		words = append(words, strings.Join(option, "="))
	}
	if o.SizeBytes < 0 {
		return 0, "", linkspan.Errorf(linkspan.ErrInvalid, "invalid tmpfs size: %d", o.SizeBytes)
	}
	if o.SizeBytes > 0 {
		words = append(words, "size="+strconv.FormatInt(o.SizeBytes, 10))
	}
	if o.Mode != 0 {
		words = append(words, fmt.Sprintf("mode=%o", o.Mode))
	}
	return tmpfsOptions(strings.Join(words, ","))
}

// tmpfsOptions parts the words of mount(8) into flags and what is for tmpfs(5).
// Programs, devices and set-user-ID files work on it only if asked for.
func tmpfsOptions(text string) (flags int, data string, err error) {
	flags = noExec
	var rest []string
	for word := range strings.SplitSeq(text, ",") {
		key, _, _ := strings.Cut(word, "=")
		switch key {
		case "":
		case "defaults", "rw", "async", "relatime", "diratime":
		case "ro":
			flags |= unix.MS_RDONLY
		case "exec":
			flags &^= unix.MS_NOEXEC
		case "noexec":
			flags |= unix.MS_NOEXEC
		case "suid":
			flags &^= unix.MS_NOSUID
		case "nosuid":
			flags |= unix.MS_NOSUID
		case "dev":
			flags &^= unix.MS_NODEV
		case "nodev":
			flags |= unix.MS_NODEV
		case "noatime":
			flags |= unix.MS_NOATIME
		case "nodiratime":
			flags |= unix.MS_NODIRATIME
		case "strictatime":
			flags |= unix.MS_STRICTATIME
		case "sync":
			flags |= unix.MS_SYNCHRONOUS
		case "size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol", "huge", "inode32", "inode64":
			rest = append(rest, word)
		default:
			return 0, "", linkspan.Errorf(linkspan.ErrInvalid, "invalid tmpfs option [%q]", word)
		}
	}
	return flags, strings.Join(rest, ","), nil
}
