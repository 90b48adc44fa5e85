package dns

import (
	"encoding/binary"
	"net"

	mdns "github.com/miekg/dns"
)

// outcome says what becomes of a packet.
type outcome uint8

const (
	drop    outcome = iota // not a query: answering could start a loop
	reply                  // the bytes are the answer
	forward                // a good query that the tables know nothing about
)

// answerFast tries the path by hand. Reply comes with the length of the answer
// in out; false means that the packet is one for answer.
func (v *view) answerFast(q *query, out, pkt []byte, external *externals, pick func(int) int) (int, outcome, bool) {
	if !q.parse(pkt) {
		return 0, drop, false
	}
	found := v.ask(q.qtype, q.name, external)
	if found.kind == foreign {
		return 0, forward, true
	}
	n := q.render(out, pkt, found, pick)
	return n, reply, n > 0
}

// answer is the library path: any packet, any length. Limit is the most that
// the transport carries: 0 stands for UDP, where the client says.
func (v *view) answer(pkt []byte, limit int, external *externals, pick func(int) int) ([]byte, outcome) {
	if len(pkt) < headerLen {
		return nil, drop
	}
	flags := binary.BigEndian.Uint16(pkt[2:])
	if flags&bitQR != 0 {
		return nil, drop
	}
	if flags>>11&0xf != mdns.OpcodeQuery {
		return headerOnly(pkt, mdns.RcodeNotImplemented), reply
	}
	var req mdns.Msg
	if questionEnd(pkt) == 0 || req.Unpack(pkt) != nil || len(req.Question) != 1 {
		return headerOnly(pkt, mdns.RcodeFormatError), reply
	}
	opt := req.IsEdns0()
	if opt != nil && opt.Version() != 0 {
		return failure(pkt, mdns.RcodeBadVers), reply
	}
	q := req.Question[0]
	if q.Qclass != mdns.ClassINET {
		return nil, forward
	}
	found := v.ask(q.Qtype, []byte(fold(q.Name)), external)
	if found.kind == foreign {
		return nil, forward
	}
	if limit == 0 {
		limit = minUDP
		if opt != nil {
			limit = max(limit, int(opt.UDPSize()))
		}
	}
	resp := newReply(&req)
	resp.Answer = records(q, found, pick)
	resp.Truncate(limit)
	resp.Compress = true
	out, err := resp.Pack()
	if err != nil { // the name of a container may be longer than a label
		return failure(pkt, mdns.RcodeServerFailure), reply
	}
	return out, reply
}

// newReply returns an empty NOERROR to req with the flags of all our answers:
// recursion is available, nothing is authoritative.
func newReply(req *mdns.Msg) *mdns.Msg {
	resp := new(mdns.Msg).SetReply(req)
	resp.RecursionAvailable = true
	resp.Compress = true
	if opt := req.IsEdns0(); opt != nil {
		resp.SetEdns0(ourUDP, opt.Do())
	}
	return resp
}

// records turns a verdict into resource records.
func records(q mdns.Question, v verdict, pick func(int) int) []mdns.RR {
	header := mdns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: mdns.ClassINET, Ttl: ttl}
	if v.ptr != nil {
		return []mdns.RR{&mdns.PTR{Hdr: header, Ptr: v.ptr.target}}
	}
	order := make([]uint16, len(v.v4)+len(v.v6))
	permutation(order, pick)
	rrs := make([]mdns.RR, 0, len(order))
	for _, i := range order {
		if v.v4 != nil {
			rrs = append(rrs, &mdns.A{Hdr: header, A: net.IP(v.v4[i][:])})
		} else {
			rrs = append(rrs, &mdns.AAAA{Hdr: header, AAAA: net.IP(v.v6[i][:])})
		}
	}
	return rrs
}

// failure returns the answer to a good query that carries a code and no
// records.
func failure(pkt []byte, rcode int) []byte {
	var req mdns.Msg
	if req.Unpack(pkt) != nil {
		return headerOnly(pkt, rcode)
	}
	resp := newReply(&req)
	resp.Rcode = rcode
	out, err := resp.Pack()
	if err != nil {
		return headerOnly(pkt, rcode)
	}
	return out
}

// headerOnly returns the answer to a packet of which no more than the header
// can be trusted.
func headerOnly(pkt []byte, rcode int) []byte {
	out := make([]byte, headerLen)
	copy(out, pkt[:4])
	flags := binary.BigEndian.Uint16(pkt[2:])
	binary.BigEndian.PutUint16(out[2:], bitQR|bitRA|flags&(0x7800|bitRD|bitCD)|uint16(rcode&0xf))
	return out
}

// questionEnd returns the offset of the first byte after the one question of a
// message, or 0 if there is not exactly one or its name is not written out. A
// first name has nothing before it to point to.
func questionEnd(pkt []byte) int {
	if len(pkt) < headerLen || binary.BigEndian.Uint16(pkt[4:]) != 1 {
		return 0
	}
	off := headerLen
	for off < len(pkt) {
		size := int(pkt[off])
		off++
		if size == 0 {
			if off+4 > len(pkt) || off-headerLen > maxName {
				return 0
			}
			return off + 4
		}
		if size > maxLabel {
			return 0
		}
		off += size
	}
	return 0
}
