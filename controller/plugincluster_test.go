package controller_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/linkspan/linkspan/controller"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/plugin/plugintest"
	messages "github.com/linkspan/linkspan/plugin/wire"
)

// A driver of global scope, for a daemon that is part of a cluster: it allocates
// each network once, and knows the cluster's nodes, also after its restart.
func TestPluginInCluster(t *testing.T) {
	m := nstest.New(t)
	driver := plugintest.NewNetwork(m)
	driver.Scope = "global"
	host := newShared().join("one", "192.0.2.1")
	p := startPlugged(t, m, newRoots(t), t.TempDir(), func(o *controller.Options) { o.Cluster = host })
	server := plugintest.Serve(t, p.socket("lab-driver"), driver.Handler())
	self := messages.Node{Address: "192.0.2.1", BindAddress: "192.0.2.1", Self: true}
	other := messages.Node{Address: "192.0.2.2", BindAddress: "192.0.2.2"}
	knows := func(want ...string) {
		t.Helper()
		if !nstest.Until(soon, func() bool { return slices.Equal(driver.Nodes(), want) }) {
			t.Errorf("the plugin knows the nodes %v, want %v", driver.Nodes(), want)
		}
	}
	p.plugins.Nodes([]messages.Node{self})
	p.network(t, "lab", subnet("10.77.0.0/24"), driverIs("lab-driver"))
	knows("1 192.0.2.1 true")
	n, err := p.Network("lab")
	must(t, err)
	if n.Scope != "global" {
		t.Errorf("the network's scope is %s", n.Scope)
	}
	p.run(t, spec("web", "lab")) // this host needs its part of the network now
	request := driver.Network()
	options, _ := request.Options["com.docker.network.generic"].(map[string]any)
	if options["number"] != "4096" || request.IPv4Data[0].AddressSpace != "GlobalDefault" {
		t.Errorf("the network was announced with %v %+v", options, request.IPv4Data[0])
	}
	p.plugins.Nodes([]messages.Node{self, other})
	knows("1 192.0.2.1 true", "1 192.0.2.2 false")
	server.Stop()
	driver.Forget()
	server = plugintest.Serve(t, p.socket("lab-driver"), driver.Handler())
	p.run(t, spec("other", "lab")) // who needs the plugin notices
	knows("1 192.0.2.1 true", "1 192.0.2.2 false")
	p.plugins.Nodes([]messages.Node{self})
	knows("1 192.0.2.1 true")

	// What was allocated is freed when the plugin is back, if it was away.
	p.network(t, "late", driverIs("lab-driver"))
	server.Stop()
	must(t, p.RemoveNetwork(t.Context(), "late"))
	if _, waiting := p.Dependents("lab-driver"); !slices.Equal(waiting, []string{"network late"}) {
		t.Errorf("what waits for the plugin: %v", waiting)
	}
	server = plugintest.Serve(t, p.socket("lab-driver"), driver.Handler())
	if !nstest.Until(soon, func() bool { _, waiting := p.Dependents("lab-driver"); return len(waiting) == 0 }) {
		t.Error("what was allocated is not freed")
	}
	p.clear(t)

	// What was allocated for a network that could not be made is freed.
	host.away(true)
	if _, err := p.CreateNetwork(t.Context(), controller.NetworkSpec{Name: "no", Driver: "lab-driver", IPv4: true}); err == nil {
		t.Error("a network was made without the store that hosts share")
	}
	host.away(false)
	var about []string
	for _, call := range driver.Calls() {
		if strings.HasSuffix(call, "Network") {
			about = append(about, call)
		}
	}
	want := strings.Fields("AllocateNetwork CreateNetwork CreateNetwork AllocateNetwork FreeNetwork DeleteNetwork FreeNetwork AllocateNetwork FreeNetwork")
	if !slices.Equal(about, want) {
		t.Errorf("calls %v, want %v", about, want)
	}
	server.Stop()
}
