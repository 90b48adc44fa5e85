package ipam

import (
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/linkspan/linkspan"
)

// Pool is one subnet of one network. Its JSON form is an entry of IPAM.Config
// in GET /networks/{id} of the Docker Engine API.
type Pool struct {
	Subnet  netip.Prefix          `json:"Subnet,omitzero"`
	Range   netip.Prefix          `json:"IPRange,omitzero"` // Take keeps to it; zero: the whole subnet
	Gateway netip.Addr            `json:"Gateway,omitzero"` // zero: none
	Aux     map[string]netip.Addr `json:"AuxiliaryAddresses,omitempty"`
}

// ParsePool reads a pool as the user wrote it. Empty texts are left out; an
// empty subnet asks for one from the default pools, and 0.0.0.0/24 or ::/120
// for any of that size. IPv4 in IPv6 form becomes IPv4.
//
// The result has passed Validate. What cannot be read at all joins the list of
// problems that Validate makes, under the same kind, ErrInvalid.
func ParsePool(subnet, ipRange, gateway string, aux map[string]string) (Pool, error) {
	var p Pool
	var lines []string
	readPrefix := func(what, text string) netip.Prefix {
		if text == "" {
			return netip.Prefix{}
		}
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			lines = append(lines, "invalid "+what+" "+text+": invalid CIDR block notation")
		}
		return unmapPrefix(prefix)
	}
	readAddr := func(what, text string) netip.Addr {
		addr, err := netip.ParseAddr(text)
		if err != nil || addr.Zone() != "" {
			lines = append(lines, "invalid "+what+": invalid address")
			return netip.Addr{}
		}
		return addr.Unmap()
	}

	p.Subnet = readPrefix("subnet", subnet)
	p.Range = readPrefix("ip-range", ipRange)
	if gateway != "" {
		p.Gateway = readAddr("gateway "+gateway, gateway)
	}
	for _, name := range slices.Sorted(maps.Keys(aux)) {
		addr := readAddr("auxiliary address "+name, aux[name])
		if addr.IsValid() {
			if p.Aux == nil {
				p.Aux = make(map[string]netip.Addr, len(aux))
			}
			p.Aux[name] = addr
		}
	}
	if len(lines) > 0 {
		// Without a subnet nothing more is known; the missing one would only
		// be reported a second time.
		if p.Subnet.IsValid() {
			lines = append(lines, p.problems()...)
		}
		return Pool{}, configError(lines)
	}
	if err := Validate(p); err != nil {
		return Pool{}, err
	}
	return p, nil
}

// Validate checks all pools of one new network, each for itself and against
// each other, and lists every problem, a line each.
//
// Shapes that cannot be are of kind ErrInvalid under the heading "invalid
// network config:" of the Docker Engine API. If there are none, addresses that
// are wanted twice and subnets that overlap are of kind ErrForbidden.
func Validate(pools ...Pool) error {
	var lines []string
	for _, p := range pools {
		lines = append(lines, p.problems()...)
	}
	if len(lines) > 0 {
		return configError(lines)
	}
	var clashes []error
	var earlier []Holding
	for _, p := range pools {
		if p.Subnet.IsValid() && !AnySize(p.Subnet) {
			clashes = append(clashes, p.CheckOverlap(earlier...), p.CheckReserved(nil))
			earlier = append(earlier, p.Holding("the same network"))
		}
	}
	return errors.Join(clashes...)
}

func configError(lines []string) error {
	return linkspan.Errorf(linkspan.ErrInvalid, "invalid network config:\n%s", strings.Join(lines, "\n"))
}

// problems lists what is wrong with the shape of p, in Docker's words.
func (p Pool) problems() []string {
	if !p.Subnet.IsValid() {
		return p.orphans()
	}
	var lines []string
	subnet := p.Subnet.String()
	if should := unmapPrefix(p.Subnet).Masked(); p.Subnet != should {
		lines = append(lines, "invalid subnet "+subnet+": it should be "+should.String())
	}
	lines = append(lines, p.rangeProblems()...)
	check := func(what string, addr netip.Addr) {
		switch {
		case addr.Is4() != p.Subnet.Addr().Is4():
			lines = append(lines, "invalid "+what+": parent subnet is an "+family(p.Subnet)+" block")
		case !p.Subnet.Contains(addr):
			lines = append(lines, "invalid "+what+": parent subnet "+subnet+" doesn't contain this address")
		}
	}
	if p.Gateway.IsValid() {
		check("gateway "+p.Gateway.String(), p.Gateway)
	}
	for _, name := range slices.Sorted(maps.Keys(p.Aux)) {
		check("auxiliary address "+name, p.Aux[name])
	}
	return lines
}

