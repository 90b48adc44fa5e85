package dns

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/linkspan/linkspan"
)

// Server is what the resolvers of one process share: the buffers that a packet
// needs while it is being answered. An idle resolver holds none, so a sandbox
// costs two parked goroutines and a few hundred bytes.
type Server struct {
	batches sync.Pool // of *batch
	replies sync.Pool // of *[maxMessage]byte
}

// NewServer returns a Server, on which any number of resolvers may be started.
func NewServer() *Server {
	return &Server{
		batches: sync.Pool{New: func() any { return newBatch() }},
		replies: sync.Pool{New: func() any { return new([maxMessage]byte) }},
	}
}

// Resolver answers the questions of one sandbox. Its methods are safe for
// concurrent use.
type Resolver struct {
	server    *Server
	udp       *net.UDPConn
	udpRaw    syscall.RawConn
	tcp       net.Listener
	view      atomic.Pointer[view]
	external  externals
	forwarder *forwarder
	stats     counters

	ctx     context.Context
	cancel  context.CancelFunc
	closing atomic.Bool
	done    sync.WaitGroup // the two listening goroutines, TCP connections, forwarded questions
	conns   connections
}

// Stats counts what a resolver did since Start.
type Stats struct {
	Local     uint64 // answered from the zones
	Forwarded uint64 // handed to an upstream server, with whatever success
	Failed    uint64 // answered SERVFAIL: every upstream server failed, or there was none
	Refused   uint64 // answered REFUSED: the budget was spent
}

type counters struct {
	local, forwarded, failed, refused atomic.Uint64
}

// Start serves on both sockets with the given view until Close. The resolver
// owns the two from now on. The caller opens them, in whatever namespace, and
// may keep or hand out duplicates of their descriptors.
func (s *Server) Start(udp *net.UDPConn, tcp net.Listener, c Config) (*Resolver, error) {
	if udp == nil || tcp == nil {
		return nil, linkspan.Errorf(linkspan.ErrInvalid, "starting a resolver: it needs a UDP socket and a TCP listener")
	}
	raw, err := udp.SyscallConn()
	if err != nil {
		return nil, linkspan.Errorf(linkspan.ErrUnavailable, "starting a resolver on %s: %w", udp.LocalAddr(), err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &Resolver{server: s, udp: udp, udpRaw: raw, tcp: tcp, ctx: ctx, cancel: cancel}
	r.view.Store(newView(c))
	r.forwarder = newForwarder(r)
	r.conns.init()
	r.done.Add(2)
	go r.serveUDP()
	go r.serveTCP()
	return r, nil
}

// Update replaces the view. Questions that are being answered finish with the
// old one; no question is lost and no socket is touched.
func (r *Resolver) Update(c Config) {
	v := newView(c)
	r.view.Store(v)
	r.forwarder.retain(v.upstreams)
}

// Stats returns the counters.
func (r *Resolver) Stats() Stats {
	return Stats{
		Local:     r.stats.local.Load(),
		Forwarded: r.stats.forwarded.Load(),
		Failed:    r.stats.failed.Load(),
		Refused:   r.stats.refused.Load(),
	}
}

// Close stops serving, abandons forwarded questions and closes this process's
// descriptors of the two sockets, without shutting the sockets down: whoever
// holds duplicates keeps the ports, and further questions queue there. It
// returns when nothing of the resolver runs any more. An abandoned question
// gets no answer rather than a failure, so that the client asks again.
func (r *Resolver) Close() error {
	if r.closing.Swap(true) {
		return nil
	}
	r.cancel()
	err := errors.Join(r.udp.Close(), r.tcp.Close())
	r.conns.closeAll()
	r.forwarder.close()
	r.done.Wait()
	if err != nil {
		return linkspan.Errorf(linkspan.ErrUnavailable, "closing a resolver's sockets: %w", err)
	}
	return nil
}
