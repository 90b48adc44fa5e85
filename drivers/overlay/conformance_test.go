package overlay_test

import (
	"net/netip"
	"testing"

	"github.com/linkspan/linkspan/drivers/driverstest"
	"github.com/linkspan/linkspan/drivers/overlay"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/network"
)

func TestMain(m *testing.M) { nstest.Main(m) }

// uplink is a link with an address of each family, as a machine has.
const (
	uplink   = "ip link add u0 address 02:42:0a:4d:02:00 type veth peer name u1 address 02:42:0a:4d:02:01; ip addr add 192.0.2.1/24 dev u0; ip addr add 2001:db8:2::1/64 dev u0 nodad; ip link set u0 up; ip link set u1 up"
	unuplink = "test ! -e /sys/class/net/u0 || ip link del u0"
)

func TestConformance(t *testing.T) {
	for name, test := range map[string]struct {
		vtep     string
		options  map[string]string
		ipv6     bool
		internal bool
	}{
		"defaults":               {vtep: "192.0.2.1"},
		"over IPv6, MTU, port":   {vtep: "2001:db8:2::1", ipv6: true, options: map[string]string{network.OptionMTU: "1400", overlay.OptionPort: "8472"}},
		"internal, number, IPv6": {vtep: "192.0.2.1", ipv6: true, internal: true, options: map[string]string{overlay.OptionNumbers: "16777215,7"}},
	} {
		t.Run(name, func(t *testing.T) {
			f := driverstest.Local(overlay.Driver{VTEP: netip.MustParseAddr(test.vtep), MTU: 1500}, test.options, test.ipv6)
			f.Setup, f.Teardown = uplink, unuplink
			f.Network.VNI, f.Network.Internal = 4096, test.internal
			if test.internal { // then nobody has a gateway
				for i := range f.Endpoints {
					f.Endpoints[i].Gateway4, f.Endpoints[i].Gateway6 = netip.Addr{}, netip.Addr{}
				}
			}
			n, err := overlay.Driver{}.Adapt(f.Network)
			if err != nil {
				t.Fatal(err)
			}
			f.Network = n
			driverstest.Run(t, f)
		})
	}
}
