package kernel

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan"
)

// Underlay is what tunnels from an address of the machine's own travel on.
type Underlay struct {
	Link string
	MTU  int // bytes
}

// Underlay finds the link that has an address. The address of a loopback link,
// as hosts with several uplinks have, may leave by any of the others: then it is
// the foreign one with the smallest MTU. An address that the machine does not
// have is an error of kind linkspan.ErrNotFound.
func (h *Host) Underlay(addr netip.Addr) (Underlay, error) {
	handle, err := h.Links("")
	if err != nil {
		return Underlay{}, err
	}
	addrs, err := Dump(func() ([]netlink.Addr, error) { return handle.AddrList(nil, unix.AF_UNSPEC) })
	if err != nil {
		return Underlay{}, fmt.Errorf("listing the addresses of the host (see: ip addr): %w", err)
	}
	index := 0
	for _, there := range addrs {
		if ip, ok := netip.AddrFromSlice(there.IP); ok && ip.Unmap() == addr.Unmap() {
			index = there.LinkIndex
		}
	}
	if index == 0 {
		return Underlay{}, linkspan.Errorf(linkspan.ErrNotFound, "no link of this host has address %s (see: ip addr)", addr)
	}
	links, err := Dump(handle.LinkList)
	if err != nil {
		return Underlay{}, fmt.Errorf("listing the links of the host (see: ip link): %w", err)
	}
	var found, smallest Underlay
	loopback := false
	for _, link := range links {
		attrs := link.Attrs()
		if attrs.Index == index {
			found = Underlay{Link: attrs.Name, MTU: attrs.MTU}
			loopback = attrs.Flags&net.FlagLoopback != 0
		}
		foreign := attrs.Group != Mark && attrs.Group != Doomed && attrs.Flags&net.FlagLoopback == 0
		if foreign && attrs.Flags&net.FlagUp != 0 && (smallest.MTU == 0 || attrs.MTU < smallest.MTU) {
			smallest = Underlay{Link: attrs.Name, MTU: attrs.MTU}
		}
	}
	if loopback && smallest.MTU != 0 {
		return smallest, nil
	}
	return found, nil
}
