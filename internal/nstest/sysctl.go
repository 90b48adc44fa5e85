package nstest

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan/kernel"
)

// sysctls maps paths below /proc/sys/net to values.
type sysctls map[string]string

// counted lists sysctls that the kernel changes by itself.
var counted = map[string]bool{"netfilter/nf_conntrack_count": true}

// sysctls reads everything under /proc/sys/net as the namespace sees it.
func (m *Machine) sysctls(tb testing.TB, ns string) sysctls {
	tb.Helper()
	host, err := kernel.OpenAt(kernel.Pin(ns))
	if err != nil {
		tb.Fatal(err)
	}
	defer host.Close()
	const root = "/proc/sys/net"
	all := make(sysctls)
	buffer := make([]byte, 4096) // a sysctl is at most a page
	err = host.Inside("", func() error {
		return filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return nil //nolint:nilerr // a link's directory may vanish under the walk
			}
			value, err := readPage(path, buffer)
			if err != nil {
				return nil //nolint:nilerr // some can only be written, or have no value yet
			}
			if key := strings.TrimPrefix(path, root+"/"); !counted[key] {
				all[key] = strings.Join(strings.Fields(value), " ")
			}
			return nil
		})
	})
	if err != nil {
		tb.Fatal(err)
	}
	return all
}

// readPage reads a file with three system calls. There are more than a thousand
// sysctls, and os.ReadFile makes seven of each.
func readPage(path string, buffer []byte) (string, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	n, err := unix.Read(fd, buffer)
	if err != nil {
		return "", err
	}
	return string(buffer[:n]), nil
}

// beyond lists what differs from a fresh namespace. A link that the fresh one
// does not have is compared with the defaults for new links.
func (s sysctls) beyond(fresh sysctls) []string {
	var lines []string
	for key, value := range s {
		usual, known := fresh[key]
		if !known {
			usual, known = fresh[defaultKey(key)]
		}
		if !known || usual != value {
			lines = append(lines, fmt.Sprintf("sysctl net/%s = %s", key, value))
		}
	}
	return lines
}

// defaultKey turns ipv4/conf/eth0/rp_filter into ipv4/conf/default/rp_filter.
// Only the first namespace of a machine shows neigh/default: lo has its values.
func defaultKey(key string) string {
	parts := strings.Split(key, "/")
	if len(parts) < 4 {
		return key
	}
	parts[2] = "default"
	if parts[1] == "neigh" {
		parts[2] = "lo"
	}
	return strings.Join(parts, "/")
}
