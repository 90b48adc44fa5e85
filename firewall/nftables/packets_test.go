package nftables_test

import (
	"context"
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
	"github.com/linkspan/linkspan/firewall/nftables"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/op"
)

const (
	echoPort = 7
	patience = 400 * time.Millisecond // after which a question that should be stopped counts as stopped
	trust    = 5 * time.Second        // how long an answer that should come may take
)

// town is a machine with networks, each with two containers, and a neighbour
// on the LAN who knows the way to every container:
//
//	lan ── 192.0.2.2 ──wire── 192.0.2.1 ── host ─┬─ br-a  10.77.0.0/24  masquerade
//	       2001:db8::2        2001:db8::1        ├─ br-b  10.78.0.0/24  SNAT to 192.0.2.9, 2001:db8::9
//	                                             ├─ br-i  10.79.0.0/24  internal
//	                                             ├─ br-r  10.80.0.0/24  routed
//	                                             └─ br-c  10.81.0.0/24  ICC off
type town struct {
	machines map[string]*nstest.Machine // host, lan, and a2, a3, b2, …: network and last digit
	plan     op.Plan
}

func newTown(t *testing.T) town {
	host, lan := newBox(t), newBox(t)
	w := town{machines: map[string]*nstest.Machine{"host": host, "lan": lan}, plan: nftables.Backend{}.Base()}
	wire := nstest.Wire(t, host, lan, netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("192.0.2.2/24"))
	host.Sh(t, fmt.Sprintf(`
		ip addr add 192.0.2.9/24 dev %[1]s; ip addr add 2001:db8::1/64 dev %[1]s nodad; ip addr add 2001:db8::9/64 dev %[1]s nodad preferred_lft 0
		sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.default.send_redirects=0`, wire))
	lan.Sh(t, fmt.Sprintf("ip addr add 2001:db8::2/64 dev %s nodad; ip route add 10.0.0.0/8 via 192.0.2.1; ip route add fd00::/8 via 2001:db8::1", wire))
	for i, n := range []firewall.Network{
		{Bridge: "br-a", ICC: true, Masquerade: true},
		{Bridge: "br-b", ICC: true, Masquerade: true, SNAT4: netip.MustParseAddr("192.0.2.9"), SNAT6: netip.MustParseAddr("2001:db8::9")},
		{Bridge: "br-i", ICC: true, Masquerade: true, Internal: true},
		{Bridge: "br-r", ICC: true},
		{Bridge: "br-c", Masquerade: true},
	} {
		net := 77 + i
		n.Subnets = []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("10.%d.0.0/24", net)), netip.MustParsePrefix(fmt.Sprintf("fd%d::/64", net))}
		w.plan = append(w.plan, nftables.Backend{}.Network(n)...)
		host.Sh(t, fmt.Sprintf("ip link add %[1]s address 02:00:00:00:%[2]d:01 type bridge; ip addr add 10.%[2]d.0.1/24 dev %[1]s; ip addr add fd%[2]d::1/64 dev %[1]s nodad; ip link set %[1]s up", n.Bridge, net))
		for _, last := range []int{2, 3} {
			box, name := newBox(t), fmt.Sprintf("%s%d", strings.TrimPrefix(n.Bridge, "br-"), last)
			w.machines[name] = box
			host.Sh(t, fmt.Sprintf(`
				ip link add v%[1]s master %[2]s type veth peer name eth0 netns %[3]s; ip link set v%[1]s up
				ip -n %[3]s addr add 10.%[4]d.0.%[5]d/24 dev eth0; ip -n %[3]s addr add fd%[4]d::%[5]d/64 dev eth0 nodad; ip -n %[3]s link set eth0 up
				ip -n %[3]s route add default via 10.%[4]d.0.1; ip -n %[3]s route add default via fd%[4]d::1`, name, n.Bridge, box.Name(), net, last))
			if !n.ICC { // as the driver does; and the container tries the way around
				host.Sh(t, fmt.Sprintf("bridge link set dev v%s isolated on; ip -n %s route add 10.%d.0.%d via 10.%d.0.1", name, box.Name(), net, 5-last, net))
			}
		}
	}
	for _, m := range w.machines {
		echo(t, m)
	}
	return w
}

