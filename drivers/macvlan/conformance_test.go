package macvlan_test

import (
	"net/netip"
	"testing"

	"github.com/linkspan/linkspan/drivers"
	"github.com/linkspan/linkspan/drivers/driverstest"
	"github.com/linkspan/linkspan/drivers/macvlan"
	"github.com/linkspan/linkspan/internal/nstest"
)

func TestMain(m *testing.M) { nstest.Main(m) }

// wire is a link to somewhere, as a machine's own would be.
const (
	wire   = "ip link add p0 address 02:42:0a:4d:02:00 type veth peer name p1 address 02:42:0a:4d:02:01; ip link set p0 up; ip link set p1 up"
	unwire = "test ! -e /sys/class/net/p0 || ip link del p0"
)

// fixture is a network on p0, adapted as the controller does.
func fixture(t *testing.T, options map[string]string, ipv6 bool) driverstest.Fixture {
	t.Helper()
	f := driverstest.Local(macvlan.Driver{}, options, ipv6)
	f.Network.Driver = "macvlan"
	n, err := drivers.Adapter(macvlan.Driver{}).Adapt(f.Network)
	if err != nil {
		t.Fatal(err)
	}
	f.Network = n
	for i := range f.Endpoints { // past the host's own address
		for _, lease := range []*netip.Prefix{&f.Endpoints[i].IPv4, &f.Endpoints[i].IPv6} {
			if lease.IsValid() {
				*lease = netip.PrefixFrom(lease.Addr().Next().Next(), lease.Bits())
			}
		}
	}
	if options[macvlan.OptionParent] != "" {
		f.Setup, f.Teardown = wire, unwire
	}
	return f
}

func TestConformance(t *testing.T) {
	for name, test := range map[string]struct {
		options map[string]string
		ipv6    bool
		apart   bool
	}{
		"bridge, IPv6, MTU":   {map[string]string{"parent": "p0", "com.docker.network.driver.mtu": "1400"}, true, false},
		"private":             {map[string]string{"parent": "p0", "macvlan_mode": "private"}, false, true},
		"no parent":           {nil, true, false},
		"access for the host": {map[string]string{"parent": "p0", "linkspan.host_access": "true"}, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			f := fixture(t, test.options, test.ipv6)
			f.Apart = test.apart
			driverstest.Run(t, f)
		})
	}
}
