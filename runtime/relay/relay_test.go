package relay_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/runtime/relay"
)

func TestMain(m *testing.M) { nstest.Main(m) }

const patience = 20 * time.Second

// serve holds a port at ::1 and relays it.
func serve(t *testing.T, protocol string, s relay.Service) (r *relay.Relay, fd int, at string) {
	t.Helper()
	nstest.Leaks(t)
	host, err := kernel.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { host.Close() })
	port := uint16(20000 + rand.IntN(10000))
	sockets, err := host.HoldPorts([]kernel.Hold{{Protocol: protocol, At: netip.AddrPortFrom(netip.IPv6Loopback(), port), Serve: true}})
	if err != nil {
		t.Fatal(err)
	}
	if r, err = relay.New(); err != nil {
		t.Fatal(err)
	}
	s.Datagrams = protocol == "udp"
	if err := r.Serve(sockets[0], s); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.Stop(sockets[0])
		unix.Close(sockets[0])
	})
	return r, sockets[0], netip.AddrPortFrom(netip.IPv6Loopback(), port).String()
}

// echoTCP sends back what it gets and ends when the client has ended.
func echoTCP(t *testing.T) netip.AddrPort {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				io.Copy(c, c)
				c.Close()
			}()
		}
	}()
	return netip.MustParseAddrPort(l.Addr().String())
}

// Many connections at once, from IPv6 to IPv4, each whole and each ended from
// both sides.
func TestStreams(t *testing.T) {
	_, _, at := serve(t, "tcp", relay.Service{To: echoTCP(t)})
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			sent := make([]byte, 1<<20+i)
			for j := range sent {
				sent[j] = byte(j * (i + 3))
			}
			c, err := net.Dial("tcp", at)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(patience))
			go func() {
				c.Write(sent)
				c.(*net.TCPConn).CloseWrite()
			}()
			got, err := io.ReadAll(c)
			if err != nil || !bytes.Equal(got, sent) {
				t.Errorf("connection %d: %d of %d bytes came back: %v", i, len(got), len(sent), err)
			}
		})
	}
	all.Wait()
}

// A server that is not there is told to the client by a reset.
func TestNoServer(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	to := netip.MustParseAddrPort(l.Addr().String())
	l.Close()
	_, _, at := serve(t, "tcp", relay.Service{To: to})
	c, err := net.Dial("tcp", at)
	if err == nil { // the reset may be faster than the dialler
		defer c.Close()
		c.SetDeadline(time.Now().Add(patience))
		_, err = c.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("asking nobody: %v", err)
	}
}

// Whoever goes away takes the other side along.
func TestServerHangsUp(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, _, at := serve(t, "tcp", relay.Service{To: netip.MustParseAddrPort(l.Addr().String())})
	c, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	far.(*net.TCPConn).SetLinger(0)
	far.Close()
	c.SetDeadline(time.Now().Add(patience))
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after the server's reset: %v", err)
	}
}

// Datagrams find back to their clients, and a stopped service answers no more.
func TestDatagrams(t *testing.T) {
	server, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go func() {
		buf := make([]byte, 1000)
		for {
			n, from, err := server.ReadFrom(buf)
			if err != nil {
				return
			}
			server.WriteTo(append([]byte("you said "), buf[:n]...), from)
		}
	}()
	r, fd, at := serve(t, "udp", relay.Service{To: netip.MustParseAddrPort(server.LocalAddr().String())})
	var clients []net.Conn
	for _, name := range []string{"a", "b", "c"} {
		c, err := net.Dial("udp", at)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		clients = append(clients, c)
		ask(t, c, name)
	}
	for i, c := range clients {
		ask(t, c, string(rune('x'+i)))
	}
	r.Stop(fd)
	clients[0].Write([]byte("anyone?"))
	clients[0].SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	if n, err := clients[0].Read(make([]byte, 100)); err == nil {
		t.Errorf("a stopped service sent %d bytes", n)
	}
}

// ask repeats a question until it is answered: a datagram may be lost.
func ask(t *testing.T, c net.Conn, word string) {
	t.Helper()
	buf := make([]byte, 100)
	if !nstest.Until(patience, func() bool {
		c.Write([]byte(word))
		c.SetReadDeadline(time.Now().Add(time.Second))
		n, err := c.Read(buf)
		return err == nil && string(buf[:n]) == "you said "+word
	}) {
		t.Fatalf("no answer to %q", word)
	}
}
