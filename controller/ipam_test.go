package controller_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/controller"
	"github.com/linkspan/linkspan/drivers"
	"github.com/linkspan/linkspan/endpoint"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/ipam"
	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/sandbox"
)

// wire is a driver that plans nothing: addresses without a kernel, and without
// a gateway on a link of the host's.
type wire struct{}

func (wire) Traits() drivers.Traits                                     { return drivers.Traits{Scope: "local", Addresses: true} }
func (wire) Check(context.Context, *kernel.Host, network.Network) error { return nil }
func (wire) Network(network.Network) (op.Plan, error)                   { return op.Plan{}, nil }
func (wire) Endpoint(network.Network, endpoint.Endpoint, sandbox.Sandbox) (op.Plan, error) {
	return op.Plan{}, nil
}

func wired(o *controller.Options) { o.Drivers["wire"] = wire{} }

// pool adds an address pool, in the words of the command.
func pool(subnet, ipRange, gateway string, aux ...string) func(*controller.NetworkSpec) {
	return func(s *controller.NetworkSpec) {
		names := make(map[string]string)
		for i, addr := range aux {
			names[fmt.Sprint("aux", i)] = addr
		}
		p, err := ipam.ParsePool(subnet, ipRange, gateway, names)
		if err != nil {
			panic(err)
		}
		s.Pools = append(s.Pools, p)
		if p.Subnet.Addr().Is6() {
			s.IPv6 = true
		}
	}
}

// onWire networks are internal: a default route would need a link.
func onWire(s *controller.NetworkSpec) { s.Driver, s.Internal = "wire", true }

func (d *daemon) refused(t *testing.T, kind error, words string, change ...func(*controller.NetworkSpec)) {
	t.Helper()
	spec := controller.NetworkSpec{Name: "refused", IPv4: true}
	for _, f := range change {
		f(&spec)
	}
	_, err := d.CreateNetwork(t.Context(), spec)
	if !errors.Is(err, kind) {
		t.Errorf("error %v is not of kind %v", err, kind)
	}
	for _, word := range strings.Split(words, "…") {
		if err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("error %q does not say %q", err, word)
		}
	}
}

// addresses starts containers on a network and returns what they got.
func (d *daemon) addresses(t *testing.T, n linkspan.ID, names ...string) (got []string) {
	t.Helper()
	for _, name := range names {
		c := spec(name, string(n))
		d.run(t, c)
		for _, e := range d.Endpoints(n) {
			if e.Owner == c.ID {
				for _, addr := range e.Addrs() {
					got = append(got, addr.String())
				}
			}
		}
	}
	return got
}

func TestDefaultPoolsKeepOffTheHost(t *testing.T) {
	m := nstest.New(t)
	m.Sh(t, "ip link add lan type bridge; ip link set lan up; ip addr add 172.18.0.9/24 dev lan; ip route add 0.0.0.0/1 dev lan; ip route add 128.0.0.0/1 dev lan")
	r := newRoots(t)
	must(t, os.MkdirAll(r.data, 0o755))
	must(t, os.WriteFile(filepath.Join(r.data, "resolv.conf"), []byte("nameserver 172.19.0.53\n"), 0o644))
	d := start(t, m, r)
	for i, want := range []string{"172.20.0.0/16", "172.21.0.0/16"} {
		id := d.network(t, fmt.Sprint("n", i))
		n, err := d.Network(string(id))
		must(t, err)
		if got := n.Pools[0].Subnet.String(); got != want {
			t.Errorf("network %d got %s, want %s: 172.17 is the default network's, .18 the host's, .19 a name server's", i, got, want)
		}
	}
	// What the host reaches no longer is free again, without a restart.
	m.Sh(t, "ip link del lan")
	id := d.network(t, "freed")
	if n, _ := d.Network(string(id)); n.Pools[0].Subnet.String() != "172.18.0.0/16" {
		t.Errorf("after the route went: %s", n.Pools[0].Subnet)
	}
	d.clear(t)
}

