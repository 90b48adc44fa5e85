package ipam

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/linkspan/linkspan"
)

// model is a pool written out: every address of a small subnet by its offset,
// with who has it. It knows the rules only in this form.
type model struct {
	base      [16]byte // first address; IPv4 in the last four bytes
	v6        bool
	size      int // addresses in the subnet, at most 256
	low, high int // the range, both ends included
	taken     []bool
}

func (m model) addr(offset int) netip.Addr {
	raw := m.base
	raw[15] += byte(offset)
	if m.v6 {
		return netip.AddrFrom16(raw)
	}
	return netip.AddrFrom4([4]byte(raw[12:]))
}

// next returns the offset that comes after last in serial order, or -1.
func (m model) next(last int) int {
	n := m.high - m.low + 1
	from := m.low
	if last >= m.low && last <= m.high {
		from = last + 1
	}
	for i := range n {
		offset := m.low + (from-m.low+i)%n
		if !m.taken[offset] {
			return offset
		}
	}
	return -1
}

// newModel builds the same small pool twice: as the package sees it, and
// written out. hostBits and rangeBits say how large subnet and range are.
func newModel(v6 bool, block, hostBits, rangeBits, rangeAt, gateway, aux byte, held []byte) (model, Pool, Used) {
	hostBits %= 9
	rangeBits %= hostBits + 1
	m := model{v6: v6, size: 1 << hostBits}
	width := 128
	if v6 {
		m.base = [16]byte{0: 0xfd, 13: 0xff, 14: 0xff}
	} else {
		m.base = [16]byte{12: 10, 13: 77, 14: 0xff}
		width = 32
	}
	m.base[15] = block &^ byte(m.size-1)
	m.low = int(rangeAt) % m.size >> rangeBits << rangeBits
	m.high = m.low + 1<<rangeBits - 1
	m.taken = make([]bool, m.size)

	p := Pool{Subnet: netip.PrefixFrom(m.addr(0), width-int(hostBits))}
	p.Range = netip.PrefixFrom(m.addr(m.low), width-int(rangeBits))
	if rangeBits == hostBits {
		p.Range = netip.Prefix{}
	}
	if v6 || m.size > 2 {
		m.taken[0] = true
	}
	if !v6 && m.size > 2 {
		m.taken[m.size-1] = true
	}
	// Zero leaves one out, and lets an aux fall on the gateway or on a lease.
	if g := int(gateway) % m.size; gateway > 0 {
		p.Gateway, m.taken[g] = m.addr(g), true
	}
	if a := int(aux) % m.size; aux > 0 {
		p.Aux, m.taken[a] = map[string]netip.Addr{"db": m.addr(a)}, true
	}
	used := Used{netip.MustParseAddr("192.0.2.1"): "somebody elsewhere"}
	for _, h := range held {
		offset := int(h) % m.size
		used[m.addr(offset)], m.taken[offset] = "container", true
	}
	return m, p, used
}

func FuzzLease(f *testing.F) {
	f.Add(false, byte(0), byte(8), byte(7), byte(128), byte(1), byte(7), byte(200), []byte{2, 3, 128, 255})
	f.Add(false, byte(9), byte(1), byte(1), byte(0), byte(0), byte(0), byte(1), []byte{})
	f.Add(false, byte(255), byte(0), byte(0), byte(0), byte(0), byte(0), byte(0), []byte{0})
	f.Add(true, byte(255), byte(3), byte(1), byte(7), byte(1), byte(1), byte(7), []byte{6, 7})
	f.Add(true, byte(0), byte(0), byte(0), byte(0), byte(0), byte(0), byte(0), []byte{})
	f.Add(false, byte(0), byte(2), byte(2), byte(0), byte(1), byte(0), byte(2), []byte{2})
	f.Fuzz(func(t *testing.T, v6 bool, block, hostBits, rangeBits, rangeAt, gateway, aux, last byte, held []byte) {
		m, p, used := newModel(v6, block, hostBits, rangeBits, rangeAt, gateway, aux, held)

		checkTaken := func(what string, want int, got netip.Addr, err error) {
			switch {
			case want < 0 && (!errors.Is(err, ErrExhausted) || got.IsValid()):
				t.Fatalf("%s of %+v with %v: %v, %v, want none", what, p, used, got, err)
			case want >= 0 && (err != nil || got != m.addr(want)):
				t.Fatalf("%s of %+v with %v: %v, %v, want %v", what, p, used, got, err, m.addr(want))
			}
		}
		got, err := p.Take(used)
		checkTaken("Take", m.next(-1), got, err)
		offset := int(last) % m.size
		got, err = p.TakeAfter(m.addr(offset), used)
		checkTaken("TakeAfter "+m.addr(offset).String(), m.next(offset), got, err)

		var inUse, available uint64
		for i, taken := range m.taken {
			err := p.Claim(m.addr(i), used)
			if taken != errors.Is(err, linkspan.ErrForbidden) || taken != (err != nil) {
				t.Fatalf("Claim %v of %+v with %v: %v", m.addr(i), p, used, err)
			}
			if taken {
				inUse++
			} else if m.low <= i && i <= m.high {
				available++
			}
		}
		if a, b := p.Counts(used); a != inUse || b != available {
			t.Fatalf("Counts of %+v with %v: %d, %d, want %d, %d", p, used, a, b, inUse, available)
		}
		for _, outside := range []netip.Addr{m.addr(0).Prev(), lastAddr(p.Subnet).Next()} {
			if err := p.Claim(outside, used); !errors.Is(err, linkspan.ErrInvalid) {
				t.Fatalf("Claim %v outside %v: %v", outside, p.Subnet, err)
			}
		}
	})
}

// What is taken one after the other is what Counts promised, each address
// once, until the pool is full.
func FuzzTakeAll(f *testing.F) {
	f.Add(false, byte(0), byte(6), byte(6), byte(0), byte(1), byte(0), true, []byte{5})
	f.Add(true, byte(0), byte(6), byte(4), byte(16), byte(1), byte(17), false, []byte{18})
	f.Fuzz(func(t *testing.T, v6 bool, block, hostBits, rangeBits, rangeAt, gateway, aux byte, serial bool, held []byte) {
		_, p, used := newModel(v6, block, hostBits, rangeBits, rangeAt, gateway, aux, held)
		_, available := p.Counts(used)
		var last netip.Addr
		for i := range available {
			after := netip.Addr{}
			if serial {
				after = last
			}
			addr, err := p.TakeAfter(after, used)
			if err != nil {
				t.Fatalf("address %d of %d from %+v: %v", i+1, available, p, err)
			}
			if err := p.Claim(addr, used); err != nil {
				t.Fatalf("%v was taken and cannot be claimed: %v", addr, err)
			}
			used[addr] = "container"
			last = addr
		}
		if addr, err := p.TakeAfter(last, used); !errors.Is(err, ErrExhausted) {
			t.Fatalf("one more than %d from %+v: %v, %v", available, p, addr, err)
		}
	})
}
