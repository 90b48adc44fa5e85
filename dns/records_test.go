package dns

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	mdns "github.com/miekg/dns"

	"github.com/linkspan/linkspan"
)

func TestParseRecords(t *testing.T) {
	for in, want := range map[string]string{
		"":                              "[]",
		"db=10.0.0.5":                   "[{db 10.0.0.5 }]",
		"db=10.0.0.5,db=fd00::5":        "[{db 10.0.0.5 } {db fd00::5 }]",
		" *.dev=10.0.0.9\n\twww=web. ":  "[{*.dev 10.0.0.9 } {www invalid IP web}]",
		"a.b=::ffff:10.0.0.1":           "[{a.b 10.0.0.1 }]",
		"db":                            "invalid record",
		"=10.0.0.5":                     "invalid record",
		"*=10.0.0.5":                    "invalid record",
		"a..b=10.0.0.5":                 "invalid record",
		"a*.b=10.0.0.5":                 "invalid record",
		"db=":                           "neither an address nor a name",
		"db=10.0.0":                     "neither an address nor a name",
		"db=fe80::1%eth0":               "neither an address nor a name",
		"db=*.web":                      "neither an address nor a name",
		strings.Repeat("a", 64) + "=::": "invalid record",
		"www=web,WWW=10.0.0.5":          "leads to another name",
		"www=10.0.0.5,www=web":          "leads to another name",
		"www=web,www=web2":              "leads to another name",
	} {
		got, err := ParseRecords(in)
		text := fmt.Sprint(got)
		if err != nil {
			text = err.Error()
			if !errors.Is(err, linkspan.ErrInvalid) {
				t.Errorf("%q: error of another kind: %v", in, err)
			}
		}
		if !strings.Contains(text, want) {
			t.Errorf("%q: %s, want %s", in, text, want)
		}
	}
}

func FuzzRecords(f *testing.F) {
	f.Add("db=10.0.0.5,db=fd00::5 *.dev=10.0.0.9,www=web")
	f.Fuzz(func(t *testing.T, in string) {
		records, err := ParseRecords(in)
		if err != nil {
			return
		}
		z := lab()
		before := z.Len()
		z.SetRecords(records)
		for _, r := range records {
			if addrs, known := z.Lookup(r.Name); !known || r.Addr.IsValid() && !slices.Contains(addrs, r.Addr) {
				t.Errorf("%v is not to be found: %v", r, addrs)
			}
		}
		words := make([]string, len(records))
		for i, r := range records {
			words[i] = r.Name + "=" + r.Target
			if r.Target == "" {
				words[i] = r.Name + "=" + r.Addr.String()
			}
		}
		again, err := ParseRecords(strings.Join(words, ","))
		if err != nil || !slices.Equal(again, records) {
			t.Errorf("%v reads back as %v (%v)", records, again, err)
		}
		if z.SetRecords(nil); z.Len() != before || z.wild.Load() != 0 {
			t.Errorf("%d owners and %d wildcards are left, %d before", z.Len(), z.wild.Load(), before)
		}
	})
}

func TestRecordsAndWildcards(t *testing.T) {
	z := lab()
	z.Set("o9", Entry{Names: []string{"web2", "*.web", "*.deep.web"}, Addrs: []netip.Addr{addr("10.77.0.9")}})
	records, err := ParseRecords("ext=192.0.2.7,ext=2001:db8::7,*.dev=192.0.2.8,alias=web,loop=loop2,loop2=loop,nowhere=nobody,chain=alias,*.w=six")
	if err != nil {
		t.Fatal(err)
	}
	z.SetRecords(records)
	r, server := start(t, Config{Zones: []*Zone{z}})
	for _, test := range []struct {
		name, want string
		qtype      uint16
	}{
		{"ext", "NOERROR 192.0.2.7", mdns.TypeA},
		{"EXT.lab", "NOERROR 2001:db8::7", mdns.TypeAAAA},
		{"a.dev", "NOERROR 192.0.2.8", mdns.TypeA},
		{"A.B.Dev.Lab", "NOERROR 192.0.2.8", mdns.TypeA},
		{"a.dev", "NOERROR", mdns.TypeAAAA},
		{"a.dev", "NOERROR", mdns.TypeMX},
		{"dev", "SERVFAIL", mdns.TypeA},
		{"web", "NOERROR 10.77.0.2", mdns.TypeA},
		{"x.web", "NOERROR 10.77.0.9", mdns.TypeA},
		{"x.y.deep.web", "NOERROR 10.77.0.9", mdns.TypeA},
		{"alias", "NOERROR 10.77.0.2", mdns.TypeA},
		{"chain", "NOERROR 10.77.0.2", mdns.TypeA},
		{"a.w", "NOERROR fd00::5", mdns.TypeAAAA},
		{"loop", "NOERROR", mdns.TypeA},
		{"nowhere", "NOERROR", mdns.TypeA},
		{"7.2.0.192.in-addr.arpa", "NOERROR ext.lab.", mdns.TypePTR},
		{"8.2.0.192.in-addr.arpa", "SERVFAIL", mdns.TypePTR},
	} {
		for _, network := range []string{"udp", "tcp"} {
			if got := summary(ask(t, network, server, test.name, test.qtype)); got != test.want {
				t.Errorf("%s %s over %s: %s, want %s", test.name, mdns.TypeToString[test.qtype], network, got, test.want)
			}
		}
	}
	z.SetRecords(records[:2])
	z.Delete("o9")
	for name, want := range map[string]string{"ext": "NOERROR 192.0.2.7", "a.dev": "SERVFAIL", "x.web": "SERVFAIL", "alias": "SERVFAIL"} {
		if got := summary(ask(t, "udp", server, name, mdns.TypeA)); got != want {
			t.Errorf("%s afterwards: %s, want %s", name, got, want)
		}
	}
	if failed := r.Stats().Failed; failed == 0 {
		t.Error("no failure was counted")
	}
}
