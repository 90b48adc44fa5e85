package store

import (
	"iter"
	"maps"
	"net/netip"
	"slices"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/endpoint"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/sandbox"
)

// Index finds rows of a table by something other than their ID, at a cost that
// does not grow with the table. It is computed from the rows, inside the table's
// own Put and Delete, so it cannot say anything else than they do.
//
// Use it within View or Update only.
type Index[T any, K comparable] struct {
	table *Table[T]
	keys  func(Row[T]) []K // each at most once
	ids   map[K][]linkspan.ID
}

// indexed is what a table does with each of its indexes.
type indexed[T any] interface {
	add(linkspan.ID, Row[T])
	remove(linkspan.ID, Row[T])
}

func newIndex[T any, K comparable](table *Table[T], keys func(Row[T]) []K) *Index[T, K] {
	x := &Index[T, K]{table: table, keys: keys, ids: make(map[K][]linkspan.ID)}
	table.indexes = append(table.indexes, x)
	return x
}

// All iterates over the rows that have a key, in no particular order. The table
// must not change meanwhile, but for the row that is being visited.
func (x *Index[T, K]) All(key K) iter.Seq2[linkspan.ID, Row[T]] {
	return func(yield func(linkspan.ID, Row[T]) bool) {
		for _, id := range append([]linkspan.ID(nil), x.ids[key]...) {
			if row, ok := x.table.Get(id); ok && !yield(id, row) {
				return
			}
		}
	}
}

// First returns one of the rows that have a key, if there is any.
func (x *Index[T, K]) First(key K) (Row[T], bool) {
	ids := x.ids[key]
	if len(ids) == 0 {
		return Row[T]{}, false
	}
	return x.table.Get(ids[0])
}

// Keys iterates over the keys that rows have, in no particular order.
func (x *Index[T, K]) Keys() iter.Seq[K] { return maps.Keys(x.ids) }

// Len returns how many rows have a key.
func (x *Index[T, K]) Len(key K) int { return len(x.ids[key]) }

func (x *Index[T, K]) add(id linkspan.ID, row Row[T]) {
	for _, key := range x.keys(row) {
		x.ids[key] = append(x.ids[key], id)
	}
}

func (x *Index[T, K]) remove(id linkspan.ID, row Row[T]) {
	for _, key := range x.keys(row) {
		ids := x.ids[key]
		for i := len(ids) - 1; i >= 0; i-- { // the latest is the likeliest
			if ids[i] == id {
				ids[i] = ids[len(ids)-1]
				ids = ids[:len(ids)-1]
				break
			}
		}
		if len(ids) == 0 {
			delete(x.ids, key)
		} else {
			x.ids[key] = ids
		}
	}
}

// Keys of indexes over a network's endpoints.
type (
	// Address is an address on a network.
	Address struct {
		Network linkspan.ID
		Addr    netip.Addr
	}
	// Hardware is a MAC on a network.
	Hardware struct {
		Network linkspan.ID
		MAC     string
	}
	// Member is the name of a container on a network.
	Member struct {
		Network linkspan.ID
		Name    string
	}
	// HostPort is a port of the host, at whichever of its addresses.
	HostPort struct {
		Protocol string
		Port     uint16
	}
)

// Indexes are all indexes that there are.
type Indexes struct {
	NetworksByName   *Index[network.Network, string]
	NetworksByDriver *Index[network.Network, string]
	NetworksByClaim  *Index[network.Network, string] // what their plans claim of the kernel
	NetworksByConfig *Index[network.Network, string] // name of the configuration that they were made from
	NetworksBySubnet *Index[network.Network, netip.Prefix]
	Holdings         *Holdings

	EndpointsByNetwork *Index[endpoint.Endpoint, linkspan.ID]
	EndpointsBySandbox *Index[endpoint.Endpoint, linkspan.ID]
	EndpointsByOwner   *Index[endpoint.Endpoint, linkspan.ID]
	EndpointsByAddress *Index[endpoint.Endpoint, Address]
	EndpointsByMAC     *Index[endpoint.Endpoint, Hardware]
	EndpointsByName    *Index[endpoint.Endpoint, Member]
	Leased             *Leased

	SandboxesByOwner *Index[sandbox.Sandbox, linkspan.ID]
	PortsByHost      *Index[Ports, HostPort]

	ConfigsByName    *Index[Config, string]
	ConfigsByAddress *Index[Config, netip.Addr]  // static ones
	ConfigsByLink    *Index[Config, linkspan.ID] // whom they have links to
}

