package op_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/op"
)

const (
	tunnelLine = "ip link add name x0 address 06:42:0a:4d:00:01 mtu 1450 group 27763 master br0 type vxlan id 4100 local 192.0.2.1 dstport 4789 nolearning proxy"
	withTunnel = withBridge + tunnelLine + "; "
)

func tunnel() op.AddVXLAN {
	return op.AddVXLAN{Name: "x0", MAC: "06:42:0a:4d:00:01", Master: "br0", VNI: 4100, Local: netip.MustParseAddr("192.0.2.1"), Port: 4789, MTU: 1450}
}

func tunnelSpecimens() []specimen {
	addr := netip.MustParseAddr
	six := tunnel()
	six.Local, six.Port, six.MTU = addr("2001:db8::1"), 8472, 1430
	const foreign = withBridge + "ip link add x0 type vxlan id 4100 local 192.0.2.1 dstport 4789 nolearning proxy; ip link set x0 master br0; ip link set x0 up; "
	return []specimen{
		{
			name: "vxlan", setup: withBridge, op: tunnel(), said: tunnelLine, check: "x0",
			half:    []string{"ip link set x0 up", "ip link set x0 nomaster", "bridge fdb add 02:42:0a:4d:00:09 dev x0 dst 192.0.2.9 self permanent"},
			foreign: withBridge + "ip link add x0 type bridge",
		},
		{
			name: "vxlan over IPv6", setup: withBridge, op: six, check: "x0",
			said: "ip link add name x0 address 06:42:0a:4d:00:01 mtu 1430 group 27763 master br0 type vxlan id 4100 local 2001:db8::1 dstport 8472 nolearning proxy",
		},
		{name: "told", setup: withTunnel, op: op.SetTold{Link: "x0"}, said: "bridge link set dev x0 learning off flood off", again: true, keeps: true, check: "x0"},
		{
			name: "tunnel", setup: withTunnel, op: op.SetTunnel{Link: "x0", MAC: macFar, To: addr("192.0.2.2")},
			said: "bridge fdb replace 02:42:0a:4d:00:03 dev x0 dst 192.0.2.2 self permanent", again: true, check: macFar,
			foreign: foreign + "bridge fdb add 02:42:0a:4d:00:03 dev x0 dst 192.0.2.2 self permanent", spared: true,
		},
		{
			name: "station", setup: withTunnel, op: op.SetStation{Link: "x0", MAC: macFar},
			said: "bridge fdb replace 02:42:0a:4d:00:03 dev x0 master static", again: true, check: macFar,
			foreign: foreign + "bridge fdb add 02:42:0a:4d:00:03 dev x0 master static", spared: true,
		},
		{
			name: "neighbour", setup: withTunnel + "ip link set x0 up; ", op: op.SetNeighbour{Link: "x0", Address: addr("10.77.0.3"), MAC: macFar},
			said: "ip neigh replace 10.77.0.3 lladdr 02:42:0a:4d:00:03 dev x0 nud permanent", again: true, check: "10.77.0.3",
			foreign: foreign + "ip neigh add 10.77.0.3 lladdr 02:42:0a:4d:00:03 dev x0 nud permanent", spared: true,
		},
		{
			name: "IPv6 neighbour", setup: withTunnel + "ip link set x0 up; ", op: op.SetNeighbour{Link: "x0", Address: addr("2001:db8:77::3"), MAC: macFar},
			said: "ip neigh replace 2001:db8:77::3 lladdr 02:42:0a:4d:00:03 dev x0 nud permanent", again: true, check: "2001:db8:77::3",
		},
	}
}

// A number can be used by one device alone. The refusal names the holder; a
// device that only waits for its end gives way.
func TestNumberInUse(t *testing.T) {
	m := nstest.New(t)
	m.Sh(t, withBridge+"ip link add x1 type vxlan id 4100 dstport 4789")
	err := tunnel().Do(t.Context(), m.Host())
	if !errors.Is(err, linkspan.ErrConflict) || !strings.Contains(err.Error(), "VNI 4100 on UDP port 4789 is in use by link x1, which is not ours") {
		t.Errorf("with a stranger's device of that number: %v", err)
	}
	m.Sh(t, "ip link set x1 group 27763")
	if err = tunnel().Do(t.Context(), m.Host()); err == nil || !strings.Contains(err.Error(), "by link x1, of another network") {
		t.Errorf("with another device of ours: %v", err)
	}
	m.Sh(t, "ip link set x1 name doomed99 group 27764")
	ok(t, tunnel().Do(t.Context(), m.Host()))
	for range 3 { // as networks that come and go
		ok(t, tunnel().Undo(t.Context(), m.Host()))
		ok(t, tunnel().Do(t.Context(), m.Host()))
	}
	m.Sh(t, clean)
}

