package controller

import (
	"context"
	"net/netip"
	"strings"
	"testing"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/doctor"
	"github.com/linkspan/linkspan/drivers"
	"github.com/linkspan/linkspan/drivers/overlay"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/ipam"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/op"
)

// The controller knows the driver, and forgets a network that has gone.
func TestSetPeers(t *testing.T) {
	m := nstest.New(t)
	m.Sh(t, "ip link add u0 type veth peer name u1; ip addr add 192.0.2.1/24 dev u0; ip link set u0 up; ip link set u1 up")
	driver := overlay.Driver{VTEP: netip.MustParseAddr("192.0.2.1")}
	n := network.Network{
		ID: linkspan.ID(strings.Repeat("1", 64)), Name: "far", Driver: "overlay", IPv4: true, MAC: "02:42:0a:4d:00:01", VNI: 4100,
		Pools: []ipam.Pool{{Subnet: netip.MustParsePrefix("10.77.0.0/16")}},
	}
	plan, err := driver.Network(n)
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ok(err)
	x := op.Executor{Host: m.Host()}
	ok(x.Do(t.Context(), plan))
	defer func() {
		ok(x.Undo(context.WithoutCancel(t.Context()), plan))
		ok(m.Host().Reap())
		m.Sh(t, "ip link del u0")
	}()
	c := New(Options{Host: m.Host(), Drivers: map[string]drivers.Driver{"overlay": driver}})
	defer c.Close()
	c.setPeers(n, []drivers.Peer{{Addresses: []netip.Addr{netip.MustParseAddr("10.77.0.3")}, MAC: "02:42:0a:4d:00:03", VTEP: netip.MustParseAddr("192.0.2.2")}})
	m.Sh(t, "ip neigh del 10.77.0.3 dev vx-111111111111")
	found, err := c.peerFindings()
	ok(err)
	if len(found) != 1 || found[0].Reason != doctor.ReasonDiffers || !strings.Contains(found[0].What, "missing: ip neigh replace 10.77.0.3") {
		t.Errorf("the doctor finds %+v", found)
	}
	c.peers.RepairAll(t.Context())
	found, err = c.peerFindings()
	ok(err)
	if len(found) != 1 || found[0].Reason != doctor.ReasonEntries || !strings.Contains(found[0].What, "network far: 1 entries") {
		t.Errorf("after the repair, the doctor finds %+v", found)
	}
	c.dropPeers(n.ID)
	if found, err = c.peerFindings(); err != nil || len(found) > 0 {
		t.Errorf("of a network that has gone, the doctor finds %+v (%v)", found, err)
	}
}