// newBox makes a machine whose links may use their IPv6 addresses at once.
func newBox(t *testing.T) *nstest.Machine {
	m := nstest.New(t)
	m.Sh(t, "sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0")
	return m
}

// probe is a question and what the one asked should see: an address, or
// nothing.
type probe struct{ from, network, to, sees, why string }

func probes() []probe {
	const stopped = ""
	return []probe{
		{"a2", "tcp", "10.77.0.3", "10.77.0.2", "within a network"},
		{"a2", "udp", "10.77.0.3", "10.77.0.2", "within a network"},
		{"a2", "tcp", "fd77::3", "fd77::2", "within a network"},
		{"a2", "tcp", "10.78.0.2", stopped, "network to network"},
		{"b2", "tcp", "10.77.0.2", stopped, "and back"},
		{"a2", "udp", "10.80.0.2", stopped, "network to routed network"},
		{"a2", "tcp", "fd78::2", stopped, "network to network"},
		{"a2", "tcp", "192.0.2.2", "192.0.2.1", "masquerade"},
		{"a2", "udp", "192.0.2.2", "192.0.2.1", "masquerade"},
		{"a2", "tcp", "2001:db8::2", "2001:db8::1", "masquerade"},
		{"b2", "tcp", "192.0.2.2", "192.0.2.9", "SNAT"},
		{"b2", "udp", "2001:db8::2", "2001:db8::9", "SNAT"},
		{"b2", "tcp", "10.78.0.3", "10.78.0.2", "no SNAT within"},
		{"r2", "tcp", "192.0.2.2", "10.80.0.2", "neither masquerade nor SNAT"},
		{"lan", "tcp", "10.77.0.2", stopped, "static route to a container"},
		{"lan", "udp", "10.77.0.2", stopped, "static route to a container"},
		{"lan", "tcp", "fd77::2", stopped, "static route to a container"},
		{"lan", "tcp", "10.80.0.2", stopped, "static route to a container"},
		{"lan", "tcp", "192.0.2.1", "192.0.2.2", "the host itself"},
		{"lan", "tcp", "10.79.0.2", stopped, "into an internal network"},
		{"i2", "tcp", "192.0.2.2", stopped, "out of an internal network"},
		{"i2", "udp", "2001:db8::2", stopped, "out of an internal network"},
		{"i2", "tcp", "10.77.0.2", stopped, "internal to network"},
		{"a2", "tcp", "10.79.0.2", stopped, "network to internal"},
		{"i2", "tcp", "10.79.0.3", "10.79.0.2", "within an internal network"},
		{"i2", "tcp", "10.79.0.1", "10.79.0.2", "internal to its bridge"},
		{"host", "tcp", "10.79.0.2", "10.79.0.1", "host to internal"},
		{"host", "tcp", "10.77.0.2", "10.77.0.1", "host to container"},
		{"a2", "tcp", "192.0.2.1", "10.77.0.2", "container to host"},
		{"c2", "tcp", "10.81.0.3", stopped, "ICC off, by the gateway"},
		{"c2", "udp", "192.0.2.2", "192.0.2.1", "ICC off, to elsewhere"},
	}
}

func TestPackets(t *testing.T) {
	ctx := context.Background()
	w := newTown(t)
	host := w.machines["host"]
	x := op.Executor{Host: host.Host()}
	run := func(t *testing.T, open bool) {
		for _, p := range probes() {
			want := p.sees
			if open { // without rules everybody is seen as what he is
				want = w.address(p)
			}
			limit := trust
			if want == "" {
				limit = patience
			}
			sees, err := w.ask(p, limit)
			if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%s: %s asks %s over %s: %v", p.why, p.from, p.to, p.network, err)
			} else if sees != want {
				t.Errorf("%s: %s asks %s over %s and is seen as %q, want %q", p.why, p.from, p.to, p.network, sees, want)
			}
		}
	}
	for _, bridged := range []string{"0", "1"} {
		host.Sh(t, "sysctl -qw net.bridge.bridge-nf-call-iptables="+bridged+" net.bridge.bridge-nf-call-ip6tables="+bridged)
		t.Run("br_netfilter="+bridged+" without rules", func(t *testing.T) { run(t, true) })
		if err := x.Do(ctx, w.plan); err != nil {
			t.Fatal(err)
		}
		t.Run("br_netfilter="+bridged, func(t *testing.T) { run(t, false) })
		t.Run("br_netfilter="+bridged+" refused by ICMP", func(t *testing.T) {
			if _, err := w.ask(probe{from: "a2", network: "udp", to: "192.0.2.2:9"}, trust); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("asking a closed port: %v, want the ICMP error to come through", err)
			}
		})
		t.Run("br_netfilter="+bridged+" answer past the translation", func(t *testing.T) { w.answerPastTranslation(t) })
		if err := x.Undo(ctx, w.plan); err != nil {
			t.Fatal(err)
		}
	}
}