func TestPoolsRefuseWithTheHolder(t *testing.T) {
	m := nstest.New(t)
	m.Sh(t, "ip link add lan type bridge; ip link set lan up; ip addr add 10.9.0.1/25 dev lan")
	d := start(t, m, newRoots(t), wired, func(o *controller.Options) {
		o.Defaults.Bases4 = []ipam.Base{{Prefix: netip.MustParsePrefix("10.9.0.0/23"), Size: 25}}
		o.Defaults.BridgeAddress = "10.8.0.1/24"
	})
	d.network(t, "lab", pool("10.77.0.0/24", "", "", "10.77.0.9"))
	d.refused(t, linkspan.ErrForbidden, "Pool overlaps with other one on this address space…network lab", pool("10.77.0.0/16", "", ""))
	d.refused(t, linkspan.ErrForbidden, "Address already in use…10.78.0.1", pool("10.78.0.0/24", "", "", "10.78.0.1"))
	d.refused(t, linkspan.ErrForbidden, "networks have overlapping IPv4…network lab", pool("10.77.0.0/24", "10.77.0.128/25", ""))
	d.refused(t, linkspan.ErrForbidden, "doesn't support multiple subnets", pool("10.79.0.0/24", "", ""), pool("10.80.0.0/24", "", ""))
	d.refused(t, linkspan.ErrInvalid, "multicast subnet 'ff00::/64' is not allowed", pool("ff00::/64", "", ""))
	d.refused(t, linkspan.ErrInvalid, "'fe80::/63' clashes with the Link-Local prefix 'fe80::/64'", pool("fe80::/63", "", ""))
	d.refused(t, linkspan.ErrInvalid, "ipv4 pool is empty", func(s *controller.NetworkSpec) { s.IPAMDriver = "null" })
	d.refused(t, linkspan.ErrInvalid, "null ipam driver does not handle specific address pool requests", pool("10.79.0.0/24", "", ""),
		func(s *controller.NetworkSpec) { s.IPAMDriver = "null" })
	d.refused(t, linkspan.ErrInvalid, "invalid address pool", pool("0.0.0.0/20", "", ""))

	for i := range 3 {
		d.network(t, fmt.Sprint("small", i))
	}
	d.refused(t, linkspan.ErrInvalid, "all predefined address pools have been fully subnetted…network small0…a route of the host on lan")
	must(t, d.RemoveNetwork(t.Context(), "small1"))
	d.network(t, "small1")

	d.addresses(t, "lab", "web")
	c := spec("thief", "lab", ip4("10.77.0.2"))
	must(t, d.Reserve(c))
	_, err := d.Attach(t.Context(), c.ID)
	if err == nil || !strings.Contains(err.Error(), "container web on network lab") {
		t.Errorf("a taken address: %v", err)
	}
	m.Sh(t, "ip link del lan")
	d.clear(t)
}

func TestAddressesOfSmallAndLargePools(t *testing.T) {
	m := nstest.New(t)
	d := start(t, m, newRoots(t), wired)
	for _, c := range []struct {
		subnet, ipRange, gateway string
		want                     string // in the order of the containers; "-": none is left
	}{
		{"10.1.0.0/31", "", "", "10.1.0.0 10.1.0.1 -"},
		{"10.1.1.7/32", "", "", "10.1.1.7 -"},
		{"10.1.2.0/30", "", "", "10.1.2.1 10.1.2.2 -"},
		{"10.1.3.0/24", "10.1.3.252/30", "10.1.3.253", "10.1.3.252 10.1.3.254 -"},
		{"fd01::/127", "", "", "fd01::1 -"},
		{"fd02::/128", "", "", "-"},
		{"fd03::/64", "", "fd03::1", "fd03::2 fd03::3"},
		{"fd04::/48", "fd04:0:0:77::/64", "", "fd04:0:0:77:: fd04:0:0:77::1"},
		{"0.0.0.0/28", "", "", "172.18.0.1 172.18.0.2"},
	} {
		id := d.network(t, c.subnet[:strings.Index(c.subnet, "/")], onWire, pool(c.subnet, c.ipRange, c.gateway), func(s *controller.NetworkSpec) {
			s.IPv4 = !s.IPv6
		})
		for i, want := range strings.Fields(c.want) {
			name := fmt.Sprint("c", i)
			if want != "-" {
				if got := d.addresses(t, id, name); len(got) != 1 || got[0] != want {
					t.Errorf("%s: container %d got %v, want %s", c.subnet, i, got, want)
				}
				continue
			}
			full := spec(name, string(id))
			must(t, d.Reserve(full))
			_, err := d.Attach(t.Context(), full.ID)
			if !errors.Is(err, linkspan.ErrUnavailable) || !strings.Contains(err.Error(), "on this network's address pools") {
				t.Errorf("%s: container %d: %v", c.subnet, i, err)
			}
		}
	}
	d.clear(t)
}

