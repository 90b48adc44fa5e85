package kernel

import (
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// RouterLinks returns the names of the machine's links by which it learned an
// IPv6 default route from a router's advertisement (RFC 4861), sorted. It
// forgets those routes when it becomes a router itself, unless accept_ra of
// the link is 2 (Documentation/networking/ip-sysctl.rst).
func (h *Host) RouterLinks() ([]string, error) {
	handle, err := h.Links("")
	if err != nil {
		return nil, err
	}
	routes, err := Dump(func() ([]netlink.Route, error) {
		return handle.RouteListFiltered(unix.AF_INET6, &netlink.Route{Protocol: unix.RTPROT_RA}, netlink.RT_FILTER_PROTOCOL)
	})
	if err != nil {
		return nil, fmt.Errorf("listing the routes learned from routers (see: ip -6 route show proto ra): %w", err)
	}
	var names []string
	for _, route := range routes {
		if ones := prefixLength(route); ones != 0 {
			continue
		}
		link, err := handle.LinkByIndex(route.LinkIndex)
		if IsGone(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("looking up link %d: %w", route.LinkIndex, err)
		}
		names = append(names, link.Attrs().Name)
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

func prefixLength(route netlink.Route) int {
	if route.Dst == nil {
		return 0
	}
	ones, _ := route.Dst.Mask.Size()
	return ones
}
