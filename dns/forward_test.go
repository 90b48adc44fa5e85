package dns

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	mdns "github.com/miekg/dns"
	"golang.org/x/sync/errgroup"
)

// quick makes the waits of forwarding short enough for tests.
func quick() Limits {
	return Limits{Timeout: 400 * time.Millisecond, HeadStart: 50 * time.Millisecond}
}

func TestForwarding(t *testing.T) {
	garbage := func(_ []byte, send func([]byte)) { send([]byte("not DNS at all")) }
	wrongID := func(q []byte, send func([]byte)) {
		forged := answerTo(q, "203.0.113.66", mdns.RcodeSuccess)
		forged[0] ^= 1
		send(forged)
	}
	wrongName := func(q []byte, send func([]byte)) {
		forged := answerTo(q, "203.0.113.66", mdns.RcodeSuccess)
		forged[headerLen+1] ^= 1
		send(forged)
	}
	thenRight := func(first func([]byte, func([]byte))) func([]byte, func([]byte)) {
		return func(q []byte, send func([]byte)) {
			first(q, send)
			time.Sleep(5 * time.Millisecond)
			says("192.0.2.1")(q, send)
		}
	}
	broken := func(q []byte, send func([]byte)) {
		a := answerTo(q, "192.0.2.9", mdns.RcodeSuccess)
		send(a[:len(a)-3])
	}
	bare := func(q []byte, send func([]byte)) { send(headerOnly(q, mdns.RcodeRefused)) }
	folded := func(q []byte, send func([]byte)) {
		a := answerTo(q, "192.0.2.1", mdns.RcodeSuccess)
		a[headerLen+1] |= 0x20
		send(a)
	}
	type handlers = []func([]byte, func([]byte))
	tests := []struct {
		name    string
		servers handlers
		want    string
		udpOnly bool
	}{
		{"one good server", handlers{says("192.0.2.1")}, "NOERROR 192.0.2.1", false},
		{"first wins", handlers{says("192.0.2.1"), says("192.0.2.2")}, "NOERROR 192.0.2.1", false},
		{"no such domain", handlers{fails(mdns.RcodeNameError), says("192.0.2.2")}, "NXDOMAIN", false},
		{"next on SERVFAIL", handlers{fails(mdns.RcodeServerFailure), says("192.0.2.2")}, "NOERROR 192.0.2.2", false},
		{"next on REFUSED", handlers{fails(mdns.RcodeRefused), says("192.0.2.2")}, "NOERROR 192.0.2.2", false},
		{"next on a bare header", handlers{bare, says("192.0.2.2")}, "NOERROR 192.0.2.2", false},
		{"next on silence", handlers{silent, says("192.0.2.2")}, "NOERROR 192.0.2.2", false},
		{"next on a cut answer", handlers{broken, says("192.0.2.2")}, "NOERROR 192.0.2.2", false},
		{"third", handlers{silent, fails(mdns.RcodeRefused), says("192.0.2.3")}, "NOERROR 192.0.2.3", false},
		{"no fourth", handlers{fails(2), fails(2), fails(2), says("192.0.2.4")}, "SERVFAIL", false},
		{"all silent", handlers{silent, silent}, "SERVFAIL", false},
		{"slow but alone", handlers{after(200*time.Millisecond, says("192.0.2.1"))}, "NOERROR 192.0.2.1", false},
		{"other case", handlers{folded}, "NOERROR 192.0.2.1", false},
		{"garbage first", handlers{thenRight(garbage)}, "NOERROR 192.0.2.1", true},
		{"forged ID first", handlers{thenRight(wrongID)}, "NOERROR 192.0.2.1", true},
		{"forged name first", handlers{thenRight(wrongName)}, "NOERROR 192.0.2.1", true},
		{"forged ID only", handlers{wrongID}, "SERVFAIL", false},
		{"garbage only", handlers{garbage}, "SERVFAIL", false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var ups []Upstream
			for _, h := range test.servers {
				ups = append(ups, fakeUpstream(t, h).config())
			}
			_, server := start(t, Config{Zones: []*Zone{lab()}, Upstreams: ups, Limits: quick()})
			for _, network := range []string{"udp", "tcp"} {
				if test.udpOnly && network == "tcp" {
					continue
				}
				if got := summary(ask(t, network, server, "Example.org", mdns.TypeA)); got != test.want {
					t.Errorf("over %s: %s, want %s", network, got, test.want)
				}
			}
		})
	}
}

