package nftables_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan/firewall/nftables"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/op"
)

const udpPort, tcpPort = 5301, 5302 // where the resolver of these tests listens

func TestResolver(t *testing.T) {
	ctx := context.Background()
	m := nstest.New(t)
	x := op.Executor{Host: m.Host()}
	plan := append(op.Plan{{Op: op.AddNetns{Name: "box"}}}, nftables.Backend{}.Resolver("box", udpPort, tcpPort)...)
	if err := x.Do(ctx, plan); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := x.Undo(ctx, plan); err != nil {
			t.Error(err)
		}
	})
	m.Sh(t, "ip -n box link set lo up; ip -n box addr add 10.77.0.2/24 dev lo; ip -n box addr add fd77::2/64 dev lo nodad")
	resolver := newServer(t, m, "box", fmt.Sprint("127.0.0.11:", udpPort), fmt.Sprint("127.0.0.11:", tcpPort), "resolver ")

	check := func(t *testing.T, network, addr, who string, size int) {
		t.Helper()
		question := bytes.Repeat([]byte("q"), size)
		answer, err := query(m, network, addr, question)
		if err != nil || string(answer) != who+string(question) {
			t.Errorf("asking %s over %s with %d bytes: %d bytes that begin with %.20q (%v), want an answer from %q", addr, network, size, len(answer), answer, err, who)
		}
	}
	t.Run("alone", func(t *testing.T) {
		for _, size := range []int{1, 40, 511, 4096, 60000} {
			check(t, "udp", "127.0.0.11:53", "resolver ", size)
			check(t, "tcp", "127.0.0.11:53", "resolver ", size)
		}
		if _, err := query(m, "udp", "127.0.0.12:53", []byte("q")); err == nil {
			t.Error("somebody answers on 127.0.0.12:53")
		}
	})
	t.Run("beside a name server on all addresses", func(t *testing.T) {
		newServer(t, m, "box", "0.0.0.0:53", "0.0.0.0:53", "program ")
		for _, network := range []string{"udp", "tcp"} {
			for _, size := range []int{1, 511, 60000} {
				check(t, network, "127.0.0.11:53", "resolver ", size)
				check(t, network, "10.77.0.2:53", "program ", size)
				check(t, network, "127.0.0.1:53", "program ", size)
			}
		}
	})
	t.Run("beside a name server on both families", func(t *testing.T) {
		newServer(t, m, "box", "[::]:53", "[::]:53", "program ")
		for _, network := range []string{"udp", "tcp"} {
			check(t, network, "127.0.0.11:53", "resolver ", 300)
			check(t, network, "10.77.0.2:53", "program ", 300)
			check(t, network, "[fd77::2]:53", "program ", 300)
		}
	})
	if !resolver.sawOnlyLoopback() {
		t.Error("the resolver saw a question from elsewhere")
	}
	t.Run("checksums", func(t *testing.T) { checksums(t, m) })
	t.Run("no connection tracking", func(t *testing.T) { noTracking(t, m) })
}

// checksums asks with packets whose checksum the kernel does not compute: one
// that is right, one that is wrong, one that is absent (RFC 768). The asker's
// socket is not connected and sees where answers come from.
func checksums(t *testing.T, m *nstest.Machine) {
	var raw, asker net.PacketConn
	within(t, m, "box", func() (err error) { raw, err = net.ListenPacket("ip4:udp", "127.0.0.1"); return err })
	defer raw.Close()
	within(t, m, "box", func() (err error) { asker, err = net.ListenPacket("udp", "127.0.0.1:4000"); return err })
	defer asker.Close()
	resolver := &net.IPAddr{IP: net.IPv4(127, 0, 0, 11)}
	for _, c := range []struct {
		name   string
		sum    func(uint16) uint16
		answer bool
	}{
		{"right", func(right uint16) uint16 { return right }, true},
		{"wrong", func(right uint16) uint16 { return right ^ 0x1111 }, false},
		{"absent", func(uint16) uint16 { return 0 }, true},
	} {
		packet := []byte{4000 >> 8, 4000 & 0xff, 0, 53, 0, 12, 0, 0, 'q', 'q', 'q', 'q'}
		binary.BigEndian.PutUint16(packet[6:], c.sum(udpChecksum(packet)))
		if _, err := raw.WriteTo(packet, resolver); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 64)
		asker.SetReadDeadline(time.Now().Add(patience))
		n, from, err := asker.ReadFrom(buf)
		switch {
		case !c.answer && err == nil:
			t.Errorf("a question with a %s checksum is answered", c.name)
		case c.answer && (err != nil || from.String() != "127.0.0.11:53" || string(buf[:n]) != "resolver qqqq"):
			t.Errorf("a question with a %s checksum: %q from %v (%v), want the answer from 127.0.0.11:53", c.name, buf[:n], from, err)
		}
	}
	snmp := m.Sh(t, "nsenter --net=/run/netns/box nstat -az UdpInCsumErrors TcpInCsumErrors | tail -n +2")
	if fields := strings.Fields(snmp); len(fields) != 6 || fields[1]+fields[4] != "10" && fields[1]+fields[4] != "01" {
		t.Errorf("want one checksum error, the one that was made:\n%s", snmp)
	}
}

