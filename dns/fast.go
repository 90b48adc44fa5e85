package dns

import (
	"encoding/binary"

	mdns "github.com/miekg/dns"
)

const (
	headerLen = 12  // RFC 1035, section 4.1.1
	optLen    = 11  // an OPT record without options, RFC 6891, section 6.1.2
	maxLabel  = 63  // bytes
	maxName   = 255 // bytes on the wire, the final zero included
	minUDP    = 512 // bytes that every client accepts over UDP
	ourUDP    = 1232
	maxFast   = 64 // records; longer answers take the library path

	bitQR, bitTC, bitRD, bitRA, bitAD, bitCD = 0x8000, 0x0200, 0x0100, 0x0080, 0x0020, 0x0010
	bitDO                                    = 0x8000 // in the OPT record's TTL, low half
)

// folded returns the lower-case form of a byte that the fast path takes in a
// label: a letter, a digit, a hyphen or an underscore. It is 0 for all others.
func folded(c byte) byte {
	switch {
	case 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_':
		return c
	case 'A' <= c && c <= 'Z':
		return c + 'a' - 'A'
	}
	return 0
}

// query is one question read by hand.
type query struct {
	flags  uint16
	end    int // offset of the first byte after the question
	qtype  uint16
	name   []byte // folded, dotted, no trailing dot; part of buf
	edns   bool
	do     bool
	budget int // bytes the client takes in a datagram
	buf    [maxName]byte
}

// parse reads pkt if it is the plain sort of query that nearly all clients
// send: one question of class IN for A, AAAA or PTR, a name of letters, digits,
// hyphens and underscores, at most one OPT record without options, nothing
// else. It reports false for everything else, right or wrong; such a packet is
// the library's.
func (q *query) parse(pkt []byte) bool {
	if len(pkt) < headerLen {
		return false
	}
	q.flags = binary.BigEndian.Uint16(pkt[2:])
	if q.flags&^(bitRD|bitAD|bitCD) != 0 {
		return false
	}
	counts := binary.BigEndian.Uint64(pkt[4:])
	if counts&^1 != 1<<48 { // one question, no answer, no authority, zero or one additional
		return false
	}
	off, ok := q.parseName(pkt)
	if !ok || off+4 > len(pkt) {
		return false
	}
	q.qtype = binary.BigEndian.Uint16(pkt[off:])
	if binary.BigEndian.Uint16(pkt[off+2:]) != mdns.ClassINET {
		return false
	}
	if q.qtype != mdns.TypeA && q.qtype != mdns.TypeAAAA && q.qtype != mdns.TypePTR {
		return false
	}
	q.end = off + 4
	q.edns, q.do, q.budget = false, false, minUDP
	if counts&1 == 0 {
		return q.end == len(pkt)
	}
	return q.parseOPT(pkt[q.end:])
}

func (q *query) parseName(pkt []byte) (int, bool) {
	off, n := headerLen, 0
	for {
		if off >= len(pkt) {
			return 0, false
		}
		size := int(pkt[off])
		off++
		if size == 0 {
			break
		}
		if size > maxLabel || off+size > len(pkt) || n+size+1 > maxName-1 {
			return 0, false
		}
		for _, c := range pkt[off : off+size] {
			l := folded(c)
			if l == 0 {
				return 0, false
			}
			q.buf[n] = l
			n++
		}
		q.buf[n] = '.'
		n++
		off += size
	}
	if n == 0 {
		return 0, false
	}
	q.name = q.buf[:n-1]
	return off, true
}

func (q *query) parseOPT(rr []byte) bool {
	if len(rr) != optLen || rr[0] != 0 || binary.BigEndian.Uint16(rr[1:]) != mdns.TypeOPT {
		return false
	}
	extended := binary.BigEndian.Uint32(rr[5:]) // extended rcode, version, flags
	if extended&^bitDO != 0 || rr[9] != 0 || rr[10] != 0 {
		return false
	}
	q.edns, q.do = true, extended == bitDO
	q.budget = max(minUDP, int(binary.BigEndian.Uint16(rr[3:])))
	return true
}

// render writes the answer to q, whose packet is pkt, into out, and returns
// its length, or 0 if it is one for the library: too long, or a PTR target
// with odd bytes.
func (q *query) render(out, pkt []byte, v verdict, pick func(int) int) int {
	records, size := len(v.v4)+len(v.v6), 0
	switch {
	case v.ptr != nil:
		if v.ptr.wire == nil {
			return 0
		}
		records, size = 1, len(v.ptr.wire)
	case v.v4 != nil:
		size = 4
	case v.v6 != nil:
		size = 16
	}
	need := q.end + records*(recordLen+size)
	if q.edns {
		need += optLen
	}
	if records > maxFast || need > min(q.budget, len(out)) {
		return 0
	}
	copy(out, pkt[:q.end])
	binary.BigEndian.PutUint16(out[2:], bitQR|bitRA|q.flags&(bitRD|bitCD))
	binary.BigEndian.PutUint64(out[4:], 1<<48|uint64(records)<<32)
	off := q.end
	if v.ptr != nil {
		off = putRecord(out, off, q.qtype, v.ptr.wire)
	} else {
		var space [maxFast]uint16
		order := space[:records]
		permutation(order, pick)
		for _, i := range order {
			if v.v4 != nil {
				off = putRecord(out, off, q.qtype, v.v4[i][:])
			} else {
				off = putRecord(out, off, q.qtype, v.v6[i][:])
			}
		}
	}
	if q.edns {
		out[11] = 1
		off = putOPT(out, off, q.do)
	}
	return off
}

// recordLen is the length of a record up to its data, when its name is a
// pointer to the question.
const recordLen = 12

func putRecord(out []byte, off int, rrtype uint16, data []byte) int {
	b := out[off : off+recordLen+len(data)]
	b[0], b[1] = 0xc0, headerLen
	binary.BigEndian.PutUint16(b[2:], rrtype)
	binary.BigEndian.PutUint16(b[4:], mdns.ClassINET)
	binary.BigEndian.PutUint32(b[6:], ttl)
	binary.BigEndian.PutUint16(b[10:], uint16(len(data)))
	copy(b[recordLen:], data)
	return off + len(b)
}

func putOPT(out []byte, off int, do bool) int {
	b := out[off : off+optLen]
	clear(b)
	binary.BigEndian.PutUint16(b[1:], mdns.TypeOPT)
	binary.BigEndian.PutUint16(b[3:], ourUDP)
	if do {
		binary.BigEndian.PutUint16(b[7:], bitDO)
	}
	return off + optLen
}
