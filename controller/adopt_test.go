package controller_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/linkspan/linkspan/controller"
	"github.com/linkspan/linkspan/drivers/bridge"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/ipam"
)

func onBridge(name string) func(*controller.NetworkSpec) {
	return func(s *controller.NetworkSpec) { s.Options = map[string]string{bridge.OptionName: name} }
}

// A network on a bridge of the user's own works, and leaves the bridge to the
// letter as it was, whatever that was like.
func TestAdoptedBridge(t *testing.T) {
	for name, test := range map[string]struct {
		script string
		change func(*controller.NetworkSpec)
		want   string // the gateway of a container
	}{
		"bare and down": {"ip link add mine0 type bridge", subnet("10.71.0.0/24"), "10.71.0.1"},
		"with ports": {
			"ip link add mine0 type bridge; ip link add port0 type veth peer name port1; ip link set port0 master mine0; ip link set port0 up; ip link set mine0 up",
			subnet("10.71.0.0/24"), "10.71.0.1",
		},
		"up, with the gateway": {"ip link add mine0 type bridge; ip link set mine0 up; ip addr add 10.71.0.1/24 dev mine0", subnet("10.71.0.0/24"), "10.71.0.1"},
		"down, with other addresses": {
			"ip link add mine0 type bridge ageing_time 10000; ip addr add 10.9.0.1/16 dev mine0; ip -6 addr add fd00:9::1/64 dev mine0",
			subnet("10.71.0.0/24"), "10.71.0.1",
		},
		"its address says the subnet": {"ip link add mine0 type bridge; ip link set mine0 up; ip addr add 10.71.0.254/24 dev mine0", func(*controller.NetworkSpec) {}, "10.71.0.254"},
		"without IPv6, which the network has": {"ip link add mine0 type bridge; sysctl -qw net.ipv6.conf.mine0.disable_ipv6=1", func(s *controller.NetworkSpec) {
			s.IPv6 = true
			s.Pools = []ipam.Pool{{Subnet: netip.MustParsePrefix("10.71.0.0/24")}, {Subnet: netip.MustParsePrefix("fd00:71::/64")}}
		}, "10.71.0.1"},
		"for both, with its own addresses": {"ip link add mine0 type bridge; ip addr add 10.71.0.1/24 dev mine0; ip addr add fd00:71::1/64 dev mine0 nodad; ip link set mine0 up", func(s *controller.NetworkSpec) {
			s.IPv6 = true
		}, "10.71.0.1"},
	} {
		t.Run(name, func(t *testing.T) {
			m := nstest.New(t)
			r := newRoots(t)
			d := start(t, m, r)
			d.network(t, "earlier", dualStack) // the first network with IPv6 makes the host forward
			m.Sh(t, test.script)
			before := settled(t, m)
			d.network(t, "lab", test.change, onBridge("mine0"))
			web, db := spec("web", "lab"), spec("db", "lab")
			a := d.run(t, web)
			d.run(t, db)
			mac := strings.TrimSpace(m.Sh(t, "cat /sys/class/net/mine0/address"))
			if !strings.Contains(before, mac) {
				t.Errorf("the bridge took the MAC of a container's port: %s", mac)
			}
			s := d.Settings(web.ID).Networks["lab"]
			if s.Gateway.String() != test.want {
				t.Errorf("gateway %s, want %s", s.Gateway, test.want)
			}
			reach(t, m, nsOf(a), s.Gateway.String())
			reach(t, m, nsOf(a), d.Settings(db.ID).Networks["lab"].IPAddress.String())
			if s.IPv6Gateway.IsValid() {
				reach(t, m, nsOf(a), s.IPv6Gateway.String())
			}
			// A restart finds nothing amiss.
			d.stop(t)
			d = start(t, m, r)
			if d.traced.Load() != 0 {
				t.Errorf("a restart made %d kernel operations", d.traced.Load())
			}
			must(t, d.Detach(t.Context(), web.ID))
			must(t, d.Detach(t.Context(), db.ID))
			must(t, d.RemoveNetwork(t.Context(), "lab"))
			diff := ""
			if !nstest.Until(patience, func() bool { diff = nstest.Diff(before, settled(t, m)); return diff == "" }) {
				t.Errorf("after removal the bridge differs:\n%s", diff)
			}
			m.Sh(t, "ip link del mine0; ip link del port0 2>&1 || true")
			d.clear(t)
		})
	}
}

func TestBridgesThatAreNotAdopted(t *testing.T) {
	m := nstest.New(t)
	d := start(t, m, newRoots(t))
	m.Sh(t, "ip link add pair0 type veth peer name pair1; ip link add mine0 type bridge")
	id := d.network(t, "lab")
	d.network(t, "mine", onBridge("mine0"))
	before := settled(t, m)
	for name, want := range map[string]string{
		"pair0":            "existing interface pair0 is not a bridge",
		"mine0":            "of network mine",
		"br-" + id.Short(): " (br-" + id.Short() + "): conflicts with network " + string(id) + " (br-" + id.Short() + "): networks have same bridge name (see: docker network inspect lab)",
		"lo":               "existing interface lo is not a bridge",
	} {
		_, err := d.CreateNetwork(t.Context(), controller.NetworkSpec{Name: "other", IPv4: true, Options: map[string]string{bridge.OptionName: name}})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", name, err, want)
		}
	}
	if diff := nstest.Diff(before, settled(t, m)); diff != "" {
		t.Errorf("the refusals changed something:\n%s", diff)
	}
	m.Sh(t, "ip link del pair0")
	must(t, d.RemoveNetwork(t.Context(), "mine"))
	m.Sh(t, "ip link del mine0")
	d.clear(t)
}
