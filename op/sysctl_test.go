package op_test

import (
	"context"
	"testing"

	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/op"
)

// The kernel takes IPv6 from a link whose MTU is below 1280 bytes (RFC 8200
// section 5), parameters and all. To switch it off there is no failure, and the
// shell agrees.
func TestOptionalSysctl(t *testing.T) {
	m := nstest.New(t)
	m.Sh(t, "ip link add v0 mtu 1279 type bridge")
	off := op.SetSysctl{Key: "net/ipv6/conf/v0/disable_ipv6", Value: "1", Optional: true}
	for what, f := range map[string]func(context.Context, *kernel.Host) error{"Do": off.Do, "Check": off.Check, "Undo": off.Undo} {
		if err := f(t.Context(), m.Host()); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	if said := m.Sh(t, off.String()+" 2>/dev/null; echo $?"); said != "0\n" {
		t.Errorf("%s says %s", off, said)
	}
	off.Optional = false
	if err := off.Do(t.Context(), m.Host()); err == nil {
		t.Error("a parameter that nobody has was set")
	}
}
