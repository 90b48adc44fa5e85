package dns

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"syscall"
	"time"

	mdns "github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// ask puts the job's question to one server over the client's own transport.
// It returns the server's answer with the client's ID, as the server wrote it
// otherwise, or nil if the server failed, refused, or did not answer in time;
// late tells the last apart.
func (u Upstream) ask(ctx context.Context, j job, r *Resolver) ([]byte, bool) {
	ctx, cancel := context.WithTimeout(ctx, j.view.limits.Timeout)
	defer cancel()
	network, exchange := "udp", u.exchangeUDP
	if j.tcp {
		network, exchange = "tcp", u.exchangeTCP
	}
	conn, err := u.dial(ctx, network)
	if err != nil {
		return nil, timedOut(err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()

	asked := append([]byte(nil), j.query...)
	rand.Read(asked[:2]) // never fails: see crypto/rand.Read
	answer, err := exchange(conn, asked, r)
	if err != nil {
		return nil, timedOut(err)
	}
	if !acceptable(answer, j.view, &r.external) {
		return nil, false
	}
	copy(answer, j.query[:2])
	return answer, false
}

func (u Upstream) dial(ctx context.Context, network string) (net.Conn, error) {
	if u.Dial != nil {
		return u.Dial(ctx, network, u.Addr.String())
	}
	return new(net.Dialer).DialContext(ctx, network, u.Addr.String())
}

// exchangeUDP sends the question and waits for the datagram that answers it,
// past any that do not.
func (u Upstream) exchangeUDP(conn net.Conn, asked []byte, r *Resolver) ([]byte, error) {
	if _, err := conn.Write(asked); err != nil {
		return nil, err
	}
	for {
		answer, err := r.server.readDatagram(conn)
		if err != nil {
			return nil, err
		}
		if answers(answer, asked) {
			return answer, nil
		}
	}
}

// exchangeTCP is the same over a stream, where a wrong answer is final.
func (u Upstream) exchangeTCP(conn net.Conn, asked []byte, _ *Resolver) ([]byte, error) {
	if err := writeFrame(conn, asked); err != nil {
		return nil, err
	}
	answer, err := readFrame(conn)
	if err != nil {
		return nil, err
	}
	if !answers(answer, asked) {
		return nil, errors.New("answer to another question")
	}
	return answer, nil
}

// readDatagram reads one datagram of any length. Most of a forwarded
// question's life is this wait, so the buffer is borrowed only when there is
// something to read: hundreds of questions to a dead server hold none.
func (s *Server) readDatagram(conn net.Conn) ([]byte, error) {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		buf := make([]byte, maxMessage)
		n, err := conn.Read(buf)
		return buf[:n], err
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil, err
	}
	var (
		answer []byte
		failed error
	)
	err = raw.Read(func(fd uintptr) bool {
		buf := s.replies.Get().(*[maxMessage]byte)
		defer s.replies.Put(buf)
		var n int
		n, failed = unix.Read(int(fd), buf[:])
		for errors.Is(failed, unix.EINTR) {
			n, failed = unix.Read(int(fd), buf[:])
		}
		switch {
		case errors.Is(failed, unix.EAGAIN):
			return false
		case failed != nil:
			return true
		}
		answer = append([]byte(nil), buf[:n]...)
		return true
	})
	if err != nil { // closed, or out of time; failed is then what the last try said, EAGAIN
		return nil, err
	}
	return answer, failed
}

// answers reports whether a packet answers the question asked: the ID is right
// and the question is repeated. What a forger must guess is the ID and our
// port. A server that could not read the question repeats none; that says no
// more than that it failed, so only failures may do so.
func answers(pkt, asked []byte) bool {
	if len(pkt) < headerLen || !bytes.Equal(pkt[:2], asked[:2]) {
		return false
	}
	flags := binary.BigEndian.Uint16(pkt[2:])
	if flags&bitQR == 0 || flags>>11&0xf != mdns.OpcodeQuery {
		return false
	}
	end := questionEnd(asked)
	if binary.BigEndian.Uint16(pkt[4:]) == 0 {
		return flags&0xf != mdns.RcodeSuccess && flags&0xf != mdns.RcodeNameError
	}
	if questionEnd(pkt) != end {
		return false
	}
	return bytes.Equal(pkt[end-4:end], asked[end-4:end]) && equalNames(pkt[headerLen:end-4], asked[headerLen:end-4])
}

// equalNames compares two names of one length on the wire without regard to
// ASCII case. The length bytes, at most 63, are below all letters.
func equalNames(a, b []byte) bool {
	for i := range a {
		x, y := a[i], b[i]
		if 'A' <= x && x <= 'Z' {
			x += 'a' - 'A'
		}
		if 'A' <= y && y <= 'Z' {
			y += 'a' - 'A'
		}
		if x != y {
			return false
		}
	}
	return true
}

// acceptable reports whether an answer is worth giving to the client: not a
// failure of the server, and readable. It notes addresses of ours in it.
func acceptable(answer []byte, v *view, external *externals) bool {
	flags := binary.BigEndian.Uint16(answer[2:])
	rcode := int(flags & 0xf)
	if rcode == mdns.RcodeServerFailure || rcode == mdns.RcodeRefused || binary.BigEndian.Uint16(answer[4:]) == 0 {
		return false
	}
	if flags&bitTC != 0 {
		return true // cut off anywhere: the client asks again over TCP
	}
	var msg mdns.Msg
	if msg.Unpack(answer) != nil {
		return false
	}
	external.learn(v, msg.Answer)
	return true
}

func timedOut(err error) bool {
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded)
}
