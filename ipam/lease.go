package ipam

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strings"

	"github.com/linkspan/linkspan"
)

// ErrExhausted marks the refusal of a pool without a free address, so that the
// caller can go on to another pool, or say it in the words of the network:
// "no available IPv4 addresses on this network's address pools: lab (3f2a…)".
var ErrExhausted = errors.New("no available addresses on this pool")

// Holders says who has which address: "container web", "container db, stopped".
// The text ends up in refusals. Addresses outside the subnet asked about do no
// harm, so that one value may serve all pools of a network. Addresses are
// plain: no zone, IPv4 not in IPv6 form. A nil Holders has none.
type Holders interface {
	Holder(netip.Addr) (who string, taken bool)
	// NextFree returns the lowest address from the given one on that nobody has,
	// in whatever subnet, or the zero Addr if the address space ends before.
	NextFree(netip.Addr) netip.Addr
	// All returns the addresses that somebody has, each once, in any order. It is
	// asked for only where all count: to refuse, and to show.
	All() iter.Seq[netip.Addr]
}

// Used is a Holders written out.
type Used map[netip.Addr]string

// Holder returns who has an address.
func (u Used) Holder(addr netip.Addr) (who string, taken bool) {
	who, taken = u[addr]
	return who, taken
}

// NextFree returns the lowest address from addr on that nobody has.
func (u Used) NextFree(addr netip.Addr) netip.Addr {
	for {
		if _, taken := u[addr]; !taken {
			return addr
		}
		addr = addr.Next()
	}
}

// All returns the addresses.
func (u Used) All() iter.Seq[netip.Addr] { return maps.Keys(u) }

// first returns the holder of addr among the first that know it.
func first(addr netip.Addr, all ...Holders) (who string, taken bool) {
	for _, holders := range all {
		if holders == nil {
			continue
		}
		if who, taken = holders.Holder(addr); taken {
			return who, true
		}
	}
	return "", false
}

// everyAddr returns the addresses that somebody has, none of a nil Holders.
func everyAddr(used Holders) iter.Seq[netip.Addr] {
	if used == nil {
		return Used(nil).All()
	}
	return used.All()
}

// Reserved returns the addresses that no endpoint can get: the first one and
// the IPv4 broadcast address, except in an IPv4 /31 and /32, then the gateway
// and the auxiliary addresses.
func (p Pool) Reserved() Used {
	held := make(Used, 3+len(p.Aux))
	for name, addr := range p.Aux {
		held[addr] = "auxiliary address " + name
	}
	if p.Gateway.IsValid() {
		held[p.Gateway] = "the gateway"
	}
	switch subnet := p.Subnet; {
	case !subnet.IsValid():
	case !subnet.Addr().Is4():
		held[subnet.Masked().Addr()] = "the routers of " + subnet.String()
	case subnet.Bits() < 31:
		held[subnet.Masked().Addr()] = "the network itself: it is the network address of " + subnet.String()
		held[lastAddr(subnet)] = "the network itself: it is the broadcast address of " + subnet.String()
	}
	return held
}

// FirstGateway returns the address that becomes the gateway of a network whose
// user named none: the lowest that is free, inside the range when there is one.
//
// It is chosen before the auxiliary addresses, as in Docker, so one of them may
// want the same: set Gateway and ask CheckReserved. Errors are those of Take.
func (p Pool) FirstGateway(used Holders) (netip.Addr, error) {
	gw, err := Pool{Subnet: p.Subnet, Range: p.Range}.Take(used)
	if errors.Is(err, ErrExhausted) {
		return netip.Addr{}, linkspan.Errorf(linkspan.ErrUnavailable, "failed to allocate gateway: %w", err)
	}
	return gw, err
}

// Take returns the lowest address that is neither reserved nor used, inside
// the range when there is one. An address given back is therefore the next one
// to be taken, if it is the lowest.
//
// The cost grows with the used addresses at the start of the pool, and never
// with the size of the subnet. In a subnet of more than 63 host bits, only the
// first 2⁶³ addresses are considered. A full pool is ErrExhausted, of kind
// ErrUnavailable; a pool without a subnet of its own is of kind ErrInvalid.
func (p Pool) Take(used Holders) (netip.Addr, error) {
	return p.TakeAfter(netip.Addr{}, used)
}

// TakeAfter does what Take does, but looks behind last first, and starts again
// at the lowest address when there is nothing: the serial order, in which an
// address given back is not seen again soon. Caches of neighbours, and names
// that resolve to it, have time to expire. With a last that is zero or outside
// the range it is Take.
func (p Pool) TakeAfter(last netip.Addr, used Holders) (netip.Addr, error) {
	if !p.Subnet.IsValid() || p.Subnet.Addr().IsUnspecified() {
		return netip.Addr{}, linkspan.Errorf(linkspan.ErrInvalid, "invalid address pool: %s has no addresses to give; choose a subnet first", p.Subnet)
	}
	low, high := p.bounds()
	reserved := p.Reserved()
	start := low
	if last = last.Unmap(); !last.Less(low) && last.Less(high) {
		start = last.Next()
	}
	if addr, ok := lowest(start, high, reserved, used); ok {
		return addr, nil
	}
	if start != low {
		if addr, ok := lowest(low, last, reserved, used); ok {
			return addr, nil
		}
	}
	return netip.Addr{}, p.exhausted(reserved, used)
}

