package controller_test

import (
	"net/netip"
	"testing"

	apinetwork "github.com/moby/moby/api/types/network"

	"github.com/linkspan/linkspan/controller"
	"github.com/linkspan/linkspan/drivers/bridge"
	"github.com/linkspan/linkspan/internal/nstest"
)

// unnamed takes the endpoint away that a spec begins with.
func unnamed(c *controller.Container) { clear(c.Networking.EndpointsConfig) }

// A client that names networks and no mode wants those, without the default one.
func TestNetworksWithoutMode(t *testing.T) {
	m := nstest.New(t)
	d := start(t, m, newRoots(t))
	d.network(t, "a", subnet("10.71.0.0/24"))
	d.network(t, "b", subnet("10.72.0.0/24"))
	a := d.run(t, spec("web", "", unnamed, on("b", ifname("eth1")), on("a", apinetwork.EndpointSettings{})))
	if got, want := interfaces(t, m, a), "eth0 10.71.0.2, eth1 10.72.0.2"; got != want {
		t.Errorf("interfaces %q, want %q", got, want)
	}
	d.clear(t)
}

// Without a default network, whoever would join it has none, and the flag can
// be given to a host that has one.
func TestNoDefaultNetwork(t *testing.T) {
	m := nstest.New(t)
	r := newRoots(t)
	start(t, m, r).stop(t)
	d := start(t, m, r, func(o *controller.Options) { o.Defaults.NoBridge = true })
	if _, err := d.Network("bridge"); err == nil {
		t.Error("the default network is there")
	}
	d.network(t, "a", subnet("10.71.0.0/24"))
	for name, want := range map[string]string{"": "", "a": "eth0 10.71.0.2"} {
		if got := interfaces(t, m, d.run(t, spec("web"+name, name))); got != want {
			t.Errorf("network %q: interfaces %q, want %q", name, got, want)
		}
	}
	d.clear(t)
}

func TestDefaultNetworkFlags(t *testing.T) {
	m := nstest.New(t)
	d := start(t, m, newRoots(t), func(o *controller.Options) {
		o.Defaults.BridgeAddress = "10.8.0.1/16"
		o.Defaults.FixedCIDR4, o.Defaults.Gateway4 = netip.MustParsePrefix("10.8.4.0/24"), netip.MustParseAddr("10.8.0.254")
	})
	a := d.run(t, spec("web", "bridge"))
	if got, want := interfaces(t, m, a), "eth0 10.8.4.0"; got != want {
		t.Errorf("interfaces %q, want %q", got, want)
	}
	if got, want := m.Sh(t, "ip -n "+nsOf(a)+" route show default"), "default via 10.8.0.254 dev eth0 \n"; got != want {
		t.Errorf("routes %q, want %q", got, want)
	}
	d.clear(t)
}

// Where the bridge has no address, no address is lost to a gateway.
func TestPointToPoint(t *testing.T) {
	m := nstest.New(t)
	d := start(t, m, newRoots(t))
	for name, option := range map[string][3]string{
		"isolated": {"10.71.0", bridge.OptionMode4, "isolated"},
		"inhibit":  {"10.72.0", bridge.OptionInhibit, "true"},
	} {
		d.network(t, name, subnet(option[0]+".0/31"), func(s *controller.NetworkSpec) {
			s.Internal, s.Options = true, map[string]string{option[1]: option[2]}
		})
		one, two := d.run(t, spec("one"+name, name)), d.run(t, spec("two"+name, name))
		if got, want := interfaces(t, m, one)+" "+interfaces(t, m, two), "eth0 "+option[0]+".0 eth0 "+option[0]+".1"; got != want {
			t.Errorf("%s: interfaces %q, want %q", name, got, want)
		}
		m.Sh(t, "ip netns exec "+nsOf(two)+" ping -c1 -W5 "+option[0]+".0")
	}
	d.clear(t)
}
