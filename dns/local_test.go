package dns

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	mdns "github.com/miekg/dns"
)

// summary is "RCODE data data …", sorted.
func summary(m *mdns.Msg) string {
	var data []string
	for _, rr := range m.Answer {
		data = append(data, strings.TrimPrefix(rr.String(), rr.Header().String()))
	}
	slices.Sort(data)
	return strings.Join(append([]string{mdns.RcodeToString[m.Rcode]}, data...), " ")
}

func TestLocalAnswers(t *testing.T) {
	other := NewZone("other.net")
	other.Set("x1", Entry{Names: []string{"web", "far", "three.dots.far"}, Addrs: []netip.Addr{addr("10.88.0.9")}})
	other.Set("x2", Entry{Names: []string{"six"}, Addrs: []netip.Addr{addr("10.88.0.8")}})
	other.Set("x3", Entry{Names: []string{strings.Repeat("n", 70)}, Addrs: []netip.Addr{addr("10.88.0.7")}})
	const forwarded = "SERVFAIL" // there is no upstream
	tests := []struct {
		name  string
		qtype uint16
		want  string
	}{
		{"web", mdns.TypeA, "NOERROR 10.77.0.2"},
		{"WeB", mdns.TypeA, "NOERROR 10.77.0.2"},
		{"6f1ed002ab55", mdns.TypeA, "NOERROR 10.77.0.2"},
		{"app.example.com", mdns.TypeA, "NOERROR 10.77.0.2"},
		{"web.lab", mdns.TypeA, "NOERROR 10.77.0.2"},
		{"web.Lab", mdns.TypeA, "NOERROR 10.77.0.2"},
		{"web.other.net", mdns.TypeA, "NOERROR 10.88.0.9"},
		{"web.net", mdns.TypeA, forwarded},
		{"app.example.com.lab", mdns.TypeA, "NOERROR 10.77.0.2"},
		{"three.dots.far.other.net", mdns.TypeA, "NOERROR 10.88.0.9"},
		{"far", mdns.TypeA, "NOERROR 10.88.0.9"},
		{"far.lab", mdns.TypeA, forwarded},
		{"pool", mdns.TypeA, "NOERROR 10.77.0.3 10.77.0.4"},
		{"pool", mdns.TypeAAAA, "NOERROR fd00::3 fd00::4"},
		{"web", mdns.TypeAAAA, "NOERROR"},
		{"soon", mdns.TypeA, "NOERROR"},
		{"six", mdns.TypeA, "NOERROR"}, // the first network that knows the name wins
		{"six", mdns.TypeAAAA, "NOERROR fd00::5"},
		{"six.other.net", mdns.TypeA, "NOERROR 10.88.0.8"},
		{"web", mdns.TypeMX, "NOERROR"},
		{"web", mdns.TypeHTTPS, "NOERROR"},
		{"nobody", mdns.TypeMX, forwarded},
		{"web", mdns.TypeTXT, forwarded},
		{"web", mdns.TypeANY, forwarded},
		{"nobody", mdns.TypeA, forwarded},
		{".", mdns.TypeA, forwarded},
		{"2.0.77.10.in-addr.arpa", mdns.TypePTR, "NOERROR web.lab."},
		{"9.0.88.10.IN-ADDR.ARPA", mdns.TypePTR, "NOERROR web.other.net."},
		{"02.0.77.10.in-addr.arpa", mdns.TypePTR, forwarded},
		{"0.77.10.in-addr.arpa", mdns.TypePTR, forwarded},
		{"7.0.88.10.in-addr.arpa", mdns.TypePTR, "SERVFAIL"}, // a label of 70 bytes cannot be said
		{"200.0.77.10.in-addr.arpa", mdns.TypePTR, forwarded},
		{reverse("fd00::3"), mdns.TypePTR, "NOERROR db.lab."},
		{reverse("fd00::dead"), mdns.TypePTR, forwarded},
		{"alias", mdns.TypeA, "NOERROR 10.77.0.3"},
		{"alias.lab", mdns.TypeA, "NOERROR 10.77.0.3"},
		{"db2", mdns.TypeA, forwarded}, // a link hides the name of the same spelling
	}
	r, server := start(t, Config{Zones: []*Zone{lab(), other}, Links: map[string]string{"Alias": "DB", "db2": "absent"}})
	for _, test := range tests {
		for _, network := range []string{"udp", "tcp"} {
			m := ask(t, network, server, test.name, test.qtype)
			if diff := cmp.Diff(test.want, summary(m)); diff != "" {
				t.Errorf("%s %s over %s: (-want +got)\n%s", test.name, mdns.TypeToString[test.qtype], network, diff)
			}
			if m.Authoritative || !m.RecursionAvailable || !m.RecursionDesired {
				t.Errorf("%s: flags %+v, want RA and RD without AA", test.name, m.MsgHdr)
			}
			for _, rr := range m.Answer {
				if rr.Header().Ttl != 600 || !strings.EqualFold(rr.Header().Name, mdns.Fqdn(test.name)) {
					t.Errorf("%s: header %v", test.name, rr.Header())
				}
			}
		}
	}
	if s := r.Stats(); s.Local == 0 || s.Failed == 0 || s.Forwarded != 0 {
		t.Errorf("stats %+v: want local answers and failures, and nothing forwarded", s)
	}
}

func reverse(s string) string {
	name, err := mdns.ReverseAddr(s)
	if err != nil {
		panic(err)
	}
	return name
}

func TestKnownNamesAreNeverForwarded(t *testing.T) {
	_, server := start(t, Config{Zones: []*Zone{lab()}, Upstreams: noDial(t)})
	for _, q := range []uint16{mdns.TypeA, mdns.TypeAAAA, mdns.TypeMX, mdns.TypeHTTPS, mdns.TypeSVCB} {
		if m := ask(t, "udp", server, "web", q); m.Rcode != mdns.RcodeSuccess {
			t.Errorf("web %s: %s", mdns.TypeToString[q], summary(m))
		}
	}
}

