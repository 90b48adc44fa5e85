package kernel

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan"
)

// Standing is what a link of the machine's own namespace is like that is there
// already and that a network may be made on.
type Standing struct {
	Kind      string // "bridge", or what else it is
	Ours      bool   // it bears Mark or Doomed
	Up        bool
	MAC       string
	Ports     int
	Addresses []netip.Prefix // but for link-local IPv6 ones, which come and go by themselves
}

// Standing describes a link by name. One that is not there is an error of kind
// linkspan.ErrNotFound.
func (h *Host) Standing(name string) (Standing, error) {
	handle, err := h.Links("")
	if err != nil {
		return Standing{}, err
	}
	link, err := handle.LinkByName(name)
	if IsGone(err) {
		return Standing{}, linkspan.Errorf(linkspan.ErrNotFound, "link %s does not exist (see: ip link show): %w", name, err)
	}
	if err != nil {
		return Standing{}, fmt.Errorf("looking up link %s: %w", name, err)
	}
	attrs := link.Attrs()
	b := Standing{
		Kind: link.Type(), Ours: attrs.Group == Mark || attrs.Group == Doomed,
		Up: attrs.Flags&net.FlagUp != 0, MAC: attrs.HardwareAddr.String(),
	}
	others, err := Dump(handle.LinkList)
	if err != nil {
		return b, fmt.Errorf("listing the ports of %s: %w", name, err)
	}
	for _, other := range others {
		if other.Attrs().MasterIndex == attrs.Index {
			b.Ports++
		}
	}
	addrs, err := Dump(func() ([]netlink.Addr, error) { return handle.AddrList(link, unix.AF_UNSPEC) })
	if err != nil {
		return b, fmt.Errorf("listing the addresses of %s: %w", name, err)
	}
	for _, addr := range addrs {
		ip, ok := netip.AddrFromSlice(addr.IP)
		bits, _ := addr.Mask.Size()
		if ip = ip.Unmap(); ok && (ip.Is4() || !ip.IsLinkLocalUnicast()) {
			b.Addresses = append(b.Addresses, netip.PrefixFrom(ip, bits))
		}
	}
	return b, nil
}
