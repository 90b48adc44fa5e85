package controller_test

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker/go-plugins-helpers/network"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/controller"
	"github.com/linkspan/linkspan/drivers"
	"github.com/linkspan/linkspan/drivers/bridge"
	"github.com/linkspan/linkspan/drivers/remote"
	"github.com/linkspan/linkspan/firewall/nftables"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/ipam"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/plugin"
	"github.com/linkspan/linkspan/plugin/plugintest"
	"github.com/linkspan/linkspan/store"
)

// soon is how long a test waits for what goes on in the background.
const soon = 20 * time.Second

// plugged is a daemon that finds plugins in a folder of the test's.
type plugged struct {
	*daemon
	plugins *remote.Plugins
	sockets string
}

func startPlugged(t testing.TB, m *nstest.Machine, r roots, sockets string, change ...func(*controller.Options)) *plugged {
	t.Helper()
	p := &plugged{sockets: sockets}
	p.plugins = &remote.Plugins{Logf: t.Logf, Directory: plugin.NewDirectory(plugin.Options{
		Sockets: []string{sockets}, Specs: []string{sockets}, Deadline: 2 * time.Second, Brief: 500 * time.Millisecond, Patience: 300 * time.Millisecond,
		Meet: func(ctx context.Context, name string) { p.Meet(ctx, name) }, Up: func(name string) { p.Heal(name) }, Logf: t.Logf,
	})}
	o := controller.Options{
		Host: m.Host(), Holder: r.shims, Firewall: nftables.Backend{}, ExecRoot: r.exec,
		Drivers: map[string]drivers.Driver{"bridge": bridge.Driver{}}, Plugins: p.plugins,
		Defaults: controller.Defaults{
			Bases4: ipam.DefaultBases(), Bases6: ipam.DefaultBases6("test"), ResolvConf: filepath.Join(r.data, "resolv.conf"),
			Options: bridge.DefaultOptions("linkspan0", 0, true),
		},
		Logf: t.Logf,
	}
	for _, f := range change {
		f(&o)
	}
	epoch, err := m.Host().Epoch()
	must(t, err)
	s, _, err := store.Open(store.Options{
		DataRoot: r.data, ExecRoot: r.exec, Epoch: epoch + r.boot, Codec: op.NewCodec(nftables.Kinds(), remote.Kinds(p.plugins), controller.Kinds(o.Cluster)),
		Quarantine: func(err error) { t.Errorf("quarantine: %v", err) },
	})
	must(t, err)
	o.Store = s
	p.daemon = &daemon{store: s, shims: r.shims}
	p.Controller = controller.New(o)
	must(t, p.Recover(t.Context()))
	t.Cleanup(func() { p.stop(t) })
	return p
}

// stop ends the daemon; what runs stays.
func (p *plugged) stop(t testing.TB) {
	p.plugins.Close()
	p.daemon.stop(t)
}

func (p *plugged) socket(name string) string { return filepath.Join(p.sockets, name+".sock") }

func driverIs(name string) func(*controller.NetworkSpec) {
	return func(s *controller.NetworkSpec) { s.Driver = name }
}

