package op_test

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/op"
)

func TestMain(m *testing.M) { nstest.Main(m) }

const (
	macBridge = "02:42:0a:4d:00:01"
	macNear   = "02:42:0a:4d:00:02"
	macFar    = "02:42:0a:4d:00:03"

	withBox    = "ip netns add box; "
	withBridge = "ip link add br0 address 02:42:0a:4d:00:01 group 27763 type bridge; "
	withVeth   = withBox + withBridge + "ip link add v0 address 02:42:0a:4d:00:02 group 27763 master br0 type veth peer name eth0 address 02:42:0a:4d:00:03 netns box; "
	withUp     = withVeth + "ip link set br0 up; ip link set v0 up; ip -n box link set eth0 up; "
	withParent = withBox + "ip link add v0 address 02:42:0a:4d:00:02 type veth peer name p0 address 02:42:0a:4d:00:04; "
	clean      = "nft delete table netdev linkspan-loss-v0 2>/dev/null || true; for ns in box bax; do test ! -e /run/netns/$ns || ip netns del $ns; done; for l in m0 x0 x1 br0 br1 v0; do test ! -e /sys/class/net/$l || ip link del $l || true; done; rm -rf /run/work"
)

// specimen is one op and the world around it.
type specimen struct {
	name  string
	setup string // what the op needs to be there
	op    op.Op
	said  string // its String
	again bool   // Do is content with what is there already
	keeps bool   // Undo has nothing to take back: the change dies with its link
	check string // what Check's complaint names, when the change is missing

	half    []string // ways to spoil what Do did, after which Undo must still clear up
	foreign string   // something of that name that is not ours, in place of the setup
	spared  bool     // Undo passes over the foreign thing without a word
}

func specimens() []specimen { return append(plainSpecimens(), tunnelSpecimens()...) }

