package controller_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	apinetwork "github.com/moby/moby/api/types/network"

	"github.com/linkspan/linkspan/controller"
	"github.com/linkspan/linkspan/endpoint"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/ipam"
	"github.com/linkspan/linkspan/kernel"
)

func dualStack(s *controller.NetworkSpec) { s.IPv6 = true }

func onlyIPv6(s *controller.NetworkSpec) { s.IPv4, s.IPv6 = false, true }

// in returns a script that runs a command in a sandbox.
func in(a controller.Attachment, command string) string {
	return "nsenter --net=" + kernel.Pin(nsOf(a)) + " " + command
}

// lookUp waits for the answer of a sandbox's resolver.
func lookUp(t *testing.T, m *nstest.Machine, a controller.Attachment, question, want string) {
	t.Helper()
	got := ""
	if !nstest.Until(patience, func() bool {
		out, _ := m.TrySh(in(a, "dig +short +time=2 +tries=1 @127.0.0.11 "+question))
		got = strings.TrimSpace(out)
		return got == want
	}) {
		t.Errorf("%s is %q, not %q", question, got, want)
	}
}

func TestDualStack(t *testing.T) {
	m := nstest.New(t)
	d := start(t, m, newRoots(t))
	d.network(t, "lab", dualStack)
	web, db := spec("web", "lab"), spec("db", "lab")
	a := d.run(t, web)
	d.run(t, db)
	settings := d.Settings(web.ID).Networks["lab"]
	ula := ipam.DefaultBases6("test")[0]
	if six := settings.GlobalIPv6Address; !ula.Prefix.Contains(six) || settings.GlobalIPv6PrefixLen != 64 {
		t.Errorf("the default address %s/%d is not from a /64 of the host's ULA prefix %s", six, settings.GlobalIPv6PrefixLen, ula.Prefix)
	}
	if !settings.IPAddress.Is4() || !settings.IPv6Gateway.Is6() {
		t.Errorf("settings: %+v", settings)
	}
	out := m.Sh(t, "ip -n "+nsOf(a)+" -6 addr show tentative; ip -n "+nsOf(a)+" -6 route show default")
	if strings.Contains(out, "tentative") || !strings.Contains(out, "default via "+settings.IPv6Gateway.String()+" dev eth0") {
		t.Errorf("a container waits for duplicates, or has no way out:\n%s", out)
	}
	reach(t, m, nsOf(a), d.Settings(db.ID).Networks["lab"].GlobalIPv6Address.String())
	reach(t, m, nsOf(a), settings.IPv6Gateway.String())
	lookUp(t, m, a, "db AAAA", d.Settings(db.ID).Networks["lab"].GlobalIPv6Address.String())
	d.clear(t)
}

func TestIPv6Only(t *testing.T) {
	m := nstest.New(t)
	d := start(t, m, newRoots(t))
	d.network(t, "six", onlyIPv6, func(s *controller.NetworkSpec) {
		s.Pools = []ipam.Pool{{Subnet: netip.MustParsePrefix("fd00:77::/64")}}
	})
	web, db := spec("web", "six"), spec("db", "six")
	a := d.run(t, web)
	d.run(t, db)
	s := d.Settings(web.ID).Networks["six"]
	if s.IPAddress.IsValid() || s.Gateway.IsValid() || s.GlobalIPv6Address.String() != "fd00:77::2" || s.IPv6Gateway.String() != "fd00:77::1" {
		t.Errorf("settings: %+v", s)
	}
	if out := m.Sh(t, "ip -n "+nsOf(a)+" -4 addr show dev eth0; ip -n "+nsOf(a)+" -4 route"); out != "" {
		t.Errorf("there is IPv4 on an IPv6 network:\n%s", out)
	}
	reach(t, m, nsOf(a), "fd00:77::3")
	lookUp(t, m, a, "db AAAA", "fd00:77::3")
	d.clear(t)
}

