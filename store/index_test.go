package store

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/endpoint"
)

// Whatever is put, deleted, taken back and loaded: an index says what a look at
// all rows says, within an update and after it.
func TestIndexAgreesWithRows(t *testing.T) {
	p := newPlace(t)
	s, _ := p.open(t, "boot")
	random := rand.New(rand.NewPCG(1, 2))
	networks := []linkspan.ID{"lab", "side", "dmz"}
	agree := func(tables Tables, when string) {
		t.Helper()
		for _, n := range networks {
			var scanned, indexed []string
			for id, row := range tables.Endpoints.All() {
				if row.Value.Network == n {
					scanned = append(scanned, string(id)+" "+row.Value.IPv4.String())
				}
			}
			for id, row := range tables.By.EndpointsByNetwork.All(n) {
				indexed = append(indexed, string(id)+" "+row.Value.IPv4.String())
				if _, ok := tables.By.EndpointsByAddress.First(Address{n, row.Value.IPv4.Addr()}); !ok {
					t.Errorf("%s: no row has address %s of %s", when, row.Value.IPv4, n)
				}
			}
			slices.Sort(scanned)
			slices.Sort(indexed)
			if diff := cmp.Diff(scanned, indexed); diff != "" {
				t.Fatalf("%s, network %s (-rows +index):\n%s", when, n, diff)
			}
			if tables.By.EndpointsByNetwork.Len(n) != len(scanned) {
				t.Fatalf("%s, network %s: Len is %d", when, n, tables.By.EndpointsByNetwork.Len(n))
			}
		}
	}
	refused := errors.New("no")
	for round := range 300 {
		fail := random.IntN(4) == 0
		err := s.Defer(func(tables Tables) error {
			for range random.IntN(5) {
				id := linkspan.ID(fmt.Sprint("e", random.IntN(12)))
				if random.IntN(3) == 0 {
					tables.Endpoints.Delete(id)
					continue
				}
				addr := netip.AddrFrom4([4]byte{10, 77, 0, byte(random.IntN(8))})
				tables.Endpoints.Put(id, Row[endpoint.Endpoint]{Phase: Ready, Value: endpoint.Endpoint{
					ID: id, Network: networks[random.IntN(len(networks))], IPv4: netip.PrefixFrom(addr, 24),
				}})
			}
			agree(tables, fmt.Sprint("in update ", round))
			if fail {
				return refused
			}
			return nil
		})
		if fail != (err != nil) {
			t.Fatal(err)
		}
		s.View(func(tables Tables) { agree(tables, fmt.Sprint("after update ", round)) })
	}
	must(t, s.Close())
	s, _ = p.open(t, "boot")
	s.View(func(tables Tables) { agree(tables, "loaded") })
}