func plainSpecimens() []specimen {
	prefix, addr := netip.MustParsePrefix, netip.MustParseAddr
	return []specimen{
		{
			name: "pinned neighbour", setup: withUp, op: op.PinNeighbour{NS: "box", Link: "eth0", Address: addr("10.77.0.9"), MAC: macBridge},
			said: "ip -n box neigh replace 10.77.0.9 lladdr 02:42:0a:4d:00:01 dev eth0 nud permanent", again: true, check: "10.77.0.9",
		},
		{
			name: "bridge", op: op.AddBridge{Name: "br0", MAC: macBridge},
			said: "ip link add name br0 address 02:42:0a:4d:00:01 group 27763 type bridge", check: "br0",
			half:    []string{"ip link set br0 up", "ip link set br0 address 02:00:00:00:00:07", "ip link add v0 group 27763 master br0 type veth peer name p0; ip link del v0"},
			foreign: "ip link add br0 type bridge; ip link set br0 up",
		},
		{
			name: "bridge with an MTU", op: op.AddBridge{Name: "br0", MAC: macBridge, MTU: 1400},
			said: "ip link add name br0 address 02:42:0a:4d:00:01 mtu 1400 group 27763 type bridge", check: "br0",
			foreign: "ip link add br0 type veth peer name p0",
		},
		{
			name: "veth", setup: withBox + withBridge,
			op:   op.AddVeth{Name: "v0", MAC: macNear, Master: "br0", Peer: "eth0", PeerMAC: macFar, PeerNS: "box", MTU: 1400},
			said: "ip link add name v0 address 02:42:0a:4d:00:02 mtu 1400 group 27763 master br0 type veth peer name eth0 address 02:42:0a:4d:00:03 mtu 1400 netns box", check: "v0",
			half:    []string{"ip link set v0 nomaster", "ip link set v0 up", "ip -n box link set eth0 up", "ip -n box link set eth0 name eth9", "ip -n box link del eth0"},
			foreign: withBox + withBridge + "ip link add v0 master br0 type veth peer name eth0 netns box",
		},
		{
			name: "veth without a bridge", setup: withBox,
			op:   op.AddVeth{Name: "v0", MAC: macNear, Peer: "eth0", PeerMAC: macFar, PeerNS: "box"},
			said: "ip link add name v0 address 02:42:0a:4d:00:02 group 27763 type veth peer name eth0 address 02:42:0a:4d:00:03 netns box", check: "v0",
			foreign: withBox + "ip link add v0 type bridge",
		},
		{
			name: "macvlan inside", setup: withParent, op: op.AddMacvlan{NS: "box", Name: "eth0", MAC: macFar, Parent: "v0", Mode: op.MacvlanBridge, MTU: 1400},
			said: "ip link add link v0 name eth0 netns box address 02:42:0a:4d:00:03 mtu 1400 group 27763 type macvlan mode bridge", check: "eth0",
			half:    []string{"ip -n box addr add 10.77.0.9/32 dev eth0", "ip link del v0; ip link add v0 address 02:42:0a:4d:00:02 type veth peer name p0 address 02:42:0a:4d:00:04"},
			foreign: withParent + "ip -n box link add eth0 type bridge",
		},
		{
			name: "macvlan of the host", setup: withParent, op: op.AddMacvlan{Name: "m0", MAC: macFar, Parent: "v0", Mode: op.MacvlanVEPA},
			said: "ip link add link v0 name m0 address 02:42:0a:4d:00:03 group 27763 type macvlan mode vepa", check: "m0",
			foreign: withParent + "ip link add m0 link v0 type macvlan mode bridge",
		},
		{
			name: "macvlan alone", setup: withParent, op: op.AddMacvlan{NS: "box", Name: "eth0", MAC: macFar, Parent: "v0", Mode: op.MacvlanPassthru},
			said:  "ip link add link v0 name eth0 netns box address 02:42:0a:4d:00:03 group 27763 type macvlan mode passthru\nip -n box link set eth0 address 02:42:0a:4d:00:03",
			check: "eth0", foreign: withParent + "ip -n box link add eth0 type bridge",
		},
		{
			name: "up", setup: withVeth, op: op.SetUp{Link: "v0"}, said: "ip link set v0 up", again: true, check: "v0",
			foreign: "ip link add v0 type bridge; ip link set v0 up",
		},
		{name: "up inside", setup: withVeth, op: op.SetUp{NS: "box", Link: "eth0"}, said: "ip -n box link set eth0 up", again: true, check: "eth0"},
		{name: "isolated", setup: withVeth, op: op.SetIsolated{Link: "v0"}, said: "bridge link set dev v0 isolated on", again: true, keeps: true, check: "v0"},
		{
			name: "MTU", setup: withBridge, op: op.SetMTU{Link: "br0", MTU: 1400, Was: 1500}, said: "ip link set br0 mtu 1400", again: true, check: "br0",
			half: []string{"ip link set br0 mtu 1300"}, foreign: "ip link add br0 type bridge",
		},
		{name: "MTU inside", setup: withVeth, op: op.SetMTU{NS: "box", Link: "eth0", MTU: 1400, Was: 1500}, said: "ip -n box link set eth0 mtu 1400", again: true, check: "eth0"},
		{
			name: "no address", setup: withBridge + "ip addr add 10.77.0.1/24 brd + dev br0; ", op: op.RemoveAddress{Added: op.AddAddress{Link: "br0", Address: prefix("10.77.0.1/24")}},
			said: "ip addr del 10.77.0.1/24 dev br0", again: true, check: "10.77.0.1/24",
		},
		{name: "not isolated", setup: withVeth + "bridge link set dev v0 isolated on; ", op: op.ClearIsolated{Link: "v0"}, said: "bridge link set dev v0 isolated off", again: true, check: "v0"},
		{
			name: "sysctl reset", setup: withBridge + "sysctl -qw net/ipv4/conf/br0/route_localnet=1; ", op: op.ResetSysctl{Key: "net/ipv4/conf/br0/route_localnet", Was: "1"},
			said: `sysctl -qw net/ipv4/conf/br0/route_localnet="$(sysctl -n net/ipv4/conf/default/route_localnet)"`, again: true, check: "net/ipv4/conf/br0/route_localnet",
		},
		{
			name: "plug in", setup: withBridge + "ip link add v0 address 02:42:0a:4d:00:02 type veth peer name eth0 address 02:42:0a:4d:00:03; ", op: op.PlugIn{Link: "v0", Bridge: "br0"},
			said: "ip link set v0 master br0", check: "v0", half: []string{"ip link set v0 nomaster"},
			foreign: withBridge + "ip link add br1 type bridge; ip link add v0 master br1 type veth peer name eth0; ", spared: true,
		},
		{
			name: "cable", setup: withBox + "ip netns add bax; ",
			op:   op.AddCable{NS: "box", Name: "eth0", MAC: macNear, PeerNS: "bax", Peer: "eth1", PeerMAC: macFar},
			said: "ip -n box link add name eth0 address 02:42:0a:4d:00:02 type veth peer name eth1 address 02:42:0a:4d:00:03 netns bax", keeps: true, check: "eth0",
		},
		{
			name: "bridge setting", setup: withBridge, op: op.SetBridge{Bridge: "br0", Setting: kernel.BridgeAgeingTime, Value: 5000, Before: 30000},
			said: "ip link set dev br0 type bridge ageing_time 5000", again: true, check: "br0",
		},
		{
			name: "bridge that listens to no groups", setup: withBridge, op: op.SetBridge{Bridge: "br0", Setting: kernel.BridgeSnooping, Before: 1},
			said: "ip link set dev br0 type bridge mcast_snooping 0", again: true, check: "br0",
		},
		{
			name: "bridge priority", setup: withBridge, op: op.SetBridge{Bridge: "br0", Setting: kernel.BridgePriority, Value: 4096, Before: 32768},
			said: "ip link set dev br0 type bridge priority 4096", again: true, check: "br0",
		},
		{
			name: "port setting", setup: withVeth, op: op.SetPort{Port: "v0", Setting: kernel.PortHairpin, Value: 1},
			said: "bridge link set dev v0 hairpin on", again: true, check: "v0",
		},
		{
			name: "port cost", setup: withVeth, op: op.SetPort{Port: "v0", Setting: kernel.PortCost, Value: 7, Before: 2},
			said: "bridge link set dev v0 cost 7", again: true, check: "v0",
		},
		{
			name: "address", setup: withUp, op: op.AddAddress{Link: "br0", Address: prefix("10.77.0.1/24")},
			said: "ip addr add 10.77.0.1/24 brd + dev br0", check: "10.77.0.1/24",
			foreign: "ip link add br0 type bridge; ip addr add 10.77.0.1/24 brd + dev br0", spared: true,
		},
		{
			name: "host address", setup: withUp, op: op.AddAddress{NS: "box", Link: "eth0", Address: prefix("10.77.0.9/32")},
			said: "ip -n box addr add 10.77.0.9/32 dev eth0", check: "10.77.0.9/32",
		},
		{
			name: "point to point address", setup: withUp, op: op.AddAddress{NS: "box", Link: "eth0", Address: prefix("10.77.0.8/31")},
			said: "ip -n box addr add 10.77.0.8/31 dev eth0", check: "10.77.0.8/31",
		},
		{
			name: "IPv6 address", setup: withUp, op: op.AddAddress{NS: "box", Link: "eth0", Address: prefix("2001:db8::2/64")},
			said: "ip -n box addr add 2001:db8::2/64 nodad dev eth0", check: "2001:db8::2/64",
		},
		{
			name: "default route", setup: withUp + "ip -n box addr add 10.77.0.2/24 brd + dev eth0",
			op:   op.AddRoute{NS: "box", To: prefix("0.0.0.0/0"), Via: addr("10.77.0.1"), Link: "eth0"},
			said: "ip -n box route add default via 10.77.0.1 dev eth0", check: "0.0.0.0/0",
		},
		{
			name: "route on a link", setup: withUp, op: op.AddRoute{NS: "box", To: prefix("192.0.2.0/24"), Link: "eth0"},
			said: "ip -n box route add 192.0.2.0/24 dev eth0", check: "192.0.2.0/24",
		},
		{
			name: "route on the host", setup: withUp, op: op.AddRoute{To: prefix("192.0.2.0/24"), Link: "br0"},
			said: "ip route add 192.0.2.0/24 dev br0", check: "192.0.2.0/24",
			foreign: "ip link add br0 type bridge; ip link set br0 up; ip route add 192.0.2.0/24 dev br0", spared: true,
		},
		{
			name: "IPv6 default route", setup: withUp + "ip -n box addr add 2001:db8::2/64 nodad dev eth0",
			op:   op.AddRoute{NS: "box", To: prefix("::/0"), Via: addr("2001:db8::1"), Link: "eth0"},
			said: "ip -n box -6 route add default via 2001:db8::1 dev eth0", check: "::/0",
		},
		{
			name: "IPv6 route on a link", setup: withUp, op: op.AddRoute{NS: "box", To: prefix("2001:db8:1::/48"), Link: "eth0"},
			said: "ip -n box -6 route add 2001:db8:1::/48 dev eth0", check: "2001:db8:1::/48",
		},
		{
			name: "namespace", op: op.AddNetns{Name: "bax"}, said: "ip netns add bax", check: "bax",
			half: []string{"umount /run/netns/bax", "ip -n bax link add inner type bridge"},
		},
		{
			name: "sysctl of the host", op: op.SetSysctl{Key: "net/ipv4/ip_forward", Value: "1", Was: "0"},
			said: "sysctl -qw net/ipv4/ip_forward=1", again: true, check: "net/ipv4/ip_forward",
		},
		{
			name: "sysctl inside", setup: withVeth, op: op.SetSysctl{NS: "box", Key: "net/ipv6/conf/eth0/disable_ipv6", Value: "1"},
			said: "nsenter --net=/run/netns/box sysctl -qw net/ipv6/conf/eth0/disable_ipv6=1", again: true, keeps: true, check: "net/ipv6/conf/eth0/disable_ipv6",
		},
		{
			name: "sysctl of several numbers", op: op.SetSysctl{Key: "net/ipv4/ping_group_range", Value: "0 2147483647", Was: "1\t0"},
			said: "sysctl -qw 'net/ipv4/ping_group_range=0 2147483647'", again: true, check: "net/ipv4/ping_group_range",
		},
		{
			name: "rate", setup: withUp, op: op.LimitRate{NS: "box", Link: "eth0", Rate: 1_000_000, Burst: 3200, Queue: 20_000},
			said:  "tc -n box qdisc add dev eth0 root handle 6c73: tbf rate 1000000bit burst 3200 limit 20000",
			check: "eth0", half: []string{"ip -n box link set eth0 down; ip -n box link set eth0 up", "tc -n box qdisc del dev eth0 root"},
			foreign: withUp + "tc -n box qdisc add dev eth0 root handle 1: tbf rate 1mbit burst 3200 limit 20000",
		},
		{
			name: "loss", setup: withUp, op: op.LoseFrames{Link: "v0", Loss: 50_000},
			said: `nft 'table netdev linkspan-loss-v0 { chain arriving { type filter hook ingress device "v0" priority 0; numgen random mod 1000000 < 50000 counter drop; }; }'`, check: "v0",
			half: []string{"nft flush table netdev linkspan-loss-v0", "nft delete table netdev linkspan-loss-v0"},
		},
		{
			name: "loss inside", setup: withUp, op: op.LoseFrames{NS: "box", Link: "eth0", Loss: 1},
			said:  `nsenter --net=/run/netns/box nft 'table netdev linkspan-loss-eth0 { chain arriving { type filter hook ingress device "eth0" priority 0; numgen random mod 1000000 < 1 counter drop; }; }'`,
			check: "eth0",
		},
		{
			name: "file", op: op.WriteFile{Path: "/run/work/c1/hosts", Text: "127.0.0.1\tlocalhost\nEOF\n$(false)\n"},
			said:  "mkdir -p /run/work/c1 && cat > /run/work/c1/hosts <<'EOF_'\n127.0.0.1\tlocalhost\nEOF\n$(false)\nEOF_",
			check: "/run/work/c1/hosts", half: []string{"echo edited > /run/work/c1/hosts"},
		},
	}
}

