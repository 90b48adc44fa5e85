package kernel

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan"
)

// Hold is a port of the machine that is to be held, so that no other program
// can have it: what nc -l does, without ever reading.
type Hold struct {
	Protocol string // tcp, udp or sctp
	At       netip.AddrPort

	// Serve leaves a listening socket open to the world, for somebody who will
	// accept. Any other is deaf: what reaches it is dropped, not refused, so that
	// a peer tries again until the rules are in place that lead packets past the
	// socket, or until somebody who reads from it takes the filter away.
	Serve bool
}

func (p Hold) String() string { return fmt.Sprintf("%s/%s", p.At, p.Protocol) }

// PortError says which of several ports could not be held.
type PortError struct {
	Index  int  // in the arguments of HoldPorts
	Taken  bool // another socket has it: a port next to it may do
	Holder Holder
	err    error
}

func (e *PortError) Error() string { return e.err.Error() }

// Unwrap returns the cause, a *linkspan.Error or what the kernel said.
func (e *PortError) Unwrap() error { return e.err }

// Sockets are descriptors of open sockets, as bare numbers: thousands of them
// are made and handed on at once, and nothing waits on them here.
type Sockets []int

// Close closes all of them.
func (s Sockets) Close() {
	for _, fd := range s {
		unix.Close(fd)
	}
}

// HoldPorts opens a socket for each port in the machine's own namespace: all,
// or none and a *PortError. A port is free again when the last copy of its
// socket is closed, whoever has it then and however they ended.
func (h *Host) HoldPorts(holds []Hold) (Sockets, error) {
	if len(holds) == 0 {
		return nil, nil
	}
	sockets, err := h.openAll(holds)
	if err == nil {
		return sockets, nil
	}
	sockets.Close()
	var failed *PortError
	if errors.As(err, &failed) {
		failed.err = h.whyNotHeld(holds[failed.Index], failed)
	}
	return nil, err
}

// openAll opens a socket for each port, long lists in several pieces at once. On
// an error it returns those that it opened, and the first port that failed.
func (h *Host) openAll(holds []Hold) (Sockets, error) {
	pieces := min(runtime.GOMAXPROCS(0), (len(holds)+worthAThread-1)/worthAThread)
	each := (len(holds) + pieces - 1) / pieces
	opened, errs := make([]Sockets, pieces), make([]error, pieces)
	var all sync.WaitGroup
	for i := range pieces {
		first := min(i*each, len(holds))
		piece := holds[first:min(first+each, len(holds))]
		all.Go(func() {
			errs[i] = h.Inside("", func() error { return h.openPiece(piece, first, &opened[i]) })
		})
	}
	all.Wait()
	return slices.Concat(opened...), cmp.Or(errs...)
}

// worthAThread is how many sockets take longer than starting a thread for them.
const worthAThread = 256

func (h *Host) openPiece(holds []Hold, first int, opened *Sockets) error {
	*opened = make(Sockets, 0, len(holds))
	for i, hold := range holds {
		fd, err := hold.open(&h.deaf)
		if err != nil {
			return &PortError{Index: first + i, Taken: errors.Is(err, unix.EADDRINUSE), err: err}
		}
		*opened = append(*opened, fd)
	}
	return nil
}

// whyNotHeld words a failure as Docker does, and adds who is in the way.
func (h *Host) whyNotHeld(hold Hold, failed *PortError) error {
	switch {
	case failed.Taken:
		failed.Holder = h.PortHolder(hold)
		return fmt.Errorf("failed to bind host port %s: address already in use: %s", hold, failed.Holder)
	case errors.Is(failed.err, unix.EADDRNOTAVAIL):
		return fmt.Errorf("failed to bind host port %s: cannot assign requested address: no interface of this host has %s (see: ip addr): %w", hold, hold.At.Addr(), failed.err)
	case errors.Is(failed.err, unix.EPROTONOSUPPORT), errors.Is(failed.err, unix.ESOCKTNOSUPPORT), errors.Is(failed.err, unix.EAFNOSUPPORT):
		return linkspan.Errorf(linkspan.ErrUnsupported, "failed to bind host port %s: this kernel lacks the protocol %s (see: modprobe %s): %w", hold, hold.Protocol, hold.Protocol, failed.err)
	}
	return fmt.Errorf("failed to bind host port %s: %w", hold, failed.err)
}

