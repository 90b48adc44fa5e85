package dns

import (
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"

	mdns "github.com/miekg/dns"
)

// ttl is what every local answer carries, in seconds.
const ttl = 600

// verdict is what the tables say about one question.
type verdict struct {
	kind verdictKind
	v4   [][4]byte  // of an answer to A
	v6   [][16]byte // of an answer to AAAA
	ptr  *pointer   // of an answer to PTR
}

type verdictKind uint8

const (
	foreign verdictKind = iota // not ours: forward
	noData                     // ours, with nothing of the type asked for
	answered
)

// ask puts one question of class IN to the tables. The name is folded and has
// no trailing dot. Both paths of the resolver, by hand and by library, decide
// here and nowhere else.
func (v *view) ask(qtype uint16, name []byte, external *externals) verdict {
	switch qtype {
	case mdns.TypeA, mdns.TypeAAAA:
		rec := v.resolve(name)
		switch {
		case rec == nil && v.ndotsSet && singleLabel(name):
			return verdict{kind: noData}
		case rec == nil:
			return verdict{}
		case qtype == mdns.TypeA && len(rec.v4) > 0:
			return verdict{kind: answered, v4: rec.v4}
		case qtype == mdns.TypeAAAA && len(rec.v6) > 0:
			return verdict{kind: answered, v6: rec.v6}
		}
		return verdict{kind: noData}
	case mdns.TypeMX, mdns.TypeHTTPS, mdns.TypeSVCB:
		// Programs ask for HTTPS along with A and AAAA and wait for all three:
		// forwarding it would let a dead upstream delay a local name.
		if v.resolve(name) != nil {
			return verdict{kind: noData}
		}
	case mdns.TypePTR:
		addr, ok := parseArpa(name)
		if !ok {
			return verdict{}
		}
		if p := v.pointer(addr); p != nil && !external.has(addr, p) {
			return verdict{kind: answered, ptr: p}
		}
	}
	return verdict{}
}

func singleLabel(name []byte) bool {
	for _, c := range name {
		if c == '.' {
			return false
		}
	}
	return true
}

// parseArpa reads the address out of a folded name under in-addr.arpa or
// ip6.arpa. Only whole addresses in canonical form count: a zone cut such as
// 0.10.in-addr.arpa is not ours to answer.
func parseArpa(name []byte) (netip.Addr, bool) {
	if rest, ok := cutSuffix(name, ".in-addr.arpa"); ok {
		return parseArpa4(rest)
	}
	if rest, ok := cutSuffix(name, ".ip6.arpa"); ok {
		return parseArpa6(rest)
	}
	return netip.Addr{}, false
}

func cutSuffix(name []byte, suffix string) ([]byte, bool) {
	n := len(name) - len(suffix)
	if n < 0 || string(name[n:]) != suffix {
		return nil, false
	}
	return name[:n], true
}

func parseArpa4(s []byte) (netip.Addr, bool) {
	var addr [4]byte
	field, digits, value := 3, 0, 0
	for _, c := range s {
		switch {
		case c == '.':
			if digits == 0 || field == 0 {
				return netip.Addr{}, false
			}
			addr[field] = byte(value)
			field, digits, value = field-1, 0, 0
		case '0' <= c && c <= '9':
			if digits > 0 && value == 0 { // a leading zero
				return netip.Addr{}, false
			}
			value = value*10 + int(c-'0')
			digits++
			if value > 255 {
				return netip.Addr{}, false
			}
		default:
			return netip.Addr{}, false
		}
	}
	if field != 0 || digits == 0 {
		return netip.Addr{}, false
	}
	addr[0] = byte(value)
	return netip.AddrFrom4(addr), true
}

func parseArpa6(s []byte) (netip.Addr, bool) {
	if len(s) != 63 {
		return netip.Addr{}, false
	}
	var addr [16]byte
	for i := range 32 {
		if i > 0 && s[2*i-1] != '.' {
			return netip.Addr{}, false
		}
		var nibble byte
		switch c := s[2*i]; {
		case '0' <= c && c <= '9':
			nibble = c - '0'
		case 'a' <= c && c <= 'f':
			nibble = c - 'a' + 10
		default:
			return netip.Addr{}, false
		}
		addr[15-i/2] |= nibble << (4 * (i % 2))
	}
	a := netip.AddrFrom16(addr)
	return a, !a.Is4In6()
}

// permutation fills order with a random permutation of its indices. pick(n)
// returns a number from 0 to n-1; nil means the runtime's generator.
func permutation(order []uint16, pick func(int) int) {
	if pick == nil {
		pick = rand.IntN
	}
	for i := range order {
		j := pick(i + 1)
		order[i] = order[j]
		order[j] = uint16(i)
	}
}

// externals are the addresses of ours for which an upstream server holds a
// name as well; their PTR questions are forwarded, as Docker does. They are
// kept by sandbox, so that no sandbox can change what another one sees. A mark
// is good for one PTR record: it lapses when the address changes hands.
type externals struct {
	n     atomic.Int32 // len(marks), so that the common case takes no lock
	mu    sync.Mutex
	marks map[netip.Addr]*pointer
}

func (e *externals) has(addr netip.Addr, p *pointer) bool {
	if e.n.Load() == 0 {
		return false
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.marks[addr] == p
}

// learn marks the addresses in an upstream's answer that v knows as ours.
func (e *externals) learn(v *view, answer []mdns.RR) {
	for _, rr := range answer {
		var ip []byte
		switch rr := rr.(type) {
		case *mdns.A:
			ip = rr.A
		case *mdns.AAAA:
			ip = rr.AAAA
		default:
			continue
		}
		addr, ok := netip.AddrFromSlice(ip)
		if !ok {
			continue
		}
		addr = addr.Unmap()
		if p := v.pointer(addr); p != nil {
			e.mark(addr, p, v)
		}
	}
}

func (e *externals) mark(addr netip.Addr, p *pointer, v *view) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.marks == nil {
		e.marks = make(map[netip.Addr]*pointer)
	}
	for a, old := range e.marks { // lapsed marks go, so the map stays within the size of the zones
		if v.pointer(a) != old {
			delete(e.marks, a)
		}
	}
	e.marks[addr] = p
	e.n.Store(int32(len(e.marks)))
}