// world is what the tests compare: the network and the files of the specimens.
func world(t *testing.T, m *nstest.Machine) string {
	t.Helper()
	text := m.Dump(t) + "== files ==\n"
	filepath.WalkDir("/run/work", func(path string, entry os.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			raw, _ := os.ReadFile(path)
			info, _ := entry.Info()
			text += path + " " + info.Mode().String() + " " + string(raw) + "\n"
		}
		return nil
	})
	return text
}

// settles waits until the world is as wanted: the reaper works behind.
func settles(t *testing.T, m *nstest.Machine, want string) string {
	t.Helper()
	var diff string
	nstest.Until(3*time.Second, func() bool { diff = nstest.Diff(want, world(t, m)); return diff == "" })
	return diff
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestSaid(t *testing.T) {
	for _, s := range specimens() {
		if diff := cmp.Diff(s.said, s.op.String()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", s.name, diff)
		}
	}
}

// Do, Check, Undo, Check; and what String says has the same effect as Do.
func TestSaidIsDone(t *testing.T) {
	for _, s := range specimens() {
		t.Run(s.name, func(t *testing.T) {
			ctx, a := t.Context(), nstest.New(t)
			a.Sh(t, s.setup)
			before := world(t, a)
			complains(t, s, s.op.Check(ctx, a.Host()))
			ok(t, s.op.Do(ctx, a.Host()))
			if err := s.op.Check(ctx, a.Host()); err != nil {
				t.Errorf("Check after Do: %v", err)
			}
			done := world(t, a)
			if nstest.Diff(before, done) == "" {
				t.Error("Do changed nothing that shows")
			}
			ok(t, s.op.Undo(ctx, a.Host()))
			if !s.keeps {
				if diff := settles(t, a, before); diff != "" {
					t.Errorf("Undo left a trace:\n%s", diff)
				}
				complains(t, s, s.op.Check(ctx, a.Host()))
			}
			ok(t, s.op.Undo(ctx, a.Host())) // gone already
			a.Sh(t, clean)

			said(t, s, done, s.op.String())
			if bridger, ok := s.op.(op.Bridger); ok {
				said(t, s, done, bridger.Brctl())
			}
		})
	}
}

func said(t *testing.T, s specimen, done, command string) {
	t.Helper()
	ctx, b := t.Context(), nstest.New(t)
	b.Sh(t, s.setup)
	b.Sh(t, command)
	if err := s.op.Check(ctx, b.Host()); err != nil {
		t.Errorf("Check after the printed command: %v", err)
	}
	if diff := nstest.Diff(done, world(t, b)); diff != "" {
		t.Errorf("what is said is not what is done (- done, + said):\n%s\nsaid: %s", diff, command)
	}
	ok(t, s.op.Undo(ctx, b.Host()))
	if !s.keeps {
		complains(t, s, s.op.Check(ctx, b.Host()))
	}
	b.Sh(t, clean)
}

func complains(t *testing.T, s specimen, err error) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), s.check) {
		t.Errorf("Check when the change is missing: %v; want an error that names %s", err, s.check)
	}
}

