// Package relay passes on what reaches a published port where address
// translation cannot: from an IPv6 client to a container that has IPv4 only,
// and from the host's own ::1, whose packets no route leads out of lo.
//
// By hand, for one port:
//
//	socat TCP6-LISTEN:8080,fork,reuseaddr TCP4:10.77.0.2:80
//
// It runs inside the container's shim, on the sockets that hold the ports
// anyway, so there is no process and no thread a port: one goroutine watches
// all sockets with epoll(7). The bytes of a TCP connection are moved by
// splice(2) and never enter the program. The server sees the host as its
// client; whoever must know the true one connects over IPv4.
//
// Like all of the shim, the package does without net and fmt.
package relay

import (
	"errors"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Service says where what reaches a socket goes.
type Service struct {
	Datagrams bool           // UDP; otherwise the socket is listening for TCP
	To        netip.AddrPort // the container
	Sources   []netip.Prefix // who may; none: everybody. The host itself always may.
}

// Relay serves sockets. Its methods are safe for concurrent use.
type Relay struct {
	epoll *os.File
	raw   syscall.RawConn
	buf   []byte // the loop's

	mu       sync.Mutex
	services map[int]Service
	flows    map[int]*flow     // by the descriptor towards the container
	byClient map[flowKey]*flow // the same ones
}

// New starts a relay without sockets. It lasts as long as the process.
func New() (*Relay, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create", err)
	}
	if err = unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	r := &Relay{
		epoll: os.NewFile(uintptr(fd), "relay"), services: map[int]Service{}, flows: map[int]*flow{}, byClient: map[flowKey]*flow{},
	}
	if r.raw, err = r.epoll.SyscallConn(); err != nil {
		r.epoll.Close()
		return nil, err
	}
	go r.loop()
	return r, nil
}

// Serve begins to serve a socket, or changes where it leads. The socket does
// not block, and one for datagrams tells their destination (IP_PKTINFO). The
// descriptor remains the caller's, who calls Stop before closing it.
func (r *Relay) Serve(fd int, s Service) error {
	r.mu.Lock()
	_, known := r.services[fd]
	r.services[fd] = s
	r.mu.Unlock()
	if known {
		return nil
	}
	if s.Datagrams {
		// What came before the rules that lead past the socket was dropped.
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0); err != nil && !errors.Is(err, unix.ENOENT) {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	return r.watch(fd)
}

func (r *Relay) watch(fd int) error {
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}
	return r.control(func(epoll int) error { return unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, fd, &event) })
}

func (r *Relay) control(f func(epoll int) error) error {
	var got error
	err := r.raw.Control(func(epoll uintptr) { got = f(int(epoll)) })
	return errors.Join(err, os.NewSyscallError("epoll_ctl", got))
}

// Stop ends the service of a socket. Connections under way go on.
func (r *Relay) Stop(fd int) {
	r.mu.Lock()
	_, known := r.services[fd]
	delete(r.services, fd)
	var stale []*flow
	for _, f := range r.flows {
		if f.socket == fd {
			stale = append(stale, f)
		}
	}
	r.mu.Unlock()
	for _, f := range stale {
		r.end(f)
	}
	if known {
		r.control(func(epoll int) error { return unix.EpollCtl(epoll, unix.EPOLL_CTL_DEL, fd, nil) })
	}
}

// loop handles what arrives, on one goroutine.
func (r *Relay) loop() {
	var events [64]unix.EpollEvent
	for {
		n := 0
		err := r.raw.Read(func(epoll uintptr) bool {
			n, _ = unix.EpollWait(int(epoll), events[:], 0)
			return n > 0
		})
		if err != nil {
			return
		}
		for _, event := range events[:max(n, 0)] {
			r.handle(int(event.Fd))
		}
	}
}

func (r *Relay) handle(fd int) {
	r.mu.Lock()
	service, isSocket := r.services[fd]
	f := r.flows[fd]
	r.mu.Unlock()
	switch {
	case isSocket && service.Datagrams:
		r.receive(fd, service)
	case isSocket:
		r.accept(fd, service)
	case f != nil:
		r.answer(f)
	}
}

// accept takes what connections there are, so many at a time.
func (r *Relay) accept(fd int, s Service) {
	for range 64 {
		client, from, err := unix.Accept4(fd, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		switch {
		case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE), errors.Is(err, unix.ENOBUFS):
			time.Sleep(10 * time.Millisecond) // or the same event would come at once
			return
		case err != nil:
			return
		}
		at, _ := unix.Getsockname(client)
		if !s.allows(addrOf(from).Addr(), addrOf(at).Addr()) {
			reset(client)
			continue
		}
		go stream(client, s.To)
	}
}

// allows tells whether a client may use the service, at an address of ours. A
// packet from elsewhere to 127.0.0.1 is forged, whatever let it in.
func (s Service) allows(client, own netip.Addr) bool {
	if own.IsLoopback() && !client.IsLoopback() {
		return false
	}
	if len(s.Sources) == 0 || client.IsLoopback() || client == own {
		return true
	}
	for _, source := range s.Sources {
		if source.Contains(client) {
			return true
		}
	}
	return false
}

func addrOf(sa unix.Sockaddr) netip.AddrPort {
	switch a := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port))
	}
	return netip.AddrPort{}
}

func sockaddr(to netip.AddrPort) (family int, sa unix.Sockaddr) {
	if to.Addr().Is4() {
		return unix.AF_INET, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
	}
	return unix.AF_INET6, &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
}

// reset closes a connection so that the peer sees it fail.
func reset(fd int) {
	unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	unix.Close(fd)
}
