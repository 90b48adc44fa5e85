package peering

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/drivers"
	"github.com/linkspan/linkspan/drivers/overlay"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/ipam"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/op"
)

func TestMain(m *testing.M) { nstest.Main(m) }

// far is a machine with an overlay network, and the tables of it.
type far struct {
	*Tables
	t       *testing.T
	m       *nstest.Machine
	x       *op.Executor
	driver  overlay.Driver
	network network.Network
	plan    op.Plan
	ops     atomic.Int64 // done and undone since

	mu  sync.Mutex
	log strings.Builder
}

const farLink = "vx-111111111111"

func newFar(t *testing.T) *far {
	t.Helper()
	f := &far{t: t, m: nstest.New(t), driver: overlay.Driver{VTEP: netip.MustParseAddr("192.0.2.1")}}
	f.m.Sh(t, "ip link add u0 type veth peer name u1; ip addr add 192.0.2.1/24 dev u0; ip link set u0 up; ip link set u1 up")
	f.network = network.Network{
		ID: linkspan.ID(strings.Repeat("1", 64)), Name: "far", IPv4: true, IPv6: true, MAC: "02:42:0a:4d:00:01", VNI: 4100,
		Pools: []ipam.Pool{{Subnet: netip.MustParsePrefix("10.77.0.0/16")}, {Subnet: netip.MustParsePrefix("2001:db8:77::/64")}},
	}
	f.x = &op.Executor{Host: f.m.Host(), Trace: func(op.Event) { f.ops.Add(1) }}
	f.again()
	plan, err := f.driver.Network(f.network)
	f.ok(err)
	f.plan = plan
	f.ok(f.x.Do(t.Context(), plan))
	t.Cleanup(func() {
		f.ok(f.x.Undo(context.WithoutCancel(t.Context()), plan))
		f.ok(f.m.Host().Reap())
		f.m.Sh(t, "ip link del u0")
	})
	return f
}

// again is what a daemon knows that has just started.
func (f *far) again() {
	f.Tables = New(f.m.Host(), f.x, func(format string, args ...any) {
		f.mu.Lock()
		defer f.mu.Unlock()
		fmt.Fprintf(&f.log, format+"\n", args...)
	})
}