// Gone already is success for Undo, together with all that it stood on.
func TestUndoOfNothing(t *testing.T) {
	for _, s := range specimens() {
		t.Run(s.name, func(t *testing.T) {
			m := nstest.New(t)
			bare := world(t, m)
			ok(t, s.op.Undo(t.Context(), m.Host()))
			if diff := nstest.Diff(bare, world(t, m)); diff != "" {
				t.Errorf("Undo on an empty machine changed it:\n%s", diff)
			}
			m.Sh(t, s.setup)
			before := world(t, m)
			ok(t, s.op.Undo(t.Context(), m.Host()))
			if diff := nstest.Diff(before, world(t, m)); diff != "" {
				t.Errorf("Undo before Do changed something:\n%s", diff)
			}
			// And with a namespace that vanished under an open door.
			ok(t, s.op.Do(t.Context(), m.Host()))
			m.Sh(t, clean)
			ok(t, s.op.Undo(t.Context(), m.Host()))
		})
	}
}

// Undo clears up whatever has become of what Do did.
func TestUndoOfHalf(t *testing.T) {
	for _, s := range specimens() {
		for _, spoil := range s.half {
			t.Run(s.name+": "+spoil, func(t *testing.T) {
				m := nstest.New(t)
				m.Sh(t, s.setup)
				before := world(t, m)
				ok(t, s.op.Do(t.Context(), m.Host()))
				m.Sh(t, spoil)
				ok(t, s.op.Undo(t.Context(), m.Host()))
				if diff := settles(t, m, before); diff != "" {
					t.Errorf("Undo left a trace:\n%s", diff)
				}
				m.Sh(t, clean)
			})
		}
	}
}

