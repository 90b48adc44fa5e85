package firewalltest

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/linkspan/linkspan/op"
)

// probe is a question and what the one asked should see: an address, or that it
// is stopped or refused.
type probe struct {
	from, network, to, sees, why string
	as                           string // the asker's own address, if it has a choice
}

const (
	stopped = "stopped" // no answer
	refused = "refused" // nobody listens
	relay   = "relay"   // the socket that holds a published port was reached
)

// target is whom to ask: an address, at port 7 unless it says otherwise.
func (p probe) target() string {
	if _, err := netip.ParseAddrPort(p.to); err == nil {
		return p.to
	}
	return net.JoinHostPort(p.to, "7")
}

// within are questions that are answered without any rules too.
func within() []probe {
	return []probe{
		{from: "a2", network: "tcp", to: "10.77.0.3", sees: "10.77.0.2", why: "within a network"},
		{from: "a2", network: "udp", to: "10.77.0.3", sees: "10.77.0.2", why: "within a network"},
		{from: "a2", network: "tcp", to: "fd77::3", sees: "fd77::2", why: "within a network"},
		{from: "a2", network: "tcp", to: "10.78.0.2", sees: stopped, why: "network to network"},
		{from: "b2", network: "tcp", to: "10.77.0.2", sees: stopped, why: "and back"},
		{from: "a2", network: "udp", to: "10.80.0.3", sees: stopped, why: "network to routed network"},
		{from: "a2", network: "tcp", to: "fd78::2", sees: stopped, why: "network to network"},
		{from: "a2", network: "tcp", to: "192.0.2.2", sees: "192.0.2.1", why: "masquerade"},
		{from: "a2", network: "udp", to: "192.0.2.2", sees: "192.0.2.1", why: "masquerade"},
		{from: "a2", network: "tcp", to: "2001:db8::2", sees: "2001:db8::1", why: "masquerade"},
		{from: "b2", network: "tcp", to: "192.0.2.2", sees: "192.0.2.9", why: "SNAT"},
		{from: "b2", network: "udp", to: "2001:db8::2", sees: "2001:db8::9", why: "SNAT"},
		{from: "b2", network: "tcp", to: "10.78.0.3", sees: "10.78.0.2", why: "no SNAT within"},
		{from: "r2", network: "tcp", to: "192.0.2.2", sees: "10.80.0.2", why: "neither masquerade nor SNAT"},
		{from: "r2", network: "tcp", to: "2001:db8::2", sees: "fd80::2", why: "neither masquerade nor SNAT"},
		{from: "u2", network: "tcp", to: "192.0.2.2", sees: "192.0.2.1", why: "unprotected, yet masqueraded"},
		{from: "u2", network: "tcp", to: "2001:db8::2", sees: "fd82::2", why: "a mode for each family"},
		{from: "lan", network: "tcp", to: "10.77.0.2", sees: stopped, why: "static route to a container"},
		{from: "lan", network: "udp", to: "10.77.0.2", sees: stopped, why: "static route to a container"},
		{from: "lan", network: "tcp", to: "fd77::2", sees: stopped, why: "static route to a container"},
		{from: "lan", network: "tcp", to: "10.78.0.3", sees: stopped, why: "static route to a container"},
		{from: "lan", network: "tcp", to: "10.80.0.3", sees: stopped, why: "routed, not published"},
		{from: "lan", network: "tcp", to: "[fd80::3]:7", sees: stopped, why: "routed, not published"},
		{from: "lan", network: "tcp", to: "10.80.0.2", sees: "192.0.2.2", why: "routed and published"},
		{from: "lan", network: "udp", to: "10.80.0.2", sees: "192.0.2.2", why: "routed and published for some"},
		{from: "lan", network: "tcp", to: "fd80::2", sees: "2001:db8::2", why: "routed and published in a range"},
		{from: "lan", network: "udp", to: "fd80::2", sees: stopped, why: "routed, another protocol"},
		{from: "lan", network: "tcp", to: "10.80.0.2:50005", sees: stopped, why: "routed, another port"},
		{from: "lan", network: "tcp", to: "10.82.0.3", sees: "192.0.2.2", why: "unprotected"},
		{from: "lan", network: "udp", to: "10.82.0.2", sees: "192.0.2.2", why: "unprotected"},
		{from: "lan", network: "tcp", to: "fd82::2", sees: stopped, why: "a mode for each family"},
		{from: "lan", network: "tcp", to: "192.0.2.1", sees: "192.0.2.2", why: "the host itself"},
		{from: "lan", network: "tcp", to: "10.79.0.2", sees: stopped, why: "into an internal network"},
		{from: "i2", network: "tcp", to: "192.0.2.2", sees: stopped, why: "out of an internal network"},
		{from: "i2", network: "udp", to: "2001:db8::2", sees: stopped, why: "out of an internal network"},
		{from: "i2", network: "tcp", to: "10.77.0.2", sees: stopped, why: "internal to network"},
		{from: "a2", network: "tcp", to: "10.79.0.2", sees: stopped, why: "network to internal"},
		{from: "i2", network: "tcp", to: "10.79.0.3", sees: "10.79.0.2", why: "within an internal network"},
		{from: "i2", network: "tcp", to: "10.79.0.1", sees: "10.79.0.2", why: "internal to its bridge"},
		{from: "host", network: "tcp", to: "10.79.0.2", sees: "10.79.0.1", why: "host to internal"},
		{from: "host", network: "tcp", to: "10.77.0.2", sees: "10.77.0.1", why: "host to container"},
		{from: "a2", network: "tcp", to: "192.0.2.1", sees: "10.77.0.2", why: "container to host"},
		{from: "c2", network: "tcp", to: "10.81.0.3", sees: stopped, why: "ICC off, by the gateway"},
		{from: "c3", network: "tcp", to: "10.81.0.2", sees: "10.81.0.3", why: "ICC off, linked"},
		{from: "c3", network: "udp", to: "10.81.0.2:50005", sees: "10.81.0.3", why: "ICC off, linked by a range"},
		{from: "c3", network: "udp", to: "10.81.0.2", sees: stopped, why: "ICC off, linked for another protocol"},
		{from: "c3", network: "tcp", to: "10.81.0.2:50005", sees: stopped, why: "ICC off, linked for another port"},
		{from: "c2", network: "udp", to: "192.0.2.2", sees: "192.0.2.1", why: "ICC off, to elsewhere"},
	}
}

