package ipam

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/linkspan/linkspan"
)

// Holding is a block of addresses that somebody has already.
type Holding struct {
	Prefix netip.Prefix
	Range  netip.Prefix // of a network with an ip-range, else zero
	Holder string       // for the user: "network lab", "route 10.8.0.0/24 dev tun0"
}

// Host returns the holding of a single address, such as a name server's.
func Host(addr netip.Addr, holder string) Holding {
	addr = addr.Unmap().WithZone("")
	return Holding{Prefix: netip.PrefixFrom(addr, addr.BitLen()), Holder: holder}
}

func (h Holding) String() string { return fmt.Sprintf("%s of %s", h.Prefix, h.Holder) }

// Overlapping returns the widest holding that shares an address with p, and
// whether there is one. Blocks that only say where packets go by default do
// not count: 0.0.0.0/0, the 0.0.0.0/1 of a VPN, 2000::/3 and wider.
func Overlapping(p netip.Prefix, taken ...Holding) (Holding, bool) {
	var widest Holding
	p = unmapPrefix(p)
	for _, h := range taken {
		h.Prefix = unmapPrefix(h.Prefix)
		if !h.Prefix.IsValid() || defaultLike(h.Prefix) || !h.Prefix.Overlaps(p) {
			continue
		}
		if !widest.Prefix.IsValid() || h.Prefix.Bits() < widest.Prefix.Bits() {
			widest = h
		}
	}
	return widest, widest.Prefix.IsValid()
}

// CompareHoldings orders holdings by first address, the widest first: the order
// that spares Choose the sorting.
func CompareHoldings(a, b Holding) int { return comparePrefixes(a.Prefix, b.Prefix) }

// Choose returns the lowest subnet that can be cut from the bases and overlaps
// none of taken, in the sense of Overlapping. The order of the bases does not
// matter; a base inside another one is ignored. IPv4 comes before IPv6.
//
// The error is of kind ErrInvalid, as in the Docker API, and names who has the
// widest of the blocks in the way.
func Choose(bases []Base, taken []Holding) (netip.Prefix, error) {
	sorted := sortHoldings(taken)
	bases = disjoint(bases)
	for _, b := range bases {
		if subnet, ok := lowestFree(b, sorted); ok {
			return subnet, nil
		}
	}
	return netip.Prefix{}, linkspan.Errorf(linkspan.ErrInvalid,
		"all predefined address pools have been fully subnetted%s; give --subnet, or the daemon another --default-address-pool",
		inTheWay(bases, sorted))
}

// ChooseSize does what Choose does, for a request such as 0.0.0.0/24 or
// ::/120: any subnet of this family and size. Bases that are smaller than that
// cannot serve it; the size of their subnets does not matter.
//
// The error is of kind ErrInvalid and begins with "invalid address pool".
func ChooseSize(bases []Base, want netip.Prefix, taken []Holding) (netip.Prefix, error) {
	if !AnySize(want) {
		return netip.Prefix{}, linkspan.Errorf(linkspan.ErrInvalid, "invalid address pool: %s does not mean any subnet of a size; write 0.0.0.0/BITS or ::/BITS", want)
	}
	var fit []Base
	for _, b := range bases {
		if b.Prefix.Addr().Is4() == want.Addr().Is4() && b.Prefix.Bits() <= want.Bits() {
			fit = append(fit, Base{b.Prefix, want.Bits()})
		}
	}
	if len(fit) == 0 {
		return netip.Prefix{}, linkspan.Errorf(linkspan.ErrInvalid, "invalid address pool: no default address pool is as large as /%d", want.Bits())
	}
	subnet, err := Choose(fit, taken)
	if err != nil {
		return netip.Prefix{}, linkspan.Errorf(linkspan.ErrInvalid, "invalid address pool: no free subnet of size /%d: %w", want.Bits(), err)
	}
	return subnet, nil
}

// AnySize reports whether p is a request for ChooseSize: 0.0.0.0/24, ::/120.
// The whole of an address space, 0.0.0.0/0, is not: it is the subnet of a
// network that hands out no addresses.
func AnySize(p netip.Prefix) bool {
	return p.Addr().IsUnspecified() && p.Bits() > 0
}

// lowestFree walks b once along the holdings, from gap to gap, so that the
// number of subnets in b does not matter: a /48 has 65,536 of them.
func lowestFree(b Base, sorted []Holding) (netip.Prefix, bool) {
	if b.Validate() != nil {
		return netip.Prefix{}, false
	}
	candidate := subnetAt(b.Prefix.Addr(), b.Size)
	for _, h := range sorted {
		if !h.Prefix.Overlaps(b.Prefix) {
			continue
		}
		end := lastAddr(h.Prefix)
		if end.Less(candidate.Addr()) {
			continue
		}
		if lastAddr(candidate).Less(h.Prefix.Addr()) {
			return candidate, true
		}
		next := lastAddr(subnetAt(end, b.Size)).Next()
		if !next.IsValid() || !b.Prefix.Contains(next) {
			return netip.Prefix{}, false
		}
		candidate = subnetAt(next, b.Size)
	}
	return candidate, true
}

// sortHoldings returns what counts of taken, by first address and widest
// first. The caller's slice stays as it is.
func sortHoldings(taken []Holding) []Holding {
	sorted := make([]Holding, 0, len(taken))
	for _, h := range taken {
		h.Prefix = unmapPrefix(h.Prefix).Masked()
		if h.Prefix.IsValid() && !defaultLike(h.Prefix) {
			sorted = append(sorted, h)
		}
	}
	if !slices.IsSortedFunc(sorted, CompareHoldings) {
		slices.SortStableFunc(sorted, CompareHoldings)
	}
	return sorted
}

// disjoint returns the bases in ascending order, without those inside another.
func disjoint(bases []Base) []Base {
	sorted := slices.Clone(bases)
	slices.SortStableFunc(sorted, func(a, b Base) int { return comparePrefixes(a.Prefix, b.Prefix) })
	kept := sorted[:0]
	for _, b := range sorted {
		if len(kept) == 0 || !kept[len(kept)-1].Prefix.Overlaps(b.Prefix) {
			kept = append(kept, b)
		}
	}
	return kept
}

// namedInTheWay bounds the length of a refusal; the widest blocks come first,
// and those are the ones worth a look.
const namedInTheWay = 4

func inTheWay(bases []Base, sorted []Holding) string {
	var blocks []Holding
	for _, h := range sorted {
		if slices.ContainsFunc(bases, func(b Base) bool { return b.Prefix.Overlaps(h.Prefix) }) {
			blocks = append(blocks, h)
		}
	}
	if len(blocks) == 0 {
		return ""
	}
	slices.SortStableFunc(blocks, func(a, b Holding) int { return a.Prefix.Bits() - b.Prefix.Bits() })
	var names []string
	for _, h := range blocks[:min(len(blocks), namedInTheWay)] {
		names = append(names, h.String())
	}
	text := ": in the way are " + strings.Join(names, ", ")
	if more := len(blocks) - len(names); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}
