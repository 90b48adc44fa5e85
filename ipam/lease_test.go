package ipam

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"testing"

	"github.com/linkspan/linkspan"
)

// hold makes a Used of addresses, each held by "container ADDRESS".
func hold(addrs ...string) Used {
	used := Used{}
	for _, a := range addrs {
		used[ip(a)] = "container " + a
	}
	return used
}

func TestTake(t *testing.T) {
	db := map[string]netip.Addr{"db": ip("10.77.0.2")}
	for _, tc := range []struct {
		name string
		pool Pool
		last string
		used Used
		want string
	}{
		{name: "first", pool: Pool{Subnet: pfx("10.77.0.0/24")}, want: "10.77.0.1"},
		{name: "behind the gateway", pool: Pool{Subnet: pfx("10.77.0.0/24"), Gateway: ip("10.77.0.1")}, want: "10.77.0.2"},
		{name: "behind aux", pool: Pool{Subnet: pfx("10.77.0.0/24"), Gateway: ip("10.77.0.1"), Aux: db}, want: "10.77.0.3"},
		{name: "given back", pool: Pool{Subnet: pfx("10.77.0.0/24")}, used: hold("10.77.0.1", "10.77.0.3"), want: "10.77.0.2"},
		{name: "range", pool: Pool{Subnet: pfx("10.77.0.0/24"), Range: pfx("10.77.0.128/25"), Gateway: ip("10.77.0.1")}, want: "10.77.0.128"},
		{name: "lower half", pool: Pool{Subnet: pfx("10.77.0.0/24"), Range: pfx("10.77.0.0/25")}, want: "10.77.0.1"},
		{name: "range of one", pool: Pool{Subnet: pfx("10.77.0.0/24"), Range: pfx("10.77.0.9/32")}, want: "10.77.0.9"},
		{name: "range too large is cut", pool: Pool{Subnet: pfx("10.77.1.0/24"), Range: pfx("10.77.0.0/16")}, want: "10.77.1.1"},
		{name: "range full", pool: Pool{Subnet: pfx("10.77.0.0/24"), Range: pfx("10.77.0.8/31")}, used: hold("10.77.0.8", "10.77.0.9")},
		{name: "broadcast is no address", pool: Pool{Subnet: pfx("10.77.0.0/30")}, used: hold("10.77.0.1", "10.77.0.2")},
		{name: "/31 has two", pool: Pool{Subnet: pfx("10.77.0.0/31")}, want: "10.77.0.0"},
		{name: "/31 second", pool: Pool{Subnet: pfx("10.77.0.0/31"), Gateway: ip("10.77.0.0")}, want: "10.77.0.1"},
		{name: "/32 has one", pool: Pool{Subnet: pfx("10.77.0.9/32")}, want: "10.77.0.9"},
		{name: "/32 full", pool: Pool{Subnet: pfx("10.77.0.9/32"), Gateway: ip("10.77.0.9")}},
		{name: "end of all addresses", pool: Pool{Subnet: pfx("255.255.255.254/31")}, used: hold("255.255.255.254", "255.255.255.255")},
		{name: "v6 first is the routers'", pool: Pool{Subnet: pfx("fd00::/64")}, want: "fd00::1"},
		{name: "v6 last is an address", pool: Pool{Subnet: pfx("fd00::/126")}, used: hold("fd00::1", "fd00::2"), want: "fd00::3"},
		{name: "/127 has one", pool: Pool{Subnet: pfx("fd00::/127")}, want: "fd00::1"},
		{name: "/127 full", pool: Pool{Subnet: pfx("fd00::/127")}, used: hold("fd00::1")},
		{name: "/128 has none", pool: Pool{Subnet: pfx("fd00::/128")}},
		{name: "v6 huge", pool: Pool{Subnet: pfx("fd00::/8")}, want: "fd00::1"},
		{name: "used elsewhere", pool: Pool{Subnet: pfx("10.77.0.0/30")}, used: hold("10.78.0.1", "fd00::1"), want: "10.77.0.1"},

		{name: "serial", pool: Pool{Subnet: pfx("10.77.0.0/24")}, last: "10.77.0.9", want: "10.77.0.10"},
		{name: "serial over used", pool: Pool{Subnet: pfx("10.77.0.0/24")}, last: "10.77.0.9", used: hold("10.77.0.10"), want: "10.77.0.11"},
		{name: "serial wraps", pool: Pool{Subnet: pfx("10.77.0.0/24"), Gateway: ip("10.77.0.1")}, last: "10.77.0.254", want: "10.77.0.2"},
		{name: "serial back to itself", pool: Pool{Subnet: pfx("10.77.0.0/30")}, last: "10.77.0.2", used: hold("10.77.0.1"), want: "10.77.0.2"},
		{name: "serial at the very end", pool: Pool{Subnet: pfx("10.77.0.0/24")}, last: "10.77.0.255", want: "10.77.0.1"},
		{name: "serial full", pool: Pool{Subnet: pfx("10.77.0.0/30")}, last: "10.77.0.1", used: hold("10.77.0.1", "10.77.0.2")},
		{name: "serial outside", pool: Pool{Subnet: pfx("10.77.0.0/24"), Range: pfx("10.77.0.128/25")}, last: "10.77.0.9", want: "10.77.0.128"},
		{name: "serial other family", pool: Pool{Subnet: pfx("10.77.0.0/24")}, last: "fd00::9", want: "10.77.0.1"},
		{name: "serial in IPv6 form", pool: Pool{Subnet: pfx("10.77.0.0/24")}, last: "::ffff:10.77.0.9", want: "10.77.0.10"},
		{name: "serial at 2^63", pool: Pool{Subnet: pfx("fd00::/64")}, last: "fd00::7fff:ffff:ffff:fffe", want: "fd00::7fff:ffff:ffff:ffff"},
		{name: "serial beyond 2^63", pool: Pool{Subnet: pfx("fd00::/64")}, last: "fd00::7fff:ffff:ffff:ffff", want: "fd00::1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := tc.pool.TakeAfter(ip(tc.last), tc.used)
			if tc.want == "" {
				wantError(t, err, linkspan.ErrUnavailable, "no available addresses on this pool: ")
				wantError(t, err, ErrExhausted, " is full, ")
			} else {
				wantError(t, err, nil, "")
			}
			if got != ip(tc.want) {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

func TestTakeNamesHolders(t *testing.T) {
	p := Pool{Subnet: pfx("10.77.0.0/29"), Gateway: ip("10.77.0.1")}
	used := hold("10.77.0.6", "10.77.0.2", "10.77.0.5", "10.77.0.4", "10.77.0.3", "10.78.0.9")
	_, err := p.Take(used)
	wantError(t, err, ErrExhausted, "no available addresses on this pool: 10.77.0.0/29 is full, held by container 10.77.0.2, container 10.77.0.3, container 10.77.0.4 and 2 more")
	_, err = Pool{Subnet: pfx("fd00::/128")}.Take(nil)
	wantError(t, err, ErrExhausted, "fd00::/128 is full, all are reserved")
}

func TestTakeWithoutSubnet(t *testing.T) {
	for _, subnet := range []string{"", "0.0.0.0/0", "::/0", "0.0.0.0/24", "::/120"} {
		got, err := Pool{Subnet: pfx(subnet)}.Take(nil)
		wantError(t, err, linkspan.ErrInvalid, "invalid address pool: ")
		if got.IsValid() {
			t.Errorf("%q gave %v", subnet, got)
		}
	}
}

func TestFirstGateway(t *testing.T) {
	aux := map[string]netip.Addr{"db": ip("10.77.0.1")}
	for _, tc := range []struct {
		name string
		pool Pool
		used Used
		want string
	}{
		{name: "first", pool: Pool{Subnet: pfx("10.77.0.0/24")}, want: "10.77.0.1"},
		{name: "upper half", pool: Pool{Subnet: pfx("10.77.0.0/24"), Range: pfx("10.77.0.128/25")}, want: "10.77.0.128"},
		{name: "before aux", pool: Pool{Subnet: pfx("10.77.0.0/24"), Aux: aux}, want: "10.77.0.1"},
		{name: "shared wire", pool: Pool{Subnet: pfx("10.77.0.0/24")}, used: hold("10.77.0.1"), want: "10.77.0.2"},
		{name: "IPv6", pool: Pool{Subnet: pfx("fd00::/64")}, want: "fd00::1"},
		{name: "none in a /128", pool: Pool{Subnet: pfx("fd00::/128")}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := tc.pool.FirstGateway(tc.used)
			if tc.want == "" {
				wantError(t, err, ErrExhausted, "failed to allocate gateway: no available addresses on this pool")
				wantError(t, err, linkspan.ErrUnavailable, "")
			} else {
				wantError(t, err, nil, "")
			}
			if got != ip(tc.want) {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
	_, err := Pool{}.FirstGateway(nil)
	wantError(t, err, linkspan.ErrInvalid, "invalid address pool")

	// The clash that follows from choosing the gateway first.
	p := Pool{Subnet: pfx("10.77.0.0/24"), Gateway: ip("10.77.0.1"), Aux: aux}
	wantError(t, p.CheckReserved(nil), linkspan.ErrForbidden, "failed to allocate secondary ip address (db:10.77.0.1): Address already in use")
}

func TestClaim(t *testing.T) {
	lab := Pool{Subnet: pfx("10.77.0.0/24"), Range: pfx("10.77.0.128/25"), Gateway: ip("10.77.0.1"), Aux: map[string]netip.Addr{"db": ip("10.77.0.7")}}
	used := Used{ip("10.77.0.50"): "container web"}
	const inUse = "Address already in use: "
	for _, tc := range []struct {
		addr string
		pool Pool
		kind error
		text string
	}{
		{addr: "10.77.0.51", pool: lab},
		{addr: "10.77.0.128", pool: lab},
		{addr: "::ffff:10.77.0.51", pool: lab},
		{addr: "10.77.0.0", pool: Pool{Subnet: pfx("10.77.0.0/31")}},
		{addr: "fd00::ffff:ffff:ffff:ffff", pool: Pool{Subnet: pfx("fd00::/64")}},
		{"10.77.0.50", lab, linkspan.ErrForbidden, inUse + "10.77.0.50 is held by container web; the lowest free address is 10.77.0.128"},
		{"::ffff:10.77.0.50", lab, linkspan.ErrForbidden, inUse + "10.77.0.50 is held by container web"},
		{"10.77.0.1", lab, linkspan.ErrForbidden, inUse + "10.77.0.1 is held by the gateway"},
		{"10.77.0.7", lab, linkspan.ErrForbidden, inUse + "10.77.0.7 is held by auxiliary address db"},
		{"10.77.0.0", lab, linkspan.ErrForbidden, inUse + "10.77.0.0 is held by the network itself: it is the network address"},
		{"10.77.0.255", lab, linkspan.ErrForbidden, inUse + "10.77.0.255 is held by the network itself: it is the broadcast address"},
		{"fd00::", Pool{Subnet: pfx("fd00::/64")}, linkspan.ErrForbidden, inUse + "fd00:: is held by the routers of fd00::/64"},
		{"10.78.0.1", lab, linkspan.ErrInvalid, "invalid address 10.78.0.1: It does not belong to any of this network's subnets: 10.77.0.0/24"},
		{"fd00::1", lab, linkspan.ErrInvalid, "invalid address fd00::1: It does not belong to any of this network's subnets: 10.77.0.0/24"},
		{"fe80::1%eth0", Pool{Subnet: pfx("fe80::/64")}, linkspan.ErrInvalid, "invalid address: fe80::1%eth0"},
		{"", lab, linkspan.ErrInvalid, "invalid address: "},
	} {
		t.Run(tc.addr, func(t *testing.T) {
			wantError(t, tc.pool.Claim(ip(tc.addr), used), tc.kind, tc.text)
		})
	}
	// No free address to propose: the text ends with the holder.
	full := Pool{Subnet: pfx("10.77.0.50/32")}
	if err := full.Claim(ip("10.77.0.50"), used); err == nil || err.Error() != inUse+"10.77.0.50 is held by container web" {
		t.Errorf("got %v", err)
	}
}

func TestContaining(t *testing.T) {
	four, six := Pool{Subnet: pfx("10.77.0.0/24")}, Pool{Subnet: pfx("fd00::/64")}
	for addr, want := range map[string]Pool{"10.77.0.9": four, "::ffff:10.77.0.9": four, "fd00::9": six} {
		got, err := Containing(ip(addr), four, six)
		if err != nil || got.Subnet != want.Subnet {
			t.Errorf("%s: got %v, %v", addr, got, err)
		}
	}
	_, err := Containing(ip("10.78.0.1"), four, six)
	wantError(t, err, linkspan.ErrInvalid, "invalid address 10.78.0.1: It does not belong to any of this network's subnets: 10.77.0.0/24, fd00::/64")
	_, err = Containing(ip("10.78.0.1"))
	wantError(t, err, linkspan.ErrInvalid, "any of this network's subnets: it has none")
}

func TestCounts(t *testing.T) {
	for _, tc := range []struct {
		name             string
		pool             Pool
		used             Used
		inUse, available uint64
	}{
		{"no subnet", Pool{}, nil, 0, 0},
		{"empty", Pool{Subnet: pfx("10.77.0.0/24"), Gateway: ip("10.77.0.1")}, nil, 3, 253},
		{"two containers", Pool{Subnet: pfx("10.10.0.0/24"), Gateway: ip("10.10.0.1")}, hold("10.10.0.2", "10.10.0.3"), 5, 251},
		{"counted once", Pool{Subnet: pfx("10.77.0.0/24"), Gateway: ip("10.77.0.1")}, hold("10.77.0.1"), 3, 253},
		{"others do not count", Pool{Subnet: pfx("10.77.0.0/24"), Gateway: ip("10.77.0.1")}, hold("10.78.0.1", "fd00::1"), 3, 253},
		{"range of two, one aux in it, one outside", Pool{
			Subnet: pfx("10.77.0.0/24"), Range: pfx("10.77.0.8/31"), Gateway: ip("10.77.0.1"),
			Aux: map[string]netip.Addr{"in": ip("10.77.0.8"), "out": ip("10.77.0.99")},
		}, nil, 5, 1},
		{"static outside the range", Pool{Subnet: pfx("10.77.0.0/24"), Range: pfx("10.77.0.128/25"), Gateway: ip("10.77.0.1")}, hold("10.77.0.50"), 4, 127},
		{"v6 range", Pool{Subnet: pfx("fd00::/64"), Range: pfx("fd00::/120"), Gateway: ip("fd00::1"), Aux: map[string]netip.Addr{"a": ip("fd00::2"), "b": ip("fd00::1:0")}}, nil, 4, 253},
		{"/31", Pool{Subnet: pfx("10.77.0.0/31")}, nil, 0, 2},
		{"/32", Pool{Subnet: pfx("10.77.0.0/32")}, nil, 0, 1},
		{"/128", Pool{Subnet: pfx("fd00::/128")}, nil, 1, 0},
		{"all of IPv4", Pool{Subnet: pfx("0.0.0.0/0")}, nil, 2, 1<<32 - 2},
		{"/65", Pool{Subnet: pfx("fd00::/65")}, nil, 1, 1<<63 - 1},
		{"/64", Pool{Subnet: pfx("fd00::/64")}, nil, 1, math.MaxUint64},
		{"/64 with a gateway", Pool{Subnet: pfx("fd00::/64"), Gateway: ip("fd00::1")}, nil, 2, math.MaxUint64 - 1},
		{"/64 range with nothing in it", Pool{Subnet: pfx("fd00::/48"), Range: pfx("fd00:0:0:1::/64")}, nil, 1, math.MaxUint64},
		{"/48", Pool{Subnet: pfx("fd00::/48"), Gateway: ip("fd00::1")}, nil, 2, math.MaxUint64},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inUse, available := tc.pool.Counts(tc.used)
			if inUse != tc.inUse || available != tc.available {
				t.Errorf("got %d in use, %d available, want %d, %d", inUse, available, tc.inUse, tc.available)
			}
		})
	}
}

// The cost of an address must not follow the size of the subnet.
func BenchmarkTake(b *testing.B) {
	for _, subnet := range []string{"10.77.0.0/23", "10.77.0.0/16", "10.0.0.0/8", "fd00::/64"} {
		p := Pool{Subnet: pfx(subnet)}
		p.Gateway, _ = p.FirstGateway(nil)
		used := Used{}
		for range 400 {
			addr, err := p.Take(used)
			if err != nil {
				b.Fatal(err)
			}
			used[addr] = "a container"
		}
		b.Run(subnet, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := p.Take(used); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkClaim(b *testing.B) {
	p := Pool{Subnet: pfx("10.77.0.0/16"), Gateway: ip("10.77.0.1")}
	used := hold("10.77.0.2", "10.77.0.3")
	b.ReportAllocs()
	for b.Loop() {
		if err := p.Claim(ip("10.77.9.9"), used); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCounts(b *testing.B) {
	p := Pool{Subnet: pfx("10.77.0.0/16"), Gateway: ip("10.77.0.1")}
	used := Used{}
	for range 400 {
		addr, _ := p.Take(used)
		used[addr] = "a container"
	}
	b.ReportAllocs()
	for b.Loop() {
		p.Counts(used)
	}
}

func ExamplePool_Take() {
	lab := Pool{
		Subnet:  netip.MustParsePrefix("10.77.0.0/29"),
		Gateway: netip.MustParseAddr("10.77.0.1"),
	}
	used := Used{}
	for _, name := range []string{"web", "db", "cache", "probe", "tap", "late"} {
		addr, err := lab.Take(used)
		if errors.Is(err, ErrExhausted) {
			fmt.Println(err)
			break
		}
		used[addr] = "container " + name
		fmt.Println(addr, name)
	}
	// Output:
	// 10.77.0.2 web
	// 10.77.0.3 db
	// 10.77.0.4 cache
	// 10.77.0.5 probe
	// 10.77.0.6 tap
	// no available addresses on this pool: 10.77.0.0/29 is full, held by container web, container db, container cache and 2 more
}

func ExamplePool_Claim() {
	lab := Pool{
		Subnet:  netip.MustParsePrefix("10.77.0.0/24"),
		Gateway: netip.MustParseAddr("10.77.0.1"),
	}
	used := Used{netip.MustParseAddr("10.77.0.50"): "container web on network lab"}
	fmt.Println(lab.Claim(netip.MustParseAddr("10.77.0.51"), used))
	fmt.Println(lab.Claim(netip.MustParseAddr("10.77.0.50"), used))
	fmt.Println(lab.Claim(netip.MustParseAddr("10.78.0.50"), used))
	// Output:
	// <nil>
	// Address already in use: 10.77.0.50 is held by container web on network lab; the lowest free address is 10.77.0.2
	// invalid address 10.78.0.50: It does not belong to any of this network's subnets: 10.77.0.0/24
}
