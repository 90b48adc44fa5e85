package controller_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/linkspan/linkspan/controller"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/ipam"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/plugin/plugintest"
)

// A driver whose network is one cable: its ends come back under their own names,
// so that they serve again and again, in whatever order containers go.
func TestPointToPointPlugin(t *testing.T) {
	m := nstest.New(t)
	driver := plugintest.NewCable(m)
	p := startPlugged(t, m, newRoots(t), t.TempDir())
	server := plugintest.Serve(t, p.socket("p2p"), driver.Handler())
	p.network(t, "line", subnet("10.77.0.0/24"), driverIs("p2p"))
	left, right := spec("left", "line", ip4("10.77.0.2")), spec("right", "line", ip4("10.77.0.3"))
	a := p.run(t, left)
	p.run(t, right)
	m.Sh(t, "nsenter --net="+a.Netns+" ping -n -c1 -W5 10.77.0.3")
	if out := m.Sh(t, "ip -n "+nsOf(a)+" route; ls /sys/class/net"); strings.Contains(out, "default") || strings.Contains(out, "p2p") {
		t.Errorf("a way out that was not wanted, or an end that is still outside:\n%s", out)
	}
	third := spec("third", "line")
	must(t, p.Reserve(third))
	if _, err := p.Attach(t.Context(), third.ID); err == nil || !strings.Contains(err.Error(), "2 endpoints already attached") {
		t.Errorf("a third end: %v", err)
	}
	must(t, p.Forget(third.ID))
	info, err := p.Describe(t.Context(), p.Endpoints(mustNetwork(t, p, "line"))[1])
	if err != nil || info["data"] != `{"ordinal":1}` {
		t.Errorf("what the plugin says of the second endpoint: %v %v", info, err)
	}
	must(t, p.Detach(t.Context(), left.ID))
	m.Sh(t, "ip link show p2p0-0")
	again, err := p.Attach(t.Context(), left.ID)
	must(t, err)
	m.Sh(t, "nsenter --net="+again.Netns+" ping -n -c1 -W5 10.77.0.3")
	must(t, p.Detach(t.Context(), left.ID))
	must(t, p.Detach(t.Context(), right.ID))
	m.Sh(t, "ip link show p2p0-0; ip link show p2p0-1")
	p.clear(t)
	if out := m.Sh(t, "ls /sys/class/net"); strings.Contains(out, "p2p") {
		t.Errorf("links of the plugin are left: %s", out)
	}
	server.Stop()
}

// An allocator that takes no wishes and breaks down over a pool that it does not
// know: the call fails or, on the way out, is taken for done; the plugin itself
// stays in use.
func TestSmallAllocatorPlugin(t *testing.T) {
	m := nstest.New(t)
	p := startPlugged(t, m, newRoots(t), t.TempDir())
	addresses := plugintest.NewBlocks()
	plugintest.Serve(t, p.socket("mini"), addresses.Handler())
	p.network(t, "lab", ipamIs("mini"))
	if _, err := p.CreateNetwork(t.Context(), controller.NetworkSpec{Name: "wish", IPAMDriver: "mini", IPv4: true, Pools: []ipam.Pool{{Subnet: netip.MustParsePrefix("10.99.0.0/24")}}}); err == nil || !strings.Contains(err.Error(), "specific pool requests") {
		t.Errorf("a wish for a pool: %v", err)
	}
	web := spec("web", "lab")
	a := p.run(t, web)
	if got := p.Settings(web.ID).Networks["lab"].IPAddress.String(); got != "10.202.0.2" {
		t.Errorf("the address is %s", got)
	}
	m.Sh(t, "nsenter --net="+a.Netns+" ping -n -c1 -W5 10.202.0.1")
	must(t, p.Detach(t.Context(), web.ID))
	addresses.Lose("minilocal:10.202.0.0/28")
	n, err := p.Network("lab")
	must(t, err)
	must(t, p.RemoveNetwork(t.Context(), "lab"))
	if err := p.Degraded(n); err != nil {
		t.Errorf("the plugin passes for away: %v", err)
	}
	released := slices.DeleteFunc(addresses.Calls(), func(call string) bool { return call != "ReleasePool" })
	if len(released) != 2 {
		t.Errorf("the pool is released %d times, want once and once more: %v", len(released), addresses.Calls())
	}
	p.clear(t)
	if left := addresses.Left(); len(left) > 0 {
		t.Errorf("the plugin still holds %v", left)
	}
}

// A driver that keeps nothing is started again between two calls about the same
// container: it is told once more of what it must know for the second.
func TestPluginForgetsBetweenTwoCalls(t *testing.T) {
	m := nstest.New(t)
	driver := plugintest.NewNetwork(m)
	restart := func() {}
	p := startPlugged(t, m, newRoots(t), t.TempDir(), func(o *controller.Options) {
		o.Trace = func(e op.Event) {
			if e.Verb == op.Did && strings.Contains(e.Step.Op.String(), "NetworkDriver.CreateEndpoint") {
				restart()
			}
		}
	})
	server := plugintest.Serve(t, p.socket("lab-driver"), driver.Handler())
	p.network(t, "lab", subnet("10.77.0.0/24"), driverIs("lab-driver"))
	p.network(t, "aside", subnet("10.78.0.0/24")) // its gateway comes first, by name
	again := func() {
		restart = func() {}
		kept := filepath.Join(t.TempDir(), "inode")
		must(t, os.Link(p.socket("lab-driver"), kept)) // no other socket has its number
		server.Stop()
		driver.Forget()
		server = plugintest.Serve(t, p.socket("lab-driver"), driver.Handler())
	}
	restart = again
	web := spec("web", "lab")
	a := p.run(t, web)
	m.Sh(t, "nsenter --net="+a.Netns+" ping -n -c1 -W5 10.77.0.1")
	must(t, p.Connect(t.Context(), "aside", web.ID, nil))
	again()
	must(t, p.Disconnect(t.Context(), "aside", web.ID, false))
	var calls []string
	for _, call := range driver.Calls() {
		if call != "EndpointOperInfo" && call != "GetCapabilities" {
			calls = append(calls, call)
		}
	}
	want := strings.Fields(`CreateNetwork CreateEndpoint
		Join CreateNetwork CreateEndpoint Join ProgramExternalConnectivity RevokeExternalConnectivity
		ProgramExternalConnectivity CreateNetwork CreateEndpoint ProgramExternalConnectivity`)
	if !slices.Equal(calls, want) {
		t.Errorf("calls:\n%v\nwant\n%v", calls, want)
	}
	p.clear(t)
	if left := driver.Left(); len(left) > 0 {
		t.Errorf("left with the plugin: %v", left)
	}
	server.Stop()
}
