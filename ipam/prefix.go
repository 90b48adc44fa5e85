package ipam

import (
	"net/netip"
)

// lastAddr returns the highest address of p.
func lastAddr(p netip.Prefix) netip.Addr {
	raw := p.Addr().AsSlice()
	for i := range raw {
		switch fixed := p.Bits() - 8*i; {
		case fixed <= 0:
			raw[i] = 0xff
		case fixed < 8:
			raw[i] |= 0xff >> fixed
		}
	}
	addr, _ := netip.AddrFromSlice(raw)
	return addr
}

// subnetAt returns the aligned block of the given size that holds addr.
func subnetAt(addr netip.Addr, size int) netip.Prefix {
	return netip.PrefixFrom(addr, size).Masked()
}

func comparePrefixes(a, b netip.Prefix) int {
	if c := a.Addr().Compare(b.Addr()); c != 0 {
		return c
	}
	return a.Bits() - b.Bits()
}

// unmapPrefix returns the IPv4 block that a block of ::ffff:0:0/96 stands for,
// and any other prefix as it is. An IPv4 route that was read into sixteen bytes
// would otherwise overlap nothing.
func unmapPrefix(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p
}

// defaultLike reports a prefix so wide that it says where packets go by
// default, and not whose the addresses are: 0.0.0.0/0, the two halves by which
// a VPN overrides it, and 2000::/3, the IPv6 form of the same trick.
func defaultLike(p netip.Prefix) bool {
	if p.Addr().Is4() {
		return p.Bits() <= 1
	}
	return p.Bits() <= 3
}
