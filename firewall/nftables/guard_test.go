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

// A guard changes in place: by the change and by its text there is what the new
// one has, done twice or half as done once, and its undo leads back. Somebody who
// flushed sets or the table in between is no obstacle to that.
func TestChangeGuard(t *testing.T) {
	b := nftables.Backend{}
	addrs := func(texts ...string) (all []netip.Addr) {
		for _, text := range texts {
			all = append(all, netip.MustParseAddr(text))
		}
		return all
	}
	neighbour := b.Station(firewall.Station{Link: "veth7654321", MAC: "02:00:00:00:00:0b", Addrs: addrs("10.77.0.3")})
	stations := []firewall.Station{
		{Link: "veth0123456", MAC: "02:00:00:00:00:0a", Addrs: addrs("10.77.0.2")},
		{Link: "veth0123456", MAC: "02:00:00:00:00:0a", Addrs: addrs("10.77.0.2", "fd77::2")},
		{Link: "veth0123456", MAC: "02:00:00:00:00:0c", Addrs: addrs("10.78.0.2", "fe80::c")},
		{Link: "veth0123456", MAC: "02:00:00:00:00:0c"},
	}
	ctx := t.Context()
	dump := func(m *nstest.Machine) string { // the order of elements is the kernel's
		return m.Sh(t, `nft list ruleset | tr ',{}' '\n\n\n' | sed 's/^[[:space:]]*//; s/[[:space:]]*$//' | sort`)
	}
	for i, from := range stations {
		for j, to := range stations {
			if i == j {
				continue
			}
			m := nstest.New(t)
			x := op.Executor{Host: m.Host()}
			must := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatalf("%d to %d: %v", i, j, err)
				}
			}
			same := func(want, what string) {
				t.Helper()
				if diff := nstest.Diff(want, dump(m)); diff != "" {
					t.Errorf("%d to %d, %s:\n%s", i, j, what, diff)
				}
			}
			must(x.Do(ctx, append(b.GuardBase(), neighbour...)))
			must(x.Do(ctx, b.Station(to)))
			after := dump(m)
			must(x.Undo(ctx, b.Station(to)))
			must(x.Do(ctx, b.Station(from)))
			before := dump(m)
			diff, err := op.Difference(b.Station(from), b.Station(to))
			must(err)
			for range 2 {
				must(x.Do(ctx, diff))
				same(after, "changed")
			}
			must(x.Check(ctx, diff))
			for range 2 {
				must(x.Undo(ctx, diff))
				same(before, "changed back")
			}
			m.Sh(t, diff.String())
			same(after, "by the shell")
			m.Sh(t, "nft flush set bridge linkspan macs; nft flush set bridge linkspan stations4")
			must(x.Undo(ctx, diff))
			must(x.Do(ctx, neighbour))
			same(before, "changed back after sets were flushed")
			m.Sh(t, "nft delete table bridge linkspan")
			must(x.Do(ctx, b.Station(from)))
			must(x.Check(ctx, append(b.GuardBase(), b.Station(from)...)))
			m.Sh(t, "nft delete table bridge linkspan")
			must(x.Undo(ctx, diff))
			must(x.Do(ctx, diff))
			must(x.Check(ctx, append(b.GuardBase(), diff...)))
			must(x.Undo(ctx, b.GuardBase()))
		}
	}
}
