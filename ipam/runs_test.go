package ipam

import (
	"net/netip"
	"testing"
)

// FuzzRuns compares a set with a map of what is in it, and checks that its runs
// are sorted and apart.
func FuzzRuns(f *testing.F) {
	f.Add([]byte{1, 2, 3, 0x82, 2})
	f.Add([]byte{0, 127, 0x80, 0xff, 126, 1})
	f.Fuzz(func(t *testing.T, ops []byte) {
		var r Runs
		in := make(map[netip.Addr]bool)
		for _, b := range ops {
			// The last 128 addresses of IPv4, so that the space's end takes part.
			addr := netip.AddrFrom4([4]byte{255, 255, 255, 128 + b&0x7f})
			if b&0x80 == 0 {
				r.Add(addr)
				in[addr] = true
			} else {
				r.Remove(addr)
				delete(in, addr)
			}
		}
		if r.Empty() != (len(in) == 0) {
			t.Errorf("Empty is %t with %d addresses", r.Empty(), len(in))
		}
		for i := range 128 {
			addr := netip.AddrFrom4([4]byte{255, 255, 255, byte(128 + i)})
			want := addr
			for in[want] {
				want = want.Next()
			}
			if got := r.Next(addr); got != want {
				t.Errorf("Next(%s) = %s, want %s in %v", addr, got, want, r.sorted)
			}
		}
		for i, x := range r.sorted {
			if x.last.Less(x.first) || (i > 0 && !r.sorted[i-1].last.Next().Less(x.first)) {
				t.Errorf("run %d is out of order or touches the one before: %v", i, r.sorted)
			}
		}
	})
}
