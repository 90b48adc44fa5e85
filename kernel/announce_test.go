package kernel_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/kernel"
)

// A neighbour that knows another MAC for an address believes the announcement.
func TestAnnounce(t *testing.T) {
	m, peer := nstest.New(t), nstest.New(t)
	addrs := []netip.Addr{netip.MustParseAddr("10.77.0.1"), netip.MustParseAddr("fd00:77::1")}
	link := nstest.Wire(t, m, peer, netip.MustParsePrefix("10.77.0.1/24"), netip.MustParsePrefix("10.77.0.2/24"))
	m.Sh(t, "ip addr add fd00:77::1/64 dev "+link+" nodad")
	peer.Sh(t, "ip addr add fd00:77::2/64 dev "+link+" nodad")
	stale := "ip neigh replace 10.77.0.1 lladdr 02:00:00:00:00:99 nud stale dev " + link +
		"; ip neigh replace fd00:77::1 lladdr 02:00:00:00:00:99 nud stale dev " + link
	peer.Sh(t, stale)
	a, err := m.Host().Announcer("", link, addrs)
	if err != nil {
		t.Fatal(err)
	}
	mac := strings.TrimSpace(m.Sh(t, "cat /sys/class/net/"+link+"/address"))
	var known string
	if !nstest.Until(20*time.Second, func() bool {
		if err := a.Announce(); err != nil {
			t.Fatal(err)
		}
		known = peer.Sh(t, "ip neigh show dev "+link)
		return strings.Count(known, mac) == 2
	}) {
		t.Errorf("the neighbour still believes\n%s", known)
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	if _, err := m.Host().Announcer("", "nowhere0", addrs); !kernel.IsGone(err) {
		t.Errorf("announcing by a link that is not there: %v", err)
	}
	m.Sh(t, "ip addr add fe80::77/64 dev "+link+" nodad")
	local, err := m.Host().Announcer("", link, []netip.Addr{netip.MustParseAddr("fe80::77")})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(local.Announce(), local.Close()); err != nil {
		t.Errorf("announcing a link-local address: %v", err)
	}
	before := descriptors(t)
	if _, err := m.Host().Announcer("", link, append(addrs, netip.MustParseAddr("fd00:99::1"))); err == nil {
		t.Error("an address that the link does not have was announced")
	}
	if after := descriptors(t); after > before {
		t.Errorf("a failure left %d descriptors open", after-before)
	}
}

func TestPort(t *testing.T) {
	m := nstest.New(t)
	m.Sh(t, "ip link add br0 type bridge; ip link add a0 type veth peer name a1; ip link add b0 type veth peer name b1; ip link set a0 master br0; ip link set b0 master br0")
	for name, want := range map[string]kernel.Port{"a0": {Bridge: "br0", Number: 1}, "b0": {Bridge: "br0", Number: 2}, "a1": {}} {
		port, err := m.Host().Port(name)
		want.Index = port.Index
		if err != nil || port != want || port.Index == 0 {
			t.Errorf("%s: %+v %v, want %+v", name, port, err, want)
		}
	}
	for name, want := range map[string]bool{"a0": false, "a1": true} {
		if passes, err := m.Host().Passes(name); err != nil || passes != want {
			t.Errorf("%s passes frames: %t %v", name, passes, err)
		}
	}
	m.Sh(t, "ip link set br0 up; ip link set a1 up; ip link set a0 up")
	if !nstest.Until(20*time.Second, func() bool { passes, err := m.Host().Passes("a0"); return err == nil && passes }) {
		t.Error("a port that is up and has a carrier passes no frames")
	}
	if _, err := m.Host().Passes("c0"); !kernel.IsGone(err) {
		t.Errorf("a link that is not there: %v", err)
	}
	if _, err := m.Host().Port("c0"); !kernel.IsGone(err) {
		t.Errorf("a link that is not there: %v", err)
	}
	m.Sh(t, "ip link del a0; ip link del b0; ip link del br0")
}
