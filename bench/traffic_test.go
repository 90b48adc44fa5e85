package bench

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/kernel"
)

// traffic compares the ways that packets take with what the kernel alone does: a
// bridge with two cables, and one rule that translates an address.
//
//	lan ══ engine ── bridge ── web, app          lan ══ bare ── bridge ── web, app
func traffic(t *testing.T) []figure {
	m := machines(t, 3)
	bare, lan, e := m[1], m[2], start(t, m[0])
	connect(t, lan, e.machine, "10.9.1", "fd09:1")
	connect(t, lan, bare, "10.9.2", "fd09:2")
	barePair(t, bare)
	e.network(t, "lab", "10.77.0.0/24", "fd77::/64")
	web, app := e.up(t, "web", "8080:80/tcp"), e.up(t, "app")
	ours, theirs := [2]*kernel.Host{e.inside(t, web), e.inside(t, app)}, [2]*kernel.Host{namespace(t, "bareweb"), namespace(t, "bareapp")}
	var figures []figure
	for _, six := range []bool{false, true} {
		to := netip.AddrPortFrom(netip.MustParseAddr(e.address(t, web, "lab", six)), 80)
		bareTo, family := netip.MustParseAddrPort("10.88.0.2:80"), "IPv4"
		outside, bareOutside := "10.9.1.1:8080", "10.9.2.1:8080"
		if six {
			bareTo, family = netip.MustParseAddrPort("[fd88::2]:80"), "IPv6"
			outside, bareOutside = "[fd09:1::1]:8080", "[fd09:2::1]:8080"
		}
		figures = append(figures, compare(t, family+" container to container",
			path{ours[1], ours[0], to, to}, path{theirs[1], theirs[0], bareTo, bareTo})...)
		figures = append(figures, compare(t, family+" from the LAN to a published port",
			path{lan.Host(), ours[0], to, netip.MustParseAddrPort(outside)},
			path{lan.Host(), theirs[0], bareTo, netip.MustParseAddrPort(bareOutside)})...)
	}
	to, bareTo := netip.AddrPortFrom(netip.MustParseAddr(e.address(t, web, "lab", false)), 80), netip.MustParseAddrPort("10.88.0.2:80")
	loopback := netip.MustParseAddrPort("127.0.0.1:8080")
	return append(figures, compare(t, "from the host's 127.0.0.1 to a published port",
		path{e.machine.Host(), ours[0], to, loopback}, path{bare.Host(), theirs[0], bareTo, loopback})...)
}

// connect lays a cable from the LAN to a machine.
func connect(t *testing.T, lan, host *nstest.Machine, four, six string) {
	t.Helper()
	near := "to" + host.Name()[len(host.Name())-8:]
	lan.Sh(t, fmt.Sprintf(`ip link add %[1]s type veth peer name lan0 netns %[2]s
		ip addr add %[3]s.2/24 dev %[1]s; ip addr add %[4]s::2/64 dev %[1]s nodad; ip link set %[1]s up
		ip -n %[2]s addr add %[3]s.1/24 dev lan0; ip -n %[2]s addr add %[4]s::1/64 dev lan0 nodad; ip -n %[2]s link set lan0 up`, near, host.Name(), four, six))
}

// barePair is what somebody makes by hand: a bridge, two cables, one rule for
// each family, and what the host's own loopback needs.
func barePair(t *testing.T, m *nstest.Machine) {
	t.Helper()
	t.Cleanup(func() { m.TrySh("ip netns del bareweb; ip netns del bareapp") }) //nolint:errcheck // what is left is reported
	m.Sh(t, `ip link add br0 type bridge; ip addr add 10.88.0.1/24 dev br0; ip addr add fd88::1/64 dev br0 nodad; ip link set br0 up
		n=2
		for i in web app; do
			ip netns add bare$i
			ip link add $i type veth peer name eth0 netns bare$i
			ip link set $i master br0 up
			ip -n bare$i addr add 10.88.0.$n/24 dev eth0; ip -n bare$i addr add fd88::$n/64 dev eth0 nodad; ip -n bare$i link set eth0 up
			ip -n bare$i route add default via 10.88.0.1; ip -n bare$i route add default via fd88::1
			n=3
		done
		sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.conf.br0.route_localnet=1
		nft -f - <<-"END"
		table inet bare {
			chain in { type nat hook prerouting priority -100; fib daddr type local tcp dport 8080 dnat ip to 10.88.0.2:80; fib daddr type local tcp dport 8080 dnat ip6 to [fd88::2]:80; }
			chain own { type nat hook output priority -100; ip daddr 127.0.0.0/8 tcp dport 8080 dnat ip to 10.88.0.2:80; }
			chain out { type nat hook postrouting priority 100; oifname "br0" ip saddr 127.0.0.0/8 masquerade; }
		}
		END`)
}

func namespace(t *testing.T, name string) *kernel.Host {
	t.Helper()
	h, err := kernel.OpenAt(kernel.Pin(name))
	must(t, err)
	t.Cleanup(func() { h.Close() }) //nolint:errcheck // nothing is lost
	return h
}
