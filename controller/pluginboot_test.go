package controller_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/plugin/plugintest"
)

// boot ends a daemon together with all that its machine's kernel and the folder
// for the machine's life have.
func (p *plugged) boot(t *testing.T, m *nstest.Machine, r roots) roots {
	t.Helper()
	live, _ := p.Owners()
	for _, id := range live {
		if a := p.Settings(id); a.SandboxKey != "" {
			m.Sh(t, "ip netns del "+a.SandboxKey[strings.LastIndex(a.SandboxKey, "/")+1:])
		}
	}
	p.shims.end()
	p.stop(t)
	m.Sh(t, "for l in $(ip -o link show group 27763 | cut -d: -f2 | cut -d@ -f1); do ip link del $l 2>/dev/null || true; done; nft flush ruleset")
	must(t, os.RemoveAll(r.exec))
	r.boot += "+"
	return r
}

// The machine boots while plugins hold what containers had: networks and static
// addresses are as they were, and what the containers had is given back, before
// anything new is asked for. Plugins that come up later hear of it then.
func TestPluginsOverABoot(t *testing.T) {
	m := nstest.New(t)
	sockets, r := t.TempDir(), newRoots(t)
	driver, addresses := plugintest.NewNetwork(m), plugintest.NewIPAM()
	p := startPlugged(t, m, r, sockets)
	server := plugintest.Serve(t, p.socket("lab-driver"), driver.Handler())
	keeper := plugintest.Serve(t, p.socket("pool-keeper"), addresses.Handler())
	p.network(t, "lab", driverIs("lab-driver"), ipamIs("pool-keeper"))
	p.network(t, "plain", ipamIs("pool-keeper"))
	n, err := p.Network("lab")
	must(t, err)
	held := addresses.Left()
	web, fixed := spec("web", "lab"), spec("fixed", "lab", ip4("10.200.0.77"))
	side := spec("side", "plain")
	p.run(t, web)
	p.run(t, fixed)
	p.run(t, side)
	if got := len(addresses.Left()) - len(held); got != 3 {
		t.Fatalf("%d addresses are leased: %v", got, addresses.Left())
	}
	// A network whose removal waits for a plugin.
	p.network(t, "leaving", driverIs("lab-driver"), ipamIs("pool-keeper"))
	server.Stop()
	must(t, p.RemoveNetwork(t.Context(), "leaving"))
	keeper.Stop()
	r = p.boot(t, m, r)
	p = startPlugged(t, m, r, sockets)
	if _, waiting := p.Dependents("lab-driver"); len(waiting) != 3 {
		t.Errorf("after the boot, what waits for the driver: %v", waiting)
	}
	if !nstest.Until(soon, func() bool { return p.Degraded(n) != nil }) {
		t.Error("the network is not degraded")
	}
	plugintest.Serve(t, p.socket("pool-keeper"), addresses.Handler())
	plugintest.Serve(t, p.socket("lab-driver"), driver.Handler())
	// At once: the address of before must be free for it.
	if !nstest.Until(soon, func() bool {
		a, err := p.Attach(t.Context(), fixed.ID)
		if err == nil {
			p.shims.launched(fixed.ID, a)
		}
		return err == nil
	}) {
		t.Fatalf("the container with a static address does not start; held: %v", addresses.Left())
	}
	if got := p.Settings(fixed.ID).Networks["lab"].IPAddress.String(); got != "10.200.0.77" {
		t.Errorf("the static address is %s", got)
	}
	want := slices.Sorted(slices.Values(append(held, "address 10.200.0.77")))
	if !nstest.Until(soon, func() bool { return slices.Equal(addresses.Left(), want) }) {
		t.Errorf("the allocator holds %v, want %v", addresses.Left(), want)
	}
	if !nstest.Until(soon, func() bool { return len(driver.Left()) == 3 }) { // the network, and an endpoint with its join
		t.Errorf("the driver holds %v", driver.Left())
	}
	p.clear(t)
	if left := slices.Concat(addresses.Left(), driver.Left()); len(left) > 0 {
		t.Errorf("left with the plugins: %v", left)
	}
	m.Sh(t, "for l in /sys/class/net/pl*; do test ! -e $l || ip link del ${l##*/} || true; done")
}
