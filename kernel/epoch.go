package kernel

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Epoch names the life of this machine's kernel state: it changes with a boot
// and with the network namespace.
func (h *Host) Epoch() (string, error) {
	boot, err := h.ReadSysctl("", "kernel/random/boot_id")
	if err != nil {
		return "", err
	}
	fd, err := h.FD("")
	if err != nil {
		return "", err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return "", fmt.Errorf("identifying own network namespace: %w", err)
	}
	return fmt.Sprintf("%s net:[%d]", boot, st.Ino), nil
}

// MarkedLinks returns the names of the links of the machine's own namespace
// that bear Mark.
func (h *Host) MarkedLinks() ([]string, error) {
	handle, err := h.Links("")
	if err != nil {
		return nil, err
	}
	links, err := Dump(handle.LinkList)
	if err != nil {
		return nil, fmt.Errorf("listing the links of the host (see: ip link): %w", err)
	}
	var names []string
	for _, link := range links {
		if link.Attrs().Group == Mark {
			names = append(names, link.Attrs().Name)
		}
	}
	return names, nil
}

// MAC returns the Ethernet address of a link in a namespace.
func (h *Host) MAC(ns, link string) (string, error) {
	links, err := h.Links(ns)
	if err != nil {
		return "", err
	}
	found, err := links.LinkByName(link)
	if err != nil {
		return "", fmt.Errorf("looking up link %s in %s: %w", link, nameOf(ns), err)
	}
	return found.Attrs().HardwareAddr.String(), nil
}
