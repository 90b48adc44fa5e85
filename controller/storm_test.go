package controller_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	mdns "github.com/miekg/dns"

	"github.com/linkspan/linkspan/internal/nstest"
)

// One container asks a server that never answers thousands of questions. The
// others do not notice: their names are answered at once. It is told of its
// failure instead of being left waiting.
func TestStormOfOneContainer(t *testing.T) {
	const storm = 5000
	m := nstest.New(t)
	r := newRoots(t)
	must(t, os.MkdirAll(r.data, 0o700))
	must(t, os.WriteFile(filepath.Join(r.data, "resolv.conf"), []byte("nameserver 192.0.2.1\n"), 0o644))
	m.Sh(t, "ip addr add 192.0.2.1/32 dev lo")
	hole := blackHole(t, m, "192.0.2.1:53")
	d := start(t, m, r)
	d.network(t, "lab", subnet("10.77.0.0/24"))
	d.run(t, spec("web", "lab"))
	loud := d.run(t, spec("loud", "lab"))
	calm := d.run(t, spec("calm", "lab"))

	var socket net.Conn
	must(t, m.Host().Inside(nsOf(loud), func() (err error) {
		socket, err = net.Dial("udp", "127.0.0.11:53")
		return err
	}))
	defer socket.Close()
	for i := range storm {
		query, err := new(mdns.Msg).SetQuestion(fmt.Sprintf("n%d.example.test.", i), mdns.TypeA).Pack()
		must(t, err)
		_, err = socket.Write(query)
		must(t, err)
	}
	// A local name is answered meanwhile, and is not asked of the server for the
	// family that it lacks.
	for range 20 {
		for question, want := range map[uint16]string{mdns.TypeA: "10.77.0.2", mdns.TypeAAAA: ""} {
			if got := askLocal(t, m, nsOf(calm), question); got != want {
				t.Errorf("type %d of web: %q, want %q", question, got, want)
			}
		}
	}
	must(t, socket.SetReadDeadline(time.Now().Add(patience)))
	var reply mdns.Msg
	buf := make([]byte, 4096)
	n, err := socket.Read(buf)
	must(t, err)
	must(t, reply.Unpack(buf[:n]))
	if reply.Rcode != mdns.RcodeServerFailure && reply.Rcode != mdns.RcodeRefused {
		t.Errorf("a question that nobody answers: %s", mdns.RcodeToString[reply.Rcode])
	}
	for len(hole) > 0 {
		if name := <-hole; name == "web." {
			t.Error("a local name went out")
		}
	}
	d.clear(t)
}

// blackHole reads questions and answers none; it returns their names.
func blackHole(t *testing.T, m *nstest.Machine, at string) chan string {
	t.Helper()
	var conn net.PacketConn
	must(t, m.Host().Inside("", func() (err error) {
		conn, err = net.ListenPacket("udp", at)
		return err
	}))
	names, done := make(chan string, 100_000), make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 4096)
		for {
			n, _, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			var q mdns.Msg
			if q.Unpack(buf[:n]) == nil && len(q.Question) == 1 {
				names <- q.Question[0].Name
			}
		}
	}()
	t.Cleanup(func() { conn.Close(); <-done })
	return names
}

// askLocal asks for web inside a namespace, and returns its address.
func askLocal(t *testing.T, m *nstest.Machine, ns string, qtype uint16) string {
	t.Helper()
	var conn net.Conn
	must(t, m.Host().Inside(ns, func() (err error) {
		conn, err = net.Dial("udp", "127.0.0.11:53")
		return err
	}))
	defer conn.Close()
	client := mdns.Client{Timeout: patience}
	reply, _, err := client.ExchangeWithConn(new(mdns.Msg).SetQuestion("web.", qtype), &mdns.Conn{Conn: conn})
	must(t, err)
	if reply.Rcode != mdns.RcodeSuccess {
		t.Errorf("web: %s", mdns.RcodeToString[reply.Rcode])
	}
	text := ""
	for _, rr := range reply.Answer {
		if a, ok := rr.(*mdns.A); ok {
			addr, _ := netip.AddrFromSlice(a.A)
			text += addr.Unmap().String()
		}
	}
	return text
}