// udpChecksum returns the checksum of a packet from 127.0.0.1 to 127.0.0.11.
func udpChecksum(packet []byte) uint16 {
	pseudo := []byte{127, 0, 0, 1, 127, 0, 0, 11, 0, 17, 0, byte(len(packet))}
	var sum uint32
	for _, part := range [][]byte{pseudo, packet} {
		for i := 0; i < len(part); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(part[i:]))
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// noTracking shows that the namespace tracks nothing, and that the same look
// would notice if it did.
func noTracking(t *testing.T, m *nstest.Machine) {
	tracked := func() string {
		return m.Sh(t, "nsenter --net=/run/netns/box sh -c 'cat /proc/net/nf_conntrack; cat /proc/sys/net/netfilter/nf_conntrack_count'")
	}
	if got := strings.TrimSpace(tracked()); got != "0" {
		t.Errorf("conntrack in the sandbox holds:\n%s", got)
	}
	m.Sh(t, `nsenter --net=/run/netns/box nft -f - <<'EOF'
table ip other { chain output { type filter hook output priority filter; ct state new accept; }; }
EOF`)
	if _, err := query(m, "udp", "127.0.0.11:53", []byte("q")); err != nil {
		t.Error(err)
	}
	if got := strings.TrimSpace(tracked()); got == "0" {
		t.Error("conntrack is on and the look at it shows nothing")
	}
	m.Sh(t, "nsenter --net=/run/netns/box nft delete table ip other")
}

// server answers each question with its name and the question. Over TCP both
// have a length of four bytes before them.
type server struct{ elsewhere chan string }

func newServer(t testing.TB, m *nstest.Machine, ns, udp, tcp, name string) server {
	s := server{elsewhere: make(chan string, 16)}
	var packets net.PacketConn
	var stream net.Listener
	// Package net looks once, in whichever namespace it is first, whether a socket
	// can have both families.
	family, both := "4", net.ListenConfig{Control: func(network, _ string, conn syscall.RawConn) (err error) {
		if strings.HasSuffix(network, "4") {
			return nil
		}
		failed := conn.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0)
		})
		return errors.Join(failed, err)
	}}
	if strings.HasPrefix(udp, "[") {
		family = "6"
	}
	within(t, m, ns, func() (err error) { packets, err = both.ListenPacket(t.Context(), "udp"+family, udp); return err })
	within(t, m, ns, func() (err error) { stream, err = both.Listen(t.Context(), "tcp"+family, tcp); return err })
	t.Cleanup(func() { packets.Close(); stream.Close() })
	go func() {
		buf := make([]byte, 1<<16)
		for {
			n, from, err := packets.ReadFrom(buf)
			if err != nil {
				return
			}
			s.note(from)
			packets.WriteTo(append([]byte(name), buf[:n]...), from) //nolint:errcheck // the asker notices
		}
	}()
	go func() {
		for {
			conn, err := stream.Accept()
			if err != nil {
				return
			}
			s.note(conn.RemoteAddr())
			go func() {
				defer conn.Close()
				for {
					question, err := readFrame(conn)
					if err != nil {
						return
					}
					writeFrame(conn, append([]byte(name), question...)) //nolint:errcheck // the asker notices
				}
			}()
		}
	}()
	return s
}

func (s server) note(from net.Addr) {
	if !strings.HasPrefix(from.String(), "127.0.0.1:") {
		select {
		case s.elsewhere <- from.String():
		default:
		}
	}
}

func (s server) sawOnlyLoopback() bool { return len(s.elsewhere) == 0 }

func query(m *nstest.Machine, network, addr string, question []byte) ([]byte, error) {
	var answer []byte
	err := m.Host().Inside("box", func() error {
		conn, err := net.DialTimeout(network, addr, time.Second)
		if err != nil {
			return err
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(time.Second))
		answer, err = converse(conn, network, question)
		return err
	})
	return answer, err
}

func converse(conn net.Conn, network string, question []byte) ([]byte, error) {
	if network == "tcp" {
		if err := writeFrame(conn, question); err != nil {
			return nil, err
		}
		return readFrame(conn)
	}
	if _, err := conn.Write(question); err != nil {
		return nil, err
	}
	buf := make([]byte, 1<<16)
	n, err := conn.Read(buf)
	return buf[:n], err
}

func writeFrame(w io.Writer, data []byte) error {
	_, err := w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(data))), data...))
	return err
}

func readFrame(r io.Reader) ([]byte, error) {
	var length [4]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	data := make([]byte, binary.BigEndian.Uint32(length[:]))
	_, err := io.ReadFull(r, data)
	return data, err
}

func within(t testing.TB, m *nstest.Machine, ns string, fn func() error) {
	t.Helper()
	if err := m.Host().Inside(ns, fn); err != nil {
		t.Fatal(err)
	}
}
