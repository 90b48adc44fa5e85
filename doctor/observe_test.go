package doctor_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/linkspan/linkspan/doctor"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/kernel"
)

func TestMain(m *testing.M) { nstest.Main(m) }

func observe(t *testing.T, m *nstest.Machine) doctor.Observation {
	t.Helper()
	o, err := doctor.Observe(m.Host(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// Each trouble is made on a machine of its own, seen, and ended by the remedy
// that the finding names.
func TestTroublesAreSeenAndRemedied(t *testing.T) {
	const uplinks = "ip link add one type bridge; ip link add two type bridge; ip link set one up; ip link set two up; " +
		"ip addr add 192.0.2.1/24 dev one; ip addr add 198.51.100.1/24 dev two; " +
		"ip route add default via 192.0.2.254; ip route add 203.0.113.0/24 via 198.51.100.254; "
	for _, c := range []struct {
		reason, make, end string
		seen              string // in the observation
	}{
		{doctor.ReasonForward4, "sysctl -qw net.ipv4.ip_forward=0", "sysctl -qw net.ipv4.ip_forward=0", ""},
		{doctor.ReasonForward6, "sysctl -qw net.ipv6.conf.all.forwarding=0", "sysctl -qw net.ipv6.conf.all.forwarding=0", ""},
		{doctor.ReasonDropPolicy, "nft 'add table inet strict; add chain inet strict pass { type filter hook forward priority 0; policy drop; }'", "nft delete table inet strict", "chain pass of table inet strict"},
		{doctor.ReasonDropPolicy, "iptables-legacy -P FORWARD DROP", "iptables-legacy -P FORWARD ACCEPT", "chain FORWARD of iptables-legacy"},
		{doctor.ReasonDropPolicy, "ip6tables-legacy -A FORWARD -s fd00::/8 -j ACCEPT; ip6tables-legacy -P FORWARD DROP", "ip6tables-legacy -F; ip6tables-legacy -P FORWARD ACCEPT", "chain FORWARD of ip6tables-legacy"},
		{doctor.ReasonReversePath, uplinks + "sysctl -qw net.ipv4.conf.two.rp_filter=1 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.one.rp_filter=0", "ip link del one; ip link del two", "[two]"},
	} {
		t.Run(c.reason+" "+c.seen, func(t *testing.T) {
			m := nstest.New(t)
			// What other programs have set for new namespaces is not this test's.
			m.Sh(t, "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.conf.all.rp_filter=0; for f in iptables ip6tables; do test ! -e /proc/sys/net/bridge/bridge-nf-call-$f || sysctl -qw net.bridge.bridge-nf-call-$f=0; done")
			before := doctor.Examine(observe(t, m), nil)
			m.Sh(t, c.make)
			o := observe(t, m)
			if text := fmt.Sprint(o); !strings.Contains(text, c.seen) {
				t.Errorf("observed %+v, want %s in it", o, c.seen)
			}
			var remedy string
			for _, f := range doctor.Examine(o, nil) {
				if f.Reason == c.reason {
					remedy = f.Remedy
				}
			}
			if remedy == "" {
				t.Fatalf("no finding %s in %+v", c.reason, doctor.Examine(o, nil))
			}
			if c.reason == doctor.ReasonDropPolicy { // its remedy names no command: whose chain it is decides
				remedy, c.end = c.end, ""
			}
			m.Sh(t, remedy)
			if after := doctor.Examine(observe(t, m), nil); !slices.Equal(after, before) {
				t.Errorf("after %q: %+v, before the trouble %+v", remedy, after, before)
			}
			if c.end != "" {
				m.Sh(t, c.end)
			}
			m.Sh(t, "sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0")
		})
	}
}

func TestBridgeFilterIsSeen(t *testing.T) {
	m := nstest.New(t)
	m.Sh(t, "test -e /proc/sys/net/bridge || modprobe br_netfilter")
	for value, want := range map[string][]string{"1": {"net.bridge.bridge-nf-call-iptables", "net.bridge.bridge-nf-call-ip6tables"}, "0": nil} {
		m.Sh(t, "sysctl -qw net.bridge.bridge-nf-call-iptables="+value+" net.bridge.bridge-nf-call-ip6tables="+value)
		if got := observe(t, m).BridgeFilter; !slices.Equal(got, want) {
			t.Errorf("with %s: %q, want %q", value, got, want)
		}
	}
}

func TestFeaturesOfThisKernel(t *testing.T) {
	missing, err := nstest.New(t).Host().MissingFeatures()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range missing {
		if slices.Contains([]string{"bridge", "veth", "nft_masq"}, f.Name) {
			t.Errorf("the other tests rely on %s, and it is reported missing", f.Name)
		}
	}
	if none, err := kernel.LacksLink("nosuchkind"); err != nil || !none {
		t.Errorf("a kind that no kernel has: %t, %v", none, err)
	}
}
