package controller_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	apinetwork "github.com/moby/moby/api/types/network"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/controller"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/ipam"
)

func macvlanOn(parent string, options ...string) func(*controller.NetworkSpec) {
	return func(s *controller.NetworkSpec) {
		s.Driver, s.Options = "macvlan", map[string]string{}
		if parent != "" {
			s.Options["parent"] = parent
		}
		for _, option := range options {
			key, value, _ := strings.Cut(option, "=")
			s.Options[key] = value
		}
		s.Pools = []ipam.Pool{{
			Subnet: netip.MustParsePrefix("192.0.2.0/24"), Range: netip.MustParsePrefix("192.0.2.128/25"), Gateway: netip.MustParseAddr("192.0.2.2"),
		}}
	}
}

// Containers on the wire of a machine: they have names, the LAN's router and
// come and go live; networks share a parent; the host can be let in; a restart
// of the daemon changes nothing.
func TestMacvlan(t *testing.T) {
	m, far := nstest.New(t), nstest.New(t)
	wire := nstest.Wire(t, m, far, netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("192.0.2.2/24"))
	defer m.Sh(t, "ip link del "+wire)
	r := newRoots(t)
	empty := settled(t, m)
	d := start(t, m, r)
	d.network(t, "lan", macvlanOn(wire, "linkspan.host_access=true"))
	d.network(t, "more", macvlanOn(wire), func(s *controller.NetworkSpec) {
		s.Pools = []ipam.Pool{{Subnet: netip.MustParsePrefix("198.51.100.0/24")}}
	})
	d.network(t, "lab", subnet("10.77.0.0/24"))
	web := spec("web", "lan", publish("8080:80"))
	out := d.run(t, web)
	if got := d.Settings(web.ID).Ports; len(got) != 0 {
		t.Errorf("nothing of the host leads to a container on the LAN, and its inspection lists the ports %v", got)
	}
	probe := spec("probe", "lab")
	a := d.run(t, probe)
	for range 2 {
		must(t, d.Connect(t.Context(), "lan", probe.ID, &apinetwork.EndpointSettings{GwPriority: 1}))
		if got := m.Sh(t, "ip -n "+nsOf(a)+" route show default"); !strings.Contains(got, "default via 192.0.2.2 dev eth1") {
			t.Errorf("the way out is not the LAN's router: %s", got)
		}
		expect(t, m, a, inside, map[string]string{"web": "NOERROR 192.0.2.129", "web.lan": "NOERROR 192.0.2.129"})
		for _, from := range []string{nsOf(a), m.Name(), far.Name()} {
			reach(t, m, from, "192.0.2.129")
		}
		must(t, d.Disconnect(t.Context(), "lan", probe.ID, false))
		if got := m.Sh(t, "ip -n "+nsOf(a)+" -o link"); strings.Contains(got, "eth1") {
			t.Errorf("eth1 is there after disconnecting:\n%s", got)
		}
	}
	reach(t, m, nsOf(d.run(t, spec("other", "more"))), "198.51.100.1")
	before := settled(t, m)
	d.stop(t)
	d = start(t, m, r)
	if d.traced.Load() != 0 {
		t.Errorf("%d kernel operations by a restart", d.traced.Load())
	}
	if diff := nstest.Diff(before, settled(t, m)); diff != "" {
		t.Errorf("after a restart:\n%s", diff)
	}
	reach(t, m, nsOf(out), "192.0.2.2")
	d.clear(t)
	if diff := nstest.Diff(empty, settled(t, m)); diff != "" {
		t.Errorf("left behind:\n%s", diff)
	}
}

func reach(t *testing.T, m *nstest.Machine, from, to string) {
	t.Helper()
	var out string
	if !nstest.Until(patience, func() bool {
		var err error
		out, err = m.TrySh("nsenter --net=/run/netns/" + from + " ping -n -c1 -W1 " + to)
		return err == nil
	}) {
		t.Errorf("no echo from %s to %s:\n%s", from, to, out)
	}
}

func TestMacvlanRefusals(t *testing.T) {
	m := nstest.New(t)
	m.Sh(t, "ip link add p0 type veth peer name p1")
	d := start(t, m, newRoots(t))
	d.network(t, "lan", macvlanOn("p0"))
	d.network(t, "alone", macvlanOn(""), subnet("198.51.100.0/24"))
	if n, err := d.Network("alone"); err != nil || !n.Internal {
		t.Errorf("a network without a parent: internal is %v (%v)", n.Internal, err)
	}
	before := settled(t, m)
	for option, want := range map[string]struct {
		text string
		kind error
	}{
		"macvlan_mode=passthru": {"cannot use mode passthru, macvlan network", linkspan.ErrForbidden},
		"macvlan_mode=x":        {"requested macvlan mode 'x' is not valid", linkspan.ErrInvalid},
		"parent=cfnone0":        {"parent interface was not found on the host: cfnone0", linkspan.ErrInvalid},
	} {
		wanted := controller.NetworkSpec{Name: "wrong", IPv4: true}
		macvlanOn("p0", option)(&wanted)
		subnet("203.0.113.0/24")(&wanted)
		if _, err := d.CreateNetwork(t.Context(), wanted); !errors.Is(err, want.kind) || !strings.Contains(err.Error(), want.text) {
			t.Errorf("%s: %v, want %s", option, err, want.text)
		}
	}
	if diff := nstest.Diff(before, settled(t, m)); diff != "" {
		t.Errorf("left behind:\n%s", diff)
	}
	d.clear(t)
	m.Sh(t, "ip link del p0")
}
