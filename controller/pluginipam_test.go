package controller_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/linkspan/linkspan/controller"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/plugin/plugintest"
)

func ipamIs(name string) func(*controller.NetworkSpec) {
	return func(s *controller.NetworkSpec) { s.IPAMDriver = name }
}

// Pools, gateways and leases of a bridge network come from a plugin, and all of
// them go back.
func TestPluginIPAM(t *testing.T) {
	m := nstest.New(t)
	p := startPlugged(t, m, newRoots(t), t.TempDir())
	addresses := plugintest.NewIPAM()
	addresses.RequiresMAC = true
	plugintest.Serve(t, p.socket("pool-keeper"), addresses.Handler())
	// The first two pools that it offers are taken: by the host, and by a network.
	m.Sh(t, "ip link add lan type bridge; ip addr add 10.200.0.9/24 dev lan; ip link set lan up")
	p.network(t, "other", subnet("10.200.1.0/24"))
	p.network(t, "lab", ipamIs("pool-keeper"))
	n, err := p.Network("lab")
	must(t, err)
	if n.Pools[0].Subnet.String() != "10.200.2.0/24" || n.Pools[0].Gateway.String() != "10.200.2.1" {
		t.Errorf("pools: %+v", n.Pools)
	}
	if got, want := addresses.Left(), []string{"address 10.200.2.1", "pool here/10.200.2.0/24"}; !slices.Equal(got, want) {
		t.Errorf("the plugin holds %v, want %v", got, want)
	}
	web := spec("web", "lab")
	a := p.run(t, web)
	s := p.Settings(web.ID).Networks["lab"]
	if s.IPAddress != netip.MustParseAddr("10.200.2.2") || s.Gateway != netip.MustParseAddr("10.200.2.1") {
		t.Errorf("settings: %+v", s)
	}
	if got := addresses.MAC("10.200.2.2"); got == "" || got != s.MacAddress.String() {
		t.Errorf("the address was requested for MAC %q, the container has %q", got, s.MacAddress)
	}
	m.Sh(t, "nsenter --net="+a.Netns+" ping -n -c1 -W5 10.200.2.1")
	fixed := spec("fixed", "lab", ip4("10.200.2.77"))
	p.run(t, fixed)
	thief := spec("thief", "lab", ip4("10.200.2.99"))
	must(t, p.Reserve(thief))
	addresses.Take("here/10.200.2.0/24", "10.200.2.99")
	if _, err := p.Attach(t.Context(), thief.ID); err == nil || !strings.Contains(err.Error(), "10.200.2.99 is taken") {
		t.Errorf("a taken address: %v", err)
	}
	addresses.Drop("here/10.200.2.0/24", "10.200.2.99")
	p.clear(t)
	if left := addresses.Left(); len(left) != 0 {
		t.Errorf("the plugin still holds %v", left)
	}
	m.Sh(t, "ip link del lan")
}

