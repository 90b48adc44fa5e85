package dns

import (
	"errors"
	"net"
	"net/netip"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	mdns "github.com/miekg/dns"
	"golang.org/x/sync/errgroup"

	"github.com/linkspan/linkspan"
)

// A question asked while no daemon serves waits in the socket, which the shim
// keeps open, and the next daemon answers it.
func TestRestart(t *testing.T) {
	udp, tcp := sockets(t)
	server := tcp.Addr().String()
	shimUDP, err := udp.File()
	if err != nil {
		t.Fatal(err)
	}
	defer shimUDP.Close()
	shimTCP, err := tcp.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer shimTCP.Close()

	c := Config{Zones: []*Zone{lab()}}
	s := NewServer()
	first, err := s.Start(udp, tcp, c)
	if err != nil {
		t.Fatal(err)
	}
	ask(t, "udp", server, "web", mdns.TypeA)
	ask(t, "tcp", server, "web", mdns.TypeA)
	if err = first.Close(); err != nil {
		t.Fatal(err)
	}
	if err = first.Close(); err != nil {
		t.Errorf("closing twice: %v", err)
	}

	var g errgroup.Group
	for _, network := range []string{"udp", "tcp"} {
		g.Go(func() error {
			m, _, failed := (&mdns.Client{Net: network, Timeout: 5 * time.Second}).Exchange(new(mdns.Msg).SetQuestion("web.", mdns.TypeA), server)
			if failed == nil && summary(m) != "NOERROR 10.77.0.2" {
				failed = errors.New(summary(m))
			}
			return failed
		})
	}
	time.Sleep(100 * time.Millisecond)
	pc, err := net.FilePacketConn(shimUDP)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.FileListener(shimTCP)
	if err != nil {
		t.Fatal(err)
	}
	second, err := s.Start(pc.(*net.UDPConn), ln, c)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if err := g.Wait(); err != nil {
		t.Errorf("asking between two daemons: %v", err)
	}
}

func TestCloseLeavesNothing(t *testing.T) {
	before := runtime.NumGoroutine()
	dead, _ := sockets(t)
	defer dead.Close()
	udp, tcp := sockets(t)
	server := tcp.Addr().String()
	up := Upstream{Addr: dead.LocalAddr().(*net.UDPAddr).AddrPort()}
	r, err := NewServer().Start(udp, tcp, Config{Upstreams: []Upstream{up}, Limits: Limits{InFlight: 2}})
	if err != nil {
		t.Fatal(err)
	}
	idle, err := net.Dial("tcp", server)
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	conn, err := net.Dial("udp", server)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	q, err := new(mdns.Msg).SetQuestion("example.org.", mdns.TypeA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	for range 5 { // two in flight, three waiting
		if _, err := conn.Write(q); err != nil {
			t.Fatal(err)
		}
		if err := writeFrame(idle, q); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(100 * time.Millisecond)
	begin := time.Now()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(begin); d > time.Second {
		t.Errorf("closing took %v", d)
	}
	deadline := time.Now().Add(2 * time.Second)
	for runtime.NumGoroutine() > before && time.Now().Before(deadline) {
		time.Sleep(10 * time.Millisecond)
	}
	if n := runtime.NumGoroutine(); n > before {
		t.Errorf("%d goroutines, %d before", n, before)
	}
}

// Updates of the view and of the zone lose no question.
func TestUpdateUnderLoad(t *testing.T) {
	z := lab()
	c := Config{Zones: []*Zone{z}}
	r, server := start(t, c)
	var stop atomic.Bool
	var g errgroup.Group
	g.Go(func() error {
		for i := 0; !stop.Load(); i++ {
			r.Update(c)
			id := linkspan.ID(rune('a' + i%26))
			z.Set(id, Entry{Names: []string{"pool", string(id)}, Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 9, 0, byte(i)})}})
			z.Delete(linkspan.ID(rune('a' + (i+5)%26)))
		}
		return nil
	})
	for i := range 3000 {
		name, network := "web", "udp"
		if i%2 == 1 {
			name = "pool"
		}
		if i%100 == 0 {
			network = "tcp"
		}
		if m := ask(t, network, server, name, mdns.TypeA); m.Rcode != mdns.RcodeSuccess || len(m.Answer) == 0 {
			t.Errorf("%s: %s", name, summary(m))
		}
	}
	stop.Store(true)
	_ = g.Wait()
}

