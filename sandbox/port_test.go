package sandbox_test

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/sandbox"
)

func TestParseWish(t *testing.T) {
	local, six := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1")
	for text, want := range map[string]sandbox.Wish{
		"80":                        {Protocol: "tcp", Port: 80, Count: 1},
		"80/udp":                    {Protocol: "udp", Port: 80, Count: 1},
		"8080:80":                   {Protocol: "tcp", Port: 80, Count: 1, First: 8080, Last: 8080},
		"8080:80/sctp":              {Protocol: "sctp", Port: 80, Count: 1, First: 8080, Last: 8080},
		"8000-8010:80":              {Protocol: "tcp", Port: 80, Count: 1, First: 8000, Last: 8010},
		"8000-8002:80-82/udp":       {Protocol: "udp", Port: 80, Count: 3, First: 8000, Last: 8002},
		"127.0.0.1:8080:80":         {Protocol: "tcp", Port: 80, Count: 1, Host: local, First: 8080, Last: 8080},
		"127.0.0.1::80":             {Protocol: "tcp", Port: 80, Count: 1, Host: local},
		"[::1]:8080:80":             {Protocol: "tcp", Port: 80, Count: 1, Host: six, First: 8080, Last: 8080},
		"[::1]::53/UDP":             {Protocol: "udp", Port: 53, Count: 1, Host: six},
		"1-65535:1-65535":           {Protocol: "tcp", Port: 1, Count: 65535, First: 1, Last: 65535},
		"127.0.0.1:80-81:80-81/tcp": {Protocol: "tcp", Port: 80, Count: 2, Host: local, First: 80, Last: 81},
	} {
		if got, err := sandbox.ParseWish(text); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("ParseWish(%q) = %+v, %v; want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "abc", "0", "70000:80", "80:70000", "80:80/foo", "1:2:3:4", "0.0.0:80:80", "5-3:80", "-1:80", "80-82", "8000-8003:80-82",
		":80", "80:", "[::1:80:80", "host:80:80", "80/", "8080:80/tcp/udp", "8000-:80",
	} {
		if got, err := sandbox.ParseWish(text); !errors.Is(err, linkspan.ErrInvalid) {
			t.Errorf("ParseWish(%q) = %+v, %v; want a refusal", text, got, err)
		}
	}
}

// FuzzParseWish: what is accepted makes sense.
func FuzzParseWish(f *testing.F) {
	for _, seed := range []string{"80", "127.0.0.1:8000-8002:80-82/udp", "[::1]::80"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		w, err := sandbox.ParseWish(text)
		if err != nil {
			return
		}
		inOrder := w.First <= w.Last && (w.First != 0) == (w.Last != 0)
		fits := w.Count == 1 || int(w.Last)-int(w.First)+1 == int(w.Count)
		if w.Port == 0 || w.Count == 0 || int(w.Port)+int(w.Count) > 65536 || !sandbox.KnownProtocol(w.Protocol) || !inOrder || !fits {
			t.Errorf("ParseWish(%q) = %+v", text, w)
		}
	})
}

// Merge neither adds nor loses a port, and leaves no two rows that could be one.
func TestMerge(t *testing.T) {
	hosts := []netip.Addr{netip.MustParseAddr("0.0.0.0"), netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("::")}
	to := netip.MustParseAddr("10.77.0.2")
	for range 300 {
		var ports []sandbox.Port
		used := make(map[string]bool)
		for range rand.IntN(40) {
			p := sandbox.Port{
				Protocol: []string{"tcp", "udp"}[rand.IntN(2)], Host: hosts[rand.IntN(3)], First: 65526 + uint16(rand.IntN(10)), Count: 1,
				To: netip.AddrPortFrom(to, 65526+uint16(rand.IntN(10))),
			}
			if key := p.Protocol + p.Address(); !used[key] {
				used[key] = true
				ports = append(ports, p)
			}
		}
		merged := sandbox.Merge(ports)
		if got, want := spelled(merged), spelled(ports); !slices.Equal(got, want) {
			t.Fatalf("merging %v gave %v", ports, merged)
		}
		if again := sandbox.Merge(merged); len(again) != len(merged) {
			t.Errorf("%v merges further, to %v", merged, again)
		}
	}
	var run []sandbox.Port
	for i := range uint16(1001) {
		run = append(run, sandbox.Port{Protocol: "tcp", Host: hosts[0], First: 50000 + i, Count: 1, To: netip.AddrPortFrom(to, 50000+i)})
	}
	if merged := sandbox.Merge(run); len(merged) != 1 || merged[0].String() != "0.0.0.0:50000-51000->50000-51000/tcp" {
		t.Errorf("a range of 1,001 ports became %v", merged)
	}
}

func spelled(ports []sandbox.Port) []string {
	var all []string
	for _, p := range ports {
		for i := range p.Count {
			one := p
			one.First, one.Count, one.To = p.First+i, 1, netip.AddrPortFrom(p.To.Addr(), p.To.Port()+i)
			all = append(all, one.String())
		}
	}
	slices.Sort(all)
	return all
}

func TestOverlaps(t *testing.T) {
	port := func(host string, first, count uint16) sandbox.Port {
		return sandbox.Port{Protocol: "tcp", Host: netip.MustParseAddr(host), First: first, Count: count, To: netip.MustParseAddrPort("10.0.0.2:80")}
	}
	for _, c := range []struct {
		a, b sandbox.Port
		want bool
	}{
		{port("0.0.0.0", 80, 1), port("127.0.0.1", 80, 1), true},
		{port("192.0.2.1", 80, 1), port("127.0.0.1", 80, 1), false},
		{port("0.0.0.0", 80, 1), port("::", 80, 1), false},
		{port("::", 80, 1), port("::1", 80, 1), true},
		{port("0.0.0.0", 80, 10), port("0.0.0.0", 89, 1), true},
		{port("0.0.0.0", 80, 10), port("0.0.0.0", 90, 1), false},
		{port("0.0.0.0", 65535, 1), port("0.0.0.0", 1, 1), false},
	} {
		if c.a.Overlaps(c.b) != c.want || c.b.Overlaps(c.a) != c.want {
			t.Errorf("%s overlaps %s: want %v", c.a, c.b, c.want)
		}
	}
}
