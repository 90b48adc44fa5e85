package dns

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	mdns "github.com/miekg/dns"

	"github.com/linkspan/linkspan"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// lab is the zone that most tests look at.
func lab() *Zone {
	z := NewZone("lab")
	z.Set("o1", Entry{Names: []string{"web", "www", "6f1ed002ab55", "app.example.com"}, Addrs: []netip.Addr{addr("10.77.0.2")}})
	z.Set("o2", Entry{Names: []string{"db", "pool"}, Addrs: []netip.Addr{addr("10.77.0.3"), addr("fd00::3")}})
	z.Set("o3", Entry{Names: []string{"db2", "pool"}, Addrs: []netip.Addr{addr("10.77.0.4"), addr("fd00::4")}})
	z.Set("o4", Entry{Names: []string{"six"}, Addrs: []netip.Addr{addr("fd00::5")}})
	z.Set("o5", Entry{Names: []string{"soon"}})
	return z
}

// start runs a resolver on the loopback and returns its address.
func start(t testing.TB, c Config) (*Resolver, string) {
	t.Helper()
	udp, tcp := sockets(t)
	r, err := NewServer().Start(udp, tcp, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r, tcp.Addr().String()
}

// sockets opens a UDP socket and a TCP listener on one port.
func sockets(t testing.TB) (*net.UDPConn, net.Listener) {
	t.Helper()
	for range 20 {
		tcp, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		udp, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(tcp.Addr().(*net.TCPAddr).AddrPort()))
		if err == nil {
			return udp, tcp
		}
		tcp.Close()
	}
	t.Fatal("no port is free for both UDP and TCP")
	return nil, nil
}

// ask sends one question with the library's client.
func ask(t testing.TB, network, server, name string, qtype uint16) *mdns.Msg {
	t.Helper()
	return exchange(t, network, server, new(mdns.Msg).SetQuestion(mdns.Fqdn(name), qtype))
}

func exchange(t testing.TB, network, server string, m *mdns.Msg) *mdns.Msg {
	t.Helper()
	c := mdns.Client{Net: network, Timeout: 10 * time.Second, UDPSize: maxMessage}
	resp, _, err := c.Exchange(m, server)
	if err != nil {
		t.Fatalf("asking %v over %s: %v", m.Question, network, err)
	}
	return resp
}

// upstream is a fake server whose handler sees the raw query and the way back.
type upstream struct {
	addr  netip.AddrPort
	asked atomic.Int64
}

// fakeUpstream serves UDP and TCP. A handler may send any number of answers.
func fakeUpstream(t testing.TB, handle func(query []byte, send func([]byte))) *upstream {
	t.Helper()
	udp, tcp := sockets(t)
	u := &upstream{addr: udp.LocalAddr().(*net.UDPAddr).AddrPort()}
	t.Cleanup(func() { udp.Close(); tcp.Close() })
	go func() {
		buf := make([]byte, maxMessage)
		for {
			n, from, err := udp.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			u.asked.Add(1)
			q := append([]byte(nil), buf[:n]...)
			go handle(q, func(b []byte) { _, _ = udp.WriteToUDPAddrPort(b, from) })
		}
	}()
	go func() {
		for {
			conn, err := tcp.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				for {
					q, err := readFrame(conn)
					if err != nil {
						return
					}
					u.asked.Add(1)
					handle(q, func(b []byte) { _ = writeFrame(conn, b) })
				}
			}()
		}
	}()
	return u
}

func (u *upstream) config() Upstream { return Upstream{Addr: u.addr} }

// says answers every A question with one address.
func says(ip string) func([]byte, func([]byte)) {
	return func(q []byte, send func([]byte)) { send(answerTo(q, ip, mdns.RcodeSuccess)) }
}

func fails(rcode int) func([]byte, func([]byte)) {
	return func(q []byte, send func([]byte)) { send(answerTo(q, "", rcode)) }
}

func silent([]byte, func([]byte)) {}

func after(d time.Duration, h func([]byte, func([]byte))) func([]byte, func([]byte)) {
	return func(q []byte, send func([]byte)) { time.Sleep(d); h(q, send) }
}

func answerTo(query []byte, ip string, rcode int) []byte {
	var q mdns.Msg
	if err := q.Unpack(query); err != nil {
		panic(err)
	}
	resp := new(mdns.Msg).SetRcode(&q, rcode)
	if ip != "" {
		rr, err := mdns.NewRR(fmt.Sprintf("%s 60 IN A %s", q.Question[0].Name, ip))
		if err != nil {
			panic(err)
		}
		resp.Answer = append(resp.Answer, rr)
	}
	out, err := resp.Pack()
	if err != nil {
		panic(err)
	}
	return out
}

func ids(n int) []linkspan.ID {
	out := make([]linkspan.ID, n)
	for i := range out {
		out[i] = linkspan.NewID()
	}
	return out
}

// noDial fails the test when anything is forwarded.
func noDial(t testing.TB) []Upstream {
	return []Upstream{{Addr: netip.MustParseAddrPort("127.0.0.1:1"), Dial: func(_ context.Context, network, address string) (net.Conn, error) {
		t.Errorf("forwarded to %s %s", network, address)
		return nil, net.ErrClosed
	}}}
}
