package ipam

import (
	"net/netip"
	"slices"
)

// Runs is a set of addresses, kept as runs without a gap: what Take has given
// is few of them, however many addresses it is. The zero value is empty. Not
// safe for concurrent use.
type Runs struct{ sorted []run }

// run is first, last and all between.
type run struct{ first, last netip.Addr }

// at returns the index of the first run that ends at addr or behind it.
func (r *Runs) at(addr netip.Addr) int {
	i, _ := slices.BinarySearchFunc(r.sorted, addr, func(x run, addr netip.Addr) int { return x.last.Compare(addr) })
	return i
}

// Add adds an address, if it is not there.
func (r *Runs) Add(addr netip.Addr) {
	i := r.at(addr)
	if i < len(r.sorted) && !addr.Less(r.sorted[i].first) {
		return
	}
	// Next and Prev are the zero Addr at the ends of an address space, which is
	// in no run.
	after := i < len(r.sorted) && r.sorted[i].first == addr.Next()
	before := i > 0 && r.sorted[i-1].last == addr.Prev()
	switch {
	case before && after:
		r.sorted[i-1].last = r.sorted[i].last
		r.sorted = slices.Delete(r.sorted, i, i+1)
	case before:
		r.sorted[i-1].last = addr
	case after:
		r.sorted[i].first = addr
	default:
		r.sorted = slices.Insert(r.sorted, i, run{addr, addr})
	}
}

// Remove removes an address, if it is there.
func (r *Runs) Remove(addr netip.Addr) {
	i := r.at(addr)
	if i == len(r.sorted) || addr.Less(r.sorted[i].first) {
		return
	}
	switch x := r.sorted[i]; {
	case x.first == addr && x.last == addr:
		r.sorted = slices.Delete(r.sorted, i, i+1)
	case x.first == addr:
		r.sorted[i].first = addr.Next()
	case x.last == addr:
		r.sorted[i].last = addr.Prev()
	default:
		r.sorted[i].last = addr.Prev()
		r.sorted = slices.Insert(r.sorted, i+1, run{addr.Next(), x.last})
	}
}

// Next returns the lowest address from addr on that is not in the set, or the
// zero Addr if the address space ends before. A nil set has none.
func (r *Runs) Next(addr netip.Addr) netip.Addr {
	if r == nil {
		return addr
	}
	if i := r.at(addr); i < len(r.sorted) && !addr.Less(r.sorted[i].first) {
		return r.sorted[i].last.Next()
	}
	return addr
}

// Empty tells whether no address is in the set.
func (r *Runs) Empty() bool { return r == nil || len(r.sorted) == 0 }
