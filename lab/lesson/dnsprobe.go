package lesson

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// The types of question that the lessons ask.
const (
	typeA    = dnsmessage.TypeA
	typeAAAA = dnsmessage.TypeAAAA
)

// reply is what a resolver said.
type reply struct {
	status    string // NOERROR, NXDOMAIN …
	addresses []netip.Addr
}

// ask puts a question by UDP, see askBy.
func (b *bench) ask(node, server, name string, kind dnsmessage.Type, within time.Duration) (reply, error) {
	return b.askBy("udp", node, server, name, kind, within)
}

// askBy puts a question to a resolver from a node, and again for a while if
// nobody answers.
func (b *bench) askBy(protocol, node, server, name string, kind dnsmessage.Type, within time.Duration) (reply, error) {
	address := b.fill(server)
	question, err := dnsmessage.NewName(b.fill(name) + ".")
	if err != nil {
		return reply{}, fmt.Errorf("asking for %s: %w", name, err)
	}
	message := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: uint16(os.Getpid()), RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: question, Type: kind, Class: dnsmessage.ClassINET}},
	}
	packed, err := message.Pack()
	if err != nil {
		return reply{}, fmt.Errorf("asking for %s: %w", name, err)
	}
	for deadline := time.Now().Add(within); ; time.Sleep(20 * time.Millisecond) {
		var raw []byte
		if protocol == "tcp" {
			raw, err = b.exchangeTCP(node, address, packed)
		} else {
			raw, err = b.exchangeUDP(node, address, packed)
		}
		if err == nil {
			return readReply(raw)
		}
		if time.Now().After(deadline) {
			host, _, _ := strings.Cut(address, ":")
			return reply{}, wrong("%s gets no answer by %s from the resolver at %s for %s: %v (see: ip netns exec %s dig @%s %s)",
				b.where(node), strings.ToUpper(protocol), address, b.fill(name), errors.Unwrap(err), b.netns(node), host, b.fill(name))
		}
	}
}

func readReply(raw []byte) (reply, error) {
	var message dnsmessage.Message
	if err := message.Unpack(raw); err != nil {
		return reply{}, wrong("a resolver answers what is no DNS message: %v", err)
	}
	r := reply{status: status(message.RCode)}
	for _, answer := range message.Answers {
		switch body := answer.Body.(type) {
		case *dnsmessage.AResource:
			r.addresses = append(r.addresses, netip.AddrFrom4(body.A))
		case *dnsmessage.AAAAResource:
			r.addresses = append(r.addresses, netip.AddrFrom16(body.AAAA))
		}
	}
	return r, nil
}

// status is a code as dig prints it.
func status(code dnsmessage.RCode) string {
	switch code {
	case dnsmessage.RCodeSuccess:
		return "NOERROR"
	case dnsmessage.RCodeNameError:
		return "NXDOMAIN"
	case dnsmessage.RCodeServerFailure:
		return "SERVFAIL"
	case dnsmessage.RCodeRefused:
		return "REFUSED"
	}
	return code.String()
}

// attempt is how long one question waits for its answer.
const attempt = 500 * time.Millisecond

func (b *bench) exchangeUDP(node, server string, question []byte) ([]byte, error) {
	to, err := net.ResolveUDPAddr("udp4", server)
	if err != nil {
		return nil, fmt.Errorf("asking %s: %w", server, err)
	}
	var conn *net.UDPConn
	err = b.root.Inside(b.netns(node), func() error {
		conn, err = net.DialUDP("udp4", nil, to)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("asking %s: %w", server, err)
	}
	defer conn.Close()
	buffer := make([]byte, 1500)
	n := 0
	if err = conn.SetDeadline(time.Now().Add(attempt)); err == nil {
		if _, err = conn.Write(question); err == nil {
			n, err = conn.Read(buffer)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("asking %s: %w", server, err)
	}
	return buffer[:n], nil
}

func (b *bench) exchangeTCP(node, server string, question []byte) ([]byte, error) {
	var socket *os.File
	err := b.root.Inside(b.netns(node), func() (err error) {
		socket, err = dialHere(server)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("asking %s: %w", server, err)
	}
	defer socket.Close()
	conn, err := net.FileConn(socket)
	if err != nil {
		return nil, fmt.Errorf("asking %s: %w", server, err)
	}
	defer conn.Close()
	// By TCP a message has its length in front (RFC 1035, section 4.2.2).
	length := make([]byte, 2)
	answer := []byte{}
	if err = conn.SetDeadline(time.Now().Add(attempt)); err == nil {
		_, err = conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(question))), question...))
	}
	if err == nil {
		_, err = io.ReadFull(conn, length)
	}
	if err == nil {
		answer = make([]byte, binary.BigEndian.Uint16(length))
		_, err = io.ReadFull(conn, answer)
	}
	if err != nil {
		return nil, fmt.Errorf("asking %s: %w", server, err)
	}
	return answer, nil
}

// leaks tells whether a question to the resolver of node {A} is handed on to
// {C}. It asks a second one behind it that must be, so as to know when to stop
// looking.
func (b *bench) leaks(name string, kind dnsmessage.Type) (bool, error) {
	var conn net.PacketConn
	err := b.root.Inside(b.netns("{C}"), func() (err error) {
		conn, err = net.ListenIP("ip4:udp", &net.IPAddr{IP: net.IPv4zero})
		return err
	})
	if err != nil {
		return false, fmt.Errorf("opening a socket in %s: %w", b.where("{C}"), err)
	}
	defer conn.Close()
	// Nobody answers if the question is swallowed: that is no leak either.
	b.ask("{A}", "127.0.0.11:53", name, kind, 0) //nolint:errcheck // see above
	last := fmt.Sprintf("last-%d.example.org", time.Now().UnixNano())
	if _, err = b.ask("{A}", "127.0.0.11:53", last, typeA, patience); err != nil {
		return false, err
	}
	if err = conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return false, fmt.Errorf("looking at what reaches %s: %w", b.where("{C}"), err)
	}
	buffer := make([]byte, 1500)
	for {
		n, _, err := conn.ReadFrom(buffer)
		if err != nil {
			return false, wrong("no question of %s reaches %s (see: ip netns exec %s tcpdump -n udp port 53)", b.where("{A}"), b.where("{C}"), b.netns("{C}"))
		}
		const header = 8 // bytes of UDP in front of the message
		var message dnsmessage.Message
		if n < header || message.Unpack(buffer[header:n]) != nil || message.Response || len(message.Questions) != 1 {
			continue
		}
		switch asked := message.Questions[0]; strings.TrimSuffix(asked.Name.String(), ".") {
		case b.fill(name):
			if asked.Type == kind {
				return true, nil
			}
		case last:
			return false, nil
		}
	}
}
