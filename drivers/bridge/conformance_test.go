package bridge_test

import (
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
	t.Run("IPv6", func(t *testing.T) {
		driverstest.Run(t, driverstest.Local(bridge.Driver{}, nil, true))
	})
}
