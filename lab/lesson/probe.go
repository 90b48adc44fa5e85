package lesson

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan/kernel"
)

// patience is how long a probe waits for its answer: long beside what a veth
// needs, short beside what a learner does.
const patience = 2 * time.Second

// ping sends echo requests from a node to an address until one is answered.
func (b *bench) ping(node, to string) error {
	target, err := netip.ParseAddr(b.fill(to))
	if err != nil {
		return err
	}
	var conn *icmp.PacketConn
	err = b.root.Inside(b.netns(node), func() error {
		conn, err = icmp.ListenPacket("ip4:icmp", "0.0.0.0")
		return err
	})
	if err != nil {
		return fmt.Errorf("opening a socket in %s: %w", b.where(node), err)
	}
	defer conn.Close()
	id := os.Getpid() & 0xffff
	for deadline, n := time.Now().Add(patience), 1; time.Now().Before(deadline); n++ {
		request, err := (&icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: id, Seq: n, Data: []byte("linkspan")}}).Marshal(nil)
		if err != nil {
			return err
		}
		_, err = conn.WriteTo(request, &net.IPAddr{IP: target.AsSlice()})
		if errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EHOSTUNREACH) {
			return wrong("%s has no route to %s (see: ip -n %s route get %s)", b.where(node), target, b.netns(node), target)
		}
		if err == nil && answered(conn, id, target) {
			return nil
		}
	}
	return wrong("%s gets no answer from %s (see: ip netns exec %s ping %s)", b.where(node), target, b.netns(node), target)
}

// answered waits a moment for an echo reply.
func answered(conn *icmp.PacketConn, id int, from netip.Addr) bool {
	conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond)) //nolint:errcheck // without it the read waits for the answer
	buffer := make([]byte, 1500)
	for {
		n, peer, err := conn.ReadFrom(buffer)
		if err != nil {
			return false
		}
		message, err := icmp.ParseMessage(1, buffer[:n])
		if err != nil || message.Type != ipv4.ICMPTypeEchoReply {
			continue
		}
		if echo, ok := message.Body.(*icmp.Echo); ok && echo.ID == id && peer.String() == from.String() {
			return true
		}
	}
}

func (b *bench) where(node string) string {
	if node == "" {
		return "the lab's machine"
	}
	return "node " + b.fill(node)
}

// link finds a link of a node.
func (b *bench) link(node, name string) (kernel.Link, error) {
	links, err := b.links(node)
	if err != nil {
		return kernel.Link{}, err
	}
	for _, l := range links {
		if l.Name == b.fill(name) {
			return l, nil
		}
	}
	return kernel.Link{}, wrong("%s has no link %s (see: %s)", b.where(node), b.fill(name), b.ip(node, "link"))
}

func (b *bench) links(node string) ([]kernel.Link, error) {
	ns := b.netns(node)
	if ns != "" {
		if _, err := os.Stat(kernel.Pin(ns)); err != nil {
			return nil, wrong("there is no network namespace %s (see: ip netns)", ns)
		}
	}
	return b.root.Survey(ns)
}

// ip is the command by which the learner sees the same.
func (b *bench) ip(node, rest string) string {
	if node == "" {
		return "ip -n " + b.fill("{LAB}") + " " + rest
	}
	return "ip -n " + b.netns(node) + " " + rest
}

// up wants a link that is there and up.
func (b *bench) up(node, name string) error {
	l, err := b.link(node, name)
	if err == nil && !l.Up {
		err = wrong("link %s of %s is down (see: %s)", l.Name, b.where(node), b.ip(node, "link show "+l.Name))
	}
	return err
}

// address wants an address on a link.
func (b *bench) address(node, name, want string) error {
	l, err := b.link(node, name)
	if err != nil {
		return err
	}
	prefix, err := netip.ParsePrefix(b.fill(want))
	if err != nil {
		return err
	}
	if !slices.Contains(l.Addresses, prefix) {
		return wrong("link %s of %s has not the address %s (see: %s)", l.Name, b.where(node), prefix, b.ip(node, "addr show "+l.Name))
	}
	return nil
}

// port wants a link of the lab's machine to be plugged into a bridge there.
func (b *bench) port(bridge, name string) error {
	l, err := b.link("", name)
	if err == nil && l.Master != b.fill(bridge) {
		err = wrong("link %s is no port of bridge %s (see: linkspan brctl --netns %s show)", l.Name, b.fill(bridge), b.fill("{LAB}"))
	}
	return err
}

// all runs checks in order and returns the first hint.
func all(checks ...func() error) error {
	for _, check := range checks {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

// startTime is how long a node's server may take to listen.
const startTime = 20 * time.Second

// connect opens a TCP connection from a node, and tries again for a while.
func (b *bench) connect(node, to string, within time.Duration) error {
	target := b.fill(to)
	for deadline := time.Now().Add(within); ; time.Sleep(20 * time.Millisecond) {
		err := b.root.Inside(b.netns(node), func() error {
			conn, err := dialHere(target)
			if err == nil {
				conn.Close()
			}
			return err
		})
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return wrong("%s cannot connect to %s: %v (see: ip netns exec %s curl http://%s/)", b.where(node), target, err, b.netns(node), target)
		}
	}
}

// dialHere connects on the calling thread, in whose namespace the socket must be.
func dialHere(target string) (*os.File, error) {
	address, err := netip.ParseAddrPort(target)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	socket := os.NewFile(uintptr(fd), target)
	// A connect that is not answered ends with this, and not after two minutes.
	err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Usec: 500_000})
	if err == nil {
		err = unix.Connect(fd, &unix.SockaddrInet4{Addr: address.Addr().As4(), Port: int(address.Port())})
	}
	if err != nil {
		socket.Close()
		return nil, err
	}
	return socket, nil
}

// seenAs wants the pings of one node to bear an address when they reach another.
func (b *bench) seenAs(from, at, to, want string) error {
	var conn *icmp.PacketConn
	err := b.root.Inside(b.netns(at), func() (err error) {
		conn, err = icmp.ListenPacket("ip4:icmp", "0.0.0.0")
		return err
	})
	if err != nil {
		return fmt.Errorf("opening a socket in %s: %w", b.where(at), err)
	}
	defer conn.Close()
	if err = b.ping(from, to); err != nil {
		return err
	}
	conn.SetReadDeadline(time.Now().Add(patience)) //nolint:errcheck // without it the read waits for the request
	buffer := make([]byte, 1500)
	for {
		n, peer, err := conn.ReadFrom(buffer)
		if err != nil {
			return wrong("no request of %s reached %s", b.where(from), b.where(at))
		}
		message, err := icmp.ParseMessage(1, buffer[:n])
		if err != nil || message.Type != ipv4.ICMPTypeEcho {
			continue
		}
		if peer.String() != b.fill(want) {
			return wrong("%s sees %s as %s, not as %s (see: ip netns exec %s tcpdump -n icmp)", b.where(at), b.where(from), peer, b.fill(want), b.netns(at))
		}
		return nil
	}
}
