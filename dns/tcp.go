package dns

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

const (
	maxMessage = 65535            // bytes, RFC 1035, section 4.2.2
	maxConns   = 64               // connections to one resolver; more wait in the kernel's backlog
	idleTCP    = 10 * time.Second // RFC 7766, section 6.2.3: in the order of seconds
)

// connections are the accepted TCP connections of one resolver.
type connections struct {
	slots chan struct{}

	mu     sync.Mutex
	open   map[net.Conn]struct{}
	closed bool
}

func (c *connections) init() {
	c.slots = make(chan struct{}, maxConns)
	c.open = make(map[net.Conn]struct{})
}

// add reports false, and closes the connection, after closeAll.
func (c *connections) add(conn net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		_ = conn.Close()
		return false
	}
	c.open[conn] = struct{}{}
	return true
}

func (c *connections) remove(conn net.Conn) {
	c.mu.Lock()
	delete(c.open, conn)
	c.mu.Unlock()
	_ = conn.Close()
	<-c.slots
}

func (c *connections) closeAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for conn := range c.open {
		_ = conn.Close()
	}
}

// serveTCP accepts connections until Close.
func (r *Resolver) serveTCP() {
	defer r.done.Done()
	for {
		select {
		case r.conns.slots <- struct{}{}:
		case <-r.ctx.Done():
			return
		}
		conn, err := r.tcp.Accept()
		if err == nil && r.conns.add(conn) {
			r.done.Add(1)
			go r.serveConn(conn)
			continue
		}
		<-r.conns.slots
		if r.closing.Load() || errors.Is(err, net.ErrClosed) {
			return
		}
		time.Sleep(50 * time.Millisecond) // out of descriptors, most likely
	}
}

// serveConn answers the queries of one connection. Those that are forwarded do
// not hold up those behind them: answers go back as they come (RFC 7766,
// section 6.2.1.1).
func (r *Resolver) serveConn(conn net.Conn) {
	defer r.done.Done()
	defer r.conns.remove(conn)
	var (
		writing sync.Mutex
		pending sync.WaitGroup
	)
	write := func(answer []byte) {
		writing.Lock()
		defer writing.Unlock()
		_ = conn.SetWriteDeadline(time.Now().Add(idleTCP))
		if writeFrame(conn, answer) != nil {
			_ = conn.Close() // half a frame may be out: nothing more can follow
		}
	}
	for {
		_ = conn.SetReadDeadline(time.Now().Add(idleTCP))
		pkt, err := readFrame(conn)
		if err != nil {
			break
		}
		v := r.view.Load()
		answer, what := v.answer(pkt, maxMessage, &r.external, nil)
		switch what {
		case reply:
			r.stats.local.Add(1)
			write(answer)
		case forward:
			pending.Add(1)
			r.forwarder.submit(job{view: v, query: pkt, tcp: true, reply: func(answer []byte) {
				defer pending.Done()
				if answer != nil {
					write(answer)
				}
			}})
		}
	}
	pending.Wait()
}

// readFrame reads one message with its length in front.
func readFrame(r io.Reader) ([]byte, error) {
	var size [2]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	pkt := make([]byte, binary.BigEndian.Uint16(size[:]))
	_, err := io.ReadFull(r, pkt)
	return pkt, err
}

// writeFrame writes one message with its length in front, in one segment.
func writeFrame(w io.Writer, msg []byte) error {
	frame := make([]byte, 2, 2+len(msg))
	binary.BigEndian.PutUint16(frame, uint16(len(msg)))
	_, err := w.Write(append(frame, msg...))
	return err
}
