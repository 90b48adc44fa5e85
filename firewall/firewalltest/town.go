package firewalltest

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/linkspan/linkspan/firewall"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/sandbox"
)

const (
	patience = 500 * time.Millisecond // after which a question that should be stopped counts as stopped
	trust    = 20 * time.Second       // how long an answer that should come may take
)

// town is a machine with networks, each with two containers, and a neighbour
// on the LAN who knows the way to every container:
//
//	lan ── 192.0.2.2 ──wire── 192.0.2.1 ── host ─┬─ br-a  10.77.0.0/24  masquerade
//	       2001:db8::2        2001:db8::1        ├─ br-b  10.78.0.0/24  SNAT to 192.0.2.9, 2001:db8::9
//	                                             ├─ br-i  10.79.0.0/24  internal
//	                                             ├─ br-r  10.80.0.0/24  routed
//	                                             ├─ br-c  10.81.0.0/24  ICC off
//	                                             └─ br-u  10.82.0.0/24  nat-unprotected, IPv6 routed
//
// Everybody tells whoever asks, at port 7 and at port 50005, which address the
// asker is seen under. On the host, sockets hold the published ports.
type town struct {
	machines map[string]*nstest.Machine // host, lan, and a2, a3, b2, …: network and last digit
	plan     op.Plan
}

func newTown(t *testing.T, backend firewall.Backend) town {
	host, lan := newBox(t), newBox(t)
	w := town{machines: map[string]*nstest.Machine{"host": host, "lan": lan}, plan: backend.Base()}
	wire := nstest.Wire(t, host, lan, netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("192.0.2.2/24"))
	host.Sh(t, fmt.Sprintf(`
		ip addr add 192.0.2.9/24 dev %[1]s; ip addr add 2001:db8::1/64 dev %[1]s nodad; ip addr add 2001:db8::9/64 dev %[1]s nodad preferred_lft 0
		sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.default.send_redirects=0`, wire))
	lan.Sh(t, fmt.Sprintf(`
		ip addr add 2001:db8::2/64 dev %[1]s nodad; ip route add 10.0.0.0/8 via 192.0.2.1; ip route add fd00::/8 via 2001:db8::1
		ip addr add 192.0.2.3/24 dev %[1]s; ip addr add 192.0.2.4/24 dev %[1]s; ip addr add 192.0.2.5/24 dev %[1]s`, wire))
	forge(t, lan, "192.0.2.1", wire)
	host.Sh(t, "nft 'table ip marks { chain pre { type filter hook prerouting priority mangle; ip saddr 192.0.2.4 meta mark set 0x713; }; }'")
	for i, n := range []firewall.Network{
		{Bridge: "br-a", ICC: true, Masquerade: true},
		{Bridge: "br-b", ICC: true, Masquerade: true, SNAT4: netip.MustParseAddr("192.0.2.9"), SNAT6: netip.MustParseAddr("2001:db8::9")},
		{Bridge: "br-i", ICC: true, Masquerade: true, Internal: true},
		{Bridge: "br-r", ICC: true, Masquerade: true, Mode4: firewall.Routed, Mode6: firewall.Routed},
		{Bridge: "br-c", Masquerade: true},
		{Bridge: "br-u", ICC: true, Masquerade: true, Mode4: firewall.Unprotected, Mode6: firewall.Routed},
		{Bridge: "br-d", ICC: true, Masquerade: true, Direct: true},
		{Bridge: "br-t", ICC: true, Masquerade: true, Trusted: []string{wire, "nowhere"}},
		{Bridge: "br-s", ICC: true, Masquerade: true, Trusted: []string{"nowhere"}},
	} {
		net := 77 + i
		n.Subnets = []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("10.%d.0.0/24", net)), netip.MustParsePrefix(fmt.Sprintf("fd%d::/64", net))}
		w.plan = append(w.plan, backend.Network(n)...)
		host.Sh(t, fmt.Sprintf(`
			ip link add %[1]s address 02:00:00:00:%[2]d:01 type bridge; ip addr add 10.%[2]d.0.1/24 dev %[1]s; ip addr add fd%[2]d::1/64 dev %[1]s nodad; ip link set %[1]s up
			echo 1 > /proc/sys/net/ipv4/conf/%[1]s/route_localnet`, n.Bridge, net))
		for _, last := range []int{2, 3} {
			w.move(t, n, net, last)
		}
	}
	for _, p := range openings() {
		w.plan = append(w.plan, backend.Ports(p.bridge, p.ports)...)
	}
	if linker, ok := backend.(firewall.Linker); ok {
		at := netip.MustParseAddrPort
		w.plan = append(w.plan, linker.Links("br-c", []sandbox.Link{
			{From: netip.MustParseAddr("10.81.0.3"), Protocol: sandbox.TCP, To: at("10.81.0.2:7"), Count: 1},
			{From: netip.MustParseAddr("10.81.0.3"), Protocol: sandbox.UDP, To: at("10.81.0.2:50000"), Count: 10},
		})...)
	}
	for name, m := range w.machines {
		hosts := []string{"0.0.0.0", "::"}
		if name == "host" { // UDP must answer from the address that was asked
			hosts = []string{"127.0.0.1", "192.0.2.1", "10.79.0.1", "::1", "2001:db8::1"}
			relays(t, m)
		}
		for _, at := range hosts {
			listen(t, m, at, "7", ip)
			if name != "host" {
				listen(t, m, at, "50005", ip)
			}
		}
	}
	return w
}

