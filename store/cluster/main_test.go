package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/ipam"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/store/cluster"
	"github.com/linkspan/linkspan/store/etcdtest"
)

func TestMain(m *testing.M) { nstest.Main(m) }

// patience is how long what should happen may take.
const patience = 60 * time.Second

type machine = *nstest.Machine

// host opens a host of the cluster, on a machine, that has nothing yet.
func host(t testing.TB, m machine, number int, store string, change ...func(*cluster.Options)) *cluster.Cluster {
	t.Helper()
	c := opened(t, m, number, store, change...)
	c.Resume(nil, nil)
	return c
}

// opened is host before it said what it has.
func opened(t testing.TB, m machine, number int, store string, change ...func(*cluster.Options)) *cluster.Cluster {
	t.Helper()
	o, err := cluster.ParseStore(store, nil)
	must(t, err)
	o.Dial = etcdtest.Dial(m)
	o.Self = cluster.Member{
		ID: linkspan.ID(fmt.Sprintf("%064x", number)), Name: fmt.Sprintf("h%d", number), VTEP: netip.AddrFrom4([4]byte{192, 0, 2, byte(number)}),
	}
	o.Logf = func(format string, args ...any) { t.Logf("h%d: "+format, append([]any{number}, args...)...) }
	for _, f := range change {
		f(&o)
	}
	c, err := cluster.Open(context.Background(), o)
	must(t, err)
	t.Cleanup(func() { must(t, c.Close()) })
	return c
}

func ready(t testing.TB, hosts ...*cluster.Cluster) {
	t.Helper()
	for _, c := range hosts {
		eventually(t, fmt.Sprintf("%s reaches the store", c.Self().Name), func() bool { return c.Err() == nil })
	}
}

func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	if !nstest.Until(patience, holds) {
		t.Fatalf("not within %s: %s", patience, what)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// lab makes a network. Like join, it asks again when the machine is so busy that
// the store seems away.
func lab(t testing.TB, c *cluster.Cluster, name, subnet string, change ...func(*network.Network)) network.Network {
	t.Helper()
	choose := record(name, subnet, change...)
	return persistent(t, func() (network.Network, error) { return c.CreateNetwork(t.Context(), choose) })
}

func persistent[T any](t testing.TB, try func() (T, error)) T {
	t.Helper()
	var got T
	var err error
	nstest.Until(patience, func() bool {
		got, err = try()
		return !errors.Is(err, linkspan.ErrUnavailable)
	})
	must(t, err)
	return got
}

func record(name, subnet string, change ...func(*network.Network)) func([]network.Network, uint32) (network.Network, error) {
	id := linkspan.NewID()
	return func(_ []network.Network, vni uint32) (network.Network, error) {
		prefix := netip.MustParsePrefix(subnet)
		n := network.Network{
			ID: id, Name: name, Driver: "overlay", Scope: "global", IPv4: prefix.Addr().Is4(), IPv6: prefix.Addr().Is6(), VNI: vni,
			Pools: []ipam.Pool{{Subnet: prefix, Gateway: prefix.Addr().Next()}},
		}
		for _, f := range change {
			f(&n)
		}
		return n, nil
	}
}

// container is an endpoint that wants any address.
func container(name string) cluster.Endpoint {
	return cluster.Endpoint{ID: linkspan.NewID(), Owner: linkspan.NewID(), Name: name, MAC: network.RandomMAC()}
}

func join(t testing.TB, c *cluster.Cluster, n network.Network, e cluster.Endpoint) cluster.Endpoint {
	t.Helper()
	return persistent(t, func() (cluster.Endpoint, error) { return c.Join(t.Context(), n, e) })
}

func pool(subnet, gateway string) ipam.Pool {
	return ipam.Pool{Subnet: netip.MustParsePrefix(subnet), Gateway: netip.MustParseAddr(gateway)}
}