func (p Hold) open(d *deafness) (int, error) {
	family := unix.AF_INET
	if p.At.Addr().Is6() {
		family = unix.AF_INET6
	}
	kind, protocol := unix.SOCK_STREAM, 0
	switch p.Protocol {
	case "udp":
		kind = unix.SOCK_DGRAM
	case "sctp":
		protocol = unix.IPPROTO_SCTP
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	if err != nil {
		return -1, err
	}
	if err = p.prepare(fd, family, kind, d); err == nil {
		err = unix.Bind(fd, p.sockaddr())
	}
	if err == nil && kind == unix.SOCK_STREAM {
		backlog := 1
		if p.Serve {
			backlog = 512
		}
		err = unix.Listen(fd, backlog)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func (p Hold) prepare(fd, family, kind int, d *deafness) error {
	if kind == unix.SOCK_STREAM {
		// Connections that ended lately are no reason to refuse; a listener is,
		// with this option or without.
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return err
		}
	}
	if family == unix.AF_INET6 {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
			return err
		}
	}
	if p.Serve && kind == unix.SOCK_DGRAM {
		if err := askForDestination(fd, family); err != nil {
			return err
		}
	}
	if !p.Serve || kind == unix.SOCK_DGRAM {
		return d.attach(fd)
	}
	return nil
}

// askForDestination makes the kernel tell which address a datagram was sent
// to: an answer must come from there (ip(7), IP_PKTINFO).
func askForDestination(fd, family int) error {
	if family == unix.AF_INET6 {
		return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
	}
	return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
}

func (p Hold) sockaddr() unix.Sockaddr {
	if p.At.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(p.At.Port()), Addr: p.At.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(p.At.Port()), Addr: p.At.Addr().As16()}
}

// ListensIPv6 tells whether programs of the machine can listen on IPv6 at all.
func (h *Host) ListensIPv6() bool {
	return h.Inside("", func() error {
		fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Bind(fd, &unix.SockaddrInet6{Addr: netip.IPv6Loopback().As16()})
	}) == nil
}

// PortRange returns the ports that the kernel itself draws from when a program
// does not care (ip_local_port_range), and those of them that it leaves alone
// (ip_local_reserved_ports), as the machine's own namespace has them.
func (h *Host) PortRange() (first, last uint16, reserved func(uint16) bool, err error) {
	reserved = func(uint16) bool { return false }
	text, err := h.ReadSysctl("", "net/ipv4/ip_local_port_range")
	if err != nil {
		return 0, 0, reserved, err
	}
	if _, err = fmt.Sscan(text, &first, &last); err != nil || first > last || first == 0 {
		return 49153, 65535, reserved, nil //nolint:nilerr // Docker's range, where the kernel's makes no sense
	}
	text, err = h.ReadSysctl("", "net/ipv4/ip_local_reserved_ports")
	if err != nil {
		return 0, 0, reserved, err
	}
	return first, last, within(text), nil
}

// within reads a list such as 8080,9148-9150.
func within(list string) func(uint16) bool {
	type span struct{ from, to uint16 }
	var spans []span
	for part := range strings.SplitSeq(list, ",") {
		var s span
		switch n, _ := fmt.Sscanf(part, "%d-%d", &s.from, &s.to); n {
		case 2:
			spans = append(spans, s)
		case 1:
			spans = append(spans, span{s.from, s.from})
		}
	}
	return func(port uint16) bool {
		for _, s := range spans {
			if s.from <= port && port <= s.to {
				return true
			}
		}
		return false
	}
}
