package dns

import (
	"encoding/binary"
	"net/netip"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	batchLen  = 16   // datagrams read or written with one system call
	queryLen  = 4096 // the longest query taken over UDP; queries of real clients fit in a tenth
	answerLen = 1536 // the longest answer by hand

	// maxYields is how often the reader lets others on its CPU run before it
	// parks. Under load the clients ask the next batch meanwhile, and neither
	// side pays for a sleep and a wake-up: without it ten clients got 10,000 to
	// 60,000 answers a second, with it 56,000 to 84,000; more gained nothing.
	// With nothing else to run it is a few microseconds after an answer.
	maxYields = 4
)

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32 // bytes received, or sent
}

// batch is the memory for one round: read up to batchLen queries, answer them,
// send the answers. The kernel is given pointers into it, hence unsafe; all of
// them are to memory that the batch keeps alive.
type batch struct {
	query query
	read  [batchLen]mmsghdr
	write [batchLen]mmsghdr
	inIO  [batchLen]unix.Iovec
	outIO [batchLen]unix.Iovec
	from  [batchLen]unix.RawSockaddrInet6 // large enough for IPv4 as well
	in    [batchLen][queryLen]byte
	out   [batchLen][answerLen]byte
}

func newBatch() *batch {
	b := new(batch)
	for i := range b.read {
		b.inIO[i].Base = &b.in[i][0]
		b.inIO[i].SetLen(queryLen)
		b.read[i].hdr.Name = (*byte)(unsafe.Pointer(&b.from[i]))
		b.read[i].hdr.Iov = &b.inIO[i]
		b.read[i].hdr.SetIovlen(1)
		b.write[i].hdr.Iov = &b.outIO[i]
		b.write[i].hdr.SetIovlen(1)
	}
	return b
}

// serveUDP answers datagrams until Close. It is one goroutine that waits in
// the netpoller: local questions are answered on it, without a hand-over to
// another goroutine, which would cost more than the answer.
func (r *Resolver) serveUDP() {
	defer r.done.Done()
	for !r.closing.Load() {
		// Read calls drain whenever the socket may be readable, and returns
		// when drain says that it is finished or the socket is closed.
		if err := r.udpRaw.Read(r.drain); err != nil && !r.closing.Load() {
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// drain answers what is queued on the socket. False asks the netpoller to wait
// for more.
func (r *Resolver) drain(fd uintptr) bool {
	b := r.server.batches.Get().(*batch)
	defer r.server.batches.Put(b)
	yields := 0
	for !r.closing.Load() {
		n, errno := b.receive(fd)
		switch errno {
		case 0:
			r.answerBatch(fd, b, n)
			yields = 0
		case unix.EAGAIN:
			if yields == maxYields {
				return false
			}
			yields++
			_, _, _ = unix.Syscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
		case unix.EINTR:
		default:
			// A pending error of the socket (an ICMP message, say) is cleared
			// by being reported; anything lasting must not become a hot loop.
			time.Sleep(time.Millisecond)
		}
	}
	return true
}

// receive reads up to batchLen datagrams without waiting.
func (b *batch) receive(fd uintptr) (int, unix.Errno) {
	for i := range b.read {
		b.read[i].hdr.Namelen = unix.SizeofSockaddrInet6
	}
	n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&b.read)), batchLen, unix.MSG_DONTWAIT, 0, 0)
	return int(n), errno
}

// answerBatch answers the first n datagrams of b.
func (r *Resolver) answerBatch(fd uintptr, b *batch, n int) {
	v := r.view.Load()
	answers, local := 0, uint64(0)
	for i := range n {
		pkt := b.in[i][:b.read[i].n]
		out, what := r.answerDatagram(v, b, i, answers, pkt)
		switch what {
		case reply:
			h := &b.write[answers].hdr
			h.Name, h.Namelen = b.read[i].hdr.Name, b.read[i].hdr.Namelen
			b.outIO[answers].Base = &out[0]
			b.outIO[answers].SetLen(len(out))
			answers++
			local++
		case forward:
			r.forwardDatagram(v, pkt, b.from[i])
		}
	}
	r.stats.local.Add(local)
	b.send(fd, answers)
}

func (r *Resolver) answerDatagram(v *view, b *batch, i, slot int, pkt []byte) ([]byte, outcome) {
	if b.read[i].hdr.Flags&unix.MSG_TRUNC != 0 {
		return v.answer(pkt[:headerLen], 0, &r.external, nil) // a format error
	}
	out := b.out[slot][:]
	if size, what, ok := v.answerFast(&b.query, out, pkt, &r.external, nil); ok {
		return out[:size], what
	}
	return v.answer(pkt, 0, &r.external, nil)
}

// send writes the first n answers. An answer that the socket does not take at
// once is lost, as datagrams are; the client asks again.
func (b *batch) send(fd uintptr, n int) {
	for done := 0; done < n; {
		sent, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&b.write[done])), uintptr(n-done), unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			done += int(sent)
		case unix.EINTR:
		default:
			done++ // the first of the rest is the one that failed
		}
	}
	for i := range n {
		b.outIO[i].Base = nil // do not keep a long answer alive from the pool
	}
}

// forwardDatagram hands a copy of the query to the forwarder.
func (r *Resolver) forwardDatagram(v *view, pkt []byte, from unix.RawSockaddrInet6) {
	client := addrPort(&from)
	r.forwarder.submit(job{
		view:  v,
		query: append([]byte(nil), pkt...),
		reply: func(answer []byte) {
			if answer == nil {
				return
			}
			_, _ = r.udp.WriteToUDPAddrPort(answer, client) // lost answers are asked for again
		},
	})
}

// addrPort reads a socket address of either family.
func addrPort(sa *unix.RawSockaddrInet6) netip.AddrPort {
	port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&sa.Port))[:])
	if sa.Family == unix.AF_INET {
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
		return netip.AddrPortFrom(netip.AddrFrom4(v4.Addr), port)
	}
	return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), port)
}
