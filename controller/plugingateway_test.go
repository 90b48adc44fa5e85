package controller_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/linkspan/linkspan/controller"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/plugin/plugintest"
)

// A network of a plugin's that offers no way out: the container gets one by the
// gateway network, for as long as no other network has one, and unless the plugin
// says that none is wanted.
func TestGatewayNetwork(t *testing.T) {
	m := nstest.New(t)
	driver := plugintest.NewNetwork(m)
	driver.NoGateway = true
	p := startPlugged(t, m, newRoots(t), t.TempDir())
	plugintest.Serve(t, p.socket("lab-driver"), driver.Handler())
	p.network(t, "lab", subnet("10.77.0.0/24"), driverIs("lab-driver"))
	p.network(t, "side", subnet("10.78.0.0/24"))
	web := spec("web", "lab", publish("8080:80"))
	a := p.run(t, web) // the way in is by the gateway network, too, from the start
	if len(a.Ports) != 2 || len(a.Holds) != 2 || len(p.Published(web.ID)) != 2 {
		t.Errorf("published: %+v, %d sockets for the shim", p.Published(web.ID), len(a.Holds))
	}
	routes := func() string { return m.Sh(t, "ip -n "+nsOf(a)+" route; ip -n "+nsOf(a)+" -o link") }
	gw, err := p.Network("docker_gwbridge")
	must(t, err)
	via := "default via " + gw.Pools[0].Gateway.String() + " dev eth1"
	if got := routes(); !strings.Contains(got, via) {
		t.Errorf("no way out by the gateway network:\n%s", got)
	}
	m.Sh(t, "nsenter --net="+a.Netns+" ping -n -c1 -W5 "+gw.Pools[0].Gateway.String())
	if e := p.Endpoints(gw.ID); len(e) != 1 || !strings.HasPrefix(e[0].Name, "gateway_") || len(e[0].DNSNames) > 0 {
		t.Errorf("endpoints of the gateway network: %+v", e)
	}
	if names := p.Settings(web.ID).Networks; len(names) != 1 {
		t.Errorf("the container shows networks %v", names)
	}
	must(t, p.Rename(web.ID, "www"))
	if e := p.Endpoints(gw.ID); !strings.HasPrefix(e[0].Name, "gateway_") {
		t.Errorf("the endpoint was renamed to %s", e[0].Name)
	}

	// Another network has a way out: the gateway network is not needed.
	must(t, p.Connect(t.Context(), "side", web.ID, nil))
	if got := routes(); !strings.Contains(got, "default via 10.78.0.1") || len(p.Endpoints(gw.ID)) != 0 {
		t.Errorf("after a network with a gateway came: %v\n%s", p.Endpoints(gw.ID), got)
	}
	must(t, p.Disconnect(t.Context(), "side", web.ID, false))
	if got := routes(); !strings.Contains(got, "default via "+gw.Pools[0].Gateway.String()) {
		t.Errorf("after it went:\n%s", got)
	}
	if slices.Contains(driver.Calls(), "ProgramExternalConnectivity") {
		t.Errorf("the plugin was told that it is the way out: %v", driver.Calls())
	}
	must(t, p.Detach(t.Context(), web.ID))
	if left := p.Endpoints(gw.ID); len(left) != 0 {
		t.Errorf("left on the gateway network: %v", left)
	}

	driver.DisableGateway = true
	a = p.run(t, spec("quiet", "lab"))
	if got := routes(); strings.Contains(got, "default via") || strings.Contains(got, "eth1") {
		t.Errorf("a way out that was not wanted:\n%s", got)
	}
	p.clear(t)
}

// A container whose only network is internal stays in.
func TestInternalNetworkOfPlugin(t *testing.T) {
	m := nstest.New(t)
	driver := plugintest.NewNetwork(m)
	driver.NoGateway = true
	p := startPlugged(t, m, newRoots(t), t.TempDir())
	plugintest.Serve(t, p.socket("lab-driver"), driver.Handler())
	p.network(t, "lab", subnet("10.77.0.0/24"), driverIs("lab-driver"), internal)
	a := p.run(t, spec("web", "lab"))
	if got := m.Sh(t, "ip -n "+nsOf(a)+" route"); strings.Contains(got, "default") {
		t.Errorf("a way out of an internal network:\n%s", got)
	}
	if got := driver.Network().Options["com.docker.network.internal"]; got != true {
		t.Errorf("the plugin was not told that it is internal: %v", driver.Network().Options)
	}
	p.clear(t)
}

func internal(s *controller.NetworkSpec) { s.Internal = true }