// answerPastTranslation has the neighbour answer a masqueraded question to the
// container's own address: it is no answer to anything that was asked.
func (w town) answerPastTranslation(t *testing.T) {
	var asking, answering net.PacketConn
	inside(t, w.machines["a2"], func() (err error) { asking, err = net.ListenPacket("udp", "10.77.0.2:4000"); return err })
	defer asking.Close()
	inside(t, w.machines["lan"], func() (err error) { answering, err = net.ListenPacket("udp", "192.0.2.2:4000"); return err })
	defer answering.Close()
	if _, err := asking.WriteTo([]byte("?"), answering.LocalAddr()); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 16)
	answering.SetReadDeadline(time.Now().Add(trust))
	_, asker, err := answering.ReadFrom(buf)
	if err != nil {
		t.Fatal(err)
	}
	asking.SetReadDeadline(time.Now().Add(patience))
	if _, err := answering.WriteTo([]byte("forged"), asking.LocalAddr()); err != nil {
		t.Fatal(err)
	}
	if n, _, err := asking.ReadFrom(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("the container got %q (%v)", buf[:n], err)
	}
	asking.SetReadDeadline(time.Now().Add(trust))
	if _, err := answering.WriteTo([]byte("true"), asker); err != nil {
		t.Fatal(err)
	}
	if n, _, err := asking.ReadFrom(buf); string(buf[:n]) != "true" {
		t.Errorf("the container got %q (%v), want the answer to what it asked", buf[:n], err)
	}
}

// address returns the address that the asker has on the way to the asked.
func (w town) address(p probe) string {
	line := w.machines[p.from].Host()
	var local string
	line.Inside("", func() error { //nolint:errcheck // an empty answer fails the test
		conn, err := net.Dial("udp", net.JoinHostPort(p.to, "7"))
		if err == nil {
			local = conn.LocalAddr().(*net.UDPAddr).IP.String()
			conn.Close()
		}
		return err
	})
	return local
}

// ask returns the address that the asked sees the asker under.
func (w town) ask(p probe, limit time.Duration) (string, error) {
	to := p.to
	if _, err := netip.ParseAddrPort(to); err != nil {
		to = net.JoinHostPort(p.to, fmt.Sprint(echoPort))
	}
	var answer string
	err := w.machines[p.from].Host().Inside("", func() error {
		conn, err := net.DialTimeout(p.network, to, limit)
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
	if errors.As(err, &timeout) && timeout.Timeout() {
		err = os.ErrDeadlineExceeded
	}
	return answer, err
}

// echo has a machine tell whoever asks, over TCP or UDP, the address it sees.
func echo(t *testing.T, m *nstest.Machine) {
	var stream net.Listener
	var packets net.PacketConn
	inside(t, m, func() (err error) { stream, err = net.Listen("tcp", fmt.Sprint(":", echoPort)); return err })
	inside(t, m, func() (err error) { packets, err = net.ListenPacket("udp", fmt.Sprint(":", echoPort)); return err })
	t.Cleanup(func() { stream.Close(); packets.Close() })
	go func() {
		for {
			conn, err := stream.Accept()
			if err != nil {
				return
			}
			conn.Write([]byte(ip(conn.RemoteAddr()))) //nolint:errcheck // the asker notices
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
			packets.WriteTo([]byte(ip(from)), from) //nolint:errcheck // the asker notices
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
