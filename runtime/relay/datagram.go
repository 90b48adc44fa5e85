package relay

import (
	"net/netip"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	idle       = 90 * time.Second // after which a client that is silent counts as gone
	mostFlows  = 4096             // clients at once; more would exhaust descriptors
	largest    = 64 << 10         // bytes of a datagram
	eventBatch = 64
)

// flow is one client's conversation with the container over UDP: a socket of
// its own, so that the answers find back.
type flow struct {
	key    flowKey
	socket int           // that holds the published port
	server int           // connected to the container
	to     unix.Sockaddr // the client, with the link that an fe80:: address is on
	expiry *time.Timer
}

type flowKey struct {
	socket int
	client netip.AddrPort
	own    netip.Addr // which address of ours the client sent to
}

// scratch is the one buffer of the one goroutine that handles events.
func (r *Relay) scratch() []byte {
	if r.buf == nil {
		r.buf = make([]byte, largest)
	}
	return r.buf
}

// receive passes on datagrams of clients.
func (r *Relay) receive(fd int, s Service) {
	buf, oob := r.scratch(), make([]byte, 128)
	for range eventBatch {
		n, oobn, _, from, err := unix.Recvmsg(fd, buf, oob, unix.MSG_DONTWAIT)
		if err != nil {
			return
		}
		key := flowKey{fd, addrOf(from), destination(oob[:oobn])}
		if !s.allows(key.client.Addr(), key.own) {
			continue
		}
		if f := r.flow(key, from, s.To); f != nil {
			f.expiry.Reset(idle)
			unix.Write(f.server, buf[:n]) // UDP promises nothing: what cannot be sent is lost
		}
	}
}

// flow returns the client's flow, a new one if need be; nil if there can be none.
func (r *Relay) flow(key flowKey, client unix.Sockaddr, to netip.AddrPort) *flow {
	r.mu.Lock()
	f, full := r.byClient[key], len(r.flows) >= mostFlows
	r.mu.Unlock()
	if f != nil || full {
		return f
	}
	family, sa := sockaddr(to)
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	if unix.Connect(fd, sa) != nil {
		unix.Close(fd)
		return nil
	}
	f = &flow{key: key, socket: key.socket, server: fd, to: client}
	f.expiry = time.AfterFunc(idle, func() { r.end(f) })
	r.mu.Lock()
	r.flows[fd], r.byClient[key] = f, f
	r.mu.Unlock()
	if r.watch(fd) != nil {
		r.end(f)
		return nil
	}
	return f
}

// end closes a flow, once.
func (r *Relay) end(f *flow) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.flows[f.server] != f {
		return
	}
	delete(r.flows, f.server)
	delete(r.byClient, f.key)
	f.expiry.Stop()
	unix.Close(f.server) // which takes it out of the epoll set
}

// answer passes on datagrams of the container, from the address that the
// client had sent to.
func (r *Relay) answer(f *flow) {
	buf := r.scratch()
	for range eventBatch {
		n, err := unix.Read(f.server, buf)
		if err != nil { // nothing more, or the container refused: the client may try again
			return
		}
		f.expiry.Reset(idle)
		source := source6
		if f.key.client.Addr().Is4() {
			source = source4
		}
		unix.Sendmsg(f.socket, buf[:n], source(f.key.own), f.to, unix.MSG_DONTWAIT)
	}
}

// destination reads where a datagram was sent to (ip(7), ipv6(7)).
func destination(oob []byte) netip.Addr {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return netip.Addr{}
	}
	for _, m := range messages {
		switch {
		case m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= unix.SizeofInet4Pktinfo:
			return netip.AddrFrom4((*unix.Inet4Pktinfo)(unsafe.Pointer(&m.Data[0])).Addr)
		case m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= unix.SizeofInet6Pktinfo:
			return netip.AddrFrom16((*unix.Inet6Pktinfo)(unsafe.Pointer(&m.Data[0])).Addr)
		}
	}
	return netip.Addr{}
}

func source4(own netip.Addr) []byte {
	if !own.Is4() {
		return nil
	}
	return unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: own.As4()})
}

func source6(own netip.Addr) []byte {
	if !own.Is6() {
		return nil
	}
	return unix.PktInfo6(&unix.Inet6Pktinfo{Addr: own.As16()})
}