// lowest returns the first address from low up to and including high that
// nobody has.
func lowest(low, high netip.Addr, reserved Used, used Holders) (netip.Addr, bool) {
	for addr := low; addr.IsValid() && !high.Less(addr); addr = addr.Next() {
		if used != nil {
			if addr = used.NextFree(addr); !addr.IsValid() || high.Less(addr) {
				return netip.Addr{}, false
			}
		}
		if _, kept := reserved[addr]; !kept {
			return addr, true
		}
	}
	return netip.Addr{}, false
}

// dynamic returns the block that Take gives from. A range that is larger than
// its subnet is cut down to it.
func (p Pool) dynamic() netip.Prefix {
	if p.Range.IsValid() && p.Range.Bits() > p.Subnet.Bits() {
		return p.Range.Masked()
	}
	return p.Subnet.Masked()
}

func (p Pool) bounds() (low, high netip.Addr) {
	block := p.dynamic()
	low = block.Addr()
	if low.BitLen()-block.Bits() > 63 {
		return low, lastAddr(netip.PrefixFrom(low, low.BitLen()-63))
	}
	return low, lastAddr(block)
}

// namedHolders bounds the length of a refusal.
const namedHolders = 3

func (p Pool) exhausted(reserved Used, used Holders) error {
	block := p.dynamic()
	var addrs []netip.Addr
	for addr := range everyAddr(used) {
		if _, kept := reserved[addr]; !kept && block.Contains(addr) {
			addrs = append(addrs, addr)
		}
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	var names []string
	for _, addr := range addrs[:min(len(addrs), namedHolders)] {
		who, _ := used.Holder(addr)
		names = append(names, who)
	}
	text := "all are reserved"
	if len(names) > 0 {
		text = "held by " + strings.Join(names, ", ")
	}
	if more := len(addrs) - len(names); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return linkspan.Errorf(linkspan.ErrUnavailable, "%w: %s is full, %s", ErrExhausted, block, text)
}

// Claim tells whether addr can be had: anywhere in the subnet, inside the
// range or not. An address outside is of kind ErrInvalid, one that is reserved
// or used of kind ErrForbidden, with its holder and a free address in the text.
func (p Pool) Claim(addr netip.Addr, used Holders) error {
	if !addr.IsValid() || addr.Zone() != "" {
		return linkspan.Errorf(linkspan.ErrInvalid, "invalid address: %s", addr)
	}
	addr = addr.Unmap()
	if _, err := Containing(addr, p); err != nil {
		return err
	}
	holder, taken := first(addr, used, p.Reserved())
	if !taken {
		return nil
	}
	hint := ""
	if free, err := p.Take(used); err == nil {
		hint = fmt.Sprintf("; the lowest free address is %s", free)
	}
	return linkspan.Errorf(linkspan.ErrForbidden, "Address already in use: %s is held by %s%s", addr, holder, hint)
}

// Containing returns the pool whose subnet addr lies in. An error is of kind
// ErrInvalid and lists the subnets there are.
func Containing(addr netip.Addr, pools ...Pool) (Pool, error) {
	var subnets []string
	for _, p := range pools {
		if p.Subnet.Contains(addr.Unmap()) {
			return p, nil
		}
		subnets = append(subnets, p.Subnet.String())
	}
	list := "it has none"
	if len(subnets) > 0 {
		list = strings.Join(subnets, ", ")
	}
	return Pool{}, linkspan.Errorf(linkspan.ErrInvalid, "invalid address %s: It does not belong to any of this network's subnets: %s", addr, list)
}

// Counts returns the two numbers of Status.IPAM in GET /networks/{id}: how many
// addresses of the whole subnet are in use, the reserved ones included, and how
// many Take could still give. A number too large for 64 bits is the largest.
func (p Pool) Counts(used Holders) (inUse, available uint64) {
	if !p.Subnet.IsValid() {
		return 0, 0
	}
	block := p.dynamic()
	var inBlock uint64
	count := func(addr netip.Addr) {
		if p.Subnet.Contains(addr) {
			inUse++
		}
		if block.Contains(addr) {
			inBlock++
		}
	}
	reserved := p.Reserved()
	for addr := range reserved {
		count(addr)
	}
	for addr := range everyAddr(used) {
		if _, counted := reserved[addr]; !counted {
			count(addr)
		}
	}
	return inUse, free(block.Addr().BitLen()-block.Bits(), inBlock)
}

// free returns 2 to the power of hostBits, less held, or the largest uint64.
func free(hostBits int, held uint64) uint64 {
	switch {
	case hostBits < 64:
		return 1<<hostBits - held
	case hostBits == 64 && held > 0:
		return -held // modulo 2⁶⁴, which is just what a /64 has
	}
	return math.MaxUint64
}
