package cluster_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/store/cluster"
	"github.com/linkspan/linkspan/store/etcdtest"
)

// several opens hosts that share a loopback with the store.
func several(t testing.TB, count int) ([]*cluster.Cluster, *client) {
	t.Helper()
	m := nstest.New(t)
	etcd := etcdtest.Alone(t, m)
	store := &client{from: m, endpoints: []string{etcd.Endpoint()}}
	var hosts []*cluster.Cluster
	for i := range count {
		hosts = append(hosts, host(t, m, i+1, store.url()))
	}
	ready(t, hosts...)
	return hosts, store
}

// TestOneName has many hosts make a network of one name at the same time, and
// each one of its own.
func TestOneName(t *testing.T) {
	hosts, store := several(t, 8)
	var all sync.WaitGroup
	var mu sync.Mutex
	made := 0
	numbers := make(map[uint32]string)
	for i, c := range hosts {
		all.Go(func() {
			_, err := c.CreateNetwork(t.Context(), record("lab", fmt.Sprintf("10.1.%d.0/24", i)))
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				made++
			case !errors.Is(err, linkspan.ErrConflict) || !strings.Contains(err.Error(), "network with name lab already exists"):
				t.Errorf("h%d: %v", i+1, err)
			}
		})
		all.Go(func() {
			n, err := c.CreateNetwork(t.Context(), record(fmt.Sprint("own", i), fmt.Sprintf("10.2.%d.0/24", i)))
			mu.Lock()
			defer mu.Unlock()
			if err != nil || n.VNI < 4096 {
				t.Errorf("h%d: number %d, %v", i+1, n.VNI, err)
			} else if other := numbers[n.VNI]; other != "" {
				t.Errorf("%s and %s both have %d", n.Name, other, n.VNI)
			}
			numbers[n.VNI] = n.Name
		})
	}
	all.Wait()
	if made != 1 {
		t.Errorf("%d hosts made the network, not one", made)
	}
	if got := len(store.keys(t, "networks/")); got != len(hosts)+1 {
		t.Errorf("there are %d networks", got)
	}
}

// TestNetworkRefusals asks for what other networks have.
func TestNetworkRefusals(t *testing.T) {
	hosts, _ := several(t, 2)
	a, b := hosts[0], hosts[1]
	n := lab(t, a, "lab", "10.0.0.0/24", func(n *network.Network) { n.VNI = 300 })
	for _, refused := range []struct {
		name, subnet string
		vni          uint32
		kind         error
		words        string
	}{
		{"lab", "10.9.0.0/24", 301, linkspan.ErrConflict, "network with name lab already exists"},
		{"two", "10.0.0.128/25", 301, linkspan.ErrForbidden, "10.0.0.0/24 of network lab"},
		{"two", "10.9.0.0/24", 300, linkspan.ErrForbidden, "could not assign vxlan id 300 to network two: network lab"},
	} {
		_, err := b.CreateNetwork(t.Context(), record(refused.name, refused.subnet, func(n *network.Network) { n.VNI = refused.vni }))
		if !errors.Is(err, refused.kind) || !strings.Contains(err.Error(), refused.words) {
			t.Errorf("%s %s %d: %v", refused.name, refused.subnet, refused.vni, err)
		}
	}
	must(t, b.RemoveNetwork(t.Context(), n.ID))
	first := lab(t, a, "lab", "10.0.0.0/24")
	must(t, b.RemoveNetwork(t.Context(), first.ID))
	second := lab(t, a, "lab", "10.0.0.0/24")
	if second.VNI != first.VNI+1 {
		t.Errorf("number %d was given after %d: one that was just given back may still be on a host that is cut off", second.VNI, first.VNI)
	}
}

