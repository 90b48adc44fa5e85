package cluster_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/store/cluster"
	"github.com/linkspan/linkspan/store/etcdtest"
)

// TestKeep has a host need a network that no endpoint is on: others do not remove
// it, whether the host was started again meanwhile or not, until it is forgone.
func TestKeep(t *testing.T) {
	hosts, store := several(t, 2)
	a, b := hosts[0], hosts[1]
	n := lab(t, a, "lab", "10.0.0.0/24")
	must(t, b.Keep(t.Context(), n.ID, "a test does"))
	must(t, b.Keep(t.Context(), n.ID, "a test does"))
	refused := func(when string) {
		t.Helper()
		err := a.RemoveNetwork(t.Context(), n.ID)
		if !errors.Is(err, linkspan.ErrForbidden) || !strings.Contains(err.Error(), "host h2 needs it: a test does") {
			t.Errorf("removal of a network that is kept, %s: %v", when, err)
		}
	}
	refused("at first")

	must(t, b.Close())
	again := opened(t, store.from, 2, store.url())
	again.Kept(n.ID, "a test does")
	again.Resume(nil, nil)
	ready(t, again)
	refused("after a restart")
	must(t, again.Close())
	forgot := host(t, store.from, 2, store.url()) // does not know of it any more
	eventually(t, "what is not known is given back", func() bool { return len(store.keys(t, "keepers/")) == 0 })
	must(t, forgot.Keep(t.Context(), n.ID, "a test does"))
	refused("once more")
	must(t, forgot.Forgo(t.Context(), n.ID))
	must(t, forgot.Forgo(t.Context(), n.ID))
	must(t, a.RemoveNetwork(t.Context(), n.ID))
	if err := forgot.Keep(t.Context(), n.ID, "a test does"); !errors.Is(err, linkspan.ErrNotFound) {
		t.Errorf("keeping a network that has gone: %v", err)
	}
	if keys := store.keys(t, "keepers/"); len(keys) > 0 {
		t.Errorf("left: %v", keys)
	}
}

// TestFind finds what another host has just made, and knows it when the store is
// away.
func TestFind(t *testing.T) {
	m := nstest.New(t)
	etcd := etcdtest.Alone(t, m)
	store := &client{from: m, endpoints: []string{etcd.Endpoint()}}
	a, b := host(t, m, 1, store.url(), short(5*time.Second, time.Minute)), host(t, m, 2, store.url(), short(5*time.Second, time.Minute))
	ready(t, a, b)
	for i := range 10 {
		n := lab(t, a, fmt.Sprint("lab", i), fmt.Sprintf("10.0.%d.0/24", i))
		if found, there, err := b.Find(t.Context(), n.Name); err != nil || !there || found.ID != n.ID {
			t.Errorf("%s: %v, %v, %v", n.Name, found, there, err)
		}
	}
	if _, there, err := b.Find(t.Context(), "none"); there || err != nil {
		t.Errorf("one that is not there: %v, %v", there, err)
	}
	etcd.Kill()
	if _, there, err := b.Find(t.Context(), "lab3"); err != nil || !there {
		t.Errorf("without the store: %v, %v", there, err)
	}
	if _, there, err := b.Find(t.Context(), "none"); there || !errors.Is(err, linkspan.ErrUnavailable) {
		t.Errorf("one that is not there, without the store: %v, %v", there, err)
	}
}

// TestHoldFree has hosts reserve addresses, of both families, for owners that are
// no endpoints yet: none is given twice, and the endpoint that comes has them.
func TestHoldFree(t *testing.T) {
	hosts, store := several(t, 3)
	n := lab(t, hosts[0], "lab", "10.0.0.0/24", func(n *network.Network) {
		n.IPv6 = true
		n.Pools = append(n.Pools, pool("fd00::/64", "fd00::1"))
	})
	var all sync.WaitGroup
	var mu sync.Mutex
	given := make(map[netip.Addr]string)
	for i, c := range hosts {
		for j := range 12 {
			all.Go(func() {
				e := container(fmt.Sprintf("c%d-%d", i, j))
				held, err := c.HoldFree(t.Context(), n, e, false)
				if err == nil {
					held, err = c.HoldFree(t.Context(), n, held, true)
				}
				if err != nil {
					t.Errorf("%s: %v", e.Name, err)
					return
				}
				joined, err := c.Join(t.Context(), n, held)
				if err != nil || joined.IPv4 != held.IPv4 || joined.IPv6 != held.IPv6 {
					t.Errorf("%s holds %s and %s, and gets %s and %s: %v", e.Name, held.IPv4, held.IPv6, joined.IPv4, joined.IPv6, err)
				}
				mu.Lock()
				defer mu.Unlock()
				for _, addr := range joined.Addresses() {
					if other := given[addr]; other != "" {
						t.Errorf("%s and %s both have %s", e.Name, other, addr)
					}
					given[addr] = e.Name
				}
			})
		}
	}
	all.Wait()
	if len(given) != 2*3*12 || len(store.keys(t, "claims/")) != len(given) {
		t.Errorf("%d addresses were given, and the store has %d claims", len(given), len(store.keys(t, "claims/")))
	}

	// One address of two is given back; the endpoint's own stay as long as it is there.
	e := container("last")
	held, err := hosts[0].HoldFree(t.Context(), n, e, false)
	must(t, err)
	held, err = hosts[0].HoldFree(t.Context(), n, held, true)
	must(t, err)
	held.IPv6 = netip.Prefix{}
	must(t, hosts[0].Hold(t.Context(), n, held))
	if count := len(store.keys(t, "claims/")); count != len(given)+1 {
		t.Errorf("%d claims, want %d", count, len(given)+1)
	}
	must(t, hosts[0].Release(t.Context(), n.ID, e.Owner))
	if count := len(store.keys(t, "claims/")); count != len(given) {
		t.Errorf("%d claims, want %d", count, len(given))
	}
}

// TestHoldFreeAlone reserves addresses while the store is away: they are from the
// host's block, and the store is told when it is back.
func TestHoldFreeAlone(t *testing.T) {
	m := nstest.New(t)
	etcd := etcdtest.Alone(t, m)
	store := &client{from: m, endpoints: []string{etcd.Endpoint()}}
	c := host(t, m, 1, store.url(), short(5*time.Second, time.Minute))
	ready(t, c)
	n := lab(t, c, "lab", "10.0.0.0/24")
	first, err := c.HoldFree(t.Context(), n, container("first"), false)
	must(t, err)
	store.blocks(t, 1)
	etcd.Kill()
	var alone []cluster.Endpoint
	for range 2 {
		held, err := c.HoldFree(t.Context(), n, container("alone"), false)
		must(t, err)
		if held.IPv4 == first.IPv4 || len(alone) > 0 && held.IPv4 == alone[0].IPv4 {
			t.Errorf("%s was given twice", held.IPv4)
		}
		alone = append(alone, held)
	}
	joined, err := c.Join(t.Context(), n, alone[0])
	if err != nil || joined.IPv4 != alone[0].IPv4 {
		t.Errorf("joining with what is held: %v, %v", joined.IPv4, err)
	}
	must(t, c.Release(t.Context(), n.ID, alone[1].Owner))
	etcd.Restart(t)
	eventually(t, "the store is told", func() bool {
		return len(store.keys(t, "claims/")) == 2 && len(store.keys(t, "endpoints/")) == 1
	})
}
