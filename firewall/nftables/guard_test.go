package nftables_test

import (
	"net/netip"
	"testing"

	"github.com/linkspan/linkspan/firewall"
	"github.com/linkspan/linkspan/firewall/nftables"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/sandbox"
)

// What the guard and a switch of ports do is what they say, they find it done,
// and undoing them leaves nothing.
func TestGuardAndSwitch(t *testing.T) {
	done, said := nstest.New(t), nstest.New(t)
	b := nftables.Backend{}
	port := func(first, count uint16) sandbox.Port {
		return sandbox.Port{
			Protocol: "tcp", Host: netip.MustParseAddr("0.0.0.0"), First: first, Count: count, To: netip.AddrPortFrom(netip.MustParseAddr("10.77.0.2"), first),
		}
	}
	base := append(b.Base(), b.GuardBase()...)
	old, fresh := []sandbox.Port{port(5000, 11), port(80, 1)}, []sandbox.Port{port(5000, 5), port(5006, 5), port(443, 1)}
	plans := []op.Plan{
		base,
		b.Station(firewall.Station{Link: "veth0123456", MAC: "02:00:00:00:00:0a", Addrs: []netip.Addr{netip.MustParseAddr("10.77.0.2"), netip.MustParseAddr("fd77::2")}}),
		b.Ports("br-lab", old),
		b.Switch("br-lab", old, fresh),
	}
	x := op.Executor{Host: done.Host()}
	var states []string
	for i, plan := range plans {
		states = append(states, done.Dump(t))
		if err := x.Do(t.Context(), plan); err != nil {
			t.Fatal(err)
		}
		if err := x.Check(t.Context(), plan); err != nil {
			t.Errorf("plan %d is done and not found: %v", i, err)
		}
		said.Sh(t, plan.String())
		if diff := nstest.Diff(said.Dump(t), done.Dump(t)); diff != "" {
			t.Errorf("plan %d does not do what it says:\n%s", i, diff)
		}
	}
	for i := len(plans) - 1; i >= 0; i-- {
		for range 2 { // gone already is success
			if i == 3 && done.Dump(t) == states[i] {
				break // switching back twice would be another switch
			}
			if err := x.Undo(t.Context(), plans[i]); err != nil {
				t.Fatal(err)
			}
		}
		if diff := nstest.Diff(states[i], done.Dump(t)); diff != "" {
			t.Errorf("undoing plan %d leaves:\n%s", i, diff)
		}
	}
	said.Sh(t, "nft delete table inet linkspan; nft delete table bridge linkspan")
}