func TestUpdateChangesTheView(t *testing.T) {
	other := NewZone("other")
	other.Set("x", Entry{Names: []string{"web"}, Addrs: []netip.Addr{addr("10.88.0.2")}})
	r, server := start(t, Config{Zones: []*Zone{lab()}})
	r.Update(Config{Zones: []*Zone{other, lab()}})
	if got := summary(ask(t, "udp", server, "web", mdns.TypeA)); got != "NOERROR 10.88.0.2" {
		t.Errorf("web: %s, want the answer of the network now first", got)
	}
}

func TestPipelinedTCP(t *testing.T) {
	up := fakeUpstream(t, after(100*time.Millisecond, says("192.0.2.1")))
	_, server := start(t, Config{Zones: []*Zone{lab()}, Upstreams: []Upstream{up.config()}})
	conn, err := net.Dial("tcp", server)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for i, name := range []string{"example.org.", "web."} {
		q := new(mdns.Msg).SetQuestion(name, mdns.TypeA)
		q.Id = uint16(i)
		b, err := q.Pack()
		if err != nil {
			t.Fatal(err)
		}
		if err := writeFrame(conn, b); err != nil {
			t.Fatal(err)
		}
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil { // the answers still come
		t.Fatal(err)
	}
	for _, id := range []uint16{1, 0} { // the local one does not wait for the forwarded one
		frame, err := readFrame(conn)
		if err != nil {
			t.Fatal(err)
		}
		var m mdns.Msg
		if err := m.Unpack(frame); err != nil || m.Id != id || len(m.Answer) != 1 {
			t.Errorf("got %v (%v), want the answer to question %d", m.MsgHdr, err, id)
		}
	}
}

func TestStartNeedsBothSockets(t *testing.T) {
	if _, err := NewServer().Start(nil, nil, Config{}); !errors.Is(err, linkspan.ErrInvalid) {
		t.Errorf("%v, want %v", err, linkspan.ErrInvalid)
	}
}

// The raw reader handles socket addresses of both families.
func TestIPv6Socket(t *testing.T) {
	tcp, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		t.Fatal(err)
	}
	udp, err := net.ListenUDP("udp6", net.UDPAddrFromAddrPort(tcp.Addr().(*net.TCPAddr).AddrPort()))
	if err != nil {
		t.Fatal(err)
	}
	up := fakeUpstream(t, says("192.0.2.1"))
	r, err := NewServer().Start(udp, tcp, Config{Zones: []*Zone{lab()}, Upstreams: []Upstream{up.config()}})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for name, want := range map[string]string{"web": "NOERROR 10.77.0.2", "example.org": "NOERROR 192.0.2.1"} {
		for _, network := range []string{"udp", "tcp"} {
			if got := summary(ask(t, network, tcp.Addr().String(), name, mdns.TypeA)); got != want {
				t.Errorf("%s over %s: %s, want %s", name, network, got, want)
			}
		}
	}
}

// A query longer than the reader's buffer is refused, not misread; odd
// datagrams get no answer and do no harm.
func TestLongAndEmptyDatagrams(t *testing.T) {
	_, server := start(t, Config{Zones: []*Zone{lab()}})
	conn, err := net.Dial("udp", server)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	q, err := new(mdns.Msg).SetQuestion("web.", mdns.TypeA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	answer := append([]byte(nil), q...)
	answer[2] |= 0x80
	for _, pkt := range [][]byte{{}, {1}, answer, append(q, make([]byte, 2*queryLen)...)} {
		if _, err = conn.Write(pkt); err != nil {
			t.Fatal(err)
		}
	}
	buf := make([]byte, 512)
	n, err := conn.Read(buf)
	if err != nil || n != headerLen || buf[3]&0xf != mdns.RcodeFormatError {
		t.Errorf("got %x, %v: want the long query's format error alone", buf[:n], err)
	}
	if got := summary(ask(t, "udp", server, "web", mdns.TypeA)); got != "NOERROR 10.77.0.2" {
		t.Errorf("afterwards: %s", got)
	}
}