// TestManyJoins joins from many hosts at the same time: no address twice, and
// the low ones first.
func TestManyJoins(t *testing.T) {
	hosts, store := several(t, 5)
	n := lab(t, hosts[0], "lab", "10.0.0.0/23")
	var all sync.WaitGroup
	var mu sync.Mutex
	given := make(map[netip.Addr]string)
	for i, c := range hosts {
		for j := range 20 {
			all.Go(func() {
				name := fmt.Sprintf("c%d-%d", i, j)
				e, err := c.Join(t.Context(), n, container(name))
				if err != nil {
					t.Errorf("%s: %v", name, err)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				if other := given[e.IPv4.Addr()]; other != "" {
					t.Errorf("%s and %s both have %s", name, other, e.IPv4)
				}
				given[e.IPv4.Addr()] = name
			})
		}
	}
	all.Wait()
	if len(store.keys(t, "claims/")) != 100 || len(store.keys(t, "endpoints/")) != 100 {
		t.Errorf("%d claims of %d endpoints", len(store.keys(t, "claims/")), len(store.keys(t, "endpoints/")))
	}
	for _, c := range hosts {
		eventually(t, "every host knows all", func() bool {
			return names(c.Endpoints(n.ID)) == names(hosts[0].Endpoints(n.ID)) && len(c.Endpoints(n.ID)) == 100
		})
	}
	var leaving sync.WaitGroup
	for _, c := range hosts {
		for _, e := range c.Endpoints(n.ID) {
			if e.Member == c.Self().ID {
				leaving.Go(func() { must(t, c.Leave(t.Context(), e)) })
			}
		}
	}
	leaving.Wait()
	eventually(t, "the network can be removed", func() bool { return hosts[1].RemoveNetwork(t.Context(), n.ID) == nil })
	if left := store.keys(t, ""); len(left) != len(hosts)+1 {
		t.Errorf("besides the members and the guard there is left: %v", left)
	}
}

// TestAddresses asks for what a pool keeps for itself, in the order that the
// network has.
func TestAddresses(t *testing.T) {
	hosts, store := several(t, 2)
	a, b := hosts[0], hosts[1]
	n := lab(t, a, "lab", "10.0.0.0/24", func(n *network.Network) {
		n.IPv6 = true
		n.Pools[0].Range = netip.MustParsePrefix("10.0.0.64/27")
		n.Pools[0].Aux = map[string]netip.Addr{"router": netip.MustParseAddr("10.0.0.65")}
		n.Pools = append(n.Pools, pool("fd00:1::/64", "fd00:1::1"))
	})
	first, second := join(t, a, n, container("first")), join(t, b, n, container("second"))
	if first.IPv4.String() != "10.0.0.64/24" || first.IPv6.String() != "fd00:1::2/64" {
		t.Errorf("the lowest of the range are 10.0.0.64 and fd00:1::2, not %s and %s", first.IPv4, first.IPv6)
	}
	if second.IPv4.String() != "10.0.0.66/24" || second.IPv6.String() != "fd00:1::3/64" {
		t.Errorf("behind the auxiliary address is 10.0.0.66, not %s; the other is %s", second.IPv4, second.IPv6)
	}
	for addr, kind := range map[string]error{
		"10.0.0.1/24": linkspan.ErrForbidden, "10.0.0.65/24": linkspan.ErrForbidden, "10.0.0.255/24": linkspan.ErrForbidden,
		"10.7.0.2/24": linkspan.ErrInvalid, "fd00:1::/64": linkspan.ErrForbidden, "fd00:1::3/64": linkspan.ErrConflict, "10.0.0.64/24": linkspan.ErrConflict,
	} {
		if _, err := a.Join(t.Context(), n, wants("x", addr)); !errors.Is(err, kind) {
			t.Errorf("%s: %v", addr, err)
		}
	}
	outside := join(t, a, n, wants("outside", "10.0.0.9/24"))
	if outside.IPv4.String() != "10.0.0.9/24" || outside.IPv6.String() != "fd00:1::4/64" {
		t.Errorf("a static address outside of the range: %s, %s", outside.IPv4, outside.IPv6)
	}
	store.blocks(t, 2) // IPv6 only: the range is too small for any

	serial := lab(t, a, "serial", "10.1.0.0/24", func(n *network.Network) {
		n.IPAMOptions = map[string]string{"com.docker.network.ipam.serial": "true"}
	})
	for i, c := range []*cluster.Cluster{a, b, a} {
		e := join(t, c, serial, container("turn"))
		if want := fmt.Sprintf("10.1.0.%d/24", i+2); e.IPv4.String() != want {
			t.Errorf("in turn comes %s, not %s", want, e.IPv4)
		}
		other := hosts[(i+1)%2]
		eventually(t, "the other host knows how far it went", func() bool { return len(other.Endpoints(serial.ID)) == 1 })
		must(t, c.Leave(t.Context(), e))
	}
}

// TestFull fills a network from two hosts to its last address.
func TestFull(t *testing.T) {
	hosts, store := several(t, 2)
	n := lab(t, hosts[0], "lab", "10.0.0.0/25")
	// 128 without the network's, the gateway's and the broadcast address.
	for i := range 125 {
		c := hosts[i%2]
		eventually(t, "the reserves are given back in time", func() bool {
			_, err := c.Join(t.Context(), n, container(fmt.Sprint("c", i)))
			return err == nil
		})
		if i == 9 {
			store.blocks(t, 2)
		}
	}
	_, err := hosts[0].Join(t.Context(), n, container("more"))
	if !errors.Is(err, linkspan.ErrUnavailable) || !strings.Contains(err.Error(), "no available IPv4 addresses on this network's address pools: lab") || !strings.Contains(err.Error(), "containers on 2 hosts have 125") {
		t.Errorf("a join on a full network: %v", err)
	}
	store.blocks(t, 0)
}

// TestHold reserves the address of a container that does not run.
func TestHold(t *testing.T) {
	hosts, store := several(t, 2)
	a, b := hosts[0], hosts[1]
	n := lab(t, a, "lab", "10.0.0.0/24")
	db := wants("db", "10.0.0.2/24")
	must(t, a.Hold(t.Context(), n, db))
	must(t, a.Hold(t.Context(), n, db)) // twice is once
	if err := b.Hold(t.Context(), n, wants("other", "10.0.0.2/24")); !errors.Is(err, linkspan.ErrConflict) || !strings.Contains(err.Error(), "container db, stopped, on host h1") {
		t.Errorf("reserving a reserved address: %v", err)
	}
	if e := join(t, b, n, container("any")); e.IPv4.String() != "10.0.0.3/24" {
		t.Errorf("%s was given, which is reserved", e.IPv4)
	}
	if _, err := a.Join(t.Context(), n, wants("thief", "10.0.0.2/24")); !errors.Is(err, linkspan.ErrConflict) {
		t.Errorf("on the same host, for another container: %v", err)
	}
	if err := b.RemoveNetwork(t.Context(), n.ID); !errors.Is(err, linkspan.ErrForbidden) || !strings.Contains(err.Error(), "container db, stopped, on host h1 has 10.0.0.2") {
		t.Errorf("removing a network on which an address is reserved: %v", err)
	}
	running := join(t, a, n, db)
	if running.IPv4.String() != "10.0.0.2/24" {
		t.Errorf("the container got %s", running.IPv4)
	}
	must(t, a.Leave(t.Context(), running))
	if _, err := b.Join(t.Context(), n, wants("thief", "10.0.0.2/24")); !errors.Is(err, linkspan.ErrConflict) {
		t.Errorf("when it has left again: %v", err)
	}
	moved := db
	moved.IPv4 = netip.MustParsePrefix("10.0.0.9/24")
	must(t, a.Hold(t.Context(), n, moved))
	must(t, a.Release(t.Context(), n.ID, db.Owner))
	join(t, b, n, wants("heir", "10.0.0.2/24"))
	eventually(t, "there are two addresses", func() bool { return len(store.keys(t, "claims/")) == 2 })
}
