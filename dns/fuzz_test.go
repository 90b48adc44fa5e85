package dns

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"

	mdns "github.com/miekg/dns"
)

// fixed is a permutation that both paths can be given.
func fixed(n int) int { return n / 2 }

// oddLab has names that the two paths might treat in different ways.
func oddLab() *Zone {
	z := lab()
	z.Set("p1", Entry{Names: []string{strings.Repeat("l", 64), "long"}, Addrs: []netip.Addr{addr("10.77.1.1")}})
	z.Set("p2", Entry{Names: []string{"od d", `b\ck`, "sp.ot"}, Addrs: []netip.Addr{addr("10.77.1.2")}})
	z.Set("p3", Entry{Names: []string{strings.Repeat("l.", 126) + "l"}, Addrs: []netip.Addr{addr("10.77.1.3")}})
	for i, id := range ids(90) {
		z.Set(id, Entry{Names: []string{"many"}, Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 1, 0, byte(i)})}})
	}
	return z
}

func oddView(ndots bool) *view {
	arpa := NewZone("in-addr.arpa")
	arpa.Set("q1", Entry{Names: []string{"web", "2.0.77.10"}, Addrs: []netip.Addr{addr("10.77.2.1"), addr("10.77.0.2")}})
	return newView(Config{Zones: []*Zone{oddLab(), arpa}, Links: map[string]string{"alias": "db", "hidden": "absent"}, NDotsSet: ndots})
}

// samePaths reports whether the path by hand, if it takes a packet, does with
// it what the library path does, to the byte.
func samePaths(t *testing.T, v *view, pkt []byte) bool {
	t.Helper()
	var (
		q        query
		external externals
		out      [answerLen]byte
	)
	n, what, ok := v.answerFast(&q, out[:], pkt, &external, fixed)
	slow, slowWhat := v.answer(pkt, 0, &external, fixed)
	if slowWhat == reply {
		limit := minUDP
		var req mdns.Msg
		if req.Unpack(pkt) == nil && req.IsEdns0() != nil {
			limit = max(limit, int(req.IsEdns0().UDPSize()))
		}
		if len(slow) > limit {
			t.Errorf("query %x: an answer of %d bytes, the client takes %d", pkt, len(slow), limit)
		}
		if !bytes.Equal(slow[:2], pkt[:2]) || slow[2]&0x80 == 0 {
			t.Errorf("query %x: answer %x", pkt, slow)
		}
	}
	if slowWhat == forward && questionEnd(pkt) == 0 {
		t.Errorf("query %x: forwarded without a question", pkt)
	}
	if !ok {
		return false
	}
	if what != slowWhat || what == reply && !bytes.Equal(out[:n], slow) {
		t.Errorf("query %x\nby hand %d %x\nlibrary %d %x", pkt, what, out[:n], slowWhat, slow)
	}
	return true
}

// questions are packets of which the path by hand takes some and not others.
func questions(t testing.TB) [][]byte {
	names := []string{
		"web.", "WEB.", "web.lab.", "pool.", "six.", "soon.", "many.", "alias.", "hidden.", "nobody.", "nobody.example.", ".",
		"app.example.com.", "sp.ot.", `od\032d.`, `b\\ck.`, `a\.b.`, "_x-1.lab.", strings.Repeat("l", 63) + ".",
		strings.Repeat("l.", 126) + "l.", "2.0.77.10.in-addr.arpa.", "1.2.77.10.In-Addr.arpa.", "1.1.77.10.in-addr.arpa.",
		"2.1.77.10.in-addr.arpa.", "3.1.77.10.in-addr.arpa.", "77.10.in-addr.arpa.", "999.1.77.10.in-addr.arpa.", reverse("fd00::3"), reverse("::ffff:10.77.0.2"),
	}
	var out [][]byte
	for _, name := range names {
		for _, qtype := range []uint16{mdns.TypeA, mdns.TypeAAAA, mdns.TypePTR, mdns.TypeMX, mdns.TypeTXT} {
			for _, size := range []uint16{0, 100, 1232, 4096} {
				q := new(mdns.Msg).SetQuestion(name, qtype)
				q.Id = 0xbeef
				q.AuthenticatedData = size == 0
				q.CheckingDisabled = size == 1232
				if size > 0 {
					q.SetEdns0(size, size == 4096)
				}
				b, err := q.Pack()
				if err != nil {
					t.Fatal(err)
				}
				out = append(out, b)
			}
		}
	}
	return out
}

func TestBothPathsAgree(t *testing.T) {
	byHand := 0
	all := questions(t)
	for _, ndots := range []bool{false, true} {
		v := oddView(ndots)
		for _, pkt := range all {
			if samePaths(t, v, pkt) {
				byHand++
			}
		}
	}
	if byHand < len(all)/2 || byHand == 2*len(all) {
		t.Errorf("%d of %d packets were answered by hand: the test sees too little of one path", byHand, 2*len(all))
	}
}

func FuzzPathsAgree(f *testing.F) {
	all := questions(f)
	for i := 0; i < len(all); i += 7 {
		f.Add(all[i])
	}
	plain, ndots := oddView(false), oddView(true)
	f.Fuzz(func(t *testing.T, pkt []byte) {
		if len(pkt) > queryLen {
			return
		}
		samePaths(t, plain, pkt)
		samePaths(t, ndots, pkt)
	})
}

// FuzzUpstreamAnswer: whatever a server sends, it is judged without a panic,
// and what is accepted repeats the question.
func FuzzUpstreamAnswer(f *testing.F) {
	asked, err := new(mdns.Msg).SetQuestion("example.org.", mdns.TypeA).Pack()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(answerTo(asked, "10.77.0.2", mdns.RcodeSuccess))
	f.Add(answerTo(asked, "", mdns.RcodeRefused))
	f.Add(headerOnly(asked, mdns.RcodeServerFailure))
	v := oddView(false)
	f.Fuzz(func(t *testing.T, pkt []byte) {
		if len(pkt) >= 2 {
			copy(pkt, asked[:2])
		}
		var external externals
		if !answers(pkt, asked) || !acceptable(pkt, v, &external) {
			return
		}
		end := questionEnd(asked)
		if !strings.EqualFold(string(pkt[headerLen:end]), string(asked[headerLen:end])) {
			t.Errorf("accepted %x for %x", pkt, asked)
		}
	})
}
