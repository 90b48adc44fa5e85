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

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/internal/nstest"
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
