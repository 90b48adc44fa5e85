package kernel

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Link is a link as ip -d link and ip addr show it together.
type Link struct {
	Name      string
	Index     int
	Kind      string // bridge, veth, macvlan …; "device" for one that no kind made
	MAC       string
	MTU       int
	Up        bool
	Marked    bool   // the link is one of ours
	Master    string // the bridge that it is a port of; "" for none
	Peer      int    // index of the other end or the parent; 0: none
	PeerNS    int    // id of the namespace of the peer, see NamespaceID; -1: this one
	Addresses []netip.Prefix
}

// Survey lists the links of a namespace in order of their indexes, "" for the
// machine's own. Links that wait for the reaper are left out.
func (h *Host) Survey(ns string) ([]Link, error) {
	handle, err := h.Links(ns)
	if err != nil {
		return nil, err
	}
	all, err := Dump(handle.LinkList)
	if err != nil {
		return nil, fmt.Errorf("listing the links of %s (see: ip link): %w", nameOf(ns), err)
	}
	addresses, err := Dump(func() ([]netlink.Addr, error) { return handle.AddrList(nil, unix.AF_UNSPEC) })
	if err != nil {
		return nil, fmt.Errorf("listing the addresses of %s (see: ip addr): %w", nameOf(ns), err)
	}
	names := make(map[int]string, len(all))
	for _, link := range all {
		names[link.Attrs().Index] = link.Attrs().Name
	}
	byLink := make(map[int][]netip.Prefix, len(all))
	for _, address := range addresses {
		if addr, ok := netip.AddrFromSlice(address.IP); ok {
			bits, _ := address.Mask.Size()
			byLink[address.LinkIndex] = append(byLink[address.LinkIndex], netip.PrefixFrom(addr.Unmap(), bits))
		}
	}
	var links []Link
	for _, link := range all {
		attrs := link.Attrs()
		if attrs.Group == Doomed {
			continue
		}
		links = append(links, Link{
			Name: attrs.Name, Index: attrs.Index, Kind: link.Type(), MAC: attrs.HardwareAddr.String(), MTU: attrs.MTU,
			Up: attrs.Flags&net.FlagUp != 0, Marked: attrs.Group == Mark, Master: names[attrs.MasterIndex],
			Peer: attrs.ParentIndex, PeerNS: attrs.NetNsID, Addresses: byLink[attrs.Index],
		})
	}
	slices.SortFunc(links, func(a, b Link) int { return cmp.Compare(a.Index, b.Index) })
	return links, nil
}

// NamespaceID returns the number by which links in the namespace from name the
// namespace to as that of their peers, or -1 if no link there ever did.
func (h *Host) NamespaceID(from, to string) (int, error) {
	handle, err := h.Links(from)
	if err != nil {
		return -1, err
	}
	fd, err := h.FD(to)
	if err != nil {
		return -1, err
	}
	id, err := handle.GetNetNsIdByFd(fd)
	if err != nil {
		return -1, fmt.Errorf("asking %s for its number of %s (see: ip netns list-id): %w", nameOf(from), nameOf(to), err)
	}
	return id, nil
}