func (f *far) ok(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

// set tells of peers and returns how many entries were changed.
func (f *far) set(peers ...drivers.Peer) int64 {
	f.t.Helper()
	before := f.ops.Load()
	f.ok(f.Set(f.t.Context(), f.network, f.driver, peers))
	return f.ops.Load() - before
}

// differs compares the kernel, as bridge(8) and ip(8) show it, with what leads
// to the peers.
func (f *far) differs(peers ...drivers.Peer) string {
	f.t.Helper()
	var want []string
	for _, peer := range peers {
		want = append(want, fmt.Sprintf("%s dst %s self permanent", peer.MAC, peer.VTEP), peer.MAC+" master br-111111111111 static")
		for _, addr := range peer.Addresses {
			want = append(want, fmt.Sprintf("%s lladdr %s PERMANENT", addr, peer.MAC))
		}
	}
	got := f.m.Sh(f.t, "bridge fdb show dev "+farLink+" | grep -v 06:42:0a:4d:00:01 || true; ip neigh show dev "+farLink)
	return nstest.Diff(strings.Join(lines(strings.Join(want, "\n")), "\n"), strings.Join(lines(got), "\n"))
}

func lines(text string) []string {
	var all []string
	for line := range strings.Lines(text) {
		if line = strings.Join(strings.Fields(line), " "); line != "" {
			all = append(all, line)
		}
	}
	return sortedStrings(all)
}

func (f *far) as(what string, peers ...drivers.Peer) {
	f.t.Helper()
	if diff := f.differs(peers...); diff != "" {
		f.t.Errorf("%s, the entries differ (- wanted, + there):\n%s", what, diff)
	}
}

// peer is number i, on host 192.0.2.<host>.
func peer(i, host int) drivers.Peer {
	return drivers.Peer{
		Addresses: []netip.Addr{
			netip.AddrFrom4([4]byte{10, 77, byte(i >> 8), byte(i)}),
			netip.MustParseAddr(fmt.Sprintf("2001:db8:77::%x", i+1)),
		},
		MAC: fmt.Sprintf("02:42:0a:4d:%02x:%02x", i>>8, i&0xff), VTEP: netip.AddrFrom4([4]byte{192, 0, 2, byte(host)}),
	}
}

// The kernel follows the peers, and a change costs what it changes.
func TestPeersFollow(t *testing.T) {
	f := newFar(t)
	a, b, c := peer(3, 2), peer(4, 2), peer(5, 3)
	const each = 4 // a tunnel, a port, two addresses
	for _, step := range []struct {
		what  string
		peers []drivers.Peer
		cost  int64
	}{
		{"two come", []drivers.Peer{a, b}, 2 * each},
		{"nothing changes", []drivers.Peer{b, a}, 0},
		{"one comes", []drivers.Peer{a, b, c}, each},
		{"one moves", []drivers.Peer{a, {Addresses: b.Addresses, MAC: b.MAC, VTEP: c.VTEP}, c}, 1},
		{"one gets another MAC", []drivers.Peer{a, {Addresses: b.Addresses, MAC: "02:42:0a:4d:00:09", VTEP: c.VTEP}, c}, 6},
		{"one loses an address", []drivers.Peer{{Addresses: a.Addresses[:1], MAC: a.MAC, VTEP: a.VTEP}, c}, 1 + 4},
		{"all go", nil, 3 + 4},
	} {
		if cost := f.set(step.peers...); cost != step.cost {
			t.Errorf("when %s, %d entries were changed, want %d", step.what, cost, step.cost)
		}
		f.as("when "+step.what, step.peers...)
	}
	f.set(a, b)
	if cost := f.set(b, a, b); cost != 0 {
		t.Errorf("to be told of one twice changed %d entries", cost)
	}
	if f.log.Len() > 0 {
		t.Errorf("ordinary changes were logged:\n%s", &f.log)
	}
}

// Two peers with one address: who came last has it, and the other when it is
// free again.
func TestPeersWithOneAddress(t *testing.T) {
	f := newFar(t)
	a, b := peer(3, 2), peer(4, 3)
	b.Addresses = a.Addresses
	f.set(a)
	f.set(a, b)
	shadowed := a
	shadowed.Addresses = nil
	f.as("with two of one address", shadowed, b)
	f.set(a)
	f.as("when the second has left", a)
	f.set(a, b)
	f.set(b)
	f.as("when the first has left", b)
	f.set()
	f.as("when both have left")
}

// A daemon that starts again changes nothing if nothing has changed, else the
// difference, and counts it as no repair.
func TestPeersAfterRestart(t *testing.T) {
	f := newFar(t)
	f.set(peer(3, 2), peer(4, 2))
	f.again()
	if cost := f.set(peer(3, 2), peer(4, 2)); cost != 0 {
		t.Errorf("a start at which nothing is amiss changed %d entries", cost)
	}
	f.again()
	if cost := f.set(peer(4, 3), peer(5, 2)); cost != 1+4+4 {
		t.Errorf("one moved, one came, one went: %d entries were changed", cost)
	}
	f.as("after the start", peer(4, 3), peer(5, 2))
	if now, before, err := f.Wrong(); err != nil || len(now)+len(before) > 0 {
		t.Errorf("after an ordinary change: wrong now %v, before %v (%v)", now, before, err)
	}
}

// What others do to the entries is taken back soon, counted, logged and shown.
func TestPeersRepaired(t *testing.T) {
	f := newFar(t)
	a, b := peer(3, 2), peer(4, 3)
	f.set(a, b)
	ctx, stop := context.WithCancel(t.Context())
	var guarding sync.WaitGroup
	guarding.Go(func() { f.Guard(ctx) })
	defer func() { stop(); guarding.Wait() }()
	counted := 0
	for _, harm := range []struct {
		command string
		repairs int // at least
	}{
		{"bridge fdb del " + a.MAC + " dev LINK dst 192.0.2.2 self", 1},
		{"bridge fdb del " + a.MAC + " dev LINK master", 1},
		{"ip neigh del 10.77.0.3 dev LINK", 1},
		{"ip neigh del 2001:db8:77::4 dev LINK", 1},
		{"bridge fdb replace " + a.MAC + " dev LINK dst 192.0.2.9 self permanent", 1},
		{"bridge fdb append 00:00:00:00:00:00 dev LINK dst 192.0.2.8 self permanent; bridge fdb append 00:00:00:00:00:00 dev LINK dst 192.0.2.9 self permanent", 2},
		{"ip neigh replace 10.77.0.3 lladdr 02:42:0a:4d:00:77 dev LINK nud permanent", 1},
		{"bridge fdb add 02:42:0a:4d:00:77 dev LINK dst 192.0.2.9 self permanent", 1},
		{"bridge fdb add 02:42:0a:4d:00:77 dev LINK dst 192.0.2.9 port 4790 self permanent", 1},
		{"bridge fdb replace " + b.MAC + " dev LINK dst 192.0.2.3 port 4790 self permanent", 2},
		{"bridge fdb add 02:42:0a:4d:00:77 dev LINK master static", 1},
		{"ip neigh add 10.77.0.77 lladdr 02:42:0a:4d:00:77 dev LINK nud permanent", 1},
		{"ip link set LINK down; ip link set LINK up", 4},
	} {
		f.m.Sh(t, strings.ReplaceAll(harm.command, "LINK", farLink))
		var diff string
		if !nstest.Until(20*time.Second, func() bool { diff = f.differs(a, b); return diff == "" }) {
			t.Fatalf("after %s, the entries differ (- wanted, + there):\n%s", harm.command, diff)
		}
		var before []Repairs
		nstest.Until(20*time.Second, func() bool { // the count follows the last entry
			var err error
			_, before, err = f.Wrong()
			f.ok(err)
			return len(before) == 1 && before[0].Count >= counted+harm.repairs
		})
		if len(before) != 1 || before[0].Count < counted+harm.repairs || before[0].Network != "far" {
			t.Fatalf("after %s: repairs %+v, want %d more than %d", harm.command, before, harm.repairs, counted)
		}
		counted = before[0].Count
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if logged := strings.Count(f.log.String(), "repairing the tables of network far"); logged != counted {
		t.Errorf("%d repairs were counted and %d logged:\n%s", counted, logged, &f.log)
	}
}

// What is wrong can be seen before it is put right, and is put right when that
// is asked for.
func TestPeersWrongNow(t *testing.T) {
	f := newFar(t)
	a := peer(3, 2)
	f.set(a)
	f.m.Sh(t, "ip neigh del 10.77.0.3 dev "+farLink+"; bridge fdb add 02:42:0a:4d:00:77 dev "+farLink+" dst 192.0.2.9 self permanent")
	now, _, err := f.Wrong()
	f.ok(err)
	got := strings.Join(sortedStrings(now["far"]), "\n")
	want := "missing: ip neigh replace 10.77.0.3 lladdr 02:42:0a:4d:00:03 dev vx-111111111111 nud permanent\n" +
		"should not be there: bridge fdb replace 02:42:0a:4d:00:77 dev vx-111111111111 dst 192.0.2.9 self permanent"
	if got != want {
		t.Errorf("wrong now:\n%s\nwant:\n%s", got, want)
	}
	f.RepairAll(t.Context())
	f.as("after the repair", a)
	f.m.Sh(t, "bridge fdb add 02:42:0a:4d:00:77 dev "+farLink+" dst 192.0.2.9 self permanent")
	f.Drop(f.network.ID)
	f.RepairAll(t.Context())
	if f.differs(a) == "" {
		t.Error("a network that was dropped is still looked after")
	}
}

// A container that remembers who had an address before is told who has it now.
func TestPeersProclaimed(t *testing.T) {
	f := newFar(t)
	a := peer(3, 2)
	f.m.Sh(t, `ip netns add box; ip link add v0 master br-111111111111 up type veth peer name eth0 netns box
		ip -n box addr add 10.77.9.9/16 dev eth0; ip -n box addr add 2001:db8:77::99/64 dev eth0 nodad; ip -n box link set eth0 up
		ip -n box neigh replace 10.77.0.3 lladdr 02:00:00:00:00:01 dev eth0 nud stale; ip -n box neigh replace 2001:db8:77::4 lladdr 02:00:00:00:00:01 dev eth0 nud stale`)
	defer f.m.Sh(t, "ip netns del box")
	f.set(a)
	remembered := func(of drivers.Peer) func() bool {
		return func() bool {
			known := f.m.Sh(t, "ip -n box neigh")
			return strings.Count(known, of.MAC) == 2 && strings.Count(known, "10.77.0.3 ")+strings.Count(known, "2001:db8:77::4 ") == 2
		}
	}
	if !nstest.Until(20*time.Second, remembered(a)) {
		t.Errorf("the container knows\n%s", f.m.Sh(t, "ip -n box neigh"))
	}
	a.MAC = "02:42:0a:4d:00:99"
	f.set(a)
	if !nstest.Until(20*time.Second, remembered(a)) {
		t.Errorf("after a change of the MAC, the container knows\n%s", f.m.Sh(t, "ip -n box neigh"))
	}
}

// A host without a part of the network waits for it; a device made anew gets
// its entries, and a stranger's none.
func TestPeersWithoutDevice(t *testing.T) {
	f := newFar(t)
	a := peer(3, 2)
	f.ok(f.x.Undo(t.Context(), f.plan))
	if cost := f.set(a); cost != 0 {
		t.Errorf("without the device %d entries were tried", cost)
	}
	f.m.Sh(t, "ip link add "+farLink+" type bridge")
	f.set(a)
	f.m.Sh(t, "ip link del "+farLink)
	for range 2 {
		f.ok(f.x.Do(t.Context(), f.plan))
		f.set(a)
		f.as("on a device made anew", a)
		f.ok(f.x.Undo(t.Context(), f.plan))
		f.RepairAll(t.Context())
	}
	f.ok(f.x.Do(t.Context(), f.plan))
	if err := f.Set(t.Context(), f.network, f.driver, []drivers.Peer{{MAC: "none"}}); err == nil {
		t.Error("a peer without a MAC was accepted")
	}
	f.set(a)
	f.as("after a refusal", a)
}

// The entries of a device with many are read and compared in one go.
func TestPeersMany(t *testing.T) {
	f := newFar(t)
	var peers []drivers.Peer
	for i := range 1000 {
		peers = append(peers, peer(i+2, 2+i%3))
	}
	f.set(peers...)
	f.as("with many", peers...)
	if cost := f.set(peers[1:]...); cost != 4 {
		t.Errorf("one of many left: %d entries were changed", cost)
	}
	links, err := f.m.Host().Links("")
	f.ok(err)
	link, err := links.LinkByName(farLink)
	f.ok(err)
	stations, err := f.m.Host().Stations(link.Attrs().Index)
	f.ok(err)
	if len(stations) != 4*999 {
		t.Errorf("%d entries were read, want %d", len(stations), 4*999)
	}
}

func sortedStrings(all []string) []string {
	slices.Sort(all)
	return all
}
