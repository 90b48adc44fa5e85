package store

import (
	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/endpoint"
	"github.com/linkspan/linkspan/ipam"
)

// Leased are the addresses of live endpoints, by network: the lowest free one
// is found without a look at those that are not. Like an Index it is computed
// from the rows.
type Leased struct {
	byAddress *Index[endpoint.Endpoint, Address] // hears of every change first
	runs      map[linkspan.ID]*ipam.Runs
}

func newLeased(endpoints *Table[endpoint.Endpoint], byAddress *Index[endpoint.Endpoint, Address]) *Leased {
	l := &Leased{byAddress: byAddress, runs: make(map[linkspan.ID]*ipam.Runs)}
	endpoints.indexes = append(endpoints.indexes, l)
	return l
}

// On returns the addresses leased on a network; nil if there are none. Do not
// change or keep them.
func (l *Leased) On(network linkspan.ID) *ipam.Runs { return l.runs[network] }

func (l *Leased) add(_ linkspan.ID, row Row[endpoint.Endpoint]) {
	id := row.Value.Network
	for _, addr := range row.Value.Addrs() {
		if l.runs[id] == nil {
			l.runs[id] = &ipam.Runs{}
		}
		l.runs[id].Add(addr)
	}
}

func (l *Leased) remove(_ linkspan.ID, row Row[endpoint.Endpoint]) {
	id := row.Value.Network
	runs := l.runs[id]
	for _, addr := range row.Value.Addrs() {
		if l.byAddress.Len(Address{id, addr}) == 0 {
			runs.Remove(addr)
		}
	}
	if runs.Empty() {
		delete(l.runs, id)
	}
}
