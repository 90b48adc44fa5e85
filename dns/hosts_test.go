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
	gateways := []netip.Addr{addr("10.77.0.1"), addr("fd00::1")}
	h := HostsFile{
		IPv6:     true,
		Links:    []HostLine{{addr("172.17.0.9"), []string{"alias", "c0ffee", "target"}}},
		Hostname: "foobar", Domainname: "example.com",
		Own: []netip.Addr{addr("172.18.0.2"), addr("fd00::2")},
	}
	for _, s := range []string{"db:10.77.0.7", "up:host-gateway"} {
		lines, err := ParseExtraHost(s, gateways)
		if err != nil {
			t.Fatal(err)
		}
		h.Extra = append(h.Extra, lines...)
	}
	const tail = "10.77.0.7\tdb\n10.77.0.1\tup\nfd00::1\tup\n172.17.0.9\talias c0ffee target\n"
	want := `127.0.0.1	localhost
::1	localhost ip6-localhost ip6-loopback
fe00::	ip6-localnet
ff00::	ip6-mcastprefix
ff02::1	ip6-allnodes
ff02::2	ip6-allrouters
` + tail + "172.18.0.2\tfoobar.example.com foobar\nfd00::2\tfoobar.example.com foobar\n"
	if diff := cmp.Diff(want, string(h.Render())); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	for hostname, own := range map[string]string{"probe": "probe", "a.b.c": "a.b.c a"} {
		h.IPv6, h.Hostname, h.Domainname, h.Own = false, hostname, "", h.Own[:1]
		if diff := cmp.Diff("127.0.0.1\tlocalhost\n"+tail+"172.18.0.2\t"+own+"\n", string(h.Render())); diff != "" {
			t.Errorf("%s without IPv6 (-want +got)\n%s", hostname, diff)
		}
	}
}

func TestParseExtraHost(t *testing.T) {
	tests := []struct{ in, want string }{
		{"db:10.77.0.7", "db 10.77.0.7"},
		{"db=10.77.0.7", "db 10.77.0.7"},
		{"db:fd00::7", "db fd00::7"},
		{"db:[fd00::7]", "db fd00::7"},
		{"db=[::1]", "db ::1"},
		{"db:::1", "db ::1"},
		{"db:host-gateway", "db 10.77.0.1"},
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
	gateway := []netip.Addr{addr("10.77.0.1")}
	for _, test := range tests {
		var got string
		lines, err := ParseExtraHost(test.in, gateway)
		switch {
		case err == nil && len(lines) == 1 && len(lines[0].Names) == 1:
			got = lines[0].Names[0] + " " + lines[0].Addr.String()
		case errors.Is(err, linkspan.ErrInvalid):
			got = err.Error()
		default:
			t.Errorf("%q: %v, %v", test.in, lines, err)
		}
		if got != test.want {
			t.Errorf("%q: %s, want %s", test.in, got, test.want)
		}
	}
	_, err := ParseExtraHost("up:host-gateway", nil)
	if err == nil || err.Error() != "unable to derive the IP value for host-gateway" {
		t.Errorf("no gateway: %v", err)
	}
}

// FuzzExtraHost: what parses is one line with one name, and reads back.
func FuzzExtraHost(f *testing.F) {
	for _, s := range []string{"db:10.0.0.1", "db=[::1]", "up:host-gateway", "x"} {
		f.Add(s)
	}
	gateway := []netip.Addr{netip.MustParseAddr("10.0.0.1")}
	f.Fuzz(func(t *testing.T, s string) {
		lines, err := ParseExtraHost(s, gateway)
		if err != nil {
			return
		}
		again, err := ParseExtraHost(lines[0].Names[0]+":"+lines[0].Addr.String(), nil)
		if err != nil || !cmp.Equal(lines, again, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })) {
			t.Errorf("%v reads back as %v, %v", lines, again, err)
		}
		text := string(HostsFile{Extra: lines}.Render())
		if strings.Count(text, "\n") != 2 || len(strings.Fields(text)) != 4 || strings.Contains(text, "#") {
			t.Errorf("%q makes the file %q", s, text)
		}
	})
}

func TestMergeHosts(t *testing.T) {
	const was, text = "127.0.0.1\tlocalhost\n10.77.0.2\tweb\n", "127.0.0.1\tlocalhost\n10.78.0.2\tweb\n"
	for edited, want := range map[string]string{
		was:                                   text,
		"":                                    "10.78.0.2\tweb\n",
		"192.0.2.1\tmine":                     "192.0.2.1\tmine\n10.78.0.2\tweb\n",
		"10.77.0.2\tweb\n192.0.2.1\tmine\n":   "192.0.2.1\tmine\n10.78.0.2\tweb\n",
		"10.77.0.2 web # mine\n":              "10.77.0.2 web # mine\n10.78.0.2\tweb\n",
		"10.78.0.2\tweb\n192.0.2.1\tbehind\n": "10.78.0.2\tweb\n192.0.2.1\tbehind\n",
	} {
		if diff := cmp.Diff(want, string(MergeHosts([]byte(edited), []byte(was), []byte(text)))); diff != "" {
			t.Errorf("%q (-want +got)\n%s", edited, diff)
		}
	}
}

// Whatever the three files hold: what is not ours stays, in order; what is new
// is there; and merging once more changes nothing.
func FuzzMergeHosts(f *testing.F) {
	f.Add("192.0.2.1\tmine\n10.77.0.2\tweb", "10.77.0.2\tweb\n", "10.78.0.2\tweb\n")
	f.Add("\n\na\n", "a\na\n", "\x00\n")
	f.Fuzz(func(t *testing.T, edited, was, text string) {
		got := string(MergeHosts([]byte(edited), []byte(was), []byte(text)))
		old, fresh := lineSet([]byte(was)), lineSet([]byte(text))
		var foreign, kept []string
		for _, file := range []struct {
			text string
			into *[]string
		}{{edited, &foreign}, {got, &kept}} {
			for line := range strings.Lines(file.text) {
				if line = strings.TrimSuffix(line, "\n"); !old[line] && !fresh[line] {
					*file.into = append(*file.into, line)
				}
			}
		}
		if diff := cmp.Diff(foreign, kept); diff != "" {
			t.Errorf("what is not ours (-before +after)\n%s", diff)
		}
		there := lineSet([]byte(got))
		for line := range fresh {
			if !old[line] && !there[line] {
				t.Errorf("%q is missing from %q", line, got)
			}
		}
		for line := range old {
			if !fresh[line] && there[line] {
				t.Errorf("%q is still in %q", line, got)
			}
		}
		if again := string(MergeHosts([]byte(got), []byte(was), []byte(text))); again != got {
			t.Errorf("merging %q again gives %q", got, again)
		}
	})
}
