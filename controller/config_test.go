package controller_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/controller"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/network"
)

// A configuration lends its settings, is no network itself, and cannot go
// before those that were made from it; also after a restart.
func TestConfigurationNetwork(t *testing.T) {
	m := nstest.New(t)
	r := newRoots(t)
	d := start(t, m, r)
	empty := m.Dump(t)
	conf := func(s *controller.NetworkSpec) { s.ConfigOnly = true }
	from := func(s *controller.NetworkSpec) { s.ConfigFrom = "conf" }
	d.network(t, "conf", conf, pool("10.7.0.0/24", "", "10.7.0.9"), func(s *controller.NetworkSpec) {
		s.Labels = map[string]string{"x": "y"}
		s.Options = map[string]string{network.OptionMTU: "1400"}
	})
	if diff := nstest.Diff(empty, m.Dump(t)); diff != "" {
		t.Errorf("a configuration made something:\n%s", diff)
	}
	if len(d.events) > 0 && d.events[len(d.events)-1].Name == "conf" {
		t.Errorf("event %v", d.events)
	}
	d.stop(t)
	d = start(t, m, r)
	id := d.network(t, "lab", from)
	n, err := d.Network(string(id))
	must(t, err)
	if n.ConfigFrom != "conf" || n.Labels["x"] != "y" || fmt.Sprint(n.Pools[0].Subnet, n.Pools[0].Gateway) != "10.7.0.0/24 10.7.0.9" {
		t.Errorf("network made from a configuration: %+v", n)
	}
	if got := m.Sh(t, "ip -o link show br-"+id.Short()); !strings.Contains(got, "mtu 1400") {
		t.Errorf("bridge: %s", got)
	}
	err = d.RemoveNetwork(t.Context(), "conf")
	if !errors.Is(err, linkspan.ErrForbidden) || !strings.Contains(err.Error(), `configuration network "conf" is in use by lab`) {
		t.Errorf("removing a configuration in use: %v", err)
	}
	web := spec("web", "conf")
	must(t, d.Reserve(web))
	if _, err := d.Attach(t.Context(), web.ID); !errors.Is(err, linkspan.ErrForbidden) || !strings.Contains(err.Error(), "cannot create endpoint on configuration-only network") {
		t.Errorf("attaching to a configuration: %v", err)
	}
	must(t, d.Forget(web.ID))

	d.refused(t, linkspan.ErrForbidden, "configuration network can only contain network specific fields", conf, func(s *controller.NetworkSpec) { s.Internal = true })
	d.refused(t, linkspan.ErrForbidden, "cannot depend on another configuration network", conf, from)
	d.refused(t, linkspan.ErrForbidden, "user-specified configurations are not supported", from, pool("10.8.0.0/24", "", ""))
	d.refused(t, linkspan.ErrForbidden, "network driver options are not supported", from, func(s *controller.NetworkSpec) { s.Options = map[string]string{"a": "b"} })
	d.refused(t, linkspan.ErrNotFound, `configuration network "lab" does not exist`, func(s *controller.NetworkSpec) { s.ConfigFrom = "lab" })

	removed, err := d.Prune(t.Context(), func(network.Network) bool { return true })
	must(t, err)
	if !slices.Equal(removed, []string{"lab"}) {
		t.Errorf("pruned %v", removed)
	}
	must(t, d.RemoveNetwork(t.Context(), "conf"))
	d.clear(t)
}

// Of many that want one name at once, one gets it and the others are told.
func TestOneNameOneNetwork(t *testing.T) {
	m := nstest.New(t)
	d := start(t, m, newRoots(t), func(o *controller.Options) { o.Events = nil })
	var wg sync.WaitGroup
	errs := make([]error, 50)
	for i := range errs {
		wg.Go(func() {
			_, errs[i] = d.CreateNetwork(t.Context(), controller.NetworkSpec{Name: "lab", IPv4: true})
		})
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		switch {
		case err == nil:
			won++
		case !errors.Is(err, linkspan.ErrConflict) || err.Error() != "network with name lab already exists":
			t.Errorf("a loser was told: %v", err)
		}
	}
	if won != 1 || len(d.Networks()) != 4 {
		t.Errorf("%d of 50 won, and there are %d networks", won, len(d.Networks()))
	}
	d.clear(t)
}
