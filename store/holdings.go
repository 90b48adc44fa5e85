package store

import (
	"slices"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/ipam"
	"github.com/linkspan/linkspan/network"
)

// Holdings are the address blocks of all networks, in the order that
// ipam.Choose walks along. Like an Index they are computed from the rows.
type Holdings struct{ sorted []ipam.Holding }

func newHoldings(networks *Table[network.Network]) *Holdings {
	h := &Holdings{}
	networks.indexes = append(networks.indexes, h)
	return h
}

// All returns the blocks. Do not change or keep them.
func (h *Holdings) All() []ipam.Holding { return h.sorted }

func (h *Holdings) add(_ linkspan.ID, row Row[network.Network]) {
	for _, holding := range holdingsOf(row) {
		at, _ := slices.BinarySearchFunc(h.sorted, holding, ipam.CompareHoldings)
		h.sorted = slices.Insert(h.sorted, at, holding)
	}
}

func (h *Holdings) remove(_ linkspan.ID, row Row[network.Network]) {
	for _, holding := range holdingsOf(row) {
		at, _ := slices.BinarySearchFunc(h.sorted, holding, ipam.CompareHoldings)
		for ; at < len(h.sorted); at++ {
			if h.sorted[at] == holding {
				h.sorted = slices.Delete(h.sorted, at, at+1)
				break
			}
		}
	}
}

func holdingsOf(row Row[network.Network]) []ipam.Holding {
	pools := poolsOf(row)
	holdings := make([]ipam.Holding, len(pools))
	for i, pool := range pools {
		holdings[i] = pool.Holding("network " + row.Value.Name)
	}
	return holdings
}

// poolsOf returns the pools that a row takes: a configuration takes none, and
// the pool of a network without addresses holds nothing.
func poolsOf(row Row[network.Network]) []ipam.Pool {
	if row.Value.ConfigOnly {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(row.Value.Pools), func(p ipam.Pool) bool { return p.Subnet.Bits() == 0 })
}
