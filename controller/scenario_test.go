package controller_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/controller"
	"github.com/linkspan/linkspan/internal/nstest"
)

// A container with a static address starts at each of 50 boots, whatever the
// order in which those with dynamic ones start before it, in a subnet that is all
// but full.
func TestStaticAddressOverManyBoots(t *testing.T) {
	m := nstest.New(t)
	d := start(t, m, newRoots(t))
	lab := d.network(t, "lab", subnet("10.77.0.0/28")) // 13 addresses beside the gateway's
	fixed := spec("fixed", "lab", ip4("10.77.0.5"))
	all := []controller.Container{fixed}
	for i := range 11 {
		all = append(all, spec(fmt.Sprintf("dynamic%d", i), "lab"))
	}
	for _, c := range all {
		must(t, d.Reserve(c))
	}
	random := rand.New(rand.NewPCG(9, 50))
	for boot := range 50 {
		random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		for _, c := range all {
			d.attach(t, c.ID)
		}
		holders := map[string]string{}
		for _, e := range d.Endpoints(lab) {
			addr := e.IPv4.Addr().String()
			if holders[addr] != "" {
				t.Errorf("boot %d: %s has the address of %s, %s", boot, e.Name, holders[addr], addr)
			}
			holders[addr] = e.Name
		}
		if holders["10.77.0.5"] != "fixed" {
			t.Fatalf("boot %d: 10.77.0.5 is held by %q", boot, holders["10.77.0.5"])
		}
		for _, c := range all {
			must(t, d.Detach(t.Context(), c.ID))
		}
	}
	d.clear(t)
}

// A network that was removed and made anew under its name while a container was
// stopped is that container's network; one that is gone is named, and a live
// connection to another helps.
func TestNetworkMadeAnew(t *testing.T) {
	m := nstest.New(t)
	d := start(t, m, newRoots(t))
	d.network(t, "lab", subnet("10.77.0.0/24"))
	web := spec("web", "lab")
	d.run(t, web)
	if err := d.RemoveNetwork(t.Context(), "lab"); err == nil || !strings.Contains(err.Error(), "web") {
		t.Errorf("removing a network in use does not name its containers: %v", err)
	}
	must(t, d.Detach(t.Context(), web.ID))
	must(t, d.RemoveNetwork(t.Context(), "lab"))
	if _, err := d.Attach(t.Context(), web.ID); err == nil || !strings.Contains(err.Error(), "network lab not found") {
		t.Errorf("a start without its network: %v", err)
	}
	again := d.network(t, "lab", subnet("10.78.0.0/24"))
	d.attach(t, web.ID)
	if s := d.Settings(web.ID).Networks["lab"]; s == nil || s.NetworkID != string(again) || !strings.HasPrefix(s.IPAddress.String(), "10.78.0.") {
		t.Errorf("settings on the network made anew: %+v", s)
	}
	must(t, d.Detach(t.Context(), web.ID))
	must(t, d.RemoveNetwork(t.Context(), "lab"))
	d.network(t, "other", subnet("10.79.0.0/24"))
	must(t, d.Disconnect(t.Context(), "lab", web.ID, true))
	must(t, d.Connect(t.Context(), "other", web.ID, nil))
	d.attach(t, web.ID)
	if s := d.Settings(web.ID).Networks["other"]; s == nil || !s.IPAddress.IsValid() {
		t.Errorf("settings on the other network: %+v", s)
	}
	d.clear(t)
}

// attach starts a container that is reserved, and lets go of its sockets.
func (d *daemon) attach(t *testing.T, id linkspan.ID) {
	t.Helper()
	a, err := d.Attach(t.Context(), id)
	must(t, err)
	for _, file := range a.Keep {
		file.Close()
	}
}