// relays are the sockets that hold the published ports: they answer that it is
// the container's shim that was reached.
func relays(t *testing.T, host *nstest.Machine) {
	says := func(net.Addr) string { return relay }
	for _, at := range []string{"127.0.0.1", "192.0.2.1", "10.77.0.1", "10.79.0.1", "10.81.0.1", "::"} {
		for _, port := range []string{"8080", "8083", "8084", "8085", "50005"} {
			listen(t, host, at, port, says)
		}
	}
	listen(t, host, "127.0.0.1", "8081", says)
	listen(t, host, "192.0.2.9", "8082", says)
}

// move gives a network a container.
func (w town) move(t *testing.T, n firewall.Network, net, last int) {
	box, name, host := newBox(t), fmt.Sprintf("%s%d", strings.TrimPrefix(n.Bridge, "br-"), last), w.machines["host"]
	w.machines[name] = box
	host.Sh(t, fmt.Sprintf(`
		ip link add v%[1]s master %[2]s type veth peer name eth0 netns %[3]s; ip link set v%[1]s up
		ip -n %[3]s addr add 10.%[4]d.0.%[5]d/24 dev eth0; ip -n %[3]s addr add fd%[4]d::%[5]d/64 dev eth0 nodad; ip -n %[3]s link set eth0 up
		ip -n %[3]s route add default via 10.%[4]d.0.1; ip -n %[3]s route add default via fd%[4]d::1`, name, n.Bridge, box.Name(), net, last))
	if !n.ICC { // as the driver does; and the container tries the way around
		host.Sh(t, fmt.Sprintf("bridge link set dev v%s isolated on; ip -n %s route add 10.%d.0.%d via 10.%d.0.1", name, box.Name(), net, 5-last, net))
	}
	if name == "a3" {
		forge(t, box, "10.77.0.1", "eth0")
	}
}

// forge makes a machine send packets for 127.0.0.1 to a neighbour.
func forge(t *testing.T, m *nstest.Machine, via, link string) {
	m.Sh(t, fmt.Sprintf("ip addr del 127.0.0.1/8 dev lo; ip route add 127.0.0.1 via %s; echo 1 > /proc/sys/net/ipv4/conf/%s/route_localnet", via, link))
}

type opening struct {
	bridge string
	ports  []sandbox.Port
}

// openings are the published ports.
func openings() []opening {
	port := func(protocol, host string, first, count uint16, to string) sandbox.Port {
		return sandbox.Port{Protocol: protocol, Host: netip.MustParseAddr(host), First: first, Count: count, To: netip.MustParseAddrPort(to)}
	}
	from := func(p sandbox.Port, sources ...string) sandbox.Port {
		for _, source := range sources {
			p.Sources = append(p.Sources, netip.MustParsePrefix(source))
		}
		return p
	}
	direct := func(p sandbox.Port) sandbox.Port { p.Direct = true; return p }
	routed := func(p sandbox.Port) sandbox.Port { p.Routed = true; return p }
	return []opening{
		{"br-a", []sandbox.Port{
			port("tcp", "0.0.0.0", 8080, 1, "10.77.0.2:7"), port("udp", "0.0.0.0", 8080, 1, "10.77.0.2:7"),
			port("tcp", "::", 8080, 1, "[fd77::2]:7"), port("udp", "::", 8080, 1, "[fd77::2]:7"),
			from(port("tcp", "0.0.0.0", 8084, 1, "10.77.0.2:7"), "198.51.100.0/24", "192.0.2.2/32"),
			from(port("tcp", "0.0.0.0", 8085, 1, "10.77.0.2:7"), "198.51.100.0/24"),
			from(port("tcp", "::", 8085, 1, "[fd77::2]:7"), "2001:db8:1::/48"),
		}},
		{"br-a", []sandbox.Port{
			port("tcp", "0.0.0.0", 50000, 1001, "10.77.0.3:50000"), port("udp", "0.0.0.0", 50000, 1001, "10.77.0.3:50000"),
			port("tcp", "::", 50000, 1001, "[fd77::3]:50000"), port("tcp", "0.0.0.0", 8100, 3, "10.77.0.3:5"),
		}},
		{"br-b", []sandbox.Port{
			port("tcp", "127.0.0.1", 8081, 1, "10.78.0.2:7"), port("udp", "127.0.0.1", 8081, 1, "10.78.0.2:7"),
			port("tcp", "192.0.2.9", 8082, 1, "10.78.0.3:7"), port("tcp", "2001:db8::9", 8082, 1, "[fd78::3]:7"),
			port("tcp", "192.0.2.9", 51100, 10, "10.78.0.3:51100"),
		}},
		{"br-c", []sandbox.Port{port("tcp", "0.0.0.0", 8083, 1, "10.81.0.2:7")}},
		{"br-r", []sandbox.Port{
			routed(port("tcp", "0.0.0.0", 0, 1, "10.80.0.2:7")), routed(port("tcp", "::", 0, 10, "[fd80::2]:1")),
			from(routed(port("udp", "0.0.0.0", 0, 1, "10.80.0.2:7")), "192.0.2.0/24"),
		}},
		{"br-u", []sandbox.Port{port("tcp", "0.0.0.0", 8086, 1, "10.82.0.2:7")}},
		{"br-d", []sandbox.Port{
			direct(port("tcp", "0.0.0.0", 8087, 1, "10.83.0.2:7")), direct(port("udp", "::", 8087, 1, "[fd83::2]:7")),
			from(direct(port("udp", "0.0.0.0", 8087, 1, "10.83.0.2:7")), "192.0.2.3/32"),
		}},
		{"br-t", []sandbox.Port{direct(port("tcp", "0.0.0.0", 8088, 1, "10.84.0.2:7")), direct(port("tcp", "::", 8088, 1, "[fd84::2]:7"))}},
		{"br-s", []sandbox.Port{direct(port("tcp", "0.0.0.0", 8089, 1, "10.85.0.2:7"))}},
	}
}