// outside is a second machine at the end of a wire, with a route to nowhere
// else, and a listener that says who speaks to it.
func outside(t *testing.T, m *nstest.Machine) *nstest.Machine {
	t.Helper()
	peer := nstest.New(t)
	nstest.Wire(t, m, peer, netip.MustParsePrefix("2001:db8:1::1/64"), netip.MustParsePrefix("2001:db8:1::2/64"))
	return peer
}

// A container reaches the world with the host's address, or its own if that is
// what the options say. Linkspan makes the host forward, and undoes it.
func TestIPv6Outside(t *testing.T) {
	for _, test := range []struct {
		name       string
		masquerade string
		seen       string
	}{{"masqueraded", "true", "2001:db8:1::1"}, {"routed", "false", "fd00:77::2"}} {
		t.Run(test.name, func(t *testing.T) {
			m := nstest.New(t)
			peer := outside(t, m)
			d := start(t, m, newRoots(t))
			if got := strings.TrimSpace(m.Sh(t, "sysctl -n net.ipv6.conf.all.forwarding")); got != "0" {
				t.Fatalf("the host forwards IPv6 already: %s", got)
			}
			d.network(t, "six", dualStack, func(s *controller.NetworkSpec) {
				s.Pools = []ipam.Pool{{Subnet: netip.MustParsePrefix("fd00:77::/64")}}
				s.Options = map[string]string{"com.docker.network.bridge.enable_ip_masquerade": test.masquerade}
			})
			a := d.run(t, spec("web", "six"))
			peer.Sh(t, "ip -6 route add fd00:77::/64 via 2001:db8:1::1")
			stop := peer.Start(t, `python3 -c "
import socket
s = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
s.bind(('2001:db8:1::2', 9000)); s.listen()
while True:
    c, who = s.accept(); c.sendall(who[0].encode()); c.close()"`)
			defer stop()
			ask := in(a, `python3 -c "
import socket
print(socket.create_connection(('2001:db8:1::2', 9000), 5).makefile().read())"`)
			var got string
			if !nstest.Until(patience, func() bool {
				out, err := m.TrySh(ask)
				got = strings.TrimSpace(out)
				return err == nil
			}) {
				t.Fatalf("no answer from outside: %s", got)
			}
			if got != test.seen {
				t.Errorf("outside sees %s, want %s", got, test.seen)
			}
			if host := d.HostCommands().String(); !strings.Contains(host, "net/ipv6/conf/all/forwarding=1") {
				t.Errorf("the host's steps do not say that it forwards IPv6:\n%s", host)
			}
			d.clear(t)
			if got := strings.TrimSpace(m.Sh(t, "sysctl -n net.ipv6.conf.all.forwarding")); got != "0" {
				t.Errorf("after Uninstall the host still forwards: %s", got)
			}
		})
	}
}

// A machine that learned its default route from a router keeps it when it
// becomes one.
func TestHostKeepsItsRouter(t *testing.T) {
	m := nstest.New(t)
	router := nstest.New(t)
	link := nstest.Wire(t, m, router, netip.MustParsePrefix("2001:db8:1::2/64"), netip.MustParsePrefix("2001:db8:1::1/64"))
	router.Sh(t, "sysctl -qw net.ipv6.conf.all.forwarding=1")
	learned := func() bool {
		advertise(t, router, link)
		return strings.Contains(m.Sh(t, "ip -6 route show default"), "proto ra")
	}
	if !nstest.Until(patience, learned) {
		t.Fatal("the control failed: the machine learns no route at all")
	}
	d := start(t, m, newRoots(t))
	d.network(t, "six", dualStack)
	if got := m.Sh(t, "ip -6 route show default"); !strings.Contains(got, "proto ra") {
		t.Errorf("the machine forgot its router: %q", got)
	}
	if got := m.Sh(t, "sysctl -n net.ipv6.conf."+link+".accept_ra"); strings.TrimSpace(got) != "2" {
		t.Errorf("accept_ra is %s", got)
	}
	d.clear(t)
	if got := m.Sh(t, "sysctl -n net.ipv6.conf."+link+".accept_ra"); strings.TrimSpace(got) != "1" {
		t.Errorf("accept_ra after Uninstall is %s", got)
	}
}

