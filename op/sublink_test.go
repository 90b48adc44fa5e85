package op_test

import (
	"errors"
	"testing"
	"time"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/op"
)

func TestSaidOfKindsThatKernelsLack(t *testing.T) {
	for said, o := range map[string]op.Op{
		"ip link add link v0 name eth0 netns box mtu 1400 group 27763 type ipvlan mode l3 private": op.AddIPvlan{NS: "box", Name: "eth0", Parent: "v0", Mode: "l3", Flag: "private", MTU: 1400},
		"ip link show dev v0.50 >/dev/null 2>&1 || ip link add link v0 name v0.50 group 27763 type vlan id 50\n" +
			"test -z \"$(ip -o link show dev v0.50 group 27763)\" || { ip link property add dev v0.50 altname used-by-lab; ip link set v0.50 up; }": op.ShareVLAN{Name: "v0.50", Parent: "v0", ID: 50, User: "lab"},
	} {
		if got := o.String(); got != said {
			t.Errorf("said:\n%s\nwant:\n%s", got, said)
		}
	}
}

// Not every kernel has ipvlan and VLANs. Where there are none the refusal says
// so and leaves nothing; where there are they are made and taken away.
func TestKindsThatKernelsLack(t *testing.T) {
	for kind, o := range map[string]op.Op{
		"ipvlan": op.AddIPvlan{NS: "box", Name: "eth0", Parent: "v0", Mode: "l2", Flag: "bridge"},
		"vlan":   op.ShareVLAN{Name: "v0.50", Parent: "v0", ID: 50, User: "lab"},
	} {
		t.Run(kind, func(t *testing.T) {
			m := nstest.New(t)
			m.Sh(t, withParent)
			before := world(t, m)
			known, err := m.Host().KnowsKind(kind)
			ok(t, err)
			err = o.Do(t.Context(), m.Host())
			if known {
				ok(t, err)
				ok(t, o.Check(t.Context(), m.Host()))
			} else if !errors.Is(err, linkspan.ErrUnsupported) {
				t.Errorf("Do on a kernel without: %v", err)
			}
			ok(t, o.Undo(t.Context(), m.Host()))
			if diff := settles(t, m, before); diff != "" {
				t.Errorf("left behind:\n%s", diff)
			}
			m.Sh(t, clean)
		})
	}
}

// A VLAN link that is there is shared: the last user takes it away. Any link
// of ours can stand for it where the kernel has no VLANs.
func TestSharedVLANStaysForOthers(t *testing.T) {
	m := nstest.New(t)
	first, second := op.ShareVLAN{Name: "v0", Parent: "p0", ID: 50, User: "first"}, op.ShareVLAN{Name: "v0", Parent: "p0", ID: 50, User: "second"}
	m.Sh(t, "ip link add v0 group 27763 type veth peer name p0; ip link property add dev v0 altname used-by-first altname used-by-second altname other")
	ok(t, first.Undo(t.Context(), m.Host()))
	ok(t, first.Undo(t.Context(), m.Host()))
	m.Sh(t, "ip link show used-by-second && ip link show other && ! ip link show used-by-first")
	ok(t, second.Undo(t.Context(), m.Host()))
	if !nstest.Until(20*time.Second, func() bool { _, err := m.TrySh("! ip link show p0"); return err == nil }) {
		t.Error("the last user left and the link stayed")
	}
	m.Sh(t, "ip link add v0 type veth peer name p0")
	ok(t, second.Undo(t.Context(), m.Host()))
	m.Sh(t, "ip link show v0; ip link del v0")
}

func TestKnowsKind(t *testing.T) {
	m := nstest.New(t)
	before := world(t, m)
	for kind, want := range map[string]bool{"macvlan": true, "nosuchkind": false} {
		if known, err := m.Host().KnowsKind(kind); err != nil || known != want {
			t.Errorf("kind %s: known is %v (%v)", kind, known, err)
		}
	}
	if diff := nstest.Diff(before, world(t, m)); diff != "" {
		t.Errorf("asking changed:\n%s", diff)
	}
}
