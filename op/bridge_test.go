package op_test

import (
	"strings"
	"testing"

	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/op"
)

// TestOwnBridge is apart from the specimens because the MAC of such a bridge is
// random: two of them never look alike.
func TestOwnBridge(t *testing.T) {
	m := nstest.New(t)
	h := m.Host()
	bridge := op.AddOwnBridge{Name: "br0"}
	before := world(t, m)
	ok(t, bridge.Do(t.Context(), h))
	ok(t, bridge.Check(t.Context(), h))
	if err := bridge.Do(t.Context(), h); err == nil {
		t.Error("made twice")
	}
	m.Sh(t, "ip link set br0 up")
	if err := bridge.Undo(t.Context(), h); err == nil || !strings.Contains(err.Error(), "still up") {
		t.Errorf("a bridge that is up was removed: %v", err)
	}
	m.Sh(t, "ip link set br0 down group 27763")
	if err := bridge.Undo(t.Context(), h); err == nil || !strings.Contains(err.Error(), "network of the daemon") {
		t.Errorf("the bridge of a network was removed: %v", err)
	}
	m.Sh(t, "ip link set br0 group default")
	ok(t, bridge.Undo(t.Context(), h))
	ok(t, bridge.Undo(t.Context(), h))
	settles(t, m, before)
	m.Sh(t, "ip link add br0 type veth peer name p0")
	if err := bridge.Check(t.Context(), h); err == nil {
		t.Error("a veth passed for a bridge")
	}
	if err := bridge.Undo(t.Context(), h); err == nil || !strings.Contains(err.Error(), "no bridge but veth") {
		t.Errorf("a veth was removed: %v", err)
	}
	m.Sh(t, "ip link del br0")
}
