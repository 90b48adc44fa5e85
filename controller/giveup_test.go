package controller_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/plugin/plugintest"
)

// A plugin that is gone for good: what waits for it can be dropped, and the pool
// of another plugin goes back as ever. One that answers is not given up.
func TestGiveUpPlugin(t *testing.T) {
	m := nstest.New(t)
	driver, addresses := plugintest.NewNetwork(m), plugintest.NewIPAM()
	p := startPlugged(t, m, newRoots(t), t.TempDir())
	server := plugintest.Serve(t, p.socket("lab-driver"), driver.Handler())
	plugintest.Serve(t, p.socket("pool-keeper"), addresses.Handler())
	p.network(t, "lab", driverIs("lab-driver"), ipamIs("pool-keeper"))
	web := spec("web", "lab")
	p.run(t, web)
	if _, err := p.GiveUp(t.Context(), "lab-driver"); !errors.Is(err, linkspan.ErrNotFound) {
		t.Errorf("nothing waits for it: %v", err)
	}
	p.network(t, "side", subnet("10.78.0.0/24"))
	must(t, p.Connect(t.Context(), "side", web.ID, nil))
	server.Stop()
	// For who removes them, they are gone; what the plugin must hear of it waits.
	must(t, p.Disconnect(t.Context(), "lab", web.ID, false))
	if left := p.Endpoints(mustNetwork(t, p, "lab")); len(left) > 0 || p.Settings(web.ID).Networks["lab"] != nil {
		t.Errorf("the container is still there: %+v", left)
	}
	must(t, p.Detach(t.Context(), web.ID))
	n, err := p.Network("lab")
	must(t, err)
	if p.Degraded(n) == nil {
		t.Error("the network has a plugin all of a sudden")
	}
	must(t, p.RemoveNetwork(t.Context(), "lab"))
	if slices.ContainsFunc(p.Networks(), func(other network.Network) bool { return other.ID == n.ID }) {
		t.Error("the network is still listed")
	}
	dropped, err := p.GiveUp(t.Context(), "lab-driver")
	if want := []string{"endpoint of container web", "network lab"}; err != nil || !slices.Equal(dropped, want) {
		t.Errorf("dropped %v, want %v: %v", dropped, want, err)
	}
	if left := addresses.Left(); len(left) > 0 {
		t.Errorf("the other plugin still holds %v", left)
	}
	if _, waiting := p.Dependents("lab-driver"); len(waiting) > 0 {
		t.Errorf("still waiting: %v", waiting)
	}
	for _, place := range p.plugins.Places() {
		if place.Name == "lab-driver" {
			t.Error("the plugin is still looked for")
		}
	}

	plugintest.Serve(t, p.socket("lab-driver"), driver.Handler())
	p.network(t, "again", driverIs("lab-driver"))
	driver.SetHook(func(call string) error { return nil })
	if _, err := p.GiveUp(t.Context(), "lab-driver"); !errors.Is(err, linkspan.ErrNotFound) {
		t.Errorf("it is there and nothing waits for it: %v", err)
	}
	p.clear(t)
	m.Sh(t, "for l in /sys/class/net/pl*; do test ! -e $l || ip link del ${l##*/} || true; done")
}