func newIndexes(t Tables) Indexes {
	type endpoints = Row[endpoint.Endpoint]
	by := Indexes{
		NetworksByName: newIndex(t.Networks, func(r Row[network.Network]) []string { return []string{r.Value.Name} }),
		NetworksByDriver: newIndex(t.Networks, func(r Row[network.Network]) []string {
			if r.Value.ConfigOnly {
				return nil // no driver has made it
			}
			return []string{r.Value.Driver}
		}),
		NetworksByClaim: newIndex(t.Networks, func(r Row[network.Network]) []string { return op.Claims(r.Plan) }),
		NetworksByConfig: newIndex(t.Networks, func(r Row[network.Network]) []string {
			if r.Value.ConfigFrom == "" {
				return nil
			}
			return []string{r.Value.ConfigFrom}
		}),
		NetworksBySubnet: newIndex(t.Networks, func(r Row[network.Network]) []netip.Prefix {
			var keys []netip.Prefix
			for _, pool := range poolsOf(r) {
				if !slices.Contains(keys, pool.Subnet) {
					keys = append(keys, pool.Subnet)
				}
			}
			return keys
		}),
		Holdings: newHoldings(t.Networks),

		EndpointsByNetwork: newIndex(t.Endpoints, func(r endpoints) []linkspan.ID { return []linkspan.ID{r.Value.Network} }),
		EndpointsBySandbox: newIndex(t.Endpoints, func(r endpoints) []linkspan.ID { return []linkspan.ID{r.Value.Sandbox} }),
		EndpointsByOwner:   newIndex(t.Endpoints, func(r endpoints) []linkspan.ID { return []linkspan.ID{r.Value.Owner} }),
		EndpointsByAddress: newIndex(t.Endpoints, func(r endpoints) []Address {
			var keys []Address
			for _, addr := range r.Value.Addrs() {
				keys = append(keys, Address{r.Value.Network, addr})
			}
			return keys
		}),
		EndpointsByMAC:  newIndex(t.Endpoints, func(r endpoints) []Hardware { return []Hardware{{r.Value.Network, r.Value.MAC}} }),
		EndpointsByName: newIndex(t.Endpoints, func(r endpoints) []Member { return []Member{{r.Value.Network, r.Value.Name}} }),

		SandboxesByOwner: newIndex(t.Sandboxes, func(r Row[sandbox.Sandbox]) []linkspan.ID { return []linkspan.ID{r.Value.Owner} }),

		PortsByHost: newIndex(t.Ports, func(r Row[Ports]) []HostPort {
			var keys []HostPort
			seen := make(map[HostPort]bool)
			for _, p := range r.Value.Ports {
				for i := uint16(0); !p.Routed && i < p.Count; i++ {
					if key := (HostPort{p.Protocol, p.First + i}); !seen[key] {
						seen[key] = true
						keys = append(keys, key)
					}
				}
			}
			return keys
		}),

		ConfigsByName: newIndex(t.Configs, func(r Row[Config]) []string { return []string{r.Value.Name} }),
		ConfigsByAddress: newIndex(t.Configs, func(r Row[Config]) []netip.Addr {
			var keys []netip.Addr
			seen := make(map[netip.Addr]bool)
			for _, want := range r.Value.Attachments {
				for _, addr := range []netip.Addr{want.IPv4, want.IPv6} {
					if addr.IsValid() && !seen[addr] {
						seen[addr] = true
						keys = append(keys, addr)
					}
				}
			}
			return keys
		}),
	}
	by.ConfigsByLink = newIndex(t.Configs, func(r Row[Config]) []linkspan.ID {
		var keys []linkspan.ID
		for _, l := range r.Value.Links {
			if !slices.Contains(keys, l.Target) {
				keys = append(keys, l.Target)
			}
		}
		return keys
	})
	by.Leased = newLeased(t.Endpoints, by.EndpointsByAddress)
	return by
}