// A second Do is refused, and leaves the first as it is.
func TestDoTwice(t *testing.T) {
	for _, s := range specimens() {
		t.Run(s.name, func(t *testing.T) {
			m := nstest.New(t)
			m.Sh(t, s.setup)
			ok(t, s.op.Do(t.Context(), m.Host()))
			done := world(t, m)
			err := s.op.Do(t.Context(), m.Host())
			if s.again {
				ok(t, err)
			} else if !errors.Is(err, linkspan.ErrConflict) || !strings.Contains(err.Error(), s.check) {
				t.Errorf("a second Do: %v; want a conflict that names %s", err, s.check)
			}
			if diff := nstest.Diff(done, world(t, m)); diff != "" {
				t.Errorf("a second Do changed something:\n%s", diff)
			}
			m.Sh(t, clean)
			ok(t, s.op.Undo(t.Context(), m.Host()))
		})
	}
}

// What has the name but not the mark is left alone by Do and by Undo.
func TestForeignThings(t *testing.T) {
	for _, s := range specimens() {
		if s.foreign == "" {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			m := nstest.New(t)
			m.Sh(t, s.foreign)
			before := world(t, m)
			if !s.again {
				if err := s.op.Do(t.Context(), m.Host()); !errors.Is(err, linkspan.ErrConflict) {
					t.Errorf("Do in spite of a stranger: %v, want ErrConflict", err)
				}
			}
			err := s.op.Undo(t.Context(), m.Host())
			if s.spared {
				ok(t, err)
			} else if !errors.Is(err, linkspan.ErrConflict) || !strings.Contains(err.Error(), "not ours") {
				t.Errorf("Undo in spite of a stranger: %v, want ErrConflict", err)
			}
			if diff := nstest.Diff(before, world(t, m)); diff != "" {
				t.Errorf("the stranger was touched:\n%s", diff)
			}
			m.Sh(t, clean)
		})
	}
}