// through are questions to published ports.
func through() []probe {
	return []probe{
		{from: "lan", network: "tcp", to: "192.0.2.1:8080", sees: "192.0.2.2", why: "LAN to a port"},
		{from: "lan", network: "udp", to: "192.0.2.9:8080", sees: "192.0.2.2", why: "LAN to a port"},
		{from: "lan", network: "tcp", to: "[2001:db8::1]:8080", sees: "2001:db8::2", why: "LAN to a port"},
		{from: "lan", network: "udp", to: "[2001:db8::1]:8080", sees: "2001:db8::2", why: "LAN to a port"},
		{from: "host", network: "tcp", to: "192.0.2.1:8080", sees: "192.0.2.1", why: "host to its own port"},
		{from: "host", network: "udp", to: "192.0.2.1:8080", sees: "192.0.2.1", why: "host to its own port"},
		{from: "host", network: "tcp", to: "127.0.0.1:8080", sees: "10.77.0.1", why: "host by 127.0.0.1"},
		{from: "host", network: "udp", to: "127.0.0.1:8080", sees: "10.77.0.1", why: "host by 127.0.0.1"},
		{from: "host", network: "tcp", to: "[2001:db8::1]:8080", sees: "2001:db8::1", why: "host to its own port"},
		{from: "a2", network: "tcp", to: "192.0.2.1:8080", sees: relay, why: "container to itself"},
		{from: "a2", network: "udp", to: "192.0.2.1:8080", sees: relay, why: "container to itself"},
		{from: "a2", network: "tcp", to: "[2001:db8::1]:8080", sees: relay, why: "container to itself"},
		{from: "a3", network: "tcp", to: "192.0.2.1:8080", sees: relay, why: "container to its neighbour"},
		{from: "a3", network: "udp", to: "10.77.0.1:8080", sees: relay, why: "container to its neighbour, by the gateway"},
		{from: "a3", network: "tcp", to: "[fd77::1]:8080", sees: relay, why: "container to its neighbour, by the gateway"},
		{from: "b2", network: "tcp", to: "192.0.2.1:8080", sees: "10.78.0.2", why: "container of another network"},
		{from: "b2", network: "tcp", to: "[2001:db8::1]:8080", sees: "fd78::2", why: "container of another network"},
		{from: "r2", network: "tcp", to: "192.0.2.1:8080", sees: "10.80.0.2", why: "container of a routed network"},
		{from: "i2", network: "tcp", to: "10.79.0.1:8080", sees: stopped, why: "container of an internal network"},
		{from: "c3", network: "tcp", to: "192.0.2.1:8083", sees: relay, why: "ICC off, to a neighbour's port"},
		{from: "c2", network: "tcp", to: "192.0.2.1:8083", sees: relay, why: "ICC off, to its own port"},
		{from: "lan", network: "tcp", to: "192.0.2.1:8083", sees: "192.0.2.2", why: "ICC off, from the LAN"},
		{from: "lan", network: "tcp", to: "192.0.2.1:8086", sees: "192.0.2.2", why: "unprotected"},

		{from: "host", network: "tcp", to: "127.0.0.1:8081", sees: "10.78.0.1", why: "published at 127.0.0.1"},
		{from: "host", network: "udp", to: "127.0.0.1:8081", sees: "10.78.0.1", why: "published at 127.0.0.1"},
		{from: "lan", network: "tcp", to: "192.0.2.1:8081", sees: refused, why: "published at 127.0.0.1"},
		{from: "lan", network: "tcp", to: "127.0.0.1:8081", sees: stopped, why: "forged: LAN to 127.0.0.1"},
		{from: "lan", network: "udp", to: "127.0.0.1:8081", sees: stopped, why: "forged: LAN to 127.0.0.1"},
		{from: "lan", network: "tcp", to: "127.0.0.1:8080", sees: stopped, why: "forged: LAN to 127.0.0.1"},
		{from: "a3", network: "tcp", to: "127.0.0.1:8081", sees: stopped, why: "forged: container to 127.0.0.1"},
		{from: "a3", network: "tcp", to: "127.0.0.1", sees: stopped, why: "forged: container to a program of the host"},
		{from: "a3", network: "udp", to: "127.0.0.1", sees: stopped, why: "forged: container to a program of the host"},
		{from: "host", network: "tcp", to: "127.0.0.1", sees: "127.0.0.1", why: "the host's own programs"},
		{from: "host", network: "udp", to: "127.0.0.1", sees: "127.0.0.1", why: "the host's own programs"},

		{from: "lan", network: "tcp", to: "192.0.2.9:8082", sees: "192.0.2.2", why: "published at one address"},
		{from: "lan", network: "tcp", to: "192.0.2.1:8082", sees: refused, why: "published at another address"},
		{from: "lan", network: "tcp", to: "[2001:db8::9]:8082", sees: "2001:db8::2", why: "published at one address"},
		{from: "lan", network: "tcp", to: "[2001:db8::1]:8082", sees: refused, why: "published at another address"},
		{from: "a2", network: "tcp", to: "192.0.2.9:8082", sees: "10.77.0.2", why: "published at one address"},

		{from: "lan", network: "tcp", to: "192.0.2.1:50005", sees: "192.0.2.2", why: "in a range"},
		{from: "lan", network: "udp", to: "192.0.2.1:50005", sees: "192.0.2.2", why: "in a range"},
		{from: "lan", network: "tcp", to: "[2001:db8::1]:50005", sees: "2001:db8::2", why: "in a range"},
		{from: "host", network: "tcp", to: "127.0.0.1:50005", sees: "10.77.0.1", why: "in a range"},
		{from: "lan", network: "tcp", to: "192.0.2.1:50006", sees: refused, why: "in a range, nobody listens"},
		{from: "lan", network: "tcp", to: "192.0.2.1:8102", sees: "192.0.2.2", why: "in a range that shifts"},
		{from: "lan", network: "tcp", to: "192.0.2.1:8101", sees: refused, why: "in a range that shifts, nobody listens"},

		{from: "lan", as: "192.0.2.2", network: "tcp", to: "192.0.2.1:8084", sees: "192.0.2.2", why: "source allowed"},
		{from: "lan", as: "192.0.2.3", network: "tcp", to: "192.0.2.1:8084", sees: stopped, why: "source not allowed"},
		{from: "lan", network: "tcp", to: "192.0.2.1:8085", sees: stopped, why: "source not allowed"},
		{from: "lan", network: "tcp", to: "[2001:db8::1]:8085", sees: stopped, why: "source not allowed"},
		{from: "b2", network: "tcp", to: "192.0.2.1:8084", sees: stopped, why: "source not allowed"},

		{from: "lan", network: "tcp", to: "192.0.2.1:8087", sees: "192.0.2.2", why: "direct routing, by the port"},
		{from: "lan", network: "tcp", to: "10.83.0.2", sees: "192.0.2.2", why: "direct routing, published"},
		{from: "lan", network: "udp", to: "fd83::2", sees: "2001:db8::2", why: "direct routing, published"},
		{from: "b2", network: "tcp", to: "10.83.0.2", sees: "192.0.2.9", why: "direct routing, another network"},
		{from: "lan", as: "192.0.2.3", network: "udp", to: "10.83.0.2", sees: "192.0.2.3", why: "direct routing, source allowed"},
		{from: "lan", network: "udp", to: "10.83.0.2", sees: stopped, why: "direct routing, source not allowed"},
		{from: "lan", network: "tcp", to: "10.83.0.3", sees: stopped, why: "direct routing, not published"},
		{from: "lan", network: "tcp", to: "10.83.0.2:50005", sees: stopped, why: "direct routing, not published"},
		{from: "lan", network: "tcp", to: "10.84.0.2", sees: "192.0.2.2", why: "by a trusted link, published"},
		{from: "lan", network: "tcp", to: "fd84::2", sees: "2001:db8::2", why: "by a trusted link, published"},
		{from: "lan", network: "tcp", to: "10.84.0.3", sees: stopped, why: "by a trusted link, not published"},
		{from: "b2", network: "tcp", to: "10.84.0.2", sees: stopped, why: "by another link"},
		{from: "lan", network: "tcp", to: "10.85.0.2", sees: stopped, why: "a link that is not trusted"},
		{from: "lan", network: "tcp", to: "192.0.2.1:8089", sees: "192.0.2.2", why: "a link that is not trusted, by the port"},

		{from: "lan", as: "192.0.2.4", network: "tcp", to: "10.77.0.3", sees: "192.0.2.4", why: "marked"},
		{from: "lan", as: "192.0.2.4", network: "tcp", to: "10.79.0.2", sees: stopped, why: "marked, into an internal network"},
		{from: "lan", as: "192.0.2.5", network: "tcp", to: "192.0.2.1:8080", sees: stopped, why: "a rule of the user's own"},
		{from: "lan", as: "192.0.2.5", network: "tcp", to: "10.82.0.3", sees: stopped, why: "a rule of the user's own"},
		{from: "host", network: "tcp", to: "[::1]:8080", sees: relay, why: "nothing leaves the machine from ::1"},
		{from: "a2", network: "tcp", to: "192.0.2.1:50005", sees: relay, why: "container to its neighbour, in a range"},
		{from: "host", network: "tcp", to: "127.0.0.1:8084", sees: "10.77.0.1", why: "the host is always allowed"},
	}
}