// orphans lists what makes no sense without a subnet.
func (p Pool) orphans() []string {
	var lines []string
	if p.Range.IsValid() {
		lines = append(lines, "invalid ip-range "+p.Range.String()+": invalid address subpool: an ip-range needs a subnet")
	}
	if p.Gateway.IsValid() {
		lines = append(lines, "invalid gateway "+p.Gateway.String()+": a gateway needs a subnet")
	}
	for _, name := range slices.Sorted(maps.Keys(p.Aux)) {
		lines = append(lines, "invalid auxiliary address "+name+": an auxiliary address needs a subnet")
	}
	return lines
}

func (p Pool) rangeProblems() []string {
	if !p.Range.IsValid() {
		return nil
	}
	name := "invalid ip-range " + p.Range.String() + ": "
	if p.Range.Addr().Is4() != p.Subnet.Addr().Is4() {
		return []string{name + "parent subnet is an " + family(p.Subnet) + " block"}
	}
	var lines []string
	if p.Range.Bits() < p.Subnet.Bits() {
		lines = append(lines, name+"CIDR block is bigger than its parent subnet "+p.Subnet.String())
	}
	if should := p.Range.Masked(); p.Range != should {
		lines = append(lines, name+"it should be "+should.String())
	}
	if !p.Subnet.Overlaps(p.Range) {
		lines = append(lines, name+"parent subnet "+p.Subnet.String()+" doesn't contain ip-range")
	}
	return lines
}

func family(p netip.Prefix) string {
	if p.Addr().Is4() {
		return "IPv4"
	}
	return "IPv6"
}

// Holding returns p as others see it.
func (p Pool) Holding(holder string) Holding {
	return Holding{Prefix: p.Subnet, Range: p.Range, Holder: holder}
}

// CheckOverlap tells whose subnet keeps p from being used; an error is of kind
// ErrForbidden.
//
// A pool with an ip-range may lie over others: several networks may share one
// wire, each with its own part of the addresses, as macvlan does. It is refused
// only when one of them has the same subnet with the same ip-range. Whoever
// shares a subnet must hand the union of what is used to Take and Claim.
func (p Pool) CheckOverlap(taken ...Holding) error {
	const words = "invalid pool request: Pool overlaps with other one on this address space"
	if p.Range.IsValid() {
		for _, h := range taken {
			if h.Prefix == p.Subnet && h.Range == p.Range {
				return linkspan.Errorf(linkspan.ErrForbidden, "%s: %s with ip-range %s belongs to %s; give another ip-range", words, p.Subnet, p.Range, h.Holder)
			}
		}
		return nil
	}
	if h, yes := Overlapping(p.Subnet, taken...); yes {
		return linkspan.Errorf(linkspan.ErrForbidden, "%s: %s overlaps %s; give another subnet", words, p.Subnet, h)
	}
	return nil
}

// CheckReserved tells whether the gateway and the auxiliary addresses can be
// had: inside the subnet, none of them twice, none of them used. It lists all
// that cannot. Addresses that somebody has are of kind ErrForbidden.
func (p Pool) CheckReserved(used Holders) error {
	var errs []error
	bare := Pool{Subnet: p.Subnet}
	held := bare.Reserved()
	if gw := p.Gateway; gw.IsValid() {
		holder, taken := first(gw, held, used)
		switch {
		case !p.Subnet.Contains(gw):
			errs = append(errs, linkspan.Errorf(linkspan.ErrInvalid, "failed to allocate gateway (%s): requested address is out of range: the subnet is %s", gw, p.Subnet))
		case taken:
			errs = append(errs, linkspan.Errorf(linkspan.ErrForbidden, "failed to allocate gateway (%s): Address already in use: it is held by %s", gw, holder))
		}
		held[gw] = "the gateway"
	}
	for _, name := range slices.Sorted(maps.Keys(p.Aux)) {
		addr := p.Aux[name]
		holder, taken := first(addr, held, used)
		switch {
		case !p.Subnet.Contains(addr):
			errs = append(errs, linkspan.Errorf(linkspan.ErrForbidden, "auxiliary address: (%s:%s) must belong to the master pool: %s", name, addr, p.Subnet))
		case taken:
			errs = append(errs, linkspan.Errorf(linkspan.ErrForbidden, "failed to allocate secondary ip address (%s:%s): Address already in use: it is held by %s", name, addr, holder))
		default:
			held[addr] = "auxiliary address " + name
		}
	}
	return errors.Join(errs...)
}