// advertise sends one router advertisement from a machine's link.
func advertise(t *testing.T, m *nstest.Machine, link string) {
	t.Helper()
	m.Sh(t, advertisement("", link))
}

// advertisement is a script that sends a router advertisement: type 134, hop
// limit 255, a lifetime of half an hour (RFC 4861 section 4.2).
func advertisement(enter, link string) string {
	return fmt.Sprintf(`%s python3 -c "
import socket, struct
s = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
index = socket.if_nametoindex('%s')
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
s.sendto(struct.pack('!BBHBBHII', 134, 0, 0, 64, 0, 1800, 0, 0), ('ff02::1', 0, 0, index))"`, enter, link)
}

// A peer that advertises itself as a router is not believed by a container. One
// that asked to believe it, on the same network, shows that it was heard.
func TestPeersAreNoRouters(t *testing.T) {
	m := nstest.New(t)
	r := newRoots(t)
	d := start(t, m, r)
	d.network(t, "six", onlyIPv6)
	rogue, victim := d.run(t, spec("rogue", "six")), d.run(t, spec("victim", "six"))
	control := d.run(t, spec("control", "six", on("six", apinetwork.EndpointSettings{
		DriverOpts: map[string]string{endpoint.OptionSysctls: "net.ipv6.conf.IFNAME.accept_ra=2"},
	})))
	// The firewall drops advertisements on the way, and the daemon sees to it; this
	// is about what a container does that hears one.
	d.stop(t)
	m.Sh(t, "nft delete table bridge linkspan 2>&1 || true")
	routes := func(a controller.Attachment) string { return m.Sh(t, "ip -n "+nsOf(a)+" -6 route show default") }
	before := routes(victim)
	heard := func() bool {
		m.Sh(t, advertisement("nsenter --net="+kernel.Pin(nsOf(rogue)), "eth0"))
		return strings.Contains(routes(control), "proto ra")
	}
	if !nstest.Until(patience, heard) {
		t.Fatalf("the control heard no advertisement:\n%s", m.Sh(t, "ip -n "+nsOf(control)+" -6 route; ip -n "+nsOf(rogue)+" -6 addr"))
	}
	if after := routes(victim); after != before {
		t.Errorf("a container believed a peer:\n%s", after)
	}
	if got := m.Sh(t, "ip -6 route show default"); got != "" {
		t.Errorf("the host believed a container:\n%s", got)
	}
	d = start(t, m, r)
	d.clear(t)
}

// The flags of the daemon make the default network what they say, at the next
// start that finds nobody attached to it.
func TestDefaultNetworkFollowsTheFlags(t *testing.T) {
	m := nstest.New(t)
	r := newRoots(t)
	d := start(t, m, r)
	if n, err := d.Network("bridge"); err != nil || n.IPv6 {
		t.Fatalf("%+v %v", n, err)
	}
	d.stop(t)
	six := func(o *controller.Options) {
		o.Defaults.IPv6, o.Defaults.BridgeAddress6 = true, "fd00:99::1/64"
		o.Defaults.FixedCIDR6 = netip.MustParsePrefix("fd00:99::100/120")
	}
	d = start(t, m, r, six)
	web := spec("web", "bridge")
	a := d.run(t, web)
	if got := d.Settings(web.ID).Networks["bridge"]; got.GlobalIPv6Address.String() != "fd00:99::100" || got.IPv6Gateway.String() != "fd00:99::1" {
		t.Errorf("settings: %+v", got)
	}
	reach(t, m, nsOf(a), "fd00:99::1")
	d.stop(t)
	d = start(t, m, r)
	if n, err := d.Network("bridge"); err != nil || !n.IPv6 {
		t.Errorf("the network changed under a container: %+v %v", n, err)
	}
	must(t, d.Detach(t.Context(), web.ID))
	d.stop(t)
	d = start(t, m, r)
	if n, err := d.Network("bridge"); err != nil || n.IPv6 {
		t.Errorf("the flags were not followed: %+v %v", n, err)
	}
	d.clear(t)
}