// The calls that a plugin sees for one container, in the documented order.
func TestPluginLifecycle(t *testing.T) {
	m := nstest.New(t)
	driver := plugintest.NewNetwork(m)
	driver.Routes = []*network.StaticRoute{
		{Destination: "10.90.0.0/24", RouteType: 1},
		{Destination: "10.91.0.0/24", RouteType: 0, NextHop: "10.90.0.7"},
	}
	p := startPlugged(t, m, newRoots(t), t.TempDir())
	server := plugintest.Serve(t, p.socket("lab-driver"), driver.Handler())
	p.network(t, "lab", subnet("10.77.0.0/24"), driverIs("lab-driver"))
	p.network(t, "side", subnet("10.78.0.0/24"))
	web := spec("web", "lab", ip4("10.77.0.9"))
	a := p.run(t, web)
	addr := m.Sh(t, "ip -n "+nsOf(a)+" -o -4 addr show eth0; ip -n "+nsOf(a)+" route")
	for _, want := range []string{"10.77.0.9/24", "default via 10.77.0.1 dev eth0", "10.90.0.0/24 dev eth0", "10.91.0.0/24 via 10.90.0.7"} {
		if !strings.Contains(addr, want) {
			t.Errorf("the sandbox lacks %q:\n%s", want, addr)
		}
	}
	m.Sh(t, "nsenter --net="+a.Netns+" ping -n -c1 -W5 10.77.0.1")
	endpoint, join := driver.Endpoint()
	if endpoint.Interface.Address != "10.77.0.9/24" || endpoint.Interface.MacAddress != "" || join.SandboxKey != a.Netns {
		t.Errorf("the plugin was told: %+v %+v", endpoint.Interface, join)
	}
	if got := endpoint.Options["linkspan.container.name"]; got != "web" {
		t.Errorf("the plugin does not know the container's name: %v", endpoint.Options)
	}
	s := p.Settings(web.ID).Networks["lab"]
	if s.IPAddress != netip.MustParseAddr("10.77.0.9") || s.Gateway != netip.MustParseAddr("10.77.0.1") || len(s.MacAddress) != 6 {
		t.Errorf("settings: %+v", s)
	}

	// Another gateway takes over, and hands back.
	must(t, p.Connect(t.Context(), "side", web.ID, nil))
	must(t, p.Disconnect(t.Context(), "side", web.ID, false))

	// A second container, connected while it runs.
	side := spec("side", "side")
	b := p.run(t, side)
	must(t, p.Connect(t.Context(), "lab", side.ID, nil))
	m.Sh(t, "nsenter --net="+b.Netns+" ping -n -c1 -W5 -I eth1 10.77.0.9")
	must(t, p.Disconnect(t.Context(), "lab", side.ID, false))
	must(t, p.Detach(t.Context(), side.ID))
	must(t, p.Detach(t.Context(), web.ID))
	must(t, p.RemoveNetwork(t.Context(), "lab"))

	want := strings.Fields(`GetCapabilities CreateNetwork CreateEndpoint Join ProgramExternalConnectivity EndpointOperInfo
		CreateEndpoint Join ProgramExternalConnectivity EndpointOperInfo RevokeExternalConnectivity Leave DeleteEndpoint
		RevokeExternalConnectivity Leave DeleteEndpoint DeleteNetwork`)
	if got := driver.Calls(); !slices.Equal(got, want) {
		t.Errorf("calls:\n%v\nwant\n%v", got, want)
	}
	if left := driver.Left(); len(left) > 0 || driver.Links() != "" {
		t.Errorf("left with the plugin: %v, links %s", left, driver.Links())
	}
	server.Stop()
	p.clear(t)
}

