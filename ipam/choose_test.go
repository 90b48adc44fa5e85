package ipam

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/linkspan/linkspan"
)

func blocks(prefixes ...string) []Holding {
	var taken []Holding
	for _, p := range prefixes {
		taken = append(taken, Holding{Prefix: pfx(p), Holder: "network " + p})
	}
	return taken
}

// A daemon without settings has thirty-one networks, in Docker's order.
func TestChooseDefaults(t *testing.T) {
	var got []string
	var taken []Holding
	for {
		subnet, err := Choose(DefaultBases(), taken)
		if err != nil {
			wantError(t, err, linkspan.ErrInvalid, "all predefined address pools have been fully subnetted: in the way are 172.17.0.0/16 of network 1, ")
			wantError(t, err, linkspan.ErrInvalid, " and 27 more; give --subnet")
			break
		}
		got = append(got, subnet.String())
		taken = append(taken, Holding{Prefix: subnet, Holder: fmt.Sprint("network ", len(got))})
	}
	var want []string
	for i := 17; i <= 31; i++ {
		want = append(want, fmt.Sprintf("172.%d.0.0/16", i))
	}
	for i := 0; i < 256; i += 16 {
		want = append(want, fmt.Sprintf("192.168.%d.0/20", i))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("subnets in order (-want +got):\n%s", diff)
	}
}

func TestChoose(t *testing.T) {
	ten := []Base{{pfx("10.0.0.0/8"), 24}}
	six := []Base{{pfx("fd00::/48"), 64}}
	for _, tc := range []struct {
		name  string
		bases []Base
		taken []Holding
		want  string
		text  string // of an error
	}{
		{name: "first", bases: ten, want: "10.0.0.0/24"},
		{name: "given back", bases: ten, taken: blocks("10.0.0.0/24", "10.0.2.0/24"), want: "10.0.1.0/24"},
		{name: "name server", bases: ten, taken: []Holding{Host(ip("10.0.0.2"), "a name server")}, want: "10.0.1.0/24"},
		{name: "name server in IPv6 form", bases: ten, taken: []Holding{Host(ip("::ffff:10.0.0.2"), "a name server")}, want: "10.0.1.0/24"},
		{name: "name server with zone", bases: six, taken: []Holding{Host(ip("fd00::1%eth0"), "a name server")}, want: "fd00:0:0:1::/64"},
		{name: "route in IPv6 form", bases: ten, taken: blocks("::ffff:10.0.0.0/112"), want: "10.1.0.0/24"},
		{name: "wide route", bases: ten, taken: blocks("10.0.0.0/9"), want: "10.128.0.0/24"},
		{name: "route in host form", bases: ten, taken: blocks("10.0.0.9/23"), want: "10.0.2.0/24"},
		{name: "nested and doubled", bases: ten, taken: blocks("10.0.0.0/24", "10.0.0.128/25", "10.0.0.0/24", "10.0.0.0/16"), want: "10.1.0.0/24"},
		{name: "default routes say nothing", bases: ten, taken: blocks("0.0.0.0/0", "0.0.0.0/1", "128.0.0.0/1", "::/0"), want: "10.0.0.0/24"},
		{name: "default routes of IPv6", bases: six, taken: blocks("::/0", "e000::/3"), want: "fd00::/64"},
		{name: "other family", bases: ten, taken: blocks("::/8", "fd00::/8"), want: "10.0.0.0/24"},
		{name: "no subnets left in a /48", bases: six, taken: blocks("fd00::/49", "fd00:0:0:8000::/49"), text: "fd00::/49 of network fd00::/49, fd00:0:0:8000::/49"},
		{name: "end of a /48", bases: six, taken: blocks("fd00::/49", "fd00:0:0:8000::/50"), want: "fd00:0:0:c000::/64"},
		{name: "the end of all addresses", bases: []Base{{pfx("255.255.255.0/24"), 25}}, taken: blocks("255.255.255.0/25", "255.255.255.255/32"), text: "fully subnetted"},
		{name: "order of bases", bases: []Base{{pfx("10.2.0.0/16"), 24}, {pfx("10.1.0.0/16"), 24}}, want: "10.1.0.0/24"},
		{name: "base in base", bases: []Base{{pfx("10.0.1.0/24"), 28}, {pfx("10.0.0.0/16"), 20}}, taken: blocks("10.0.0.0/20"), want: "10.0.16.0/20"},
		{name: "base in base serves nobody", bases: []Base{{pfx("10.0.1.0/24"), 28}, {pfx("10.0.0.0/23"), 23}}, taken: blocks("10.0.0.0/25"), text: "fully subnetted"},
		{name: "no base", text: "all predefined address pools have been fully subnetted; give --subnet"},
		{name: "base not valid", bases: []Base{{}, {pfx("10.0.0.0/24"), 8}}, text: "fully subnetted"},
		{name: "widest is named first", bases: DefaultBases(), taken: append(blocks("172.20.0.0/16", "192.168.0.0/16"), Holding{Prefix: pfx("172.16.0.0/12"), Holder: "route 172.16.0.0/12 dev tun0"}), text: "in the way are 172.16.0.0/12 of route 172.16.0.0/12 dev tun0, "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := slices.Clone(tc.taken)
			got, err := Choose(tc.bases, tc.taken)
			if tc.text != "" {
				wantError(t, err, linkspan.ErrInvalid, tc.text)
			} else {
				wantError(t, err, nil, "")
			}
			if got != pfx(tc.want) {
				t.Errorf("got %v, want %v", got, tc.want)
			}
			if !slices.Equal(before, tc.taken) {
				t.Error("the caller's holdings were changed")
			}
		})
	}
}