func TestNoServerListens(t *testing.T) {
	t.Parallel()
	udp, tcp := sockets(t)
	dead := udp.LocalAddr().(*net.UDPAddr).AddrPort()
	udp.Close()
	tcp.Close()
	_, server := start(t, Config{Upstreams: []Upstream{{Addr: dead}}})
	for _, network := range []string{"udp", "tcp"} {
		begin := time.Now()
		if m := ask(t, network, server, "example.org", mdns.TypeA); m.Rcode != mdns.RcodeServerFailure {
			t.Errorf("%s: %s, want SERVFAIL", network, summary(m))
		}
		if d := time.Since(begin); d > time.Second {
			t.Errorf("%s: a refused port was noticed after %v", network, d)
		}
	}
}

// The bytes of a forwarded answer are the server's own, but for the ID, and
// the transport is the client's.
func TestForwardedBytes(t *testing.T) {
	var mu sync.Mutex
	var seen [][]byte
	up := fakeUpstream(t, func(q []byte, send func([]byte)) {
		mu.Lock()
		seen = append(seen, q)
		mu.Unlock()
		a := answerTo(q, "192.0.2.1", mdns.RcodeSuccess)
		a[2] |= 0x02 // TC
		send(append(a[:len(a)-2], make([]byte, 3000)...))
	})
	_, server := start(t, Config{Upstreams: []Upstream{up.config()}})
	query, err := new(mdns.Msg).SetQuestion("eXample.org.", mdns.TypeA).SetEdns0(4096, true).Pack()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("udp", server)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err = conn.Write(query); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, maxMessage)
	n, err := conn.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	if n < 3000 || buf[2]&0x02 == 0 || !slices.Equal(buf[:2], query[:2]) {
		t.Errorf("answer of %d bytes, flags %x, ID %x: want all of it, TC, and ID %x", n, buf[2:4], buf[:2], query[:2])
	}
	mu.Lock()
	defer mu.Unlock()
	if len(seen) != 1 || !slices.Equal(seen[0][2:], query[2:]) {
		t.Errorf("the server saw %x, want one query %x with an ID of its own", seen, query)
	}
}

func TestSourcePortsAndIDsVary(t *testing.T) {
	var mu sync.Mutex
	ids, ports := map[uint16]bool{}, map[string]bool{}
	up := fakeUpstream(t, func(q []byte, send func([]byte)) {
		mu.Lock()
		ids[binary.BigEndian.Uint16(q)] = true
		mu.Unlock()
		says("192.0.2.1")(q, send)
	})
	u := up.config()
	u.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, address)
		if err == nil {
			mu.Lock()
			ports[c.LocalAddr().String()] = true
			mu.Unlock()
		}
		return c, err
	}
	_, server := start(t, Config{Upstreams: []Upstream{u}})
	for range 50 {
		q := new(mdns.Msg).SetQuestion("example.org.", mdns.TypeA)
		q.Id = 7
		exchange(t, "udp", server, q)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(ids) < 45 || len(ports) < 30 {
		t.Errorf("50 questions with one ID went out with %d IDs from %d ports", len(ids), len(ports))
	}
}

// After a server was late once, the next question does not wait for it.
func TestLateServerGoesLast(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"udp", "tcp"} {
		dead := fakeUpstream(t, silent)
		good := fakeUpstream(t, says("192.0.2.2"))
		c := Config{Upstreams: []Upstream{dead.config(), good.config()}, Limits: Limits{HeadStart: 200 * time.Millisecond, Distrust: 2 * time.Second}}
		r, server := start(t, c)
		timed := func() time.Duration {
			begin := time.Now()
			if got := summary(ask(t, network, server, "example.org", mdns.TypeA)); got != "NOERROR 192.0.2.2" {
				t.Fatal(got)
			}
			return time.Since(begin)
		}
		if d := timed(); d < 200*time.Millisecond {
			t.Errorf("%s: the first question took %v, less than the head start", network, d)
		}
		r.Update(c)
		for range 5 {
			if d := timed(); d > 150*time.Millisecond {
				t.Errorf("%s: a later question took %v", network, d)
			}
		}
		if n := dead.asked.Load(); n != 1 {
			t.Errorf("%s: the dead server was asked %d times, want 1", network, n)
		}
		time.Sleep(2 * time.Second)
		timed()
		if n := dead.asked.Load(); n != 2 {
			t.Errorf("%s: after the distrust the dead server was asked %d times in all, want 2", network, n)
		}
	}
}

