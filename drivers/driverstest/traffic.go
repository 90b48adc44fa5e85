package driverstest

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/linkspan/linkspan/endpoint"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/kernel"
)

// refusal is how long silence must last to count as an answer.
const refusal = 700 * time.Millisecond

// traffic sends echo requests and a TCP stream each way between the endpoints,
// and echo requests to the gateway if the network's own link holds one.
func (s suite) traffic(t *testing.T) {
	m := s.site(t)
	m.do(s.whole())
	defer func() { m.undo(s.whole()); m.back("after the traffic") }()
	tried := 0
	for i, from := range s.Endpoints {
		to := s.Endpoints[1-i]
		for _, target := range to.Addrs() {
			tried++
			s.ping(t, m, s.Sandboxes[i].Netns(), target, !s.Apart)
			if err := stream(m.Host(), s.Sandboxes[i].Netns(), s.Sandboxes[1-i].Netns(), target); (err == nil) == s.Apart {
				t.Errorf("a TCP stream from %s to %s: %v, while apart is %v", from.Name, target, err, s.Apart)
			}
		}
		if s.Driver.Traits().Gateway {
			for _, gateway := range gateways(from) {
				s.ping(t, m, s.Sandboxes[i].Netns(), gateway, true)
			}
		}
	}
	if wanted := s.Driver.Traits().Addresses; (tried > 0) != wanted {
		t.Errorf("%d addresses to talk to, while the driver's wish for addresses is %v", tried, wanted)
	}
}

func gateways(e endpoint.Endpoint) []netip.Addr {
	var addrs []netip.Addr
	for _, gateway := range []netip.Addr{e.Gateway4, e.Gateway6} {
		if gateway.IsValid() {
			addrs = append(addrs, gateway)
		}
	}
	return addrs
}

func (s suite) ping(t *testing.T, m site, ns string, target netip.Addr, want bool) {
	t.Helper()
	var out string
	try := func() bool {
		var err error
		out, err = m.TrySh(fmt.Sprintf("nsenter --net=%s ping -n -c1 -W1 %s", kernel.Pin(ns), target))
		return err == nil
	}
	got := try()
	if want && !got { // a port takes a moment to forward
		got = nstest.Until(patience, try)
	}
	if got != want {
		t.Errorf("an echo from %s to %s: answered is %v, want %v\n%s", ns, target, got, want, out)
	}
}

// stream sends some bytes from one namespace to another, and back.
func stream(h *kernel.Host, fromNS, toNS string, target netip.Addr) error {
	var listener net.Listener
	err := h.Inside(toNS, func() (err error) {
		listener, err = net.Listen("tcp", netip.AddrPortFrom(target, 0).String())
		return err
	})
	if err != nil {
		return err
	}
	defer listener.Close()
	go func() {
		if conn, err := listener.Accept(); err == nil {
			io.Copy(conn, conn) //nolint:errcheck // the other end notices what is missing
			conn.Close()
		}
	}()
	var conn net.Conn
	err = h.Inside(fromNS, func() (err error) {
		conn, err = net.DialTimeout("tcp", listener.Addr().String(), refusal)
		return err
	})
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience)) //nolint:errcheck // a TCP connection takes deadlines
	sent := bytes.Repeat([]byte("linkspan "), 10_000)
	go func() {
		conn.Write(sent) //nolint:errcheck // what is missing is noticed below
		conn.(*net.TCPConn).CloseWrite()
	}()
	got, err := io.ReadAll(conn)
	if err == nil && !bytes.Equal(got, sent) {
		err = fmt.Errorf("%d bytes came back of %d", len(got), len(sent))
	}
	return err
}