// Every refusal says what failed, on what, and how to look.
func TestErrorsNameTheHolder(t *testing.T) {
	long := "a-name-of-more-than-15-bytes"
	for _, c := range []struct {
		name  string
		setup string
		op    op.Op
		kind  error
		want  []string
	}{
		{"link name taken", "ip link add br0 type bridge", op.AddBridge{Name: "br0", MAC: macBridge}, linkspan.ErrConflict, []string{"br0", "exists already", "ip link show"}},
		{"near end taken", withBox + "ip link add v0 type bridge", op.AddVeth{Name: "v0", MAC: macNear, Peer: "eth0", PeerMAC: macFar, PeerNS: "box"}, linkspan.ErrConflict, []string{"v0", "(see: ip link show"}},
		{"far end taken", withBox + "ip -n box link add eth0 type bridge", op.AddVeth{Name: "v0", MAC: macNear, Peer: "eth0", PeerMAC: macFar, PeerNS: "box"}, linkspan.ErrConflict, []string{"eth0", "ip -n box link show"}},
		{"no such bridge", withBox, op.AddVeth{Name: "v0", MAC: macNear, Master: "br9", Peer: "eth0", PeerMAC: macFar, PeerNS: "box"}, linkspan.ErrNotFound, []string{"v0", "br9"}},
		{"no such namespace", "", op.AddVeth{Name: "v0", MAC: macNear, Peer: "eth0", PeerMAC: macFar, PeerNS: "box"}, linkspan.ErrNotFound, []string{"box", "ip netns"}},
		{"name too long", "", op.AddBridge{Name: long, MAC: macBridge}, nil, []string{long}},
		{"MAC of nonsense", "", op.AddBridge{Name: "br0", MAC: "zz"}, nil, []string{"br0", "zz"}},
		{"no such link", "", op.SetUp{Link: "v9"}, linkspan.ErrNotFound, []string{"v9", "ip link show"}},
		{"no such link inside", withBox, op.SetUp{NS: "box", Link: "v9"}, linkspan.ErrNotFound, []string{"v9", "ip -n box link show"}},
		{"no bridge port", "ip link add br0 type bridge", op.SetIsolated{Link: "br0"}, nil, []string{"br0"}},
		{"address taken", withBridge + "ip addr add 10.77.0.1/24 dev br0", op.AddAddress{Link: "br0", Address: netip.MustParsePrefix("10.77.0.1/24")}, linkspan.ErrConflict, []string{"10.77.0.1/24", "br0", "ip addr show"}},
		{"gateway out of reach", withUp, op.AddRoute{NS: "box", To: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("10.9.9.9"), Link: "eth0"}, nil, []string{"0.0.0.0/0", "10.9.9.9", "eth0"}},
		{"route taken", withUp + "ip -n box route add 192.0.2.0/24 dev eth0", op.AddRoute{NS: "box", To: netip.MustParsePrefix("192.0.2.0/24"), Link: "eth0"}, linkspan.ErrConflict, []string{"192.0.2.0/24", "ip -n box route show"}},
		{"namespace taken", withBox, op.AddNetns{Name: "box"}, linkspan.ErrConflict, []string{"box", "ip netns"}},
		{"no such sysctl", "", op.SetSysctl{Key: "net/nonsense", Value: "1"}, nil, []string{"net/nonsense"}},
		{"value out of range", "", op.SetSysctl{Key: "net/ipv4/ping_group_range", Value: "x"}, nil, []string{"net/ipv4/ping_group_range"}},
		{"parent missing", withBox, op.AddMacvlan{NS: "box", Name: "eth0", MAC: macFar, Parent: "v9", Mode: op.MacvlanBridge}, linkspan.ErrNotFound, []string{"v9", "ip link show"}},
		{"parent a bridge port", withVeth, op.AddMacvlan{NS: "box", Name: "eth1", MAC: macFar, Parent: "v0", Mode: op.MacvlanBridge}, linkspan.ErrConflict, []string{"eth1", "v0", "ip -d link show v0"}},
		{"parent in passthru", withParent + "ip link add m0 link v0 type macvlan mode passthru", op.AddMacvlan{NS: "box", Name: "eth0", MAC: macFar, Parent: "v0", Mode: op.MacvlanBridge}, linkspan.ErrConflict, []string{"v0", "passthru"}},
		{"no such mode", withParent, op.AddMacvlan{NS: "box", Name: "eth0", MAC: macFar, Parent: "v0", Mode: "source"}, linkspan.ErrInvalid, []string{"source"}},
		{"too long frames", withParent, op.AddMacvlan{NS: "box", Name: "eth0", MAC: macFar, Parent: "v0", Mode: op.MacvlanBridge, MTU: 9000}, linkspan.ErrInvalid, []string{"9000", "v0"}},
		{"trunk missing", "", op.ShareVLAN{Name: "v9.50", Parent: "v9", ID: 50, User: "u"}, linkspan.ErrNotFound, []string{"v9"}},
		{"ipvlan on nothing", withBox, op.AddIPvlan{NS: "box", Name: "eth0", Parent: "v9", Mode: "l2", Flag: "bridge"}, linkspan.ErrNotFound, []string{"v9"}},
		{"ipvlan of no mode", withBox, op.AddIPvlan{NS: "box", Name: "eth0", Parent: "v0", Mode: "l4", Flag: "bridge"}, linkspan.ErrInvalid, []string{"l4"}},
		{"file taken", "mkdir -p /run/work; touch /run/work/hosts", op.WriteFile{Path: "/run/work/hosts", Text: "x\n"}, linkspan.ErrConflict, []string{"/run/work/hosts"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := nstest.New(t)
			m.Sh(t, c.setup)
			before := world(t, m)
			err := c.op.Do(t.Context(), m.Host())
			if err == nil {
				t.Fatal("Do succeeded")
			}
			if c.kind != nil && !errors.Is(err, c.kind) {
				t.Errorf("the error is not of kind %q: %v", c.kind, err)
			}
			for _, word := range c.want {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("the error does not say %q: %v", word, err)
				}
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("the error has several lines:\n%v", err)
			}
			if diff := settles(t, m, before); diff != "" {
				t.Errorf("a Do that failed left a trace:\n%s", diff)
			}
			m.Sh(t, clean)
		})
	}
}