// newBox makes a machine whose links may use their IPv6 addresses at once.
func newBox(t *testing.T) *nstest.Machine {
	m := nstest.New(t)
	m.Sh(t, "sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0")
	return m
}

// address returns the address that the asker has on the way to the asked.
func (w town) address(p probe) string {
	var local string
	w.machines[p.from].Host().Inside("", func() error { //nolint:errcheck // an empty answer fails the test
		conn, err := net.Dial("udp", p.target())
		if err == nil {
			local = conn.LocalAddr().(*net.UDPAddr).IP.String()
			conn.Close()
		}
		return err
	})
	return local
}

// ask returns the address that the asked sees the asker under, stopped or
// refused.
func (w town) ask(p probe, limit time.Duration) (string, error) {
	var answer string
	err := w.machines[p.from].Host().Inside("", func() error {
		dialer := net.Dialer{Timeout: limit}
		if p.as != "" {
			dialer.LocalAddr = &net.TCPAddr{IP: net.ParseIP(p.as)}
			if p.network == "udp" {
				dialer.LocalAddr = &net.UDPAddr{IP: net.ParseIP(p.as)}
			}
		}
		conn, err := dialer.Dial(p.network, p.target())
		if err != nil {
			return err
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(limit))
		if _, err = conn.Write([]byte("?")); err != nil {
			return err
		}
		buf := make([]byte, 64)
		n, err := conn.Read(buf)
		answer = string(buf[:n])
		return err
	})
	var timeout net.Error
	switch {
	case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, os.ErrDeadlineExceeded):
		return stopped, nil
	case errors.Is(err, syscall.ECONNREFUSED):
		return refused, nil
	}
	return answer, err
}

// listen has a machine answer whoever asks, over TCP or UDP, by what he is seen
// under. It is explicit about the family, since a machine without 127.0.0.1 makes
// package net believe that no socket can have both.
func listen(t *testing.T, m *nstest.Machine, host, port string, answer func(net.Addr) string) {
	family := "4"
	if strings.Contains(host, ":") {
		family = "6"
	}
	var stream net.Listener
	var packets net.PacketConn
	inside(t, m, func() (err error) {
		stream, err = net.Listen("tcp"+family, net.JoinHostPort(host, port))
		return err
	})
	inside(t, m, func() (err error) {
		packets, err = net.ListenPacket("udp"+family, net.JoinHostPort(host, port))
		return err
	})
	t.Cleanup(func() { stream.Close(); packets.Close() })
	go func() {
		for {
			conn, err := stream.Accept()
			if err != nil {
				return
			}
			conn.Write([]byte(answer(conn.RemoteAddr()))) //nolint:errcheck // the asker notices
			conn.Close()
		}
	}()
	go func() {
		buf := make([]byte, 64)
		for {
			_, from, err := packets.ReadFrom(buf)
			if err != nil {
				return
			}
			packets.WriteTo([]byte(answer(from)), from) //nolint:errcheck // the asker notices
		}
	}()
}

func ip(addr net.Addr) string {
	return netip.MustParseAddrPort(addr.String()).Addr().Unmap().String()
}

func inside(t testing.TB, m *nstest.Machine, fn func() error) {
	t.Helper()
	if err := m.Host().Inside("", fn); err != nil {
		t.Fatal(err)
	}
}
