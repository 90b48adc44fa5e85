package controller_test

import (
	"os"
	"strings"
	"testing"

	"github.com/docker/go-plugins-helpers/network"
	apinetwork "github.com/moby/moby/api/types/network"

	"github.com/linkspan/linkspan/controller"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/plugin/plugintest"
)

// A driver that finds addresses itself, as one that asks a DHCP server does: the
// engine leaves them open, and takes what it is told.
func TestPluginSuppliesAddresses(t *testing.T) {
	m := nstest.New(t)
	driver := plugintest.NewNetwork(m)
	driver.Prefix = "lan"
	driver.Supply = &network.EndpointInterface{Address: "10.99.0.5/24", MacAddress: "02:42:0a:63:00:05"}
	p := startPlugged(t, m, newRoots(t), t.TempDir())
	plugintest.Serve(t, p.socket("lab-driver"), driver.Handler())
	p.network(t, "lab", driverIs("lab-driver"), ipamIs("null"))
	web := spec("web", "lab")
	a := p.run(t, web)
	if got := m.Sh(t, "ip -n "+nsOf(a)+" addr show lan0"); !strings.Contains(got, "10.99.0.5/24") || !strings.Contains(got, "02:42:0a:63:00:05") {
		t.Errorf("the interface is not as the plugin said:\n%s", got)
	}
	if s := p.Settings(web.ID).Networks["lab"]; s.IPAddress.String() != "10.99.0.5" || s.IPPrefixLen != 24 || s.MacAddress.String() != "02:42:0a:63:00:05" {
		t.Errorf("settings: %+v", s)
	}
	hosts, err := os.ReadFile(a.Hosts)
	must(t, err)
	if !strings.Contains(string(hosts), "10.99.0.5\t") {
		t.Errorf("hosts does not know the address:\n%s", hosts)
	}
	must(t, p.Detach(t.Context(), web.ID))

	// The user's own name for the interface counts, for plugins too.
	named := spec("named", "lab", func(c *controller.Container) {
		c.Networking.EndpointsConfig["lab"] = &apinetwork.EndpointSettings{DriverOpts: map[string]string{"com.docker.network.endpoint.ifname": "uplink"}}
	})
	a = p.run(t, named)
	m.Sh(t, "ip -n "+nsOf(a)+" addr show uplink | grep 10.99.0.5/24")
	must(t, p.Detach(t.Context(), named.ID))

	// What the user chose the plugin must not change.
	driver.Supply = &network.EndpointInterface{MacAddress: "02:00:00:00:00:09"}
	fixed := spec("fixed", "lab", func(c *controller.Container) {
		c.Networking.EndpointsConfig["lab"] = &apinetwork.EndpointSettings{MacAddress: apinetwork.HardwareAddr{2, 0, 0, 0, 0, 8}}
	})
	must(t, p.Reserve(fixed))
	if _, err := p.Attach(t.Context(), fixed.ID); err == nil || !strings.Contains(err.Error(), "driver modified interface MAC address") || !strings.Contains(err.Error(), "rolled back") {
		t.Errorf("a changed MAC: %v", err)
	}
	if len(driver.Left()) != 1 {
		t.Errorf("left with the plugin: %v", driver.Left())
	}
	p.clear(t)
}