func (s Subject) packets(t *testing.T) {
	ctx := context.Background()
	w := newTown(t, s.Marked)
	host := w.machines["host"]
	x := op.Executor{Host: host.Host()}
	open := within()
	for i := range open { // without rules everybody is seen as what he is
		open[i].sees = w.address(open[i])
	}
	for _, bridged := range []string{"0", "1"} {
		host.Sh(t, "sysctl -qw net.bridge.bridge-nf-call-iptables="+bridged+" net.bridge.bridge-nf-call-ip6tables="+bridged)
		t.Run("br_netfilter="+bridged+" without rules", func(t *testing.T) { w.askAll(t, open) })
		if err := x.Do(ctx, w.plan); err != nil {
			t.Fatal(err)
		}
		if bridged == "0" {
			host.Sh(t, "set -- 192.0.2.5; "+s.Refuse)
		} // else it is there still: what we undo and do again is not the user's
		t.Run("br_netfilter="+bridged, func(t *testing.T) { w.askAll(t, append(within(), through()...)) })
		t.Run("br_netfilter="+bridged+" refused by ICMP", func(t *testing.T) {
			if sees, err := w.ask(probe{from: "a2", network: "udp", to: "192.0.2.2:9"}, trust); err != nil || sees != refused {
				t.Errorf("asking a closed port: %s (%v), want the ICMP error to come through", sees, err)
			}
			w.machines["lan"].Sh(t, "ping -n -c1 -W10 10.80.0.3; ping -n -c1 -W10 fd80::3") // routed
		})
		t.Run("br_netfilter="+bridged+" answer past the translation", func(t *testing.T) { w.answerPastTranslation(t) })
		if bridged == "1" {
			host.Sh(t, "set -- 192.0.2.5; "+s.Relent)
		}
		if err := x.Undo(ctx, w.plan); err != nil {
			t.Fatal(err)
		}
	}
	if left := host.Sh(t, s.Dump); strings.Contains(left, "user") || strings.Contains(left, "USER") {
		t.Errorf("a user's chain that is empty stays:\n%s", left)
	}
}

// askAll asks all questions, some at a time.
func (w town) askAll(t *testing.T, probes []probe) {
	var asking sync.WaitGroup
	turns := make(chan struct{}, 8)
	for _, p := range probes {
		asking.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			limit := trust
			if p.sees == stopped {
				limit = patience
			}
			sees, err := w.ask(p, limit)
			if err != nil || sees != p.sees {
				t.Errorf("%s: %s asks %s over %s and is seen as %q (%v), want %q", p.why, p.from, p.target(), p.network, sees, err, p.sees)
			}
		})
	}
	asking.Wait()
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