// Networks that share a wire share its addresses: none is given twice.
func TestSharedSubnet(t *testing.T) {
	m := nstest.New(t)
	d := start(t, m, newRoots(t), wired)
	low := d.network(t, "low", onWire, pool("10.7.0.0/24", "10.7.0.0/25", "10.7.0.1", "10.7.0.130"))
	high := d.network(t, "high", onWire, pool("10.7.0.0/24", "10.7.0.128/25", ""))
	d.refused(t, linkspan.ErrForbidden, "network high", onWire, pool("10.7.0.0/24", "10.7.0.128/25", ""))
	d.refused(t, linkspan.ErrForbidden, "the gateway of network low", onWire, pool("10.7.0.0/24", "10.7.0.64/26", "10.7.0.1"))
	if got := fmt.Sprint(d.addresses(t, low, "a"), d.addresses(t, high, "b")); got != "[10.7.0.2] [10.7.0.128]" {
		t.Errorf("addresses: %s", got)
	}
	thief := spec("thief", "low", ip4("10.7.0.128"))
	must(t, d.Reserve(thief))
	if _, err := d.Attach(t.Context(), thief.ID); err == nil || !strings.Contains(err.Error(), "container b on network high") {
		t.Errorf("an address of the other network's: %v", err)
	}
	must(t, d.Forget(thief.ID))
	if got := fmt.Sprint(d.addresses(t, high, "c", "e")); got != "[10.7.0.129 10.7.0.131]" {
		t.Errorf("around the other network's auxiliary address: %s", got)
	}
	d.clear(t)
}

// Serial networks give no address again before all others had their turn, also
// across a restart.
func TestSerialOrder(t *testing.T) {
	m := nstest.New(t)
	r := newRoots(t)
	d := start(t, m, r, wired)
	id := d.network(t, "serial", onWire, pool("10.6.0.0/29", "", ""), func(s *controller.NetworkSpec) {
		s.IPAMOptions = map[string]string{"com.docker.network.ipam.serial": "true"}
	})
	var got []string
	for i := range 9 {
		c := spec(fmt.Sprint("c", i), "serial")
		d.run(t, c)
		got = append(got, d.Endpoints(id)[0].IPv4.Addr().String()[len("10.6.0."):])
		must(t, d.Detach(t.Context(), c.ID))
		if i == 4 {
			d.stop(t)
			d = start(t, m, r, wired)
		}
	}
	if want := "1 2 3 4 5 6 1 2 3"; strings.Join(got, " ") != want {
		t.Errorf("serial order: %v, want %s", got, want)
	}
	d.clear(t)
}

func TestNullIPAM(t *testing.T) {
	m := nstest.New(t)
	d := start(t, m, newRoots(t), wired)
	id := d.network(t, "bare", onWire, func(s *controller.NetworkSpec) { s.IPAMDriver = "null" })
	if got := d.addresses(t, id, "web"); len(got) != 0 {
		t.Errorf("addresses %v", got)
	}
	other := d.network(t, "other", onWire, func(s *controller.NetworkSpec) { s.IPAMDriver = "null" })
	if n, _ := d.Network(string(other)); n.Pools[0].Subnet.String() != "0.0.0.0/0" {
		t.Errorf("pool %v", n.Pools)
	}
	d.network(t, "lab") // a pool of all addresses holds none
	d.clear(t)
}
