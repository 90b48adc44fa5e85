package controller_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/controller"
	"github.com/linkspan/linkspan/internal/nstest"
)

func TestNetworkComesAndGoes(t *testing.T) {
	m := nstest.New(t)
	d := start(t, m, newRoots(t))
	before := m.Dump(t)
	id := d.network(t, "lab", subnet("10.77.0.0/24"))
	got := m.Sh(t, "ip -br addr show br-"+id.Short())
	if !strings.Contains(got, "10.77.0.1/24") {
		t.Errorf("bridge: %s", got)
	}
	must(t, d.RemoveNetwork(t.Context(), "lab"))
	must(t, m.Host().Reap())
	if diff := nstest.Diff(before, m.Dump(t)); diff != "" {
		t.Errorf("after removal:\n%s", diff)
	}
	d.clear(t)
}

func TestContainerComesAndGoes(t *testing.T) {
	m := nstest.New(t)
	d := start(t, m, newRoots(t))
	d.network(t, "lab", subnet("10.77.0.0/24"))
	before := m.Dump(t)
	web := spec("web", "lab")
	a := d.run(t, web)
	b := d.run(t, spec("db", "lab", ip4("10.77.0.50")))
	got := m.Sh(t, "ip -n "+nsOf(a)+" -br addr; ip -n "+nsOf(a)+" route; ip netns exec "+nsOf(a)+" ping -c1 -W1 10.77.0.50; ip netns exec "+nsOf(b)+" ping -c1 -W1 10.77.0.1; ip netns exec "+nsOf(a)+" nft list ruleset")
	t.Log(got)
	err := d.RemoveNetwork(t.Context(), "lab")
	if !errors.Is(err, linkspan.ErrForbidden) || !strings.Contains(err.Error(), `name:"web"`) {
		t.Errorf("removal of a network in use: %v", err)
	}
	_, err = d.CreateNetwork(t.Context(), controller.NetworkSpec{Name: "lab", IPv4: true})
	if !errors.Is(err, linkspan.ErrConflict) {
		t.Errorf("second network lab: %v", err)
	}
	live, _ := d.Owners()
	for _, id := range live {
		must(t, d.Detach(t.Context(), id))
	}
	must(t, m.Host().Reap())
	if diff := nstest.Diff(before, m.Dump(t)); diff != "" {
		t.Errorf("after detaching:\n%s", diff)
	}
	d.clear(t)
}

func TestRestartChangesNothing(t *testing.T) {
	m := nstest.New(t)
	r := newRoots(t)
	d := start(t, m, r)
	d.network(t, "lab", subnet("10.77.0.0/24"))
	d.run(t, spec("web", "lab"))
	before := m.Dump(t)
	d.stop(t)
	d = start(t, m, r)
	if d.traced.Load() != 0 {
		t.Errorf("a restart made %d kernel operations", d.traced.Load())
	}
	if diff := nstest.Diff(before, m.Dump(t)); diff != "" {
		t.Errorf("after restart:\n%s", diff)
	}
	d.clear(t)
}