// Each op and plan survives being stored.
func TestCodecRoundTrip(t *testing.T) {
	var plan op.Plan
	for _, s := range specimens() {
		plan = append(plan, op.Step{Why: s.name, Op: s.op})
	}
	codec := op.NewCodec()
	raw, err := codec.Marshal(plan)
	ok(t, err)
	got, err := codec.Unmarshal(raw)
	ok(t, err)
	if diff := cmp.Diff(plan, got, cmpopts.EquateComparable(netip.Prefix{}, netip.Addr{})); diff != "" {
		t.Errorf("a plan was changed by storing it (-want +got):\n%s", diff)
	}
	if again, err := codec.Marshal(got); err != nil || string(again) != string(raw) {
		t.Errorf("stored twice, it reads differently (%v)", err)
	}
}

// stray is an op that no codec knows.
type stray struct{ op.AddNetns }

func TestCodecRefuses(t *testing.T) {
	codec := op.NewCodec()
	if _, err := codec.Marshal(op.Plan{{Op: stray{}}}); err == nil || !strings.Contains(err.Error(), "stray") {
		t.Errorf("storing an op of unknown kind: %v", err)
	}
	for _, bad := range []struct{ raw, want string }{
		{`[{"kind":"warp","op":{}}]`, "warp"},
		{`[{"kind":"netns","op":{"Name":"a","Colour":"red"}}]`, "Colour"},
		{`[{"kind":"address","op":{"Link":"a","Address":"x"}}]`, "address"},
		{`[{"kind":"netns","op":{"Name":1}}]`, "netns"},
		{`{`, "stored plan"},
	} {
		if _, err := codec.Unmarshal([]byte(bad.raw)); err == nil || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("Unmarshal(%s): %v; want an error that names %s", bad.raw, err, bad.want)
		}
	}
	if _, err := op.NewCodec(op.Kinds{"stray": stray{}}).Marshal(op.Plan{{Op: stray{}}}); err != nil {
		t.Errorf("a kind of another package: %v", err)
	}
	defer func() {
		if recover() == nil {
			t.Error("two kinds of one name: no panic")
		}
	}()
	op.NewCodec(op.Kinds{"netns": stray{}})
}