// A plugin of each kind in one network; each call of the allocator that fails
// leaves nothing behind.
func TestPluginIPAMFailsAtEachCall(t *testing.T) {
	m := nstest.New(t)
	p := startPlugged(t, m, newRoots(t), t.TempDir())
	addresses, driver := plugintest.NewIPAM(), plugintest.NewNetwork(m)
	plugintest.Serve(t, p.socket("pool-keeper"), addresses.Handler())
	plugintest.Serve(t, p.socket("lab-driver"), driver.Handler())
	fail, after := "", 0
	addresses.Hook = func(call string) error {
		if call == fail {
			if after--; after < 0 {
				return fmt.Errorf("not today")
			}
		}
		return nil
	}
	lab := controller.NetworkSpec{Name: "lab", Driver: "lab-driver", IPAMDriver: "pool-keeper", IPv4: true, IPv6: true}
	for _, at := range []struct {
		call  string
		after int
	}{{"GetDefaultAddressSpaces", 0}, {"RequestPool", 0}, {"RequestPool", 1}, {"RequestAddress", 0}, {"RequestAddress", 1}} {
		fail, after = at.call, at.after
		if _, err := p.CreateNetwork(t.Context(), lab); err == nil || !strings.Contains(err.Error(), "not today") {
			t.Errorf("%s fails after %d: %v", at.call, at.after, err)
		}
		if left := slices.Concat(addresses.Left(), driver.Left()); len(left) > 0 {
			t.Errorf("%s failed after %d: left %v", at.call, at.after, left)
		}
	}
	fail = ""
	_, err := p.CreateNetwork(t.Context(), lab)
	must(t, err)
	held := addresses.Left()
	web := spec("web", "lab")
	must(t, p.Reserve(web))
	for _, after = range []int{0, 1} {
		fail = "RequestAddress"
		if _, err := p.Attach(t.Context(), web.ID); err == nil || !strings.Contains(err.Error(), "not today") {
			t.Errorf("attached without an address: %v", err)
		}
		if got := addresses.Left(); !slices.Equal(got, held) {
			t.Errorf("after a refused lease the plugin holds %v, before %v", got, held)
		}
	}
	fail = ""
	driver.Hook = func(call string) error {
		if call == "Join" {
			return fmt.Errorf("not today")
		}
		return nil
	}
	if _, err := p.Attach(t.Context(), web.ID); err == nil || !strings.Contains(err.Error(), "not today") {
		t.Errorf("attached without a link: %v", err)
	}
	if got := addresses.Left(); !slices.Equal(got, held) {
		t.Errorf("after a refused link the plugin holds %v, before %v", got, held)
	}
	driver.Hook = nil
	p.run(t, web)
	p.clear(t)
	if left := slices.Concat(addresses.Left(), driver.Left()); len(left) > 0 {
		t.Errorf("left with the plugins: %v", left)
	}
	if links := driver.Links(); links != "" {
		t.Errorf("links of the plugin are left: %s", links)
	}
}

// An allocator in Python that keeps nothing over a restart, wants all requests
// repeated, and a MAC in each.
func TestPythonIPAMReplays(t *testing.T) {
	m := nstest.New(t)
	sockets := t.TempDir()
	r := newRoots(t)
	p := startPlugged(t, m, r, sockets)
	script, err := filepath.Abs("testdata/ipam.py")
	must(t, err)
	record := filepath.Join(t.TempDir(), "record")
	startPython := func() (stop func() string) {
		return m.Start(t, "exec python3 "+script+" "+p.socket("pyipam")+" "+record)
	}
	stop := startPython()
	if !nstest.Until(soon, func() bool { _, err := os.Stat(p.socket("pyipam")); return err == nil }) {
		t.Fatalf("the plugin does not start: %s", stop())
	}
	p.network(t, "lab", ipamIs("pyipam"))
	web := spec("web", "lab")
	p.run(t, web)
	want := p.Settings(web.ID).Networks["lab"].IPAddress
	held := func() string {
		text, err := os.ReadFile(record)
		must(t, err)
		return strings.TrimSpace(string(text))
	}
	before := held()
	if !strings.Contains(before, want.String()) {
		t.Fatalf("the plugin does not hold %s: %s", want, before)
	}
	// It is killed and started again, empty.
	stop()
	must(t, os.Remove(p.socket("pyipam")))
	must(t, os.WriteFile(record, nil, 0o600))
	startPython()
	if !nstest.Until(soon, func() bool { _, err := os.Stat(p.socket("pyipam")); return err == nil }) {
		t.Fatal("the plugin does not start again")
	}
	// Somebody's request shows that it was started again: it is told first.
	other := spec("other", "lab")
	p.run(t, other)
	if got := p.Settings(other.ID).Networks["lab"].IPAddress; got == want || !strings.Contains(held(), want.String()) {
		t.Errorf("the plugin was not told again before it was asked for %s: %s", got, held())
	}
	must(t, p.Detach(t.Context(), other.ID))
	// The daemon starts again: all is repeated, too.
	p.stop(t)
	must(t, os.WriteFile(record, nil, 0o600))
	p = startPlugged(t, m, r, sockets)
	if !nstest.Until(soon, func() bool { return held() == before }) {
		t.Errorf("after a restart of the daemon the plugin holds %s, before %s", held(), before)
	}
	p.clear(t)
	if got := held(); got != "" {
		t.Errorf("the plugin still holds %s", got)
	}
}