// An entry that moves is in one place at any time, and who takes back the old
// one leaves the new one alone.
func TestStationsMove(t *testing.T) {
	m := nstest.New(t)
	m.Sh(t, withTunnel+"ip link set x0 up")
	addr := netip.MustParseAddr
	for _, pair := range [][2]op.Op{
		{op.SetTunnel{Link: "x0", MAC: macFar, To: addr("192.0.2.2")}, op.SetTunnel{Link: "x0", MAC: macFar, To: addr("192.0.2.3")}},
		{op.SetNeighbour{Link: "x0", Address: addr("10.77.0.3"), MAC: macFar}, op.SetNeighbour{Link: "x0", Address: addr("10.77.0.3"), MAC: macNear}},
	} {
		old, fresh := pair[0], pair[1]
		ok(t, old.Do(t.Context(), m.Host()))
		ok(t, fresh.Do(t.Context(), m.Host()))
		ok(t, old.Undo(t.Context(), m.Host()))
		ok(t, fresh.Check(t.Context(), m.Host()))
		if old.Check(t.Context(), m.Host()) == nil {
			t.Errorf("%s: still there after %s", old, fresh)
		}
		ok(t, fresh.Undo(t.Context(), m.Host()))
	}
	m.Sh(t, clean)
}

// What the kernel tells of the tables is what was put into them, and nothing
// that it makes for itself.
func TestStationsAsOps(t *testing.T) {
	m := nstest.New(t)
	m.Sh(t, withTunnel+"ip link add x1 type vxlan id 4101 dstport 4789; ip link set x0 up; ip link set x1 up; ip link set br0 up")
	wanted := map[op.Op]bool{}
	for _, s := range tunnelSpecimens() {
		if _, is := s.op.(interface{ Thing() string }); is {
			wanted[s.op] = true
			ok(t, s.op.Do(t.Context(), m.Host()))
		}
	}
	m.Sh(t, "bridge fdb add 02:42:0a:4d:00:09 dev x1 dst 192.0.2.9 self permanent; ip neigh add 10.77.0.9 lladdr 02:42:0a:4d:00:09 dev x1 nud permanent")
	links, err := m.Host().Links("")
	ok(t, err)
	link, err := links.LinkByName("x0")
	ok(t, err)
	stations := func() []kernel.Station {
		found, err := m.Host().Stations(link.Attrs().Index)
		ok(t, err)
		return found
	}
	for _, s := range stations() {
		found := op.StationOp("x0", s)
		if s.Odd || !wanted[found] {
			t.Errorf("found %+v, odd is %v", found, s.Odd)
		}
		delete(wanted, found)
	}
	for missing := range wanted {
		t.Errorf("not found: %s", missing)
	}
	for _, s := range stations() {
		ok(t, op.StationOp("x0", s).Undo(t.Context(), m.Host()))
	}
	if left := stations(); len(left) > 0 {
		t.Errorf("left: %+v", left)
	}
	m.Sh(t, "bridge fdb add 02:42:0a:4d:00:09 dev x0 dst 192.0.2.9 port 4790 self permanent; bridge fdb add 02:42:0a:4d:00:08 dev x0 dst 192.0.2.9 self dynamic; bridge fdb add 02:42:0a:4d:00:07 dev x0 master dynamic; ip neigh add 10.77.0.7 lladdr 02:42:0a:4d:00:07 dev x0 nud reachable")
	odd := stations()
	if len(odd) != 4 {
		t.Errorf("found %+v", odd)
	}
	for _, s := range odd {
		if !s.Odd {
			t.Errorf("found %+v and took it for one that stays", s)
		}
	}
	m.Sh(t, clean)
}
