package kernel

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Route is an IPv4 or IPv6 route of the machine's own main table.
type Route struct {
	To     netip.Prefix
	Link   string
	Marked bool // the link is one of ours
}

// Routes returns the routes that lead straight to a link, without a gateway:
// the prefixes that the machine takes for its neighbourhood.
func (h *Host) Routes() ([]Route, error) {
	handle, err := h.Links("")
	if err != nil {
		return nil, err
	}
	all, err := Dump(func() ([]netlink.Route, error) { return handle.RouteList(nil, unix.AF_UNSPEC) })
	if err != nil {
		return nil, fmt.Errorf("listing the routes of the host (see: ip route): %w", err)
	}
	links, err := Dump(handle.LinkList)
	if err != nil {
		return nil, fmt.Errorf("listing the links of the host (see: ip link): %w", err)
	}
	byIndex := make(map[int]*netlink.LinkAttrs, len(links))
	for _, link := range links {
		byIndex[link.Attrs().Index] = link.Attrs()
	}
	var routes []Route
	for _, route := range all {
		link := byIndex[route.LinkIndex]
		if link == nil || route.Gw != nil || route.Dst == nil || route.Table != unix.RT_TABLE_MAIN {
			continue
		}
		addr, ok := netip.AddrFromSlice(route.Dst.IP)
		if !ok {
			continue
		}
		bits, _ := route.Dst.Mask.Size()
		routes = append(routes, Route{netip.PrefixFrom(addr.Unmap(), bits), link.Name, link.Group == Mark || link.Group == Doomed})
	}
	return routes, nil
}

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