func TestChooseSize(t *testing.T) {
	bases := append(DefaultBases(), DefaultBases6("")...)
	for _, tc := range []struct {
		name, size string
		taken      []Holding
		want       string
		text       string
	}{
		{name: "smaller", size: "0.0.0.0/24", taken: blocks("172.17.0.0/24"), want: "172.17.1.0/24"},
		{name: "same", size: "0.0.0.0/16", taken: blocks("172.17.0.0/24"), want: "172.18.0.0/16"},
		{name: "larger than the subnets of its base", size: "0.0.0.0/14", want: "172.20.0.0/14"},
		{name: "IPv6", size: "::/120", want: "fd42:98fc:1c14::/120"},
		{name: "IPv6 beside a network", size: "::/120", taken: blocks("fd42:98fc:1c14::/64"), want: "fd42:98fc:1c14:1::/120"},
		{name: "too large", size: "0.0.0.0/13", text: "invalid address pool: no default address pool is as large as /13"},
		{name: "too large, IPv6", size: "::/47", text: "invalid address pool: no default address pool is as large as /47"},
		{name: "none left", size: "0.0.0.0/14", taken: blocks("172.16.0.0/12", "192.168.0.0/16"), text: "invalid address pool: no free subnet of size /14: "},
		{name: "whole space", size: "0.0.0.0/0", text: "invalid address pool: 0.0.0.0/0 does not mean"},
		{name: "a subnet", size: "10.0.0.0/24", text: "invalid address pool: 10.0.0.0/24 does not mean"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := ChooseSize(bases, pfx(tc.size), tc.taken)
			if tc.text != "" {
				wantError(t, err, linkspan.ErrInvalid, tc.text)
			} else {
				wantError(t, err, nil, "")
			}
			if got != pfx(tc.want) {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

func TestOverlapping(t *testing.T) {
	taken := append(blocks("0.0.0.0/0", "10.1.0.0/16", "10.0.0.0/8", "10.1.1.0/24", "::ffff:11.0.0.0/104"), Holding{})
	for p, want := range map[string]string{
		"10.1.1.0/28":         "10.0.0.0/8",
		"11.1.0.0/16":         "11.0.0.0/8",
		"::ffff:11.1.0.0/112": "11.0.0.0/8",
		"12.0.0.0/8":          "",
		"fd00::/64":           "",
		"::ffff:12.0.0.0/104": "",
		"10.255.255.255/32":   "10.0.0.0/8",
		"8.0.0.0/6":           "10.0.0.0/8",
	} {
		h, ok := Overlapping(pfx(p), taken...)
		if ok != (want != "") || h.Prefix != pfx(want) {
			t.Errorf("%s overlaps %v (%v), want %q", p, h.Prefix, ok, want)
		}
	}
}

// naiveChoose looks at every subnet of every base, as numbers in a space of
// sixteen bits.
func naiveChoose(bases, taken [][2]int, sizes []int) int {
	span := func(b [2]int) (int, int) {
		width := 1 << (16 - b[1])
		return b[0] / width * width, b[0]/width*width + width - 1
	}
	best := -1
	for i, b := range bases {
		low, high := span(b)
		width := 1 << (16 - sizes[i])
		for at := low; at <= high; at += width {
			free := true
			for _, h := range taken {
				l, r := span(h)
				free = free && (r < at || at+width-1 < l)
			}
			if free && (best < 0 || at < best) {
				best = at
			}
		}
	}
	return best
}

func FuzzChoose(f *testing.F) {
	f.Add(false, uint16(0), uint8(4), uint8(8), uint16(0x8000), uint8(1), uint8(9), []byte("\x00\x00\x08\x01\x00\x08"))
	f.Add(true, uint16(0x1000), uint8(8), uint8(12), uint16(0x2000), uint8(8), uint8(8), []byte("\x10\x00\x04\x20\x00\x09\x20\x80\x09"))
	f.Add(false, uint16(0xff00), uint8(8), uint8(16), uint16(0), uint8(16), uint8(16), []byte("\xff\x00\x09\x00\x00\x10"))
	f.Fuzz(func(t *testing.T, v6 bool, at1 uint16, bits1, size1 uint8, at2 uint16, bits2, size2 uint8, held []byte) {
		prefix := func(at, bits int) netip.Prefix {
			if v6 {
				raw := [16]byte{0xfd, 14: byte(at >> 8), 15: byte(at)}
				return netip.PrefixFrom(netip.AddrFrom16(raw), 112+bits)
			}
			return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 77, byte(at >> 8), byte(at)}), 16+bits)
		}
		spans := [][2]int{{int(at1), int(bits1 % 17)}, {int(at2), int(bits2 % 17)}}
		sizes := []int{max(spans[0][1], int(size1%17)), max(spans[1][1], int(size2%17))}
		var bases []Base
		for i, s := range spans {
			p := prefix(s[0], s[1]).Masked()
			bases = append(bases, Base{p, p.Bits() - s[1] + sizes[i]})
		}
		if bases[0].Prefix.Overlaps(bases[1].Prefix) {
			spans, sizes, bases = spans[:1], sizes[:1], bases[:1]
		}
		var taken []Holding
		var numbers [][2]int
		for chunk := range slices.Chunk(held[:min(len(held), 120)], 3) {
			if len(chunk) == 3 {
				n := [2]int{int(chunk[0])<<8 | int(chunk[1]), int(chunk[2] % 17)}
				numbers = append(numbers, n)
				taken = append(taken, Holding{Prefix: prefix(n[0], n[1]), Holder: "somebody"})
			}
		}
		want := naiveChoose(spans, numbers, sizes)
		got, err := Choose(bases, taken)
		if want < 0 {
			if err == nil {
				t.Fatalf("got %v of %v with %v taken, want none", got, bases, taken)
			}
			return
		}
		if err != nil || got.Addr() != prefix(want, 16).Addr() {
			t.Fatalf("got %v, %v of %v with %v taken, want %v", got, err, bases, taken, prefix(want, 16))
		}
		if !slices.ContainsFunc(bases, func(b Base) bool { return b.Prefix.Contains(got.Addr()) && b.Size == got.Bits() }) {
			t.Fatalf("%v is not a subnet of %v", got, bases)
		}
	})
}

func ExampleChoose() {
	subnet, err := Choose(DefaultBases(), []Holding{
		{Prefix: netip.MustParsePrefix("172.17.0.0/16"), Holder: "network bridge"},
		{Prefix: netip.MustParsePrefix("172.16.0.0/13"), Holder: "route 172.16.0.0/13 dev tun0"},
	})
	fmt.Println(subnet, err)

	_, err = Choose(DefaultBases(), []Holding{
		{Prefix: netip.MustParsePrefix("172.16.0.0/12"), Holder: "route 172.16.0.0/12 dev tun0"},
		{Prefix: netip.MustParsePrefix("192.168.0.0/16"), Holder: "route 192.168.0.0/16 dev wg0"},
	})
	fmt.Println(strings.ReplaceAll(err.Error(), "; ", ";\n"))
	// Output:
	// 172.24.0.0/16 <nil>
	// all predefined address pools have been fully subnetted: in the way are 172.16.0.0/12 of route 172.16.0.0/12 dev tun0, 192.168.0.0/16 of route 192.168.0.0/16 dev wg0;
	// give --subnet, or the daemon another --default-address-pool
}

func BenchmarkChoose(b *testing.B) {
	bases := []Base{{pfx("fd00::/32"), 64}}
	var taken []Holding
	for range 400 {
		subnet, err := Choose(bases, taken)
		if err != nil {
			b.Fatal(err)
		}
		taken = append(taken, Holding{Prefix: subnet, Holder: "a network"})
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Choose(bases, taken); err != nil {
			b.Fatal(err)
		}
	}
}