// A failure at each call leaves nothing behind, on either side.
func TestPluginFailsAtEachCall(t *testing.T) {
	m := nstest.New(t)
	driver := plugintest.NewNetwork(m)
	p := startPlugged(t, m, newRoots(t), t.TempDir())
	plugintest.Serve(t, p.socket("lab-driver"), driver.Handler())
	fail := ""
	driver.Hook = func(call string) error {
		if call == fail {
			return errors.New("not today")
		}
		return nil
	}
	before := settled(t, m)
	fail = "CreateNetwork"
	_, err := p.CreateNetwork(t.Context(), controller.NetworkSpec{Name: "lab", Driver: "lab-driver", IPv4: true})
	if err == nil || !strings.Contains(err.Error(), "not today") || !strings.Contains(err.Error(), "lab-driver") {
		t.Errorf("creating the network: %v", err)
	}
	if diff := nstest.Diff(before, settled(t, m)); diff != "" || len(driver.Left()) > 0 {
		t.Errorf("after a refused network: %v\n%s", driver.Left(), diff)
	}
	fail = ""
	p.network(t, "lab", subnet("10.77.0.0/24"), driverIs("lab-driver"))
	before = settled(t, m)
	known := len(driver.Left())
	for _, fail = range []string{"CreateEndpoint", "Join", "ProgramExternalConnectivity"} {
		web := spec("web", "lab")
		must(t, p.Reserve(web))
		if _, err := p.Attach(t.Context(), web.ID); err == nil || !strings.Contains(err.Error(), "not today") {
			t.Errorf("attaching while %s fails: %v", fail, err)
		}
		if diff := nstest.Diff(before, settled(t, m)); diff != "" || len(driver.Left()) != known {
			t.Errorf("after a refused %s: %v\n%s", fail, driver.Left(), diff)
		}
		if n := len(p.Endpoints(mustNetwork(t, p, "lab"))); n != 0 {
			t.Errorf("after a refused %s, %d endpoints are left", fail, n)
		}
		must(t, p.Forget(web.ID))
	}
	// What is refused on the way out does not stop the removal.
	for _, fail = range []string{"Leave", "DeleteEndpoint", "RevokeExternalConnectivity"} {
		web := spec("web", "lab")
		p.run(t, web)
		must(t, p.Detach(t.Context(), web.ID))
		must(t, p.Forget(web.ID))
	}
	fail = "DeleteNetwork"
	must(t, p.RemoveNetwork(t.Context(), "lab"))
	m.Sh(t, "for l in /sys/class/net/pl*; do test ! -e $l || ip link del ${l##*/} || true; done")
	p.clear(t)
}

func mustNetwork(t testing.TB, p *plugged, name string) (id linkspan.ID) {
	t.Helper()
	n, err := p.Network(name)
	must(t, err)
	return n.ID
}

// A plugin that dies in the middle of a call leaves nothing behind once it is
// back; meanwhile other networks work, and its own is degraded.
func TestPluginDiesInJoinAndComesBack(t *testing.T) {
	m := nstest.New(t)
	driver := plugintest.NewNetwork(m)
	p := startPlugged(t, m, newRoots(t), t.TempDir())
	server := plugintest.Serve(t, p.socket("lab-driver"), driver.Handler())
	p.network(t, "lab", subnet("10.77.0.0/24"), driverIs("lab-driver"))
	before := settled(t, m)
	var once sync.Once
	driver.Hook = func(call string) error {
		if call == "Join" {
			once.Do(func() { go server.Stop(); <-server.Stopping() })
		}
		return nil
	}
	web := spec("web", "lab")
	must(t, p.Reserve(web))
	if _, err := p.Attach(t.Context(), web.ID); err == nil || !strings.Contains(err.Error(), "lab-driver") {
		t.Fatalf("attaching while the plugin dies: %v", err)
	}
	n, err := p.Network("lab")
	must(t, err)
	if p.Degraded(n) == nil {
		t.Error("the network is not degraded")
	}
	if bridge, err := p.Network("bridge"); err != nil || p.Degraded(bridge) != nil {
		t.Errorf("the default network is degraded: %v %v", err, p.Degraded(bridge))
	}
	other := spec("other", "bridge")
	p.run(t, other)
	must(t, p.Detach(t.Context(), other.ID))

	driver.Hook = nil
	plugintest.Serve(t, p.socket("lab-driver"), driver.Handler())
	if !nstest.Until(soon, func() bool {
		_, waiting := p.Dependents("lab-driver")
		return p.Degraded(n) == nil && len(waiting) == 0
	}) {
		_, waiting := p.Dependents("lab-driver")
		t.Fatalf("not healed: %v, waiting %v", p.Degraded(n), waiting)
	}
	if left := driver.Left(); len(left) != 1 {
		t.Errorf("left with the plugin: %v", left)
	}
	if diff := nstest.Diff(before, settled(t, m)); diff != "" {
		t.Errorf("after healing:\n%s", diff)
	}
	p.run(t, web)
	p.clear(t)
	must(t, os.RemoveAll(p.sockets))
}
