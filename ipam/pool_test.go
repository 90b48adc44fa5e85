package ipam

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/linkspan/linkspan"
)

func TestParsePool(t *testing.T) {
	for _, tc := range []struct {
		name                     string
		subnet, ipRange, gateway string
		aux                      map[string]string
		want                     Pool
	}{
		{name: "nothing"},
		{name: "subnet", subnet: "10.77.0.0/24", want: Pool{Subnet: pfx("10.77.0.0/24")}},
		{
			name: "all", subnet: "10.77.0.0/24", ipRange: "10.77.0.128/25", gateway: "10.77.0.1", aux: map[string]string{"db": "10.77.0.7"},
			want: Pool{pfx("10.77.0.0/24"), pfx("10.77.0.128/25"), ip("10.77.0.1"), map[string]netip.Addr{"db": ip("10.77.0.7")}},
		},
		{name: "range is the subnet", subnet: "10.77.0.0/24", ipRange: "10.77.0.0/24", want: Pool{Subnet: pfx("10.77.0.0/24"), Range: pfx("10.77.0.0/24")}},
		{name: "IPv6", subnet: "fd00:77::/64", ipRange: "fd00:77::8000/113", gateway: "fd00:77::1", want: Pool{Subnet: pfx("fd00:77::/64"), Range: pfx("fd00:77::8000/113"), Gateway: ip("fd00:77::1")}},
		{name: "IPv4 in IPv6 form", subnet: "::ffff:10.77.0.0/120", gateway: "::ffff:10.77.0.9", want: Pool{Subnet: pfx("10.77.0.0/24"), Gateway: ip("10.77.0.9")}},
		{name: "any of a size", subnet: "0.0.0.0/24", want: Pool{Subnet: pfx("0.0.0.0/24")}},
		{name: "any of a size, IPv6", subnet: "::/120", want: Pool{Subnet: pfx("::/120")}},
		{name: "point to point", subnet: "10.77.0.0/31", gateway: "10.77.0.0", want: Pool{Subnet: pfx("10.77.0.0/31"), Gateway: ip("10.77.0.0")}},
		{name: "single", subnet: "10.77.0.1/32", gateway: "10.77.0.1", want: Pool{Subnet: pfx("10.77.0.1/32"), Gateway: ip("10.77.0.1")}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := ParsePool(tc.subnet, tc.ipRange, tc.gateway, tc.aux)
			wantError(t, err, nil, "")
			if diff := cmp.Diff(tc.want, got, plain); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// badPool is a pool that cannot be, and the lines that say so.
type badPool struct {
	name, subnet, ipRange, gateway string
	aux                            map[string]string
	lines                          []string
}

// refuse compares whole texts, as clients do.
func refuse(t *testing.T, tc badPool) {
	t.Helper()
	got, err := ParsePool(tc.subnet, tc.ipRange, tc.gateway, tc.aux)
	if err == nil {
		t.Fatalf("got %v and no error", got)
	}
	if !errors.Is(err, linkspan.ErrInvalid) {
		t.Errorf("%v is not of kind ErrInvalid", err)
	}
	want := append([]string{"invalid network config:"}, tc.lines...)
	if diff := cmp.Diff(want, strings.Split(err.Error(), "\n")); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
}

func TestParsePoolInvalid(t *testing.T) {
	for _, tc := range []badPool{
		{name: "not masked", subnet: "10.77.0.5/24", lines: []string{"invalid subnet 10.77.0.5/24: it should be 10.77.0.0/24"}},
		{name: "malformed subnet", subnet: "10.77.0.0", lines: []string{"invalid subnet 10.77.0.0: invalid CIDR block notation"}},
		{name: "too many bits", subnet: "10.77.0.0/33", lines: []string{"invalid subnet 10.77.0.0/33: invalid CIDR block notation"}},
		{name: "range of other family", subnet: "10.77.0.0/24", ipRange: "fd00::/64", lines: []string{"invalid ip-range fd00::/64: parent subnet is an IPv4 block"}},
		{name: "range of other family, IPv6", subnet: "fd00::/64", ipRange: "10.77.0.0/24", lines: []string{"invalid ip-range 10.77.0.0/24: parent subnet is an IPv6 block"}},
		{name: "range too large", subnet: "10.77.0.0/24", ipRange: "10.77.0.0/16", lines: []string{"invalid ip-range 10.77.0.0/16: CIDR block is bigger than its parent subnet 10.77.0.0/24"}},
		{name: "range not masked", subnet: "10.77.0.0/24", ipRange: "10.77.0.5/28", lines: []string{"invalid ip-range 10.77.0.5/28: it should be 10.77.0.0/28"}},
		{name: "range outside", subnet: "10.77.0.0/24", ipRange: "10.78.0.0/28", lines: []string{"invalid ip-range 10.78.0.0/28: parent subnet 10.77.0.0/24 doesn't contain ip-range"}},
		{name: "range everything", subnet: "10.77.0.0/24", ipRange: "10.78.3.0/16", lines: []string{
			"invalid ip-range 10.78.3.0/16: CIDR block is bigger than its parent subnet 10.77.0.0/24",
			"invalid ip-range 10.78.3.0/16: it should be 10.78.0.0/16",
			"invalid ip-range 10.78.3.0/16: parent subnet 10.77.0.0/24 doesn't contain ip-range",
		}},
		{name: "malformed range", subnet: "10.77.0.0/24", ipRange: "x", lines: []string{"invalid ip-range x: invalid CIDR block notation"}},
		{name: "gateway outside", subnet: "10.77.0.0/24", gateway: "10.78.0.1", lines: []string{"invalid gateway 10.78.0.1: parent subnet 10.77.0.0/24 doesn't contain this address"}},
		{name: "gateway of other family", subnet: "10.77.0.0/24", gateway: "fd00::1", lines: []string{"invalid gateway fd00::1: parent subnet is an IPv4 block"}},
		{name: "gateway with zone", subnet: "fe80::/64", gateway: "fe80::1%eth0", lines: []string{"invalid gateway fe80::1%eth0: invalid address"}},
		{name: "malformed gateway", subnet: "10.77.0.0/24", gateway: "10.77.0.", lines: []string{"invalid gateway 10.77.0.: invalid address"}},
		{name: "aux", subnet: "10.77.0.0/24", aux: map[string]string{"b": "10.78.0.1", "a": "fd00::1", "c": ""}, lines: []string{
			"invalid auxiliary address c: invalid address",
			"invalid auxiliary address a: parent subnet is an IPv4 block",
			"invalid auxiliary address b: parent subnet 10.77.0.0/24 doesn't contain this address",
		}},
	} {
		t.Run(tc.name, func(t *testing.T) { refuse(t, tc) })
	}
}

// Problems do not hide one another.
func TestParsePoolListsAll(t *testing.T) {
	for _, tc := range []badPool{
		{name: "all of them", subnet: "10.77.0.5/24", ipRange: "10.77.0.9/28", gateway: "10.78.0.1", aux: map[string]string{"db": "fd00::1"}, lines: []string{
			"invalid subnet 10.77.0.5/24: it should be 10.77.0.0/24",
			"invalid ip-range 10.77.0.9/28: it should be 10.77.0.0/28",
			"invalid gateway 10.78.0.1: parent subnet 10.77.0.5/24 doesn't contain this address",
			"invalid auxiliary address db: parent subnet is an IPv4 block",
		}},
		{name: "all malformed", subnet: "a", ipRange: "b", gateway: "c", aux: map[string]string{"d": "e"}, lines: []string{
			"invalid subnet a: invalid CIDR block notation",
			"invalid ip-range b: invalid CIDR block notation",
			"invalid gateway c: invalid address",
			"invalid auxiliary address d: invalid address",
		}},
		{name: "no subnet", ipRange: "10.77.0.0/24", gateway: "10.77.0.1", aux: map[string]string{"db": "10.77.0.2"}, lines: []string{
			"invalid ip-range 10.77.0.0/24: invalid address subpool: an ip-range needs a subnet",
			"invalid gateway 10.77.0.1: a gateway needs a subnet",
			"invalid auxiliary address db: an auxiliary address needs a subnet",
		}},
		{name: "gateway in any subnet", subnet: "0.0.0.0/24", gateway: "10.0.0.1", lines: []string{"invalid gateway 10.0.0.1: parent subnet 0.0.0.0/24 doesn't contain this address"}},
	} {
		t.Run(tc.name, func(t *testing.T) { refuse(t, tc) })
	}
}

func TestReservedTwice(t *testing.T) {
	for _, tc := range []struct {
		name, subnet, gateway string
		aux                   map[string]string
		text                  string
	}{
		{"gateway is the network", "10.77.0.0/24", "10.77.0.0", nil, "failed to allocate gateway (10.77.0.0): Address already in use: it is held by the network itself: it is the network address of 10.77.0.0/24"},
		{"gateway is the broadcast", "10.77.0.0/24", "10.77.0.255", nil, "failed to allocate gateway (10.77.0.255): Address already in use"},
		{"gateway is the anycast", "fd00::/64", "fd00::", nil, "failed to allocate gateway (fd00::): Address already in use: it is held by the routers of fd00::/64"},
		{"aux is the gateway", "10.77.0.0/24", "10.77.0.1", map[string]string{"db": "10.77.0.1"}, "failed to allocate secondary ip address (db:10.77.0.1): Address already in use: it is held by the gateway"},
		{"aux twice", "10.77.0.0/24", "", map[string]string{"b": "10.77.0.7", "a": "10.77.0.7"}, "failed to allocate secondary ip address (b:10.77.0.7): Address already in use: it is held by auxiliary address a"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := ParsePool(tc.subnet, "", tc.gateway, tc.aux)
			wantError(t, err, linkspan.ErrForbidden, tc.text)
		})
	}
}

func TestCheckReserved(t *testing.T) {
	p := Pool{Subnet: pfx("10.77.0.0/24"), Gateway: ip("10.77.0.1"), Aux: map[string]netip.Addr{"db": ip("10.77.0.7"), "out": ip("10.78.0.1")}}
	err := p.CheckReserved(Used{ip("10.77.0.1"): "the gateway of network lab", ip("10.77.0.7"): "container web"})
	wantError(t, err, linkspan.ErrForbidden, "failed to allocate gateway (10.77.0.1): Address already in use: it is held by the gateway of network lab\n")
	wantError(t, err, linkspan.ErrForbidden, "failed to allocate secondary ip address (db:10.77.0.7): Address already in use: it is held by container web\n")
	wantError(t, err, linkspan.ErrForbidden, "auxiliary address: (out:10.78.0.1) must belong to the master pool: 10.77.0.0/24")

	p = Pool{Subnet: pfx("10.77.0.0/24"), Gateway: ip("10.78.0.1")}
	wantError(t, p.CheckReserved(nil), linkspan.ErrInvalid, "failed to allocate gateway (10.78.0.1): requested address is out of range: the subnet is 10.77.0.0/24")
}

func TestValidateSeveral(t *testing.T) {
	four, six := Pool{Subnet: pfx("10.77.0.0/24")}, Pool{Subnet: pfx("fd00::/64")}
	wantError(t, Validate(four, six, Pool{}, Pool{}), nil, "")
	wantError(t, Validate(Pool{Subnet: pfx("0.0.0.0/24")}, Pool{Subnet: pfx("0.0.0.0/24")}), nil, "")
	wantError(t, Validate(four, six, four), linkspan.ErrForbidden, "10.77.0.0/24 overlaps 10.77.0.0/24 of the same network")
	err := Validate(Pool{Subnet: pfx("10.77.0.1/24")}, Pool{Subnet: pfx("fd00::1/64")}, Pool{Subnet: pfx("::ffff:10.0.0.0/120")})
	wantError(t, err, linkspan.ErrInvalid, "invalid network config:\ninvalid subnet 10.77.0.1/24: it should be 10.77.0.0/24\ninvalid subnet fd00::1/64: it should be fd00::/64\ninvalid subnet ::ffff:10.0.0.0/120: it should be 10.0.0.0/24")
}

func TestCheckOverlap(t *testing.T) {
	lab := Pool{Subnet: pfx("10.77.0.0/16")}.Holding("network lab")
	upper := Pool{Subnet: pfx("10.88.0.0/24"), Range: pfx("10.88.0.128/25")}.Holding("network wire")
	whole := Pool{Subnet: pfx("0.0.0.0/0")}.Holding("network null")
	const words = "invalid pool request: Pool overlaps with other one on this address space: "
	for _, tc := range []struct {
		name, subnet, ipRange, text string
	}{
		{"apart", "10.78.0.0/16", "", ""},
		{"inside", "10.77.3.0/24", "", words + "10.77.3.0/24 overlaps 10.77.0.0/16 of network lab"},
		{"around", "10.0.0.0/8", "", words + "10.0.0.0/8 overlaps 10.77.0.0/16 of network lab"},
		{"inside, with range", "10.77.3.0/24", "10.77.3.0/25", ""},
		{"shared wire without range", "10.88.0.0/24", "", words + "10.88.0.0/24 overlaps 10.88.0.0/24 of network wire"},
		{"shared wire, other range", "10.88.0.0/24", "10.88.0.0/25", ""},
		{"shared wire, same range", "10.88.0.0/24", "10.88.0.128/25", words + "10.88.0.0/24 with ip-range 10.88.0.128/25 belongs to network wire"},
		{"same range, other subnet", "10.88.0.128/25", "10.88.0.128/25", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := Pool{Subnet: pfx(tc.subnet), Range: pfx(tc.ipRange)}.CheckOverlap(whole, lab, upper)
			if tc.text == "" {
				wantError(t, err, nil, "")
				return
			}
			wantError(t, err, linkspan.ErrForbidden, tc.text)
		})
	}
}

func TestPoolJSON(t *testing.T) {
	full := Pool{pfx("10.77.0.0/24"), pfx("10.77.0.128/25"), ip("10.77.0.1"), map[string]netip.Addr{"db": ip("10.77.0.7")}}
	for _, tc := range []struct {
		pool Pool
		text string
	}{
		{Pool{}, `{}`},
		{Pool{Subnet: pfx("fd00::/64")}, `{"Subnet":"fd00::/64"}`},
		{full, `{"Subnet":"10.77.0.0/24","IPRange":"10.77.0.128/25","Gateway":"10.77.0.1","AuxiliaryAddresses":{"db":"10.77.0.7"}}`},
	} {
		text, err := json.Marshal(tc.pool)
		if err != nil || string(text) != tc.text {
			t.Errorf("got %s, %v, want %s", text, err, tc.text)
		}
		var back Pool
		if err := json.Unmarshal(text, &back); err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(tc.pool, back, plain); diff != "" {
			t.Errorf("there and back (-want +got):\n%s", diff)
		}
	}
}

// What is accepted is well shaped, and survives being written and read again.
func FuzzParsePool(f *testing.F) {
	f.Add("10.77.0.0/24", "10.77.0.128/25", "10.77.0.1", "db", "10.77.0.7")
	f.Add("fd00::/64", "", "fd00::1", "", "")
	f.Add("::ffff:10.0.0.0/120", "::ffff:10.0.0.0/121", "::ffff:10.0.0.1", "a", "::ffff:10.0.0.2")
	f.Add("0.0.0.0/24", "", "", "", "")
	f.Add("10.77.0.1/24", "fd00::/8", "10.0.0.1%x", "db", "x")
	f.Fuzz(func(t *testing.T, subnet, ipRange, gateway, name, addr string) {
		var aux map[string]string
		if addr != "" {
			aux = map[string]string{name: addr}
		}
		p, err := ParsePool(subnet, ipRange, gateway, aux)
		if err != nil {
			if !errors.Is(err, linkspan.ErrInvalid) && !errors.Is(err, linkspan.ErrForbidden) {
				t.Fatalf("%v has no kind", err)
			}
			return
		}
		if p.Subnet.Masked() != p.Subnet || p.Subnet.Addr().Is4In6() {
			t.Fatalf("subnet %v", p.Subnet)
		}
		if p.Range.IsValid() && (!p.Subnet.Overlaps(p.Range) || p.Range.Bits() < p.Subnet.Bits()) {
			t.Fatalf("range %v outside %v", p.Range, p.Subnet)
		}
		written := func(valid bool, s fmt.Stringer) string {
			if !valid {
				return ""
			}
			return s.String()
		}
		for name, addr := range p.Aux {
			aux[name] = addr.String()
		}
		again, err := ParsePool(written(p.Subnet.IsValid(), p.Subnet), written(p.Range.IsValid(), p.Range), written(p.Gateway.IsValid(), p.Gateway), aux)
		if diff := cmp.Diff(p, again, plain); err != nil || diff != "" {
			t.Fatalf("read again: %v\n%s", err, diff)
		}
		if !utf8.ValidString(name) {
			return
		}
		text, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		var back Pool
		if err := json.Unmarshal(text, &back); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(p, back, plain); diff != "" {
			t.Fatalf("through JSON:\n%s", diff)
		}
	})
}

func ExampleParsePool() {
	_, err := ParsePool("10.77.0.5/24", "10.77.0.0/16", "10.78.0.1", nil)
	fmt.Println(err)
	// Output:
	// invalid network config:
	// invalid subnet 10.77.0.5/24: it should be 10.77.0.0/24
	// invalid ip-range 10.77.0.0/16: CIDR block is bigger than its parent subnet 10.77.0.5/24
	// invalid gateway 10.78.0.1: parent subnet 10.77.0.5/24 doesn't contain this address
}
