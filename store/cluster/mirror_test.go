package cluster

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/ipam"
)

// news is a version of a key: its value, or its end.
type news struct {
	key, value string
	mod        int64
}

// TestMirrorOrder tells a mirror the changes of a store in any order, some of
// them twice, and lists in between: in the end it has what the store has.
func TestMirrorOrder(t *testing.T) {
	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(seed, 7))
		l := layout{"/linkspan/v1/"}
		now := make(map[string]string) // the store
		mods := make(map[string]int64)
		var history []news
		var lists []map[string]string
		for revision := int64(1); revision <= 60; revision++ {
			key, value := anyKey(l, random, revision)
			if _, there := now[key]; there && random.IntN(3) == 0 {
				value = ""
			}
			if now[key] = value; value == "" {
				delete(now, key)
			}
			mods[key] = revision
			history = append(history, news{key, value, revision})
			lists = append(lists, maps.Clone(now))
		}

		m := newMirror(l, "me")
		told := slices.Clone(history)
		for range 10 {
			told = append(told, history[random.IntN(len(history))])
		}
		random.Shuffle(len(told), func(i, j int) { told[i], told[j] = told[j], told[i] })
		for i, n := range told {
			if n.value == "" {
				m.remove(n.key, n.mod)
			} else {
				m.put(n.key, n.value, n.mod)
			}
			if i%25 == 24 {
				at := max(int(m.revision)-1, random.IntN(len(lists)))
				listed(&m, lists[at], history[:at+1])
			}
		}
		if got, want := dump(&m), dumpOf(l, now, mods); !maps.Equal(got, want) {
			t.Fatalf("seed %d: the mirror has\n%v\nand the store\n%v", seed, got, want)
		}
		for _, s := range m.on {
			if got := s.counts[0]; got.claims != len(s.claims) || got.blocks != len(s.blocks) {
				t.Fatalf("seed %d: counted %v of %d claims and %d blocks", seed, got, len(s.claims), len(s.blocks))
			}
			for prefix, b := range s.blocks {
				if s.own[prefix] != (b.value.Member == "me") {
					t.Fatalf("seed %d: block %s of %s", seed, prefix, b.value.Member)
				}
			}
			if want := runsOf(s); !sameRuns(&s.taken, want, s) {
				t.Fatalf("seed %d: the taken addresses are not those of the claims", seed)
			}
		}
	}
}

// listed tells a mirror all keys of a revision.
func listed(m *mirror, keys map[string]string, until []news) {
	m.round++
	mods := make(map[string]int64)
	for _, n := range until {
		mods[n.key] = n.mod
	}
	for key, value := range keys {
		m.put(key, value, mods[key])
	}
	m.sweep(until[len(until)-1].mod)
}

func anyKey(l layout, random *rand.Rand, revision int64) (key, value string) {
	network := linkspan.ID(fmt.Sprint("n", random.IntN(2)))
	host := linkspan.ID([]string{"me", "other"}[random.IntN(2)])
	switch random.IntN(4) {
	case 0:
		id := linkspan.ID(fmt.Sprint("e", random.IntN(4)))
		return l.endpoint(network, id), encode(Endpoint{ID: id, Member: host, Name: fmt.Sprint("at", revision)})
	case 1:
		return l.claim(network, netip.AddrFrom4([4]byte{10, 0, 0, byte(random.IntN(6))})), encode(claim{Member: host, Name: fmt.Sprint("at", revision)})
	case 2:
		return l.block(network, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(128 + 8*random.IntN(3))}), 29)), encode(block{Member: host, Host: fmt.Sprint("at", revision), Bits: 29})
	}
	return l.member(host), encode(Member{ID: host, Name: fmt.Sprint("at", revision)})
}

// dump returns the revision of each key that a mirror has, and whether it is its
// own.
func dump(m *mirror) map[string]string {
	all := make(map[string]string)
	add := func(key string, mod int64) {
		_, mine := m.mine[key]
		all[key] = fmt.Sprint(mod, mine)
	}
	for id, x := range m.members {
		add(m.layout.member(id), x.mod)
	}
	for network, s := range m.on {
		for id, x := range s.endpoints {
			add(m.layout.endpoint(network, id), x.mod)
		}
		for addr, x := range s.claims {
			add(m.layout.claim(network, addr), x.mod)
		}
		for prefix, x := range s.blocks {
			add(m.layout.block(network, prefix), x.mod)
		}
	}
	for key := range m.mine {
		if _, there := all[key]; !there {
			all[key] = "nowhere but among its own"
		}
	}
	return all
}

func dumpOf(l layout, keys map[string]string, mods map[string]int64) map[string]string {
	fresh := newMirror(l, "me")
	for key, value := range keys {
		fresh.put(key, value, mods[key])
	}
	return dump(&fresh)
}

func runsOf(s *segment) *ipam.Runs {
	var runs ipam.Runs
	for addr := range s.claims {
		runs.Add(addr)
	}
	return &runs
}

func sameRuns(a, b *ipam.Runs, s *segment) bool {
	for i := range 8 {
		addr := netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})
		if a.Next(addr) != b.Next(addr) {
			return false
		}
	}
	return a.Empty() == (len(s.claims) == 0)
}

// TestReserve checks where blocks are: in the upper half of what a pool gives,
// side by side, and each around its own addresses.
func TestReserve(t *testing.T) {
	for subnet, want := range map[string]string{
		"10.0.0.0/24": "16 blocks from 10.0.0.128/29 to 10.0.0.248/29",
		"10.0.0.0/16": "512 blocks from 10.0.128.0/26 to 10.0.255.192/26",
		"10.0.0.0/8":  "512 blocks from 10.0.128.0/26 to 10.0.255.192/26",
		"10.0.0.0/25": "16 blocks from 10.0.0.64/30 to 10.0.0.124/30",
		"10.0.0.0/26": "none",
		"fd00::/64":   "512 blocks from fd00::8000/122 to fd00::ffc0/122",
	} {
		r, ok := reserveOf(ipam.Pool{Subnet: netip.MustParsePrefix(subnet)})
		got := "none"
		if ok {
			n := r.blocks()
			got = fmt.Sprintf("%d blocks from %s to %s", n, r.block(0), r.block(n-1))
			for i := range n {
				if b := r.block(i); r.around(b.Addr()) != b || r.around(offset(b.Addr(), 1<<r.bits-1)) != b {
					t.Errorf("%s: around the addresses of block %s is another", subnet, b)
				}
			}
		}
		if got != want {
			t.Errorf("%s: %s, not %s", subnet, got, want)
		}
	}
}