func TestNDotsSet(t *testing.T) {
	up := fakeUpstream(t, says("192.0.2.1"))
	_, server := start(t, Config{Zones: []*Zone{lab()}, NDotsSet: true, Upstreams: []Upstream{up.config()}})
	for name, want := range map[string]string{"nobody": "NOERROR", "nobody.example": "NOERROR 192.0.2.1", "web": "NOERROR 10.77.0.2"} {
		if got := summary(ask(t, "udp", server, name, mdns.TypeA)); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	if n := up.asked.Load(); n != 1 {
		t.Errorf("the upstream was asked %d times, want 1", n)
	}
}

func TestAnswersAreShuffled(t *testing.T) {
	_, server := start(t, Config{Zones: []*Zone{lab()}})
	first := map[string]int{}
	for range 200 {
		first[ask(t, "udp", server, "pool", mdns.TypeA).Answer[0].(*mdns.A).A.String()]++
	}
	if first["10.77.0.3"] < 40 || first["10.77.0.4"] < 40 {
		t.Errorf("first of two addresses, in 200 answers: %v", first)
	}
}

func TestTruncation(t *testing.T) {
	z := NewZone("lab")
	for i, id := range ids(300) {
		z.Set(id, Entry{Names: []string{"many"}, Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})}})
	}
	_, server := start(t, Config{Zones: []*Zone{z}})
	tests := []struct {
		network string
		edns    uint16
		whole   bool
	}{
		{"udp", 0, false},
		{"udp", 100, false}, // less than 512 means 512
		{"udp", 1232, false},
		{"udp", 8192, true},
		{"tcp", 0, true},
	}
	for _, test := range tests {
		q := new(mdns.Msg).SetQuestion("many.", mdns.TypeA)
		if test.edns > 0 {
			q.SetEdns0(test.edns, true)
		}
		m := exchange(t, test.network, server, q)
		if m.Truncated == test.whole || (len(m.Answer) == 300) != test.whole || len(m.Answer) < 28 {
			t.Errorf("%s %d: truncated %v with %d answers, want whole %v", test.network, test.edns, m.Truncated, len(m.Answer), test.whole)
		}
		m.Compress = true
		limit := max(512, int(test.edns))
		if test.network == "udp" && m.Len() > limit {
			t.Errorf("%s %d: %d bytes, more than %d", test.network, test.edns, m.Len(), limit)
		}
		if opt := m.IsEdns0(); (opt != nil) != (test.edns > 0) || opt != nil && !opt.Do() {
			t.Errorf("%s %d: OPT %v", test.network, test.edns, opt)
		}
	}
}

func TestOddPackets(t *testing.T) {
	_, server := start(t, Config{Zones: []*Zone{lab()}})
	status := new(mdns.Msg).SetQuestion("web.", mdns.TypeA)
	status.Opcode = mdns.OpcodeStatus
	two := new(mdns.Msg).SetQuestion("web.", mdns.TypeA)
	two.Question = append(two.Question, two.Question[0])
	version := new(mdns.Msg).SetQuestion("web.", mdns.TypeA)
	version.SetEdns0(1232, false)
	version.IsEdns0().SetVersion(1)
	chaos := new(mdns.Msg).SetQuestion("web.", mdns.TypeA)
	chaos.Question[0].Qclass = mdns.ClassCHAOS
	for _, test := range []struct {
		query *mdns.Msg
		rcode int
	}{
		{status, mdns.RcodeNotImplemented},
		{two, mdns.RcodeFormatError},
		{version, mdns.RcodeBadVers},
		{chaos, mdns.RcodeServerFailure},
	} {
		for _, network := range []string{"udp", "tcp"} {
			if m := exchange(t, network, server, test.query); m.Rcode != test.rcode {
				t.Errorf("%v over %s: %s, want %s", test.query, network, mdns.RcodeToString[m.Rcode], mdns.RcodeToString[test.rcode])
			}
		}
	}
}

func TestZoneUpdates(t *testing.T) {
	z := lab()
	z.Set("o2", Entry{Names: []string{"DB.", "db", "primary", ""}, Addrs: []netip.Addr{addr("::ffff:10.77.0.30")}})
	z.Set("o3", Entry{Names: []string{"thief"}, Addrs: []netip.Addr{addr("10.77.0.2")}})
	z.Delete("o3") // gives the PTR record of 10.77.0.2 back to web
	z.Delete("o4")
	z.Delete("never there")
	got := map[string]string{}
	for _, name := range []string{"db", "primary", "pool", "db2", "thief", "six", "soon", "web"} {
		addrs, ok := z.Lookup(name)
		got[name] = fmt.Sprint(ok, addrs)
	}
	for _, a := range []string{"10.77.0.2", "10.77.0.30", "10.77.0.3", "fd00::3", "fd00::5"} {
		name, ok := z.Reverse(addr(a))
		got[a] = fmt.Sprint(ok, " ", name)
	}
	want := map[string]string{
		"db": "true [10.77.0.30]", "primary": "true [10.77.0.30]", "pool": "false []", "db2": "false []", "thief": "false []",
		"six": "false []", "soon": "true []", "web": "true [10.77.0.2]",
		"10.77.0.2": "true web.lab.", "10.77.0.30": "true DB.lab.", "10.77.0.3": "false ", "fd00::3": "false ", "fd00::5": "false ",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("zone (-want +got)\n%s", diff)
	}
	if z.Len() != 3 {
		t.Errorf("%d owners, want 3", z.Len())
	}
}
