package bridge_test

import (
	"net/netip"
	"testing"

	"github.com/linkspan/linkspan/drivers/bridge"
	"github.com/linkspan/linkspan/drivers/driverstest"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/network"
)

func TestMain(m *testing.M) { nstest.Main(m) }

func TestConformance(t *testing.T) {
	t.Run("defaults", func(t *testing.T) {
		driverstest.Run(t, driverstest.Local(bridge.Driver{}, nil, false))
	})
	t.Run("IPv6, isolated, with an MTU and a name", func(t *testing.T) {
		f := driverstest.Local(bridge.Driver{}, map[string]string{
			bridge.OptionName: "lab0", bridge.OptionICC: "false", network.OptionMTU: "1400",
		}, true)
		f.Apart = true
		driverstest.Run(t, f)
	})
	t.Run("too narrow for IPv6", func(t *testing.T) {
		driverstest.Run(t, driverstest.Local(bridge.Driver{}, map[string]string{network.OptionMTU: "1279"}, false))
	})
	t.Run("IPv6", func(t *testing.T) {
		driverstest.Run(t, driverstest.Local(bridge.Driver{}, nil, true))
	})
	t.Run("on a bridge that is there and down", func(t *testing.T) {
		f := driverstest.Local(bridge.Driver{}, map[string]string{bridge.OptionName: "mine0"}, true)
		f.Setup = "ip link add mine0 address 02:42:0a:4d:00:99 type bridge; ip addr add 10.77.0.1/24 dev mine0; ip addr add 2001:db8:99::1/64 dev mine0"
		f.Teardown = "ip link del mine0 2>&1 || true" // it is asked for twice
		f.Network.Adopted = &network.Adopted{
			MAC:         "02:42:0a:4d:00:99",
			Addresses:   []netip.Prefix{netip.MustParsePrefix("10.77.0.1/24"), netip.MustParsePrefix("2001:db8:99::1/64")},
			DisableIPv6: "0", RouteLocalnet: "0",
		}
		for i := range f.Endpoints {
			f.Endpoints[i].HostMAC = "fe" + f.Endpoints[i].HostMAC[2:]
		}
		driverstest.Run(t, f)
	})
}