// A storm of questions to dead servers: local answers are as before, and each
// client hears something.
func TestStorm(t *testing.T) {
	dead := fakeUpstream(t, silent)
	r, server := start(t, Config{Zones: []*Zone{lab()}, Upstreams: []Upstream{dead.config()}, Limits: Limits{InFlight: 64, Timeout: time.Second}})
	const storm = 2000
	conn, err := net.Dial("udp", server)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.(*net.UDPConn).SetReadBuffer(4 << 20); err != nil {
		t.Fatal(err)
	}
	for i := range storm {
		q := new(mdns.Msg).SetQuestion("example.org.", mdns.TypeA)
		q.Id = uint16(i)
		b, err := q.Pack()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write(b); err != nil {
			t.Fatal(err)
		}
		if i%50 == 0 { // as many as a socket's default buffer takes
			time.Sleep(time.Millisecond)
		}
	}
	var worst time.Duration
	for range 200 {
		begin := time.Now()
		if got := summary(ask(t, "udp", server, "web", mdns.TypeA)); got != "NOERROR 10.77.0.2" {
			t.Fatal(got)
		}
		worst = max(worst, time.Since(begin))
	}
	if worst > 300*time.Millisecond {
		t.Errorf("a local answer took %v during the storm", worst)
	}
	answered := map[int]int{}
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	buf := make([]byte, 512)
	for range storm {
		n, err := conn.Read(buf)
		if err != nil {
			t.Errorf("after %v: %v", answered, err)
			break
		}
		answered[int(buf[:n][3]&0xf)]++
	}
	if answered[mdns.RcodeServerFailure] < 64 || answered[mdns.RcodeRefused] == 0 {
		t.Errorf("answers by code: %v, want SERVFAIL and REFUSED", answered)
	}
	if s := r.Stats(); s.Forwarded+s.Refused != storm {
		t.Errorf("stats %+v do not add up to %d", s, storm)
	}
	if n := dead.asked.Load(); n > 64*3 {
		t.Errorf("the dead server was asked %d times: the budget of 64 in flight was not kept", n)
	}
}

func TestMoreThanTheListHolds(t *testing.T) {
	t.Parallel()
	dead := fakeUpstream(t, silent)
	r, server := start(t, Config{Upstreams: []Upstream{dead.config()}, Limits: Limits{InFlight: 2, Waiting: 3, Timeout: 500 * time.Millisecond}})
	var g errgroup.Group
	for range 10 {
		g.Go(func() error { ask(t, "udp", server, "example.org", mdns.TypeA); return nil })
	}
	_ = g.Wait()
	s := r.Stats()
	if s.Refused < 5 || s.Failed < 2 || s.Refused+s.Failed != 10 {
		t.Errorf("stats %+v: want ten answers, at least five of them REFUSED at once", s)
	}
}

// An address of ours that the outside world knows by another name is asked for
// outside, by this sandbox alone, until the address changes hands.
func TestExternalPTR(t *testing.T) {
	z := lab()
	up := fakeUpstream(t, func(q []byte, send func([]byte)) {
		var m mdns.Msg
		_ = m.Unpack(q)
		if m.Question[0].Qtype == mdns.TypePTR {
			fails(mdns.RcodeNameError)(q, send)
			return
		}
		says("10.77.0.2")(q, send)
	})
	c := Config{Zones: []*Zone{z}, Upstreams: []Upstream{up.config()}}
	_, server := start(t, c)
	_, neighbour := start(t, c)
	check := func(server, want string) {
		t.Helper()
		if got := summary(ask(t, "udp", server, "2.0.77.10.in-addr.arpa", mdns.TypePTR)); got != want {
			t.Errorf("PTR: %s, want %s", got, want)
		}
	}
	check(server, "NOERROR web.lab.")
	ask(t, "udp", server, "www.example.com", mdns.TypeA)
	check(server, "NXDOMAIN")
	check(neighbour, "NOERROR web.lab.")
	z.Set("o1", Entry{Names: []string{"next"}, Addrs: []netip.Addr{addr("10.77.0.2")}})
	check(server, "NOERROR next.lab.")
}
