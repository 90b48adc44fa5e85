package dns

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/linkspan/linkspan"
)

func TestHostsFile(t *testing.T) {
	extra, err := ParseExtraHost("db:10.77.0.7")
	if err != nil {
		t.Fatal(err)
	}
	lines, err := ExtraLines([]ExtraHost{extra, {Name: "up", Gateway: true}}, []netip.Addr{addr("10.77.0.1"), addr("fd00::1")})
	if err != nil {
		t.Fatal(err)
	}
	own := []netip.Addr{addr("172.18.0.2"), addr("fd00::2")}
	h := HostsFile{
		IPv6:  true,
		Extra: lines,
		Links: []HostLine{{addr("172.17.0.9"), []string{"alias", "c0ffee", "target"}}},
		Own:   OwnLines("foobar", "example.com", own),
	}
	const tail = "10.77.0.7\tdb\n10.77.0.1\tup\nfd00::1\tup\n172.17.0.9\talias c0ffee target\n"
	want := `127.0.0.1	localhost
::1	localhost ip6-localhost ip6-loopback
fe00::	ip6-localnet
ff00::	ip6-mcastprefix
ff02::1	ip6-allnodes
ff02::2	ip6-allrouters
` + tail + "172.18.0.2\tfoobar.example.com foobar\nfd00::2\tfoobar.example.com foobar\n"
	if diff := cmp.Diff(want, string(h.Bytes())); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	h.IPv6, h.Own = false, OwnLines("probe", "", own[:1])
	if diff := cmp.Diff("127.0.0.1\tlocalhost\n"+tail+"172.18.0.2\tprobe\n", string(h.Bytes())); diff != "" {
		t.Errorf("without IPv6 (-want +got)\n%s", diff)
	}
	if got := OwnLines("a.b.c", "", own[:1])[0].Names; !cmp.Equal(got, []string{"a.b.c", "a"}) {
		t.Errorf("own names %q", got)
	}
	if _, err := ExtraLines([]ExtraHost{{Name: "up", Gateway: true}}, nil); err == nil || err.Error() != "unable to derive the IP value for host-gateway" {
		t.Errorf("no gateway: %v", err)
	}
}

func TestParseExtraHost(t *testing.T) {
	tests := []struct{ in, want string }{
		{"db:10.77.0.7", "db:10.77.0.7"},
		{"db=10.77.0.7", "db:10.77.0.7"},
		{"db:fd00::7", "db:fd00::7"},
		{"db:[fd00::7]", "db:fd00::7"},
		{"db=[::1]", "db:::1"},
		{"db:::1", "db:::1"},
		{"db:host-gateway", "db:host-gateway"},
		{"db", `bad format for add-host: "db"`},
		{"", `bad format for add-host: ""`},
		{":10.0.0.1", `bad format for add-host: ":10.0.0.1"`},
		{"d b:10.0.0.1", `bad format for add-host: "d b:10.0.0.1"`},
		{"d\n1.1.1.1 x:10.0.0.1", `bad format for add-host: "d\n1.1.1.1 x:10.0.0.1"`},
		{"db:", `invalid IP address in add-host: ""`},
		{"db:10.0.0.300", `invalid IP address in add-host: "10.0.0.300"`},
		{"db:[10.0.0.3]", `invalid IP address in add-host: "[10.0.0.3]"`},
		{"db:[fd00::7", `invalid IP address in add-host: "[fd00::7"`},
		{"db:fe80::1%eth0", `invalid IP address in add-host: "fe80::1%eth0"`},
		{"db:10.0.0.3\n", `invalid IP address in add-host: "10.0.0.3\n"`},
	}
	for _, test := range tests {
		h, err := ParseExtraHost(test.in)
		got := h.String()
		if err != nil {
			got = err.Error()
			if !errors.Is(err, linkspan.ErrInvalid) {
				t.Errorf("%q: %v is not of kind %v", test.in, err, linkspan.ErrInvalid)
			}
		}
		if got != test.want {
			t.Errorf("%q: %s, want %s", test.in, got, test.want)
		}
	}
}

// FuzzExtraHost: what parses is one line with one name, and reads back.
func FuzzExtraHost(f *testing.F) {
	for _, s := range []string{"db:10.0.0.1", "db=[::1]", "up:host-gateway", "x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		h, err := ParseExtraHost(s)
		if err != nil {
			return
		}
		again, err := ParseExtraHost(h.String())
		if err != nil || again != h {
			t.Errorf("%q reads back as %v, %v; want %v", h.String(), again, err, h)
		}
		lines, err := ExtraLines([]ExtraHost{h}, []netip.Addr{addr("10.0.0.1")})
		if err != nil {
			t.Fatal(err)
		}
		text := string(HostsFile{Extra: lines}.Bytes())
		if strings.Count(text, "\n") != 2 || len(strings.Fields(text)) != 4 || strings.Contains(text, "#") {
			t.Errorf("%q makes the file %q", s, text)
		}
	})
}
