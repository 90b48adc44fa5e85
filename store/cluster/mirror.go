package cluster

import (
	"encoding/json"
	"net/netip"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/ipam"
	"github.com/linkspan/linkspan/network"
)

// claim says who has an address.
type claim struct {
	Member   linkspan.ID
	Host     string // the member's name, for words
	Owner    linkspan.ID
	Endpoint linkspan.ID `json:",omitempty"` // none: reserved for an owner that does not run
	Name     string      // the owner's
	Held     bool        `json:",omitempty"` // stays when the endpoint leaves
}

func (c claim) String() string {
	text := "container " + c.Name
	if c.Name == "" {
		text = "container " + c.Owner.Short()
	}
	if c.Endpoint == "" {
		text += ", stopped,"
	}
	return text + " on host " + c.Host
}

// block says which host keeps addresses in reserve.
type block struct {
	Member linkspan.ID
	Host   string
	Bits   int // prefix length
}

// keeper says that a host needs a network.
type keeper struct {
	Member linkspan.ID
	Host   string // the member's name, for words
	Why    string
}

// guard is what whoever makes or removes a network changes. It serialises them.
type guard struct {
	VNI uint32 // that was given last
}

// cursor is the address that was given last in each family.
type cursor struct {
	IPv4 netip.Addr `json:",omitzero"`
	IPv6 netip.Addr `json:",omitzero"`
}

// seen is a value with what orders it among the versions of its key.
type seen[T any] struct {
	value T
	mod   int64  // the store's revision that wrote it
	round uint32 // of the list that had it last
}

// mirror is what this host knows of the store: a copy, by kind. Whatever is
// told to it, by the watch, by a list, by the answer to a question of its own,
// carries a revision, and a version of a key that is older than the known one is
// left out: the order in which the news arrives does not matter.
type mirror struct {
	layout layout
	self   linkspan.ID

	revision int64 // all changes up to it are here
	round    uint32

	networks map[linkspan.ID]seen[network.Network]
	members  map[linkspan.ID]seen[Member]
	on       map[linkspan.ID]*segment
	cursors  map[linkspan.ID]seen[cursor]
	guard    seen[guard]

	// mine is what of all that is this host's own, as it is written there.
	mine map[string]seen[string]
	// doubtful are keys of mine whose end was asked for, or which hung on a lease
	// that ended, and of which nothing was heard since.
	doubtful map[string]bool
	// gone are keys whose end was learned before the watch told of it.
	gone map[string]int64

	news Change // not told to the followers yet
}

// segment is what a network has on it.
type segment struct {
	endpoints map[linkspan.ID]seen[Endpoint]
	claims    map[netip.Addr]seen[claim]
	taken     ipam.Runs // the addresses of claims
	blocks    map[netip.Prefix]seen[block]
	keepers   map[linkspan.ID]seen[keeper]

	own    map[netip.Prefix]bool // the blocks of this host
	counts [2]struct{ claims, blocks int }
}

// familyOf is the index of an address's counts.
func familyOf(addr netip.Addr) int {
	if addr.Is6() {
		return 1
	}
	return 0
}

func newMirror(l layout, self linkspan.ID) mirror {
	return mirror{
		layout: l, self: self,
		networks: make(map[linkspan.ID]seen[network.Network]),
		members:  make(map[linkspan.ID]seen[Member]),
		on:       make(map[linkspan.ID]*segment),
		cursors:  make(map[linkspan.ID]seen[cursor]),
		mine:     make(map[string]seen[string]),
		doubtful: make(map[string]bool),
		gone:     make(map[string]int64),
	}
}

// segment returns what is on a network; it is never nil.
func (m *mirror) segment(id linkspan.ID) *segment {
	s, ok := m.on[id]
	if !ok {
		s = &segment{
			endpoints: make(map[linkspan.ID]seen[Endpoint]),
			claims:    make(map[netip.Addr]seen[claim]),
			blocks:    make(map[netip.Prefix]seen[block]),
			keepers:   make(map[linkspan.ID]seen[keeper]),
			own:       make(map[netip.Prefix]bool),
		}
		m.on[id] = s
	}
	return s
}

// put takes a version of a key.
func (m *mirror) put(key, value string, mod int64) {
	if m.gone[key] > mod {
		return
	}
	k, id, rest := m.layout.parse(key)
	switch k {
	case kindNetwork:
		if store(m.networks, id, value, mod, m.round, m.revision) {
			m.news.Networks = true
		}
	case kindMember:
		if store(m.members, id, value, mod, m.round, m.revision) {
			m.news.Members = true
			m.own(key, value, mod, m.members[id].value.ID)
		}
	case kindCursor:
		store(m.cursors, id, value, mod, m.round, m.revision)
	case kindGuard:
		guards := map[linkspan.ID]seen[guard]{"": m.guard}
		store(guards, "", value, mod, m.round, m.revision)
		m.guard = guards[""]
	case kindEndpoint:
		s := m.segment(id)
		if store(s.endpoints, linkspan.ID(rest), value, mod, m.round, m.revision) {
			e := s.endpoints[linkspan.ID(rest)]
			e.value = m.intern(id, e.value)
			s.endpoints[linkspan.ID(rest)] = e
			m.changed(id)
			m.own(key, value, mod, e.value.Member)
		}
	case kindClaim:
		s, addr := m.segment(id), fromDigits(rest)
		if store(s.claims, addr, value, mod, m.round, m.revision) {
			s.taken.Add(addr)
			s.counts[familyOf(addr)].claims = len(s.claims) - s.counts[1-familyOf(addr)].claims
			m.own(key, value, mod, s.claims[addr].value.Member)
		}
	case kindKeeper:
		s := m.segment(id)
		if store(s.keepers, linkspan.ID(rest), value, mod, m.round, m.revision) {
			m.own(key, value, mod, s.keepers[linkspan.ID(rest)].value.Member)
		}
	case kindBlock:
		var b block
		if json.Unmarshal([]byte(value), &b) == nil {
			s, prefix := m.segment(id), netip.PrefixFrom(fromDigits(rest), b.Bits)
			if store(s.blocks, prefix, value, mod, m.round, m.revision) {
				s.counts[familyOf(prefix.Addr())].blocks = len(s.blocks) - s.counts[1-familyOf(prefix.Addr())].blocks
				if delete(s.own, prefix); b.Member == m.self {
					s.own[prefix] = true
				}
				m.own(key, value, mod, b.Member)
			}
		}
	}
}

// intern replaces strings that many endpoints share by one of them.
func (m *mirror) intern(network linkspan.ID, e Endpoint) Endpoint {
	if n, ok := m.networks[network]; ok {
		e.Network = n.value.ID
	}
	if host, ok := m.members[e.Member]; ok {
		e.Member = host.value.ID
	}
	return e
}

// store puts a value in a table unless a newer one is there, and tells whether it
// is another version than before. One that is not there although all changes up
// to a known revision are has come to its end since. What cannot be read counts
// as not there: it is a newer daemon's.
func store[K comparable, V any](table map[K]seen[V], key K, value string, mod int64, round uint32, known int64) bool {
	old, there := table[key]
	if !there && mod <= known {
		return false
	}
	if there && old.mod >= mod {
		if old.mod == mod {
			old.round = round
			table[key] = old
		}
		return false
	}
	fresh := seen[V]{mod: mod, round: round}
	if json.Unmarshal([]byte(value), &fresh.value) != nil {
		return false
	}
	table[key] = fresh
	return true
}

// own notes a key that is this host's own, or is not any more.
func (m *mirror) own(key, value string, mod int64, member linkspan.ID) {
	delete(m.doubtful, key)
	if member == m.self {
		m.mine[key] = seen[string]{value: value, mod: mod}
	} else {
		delete(m.mine, key)
	}
}

func (m *mirror) changed(network linkspan.ID) {
	for _, id := range m.news.Endpoints {
		if id == network {
			return
		}
	}
	m.news.Endpoints = append(m.news.Endpoints, network)
}

// remove takes the end of a key at a revision.
func (m *mirror) remove(key string, mod int64) {
	if mod > m.revision {
		m.gone[key] = max(m.gone[key], mod)
	}
	k, id, rest := m.layout.parse(key)
	there := false
	switch k {
	case kindNetwork:
		if there = drop(m.networks, id, mod); there {
			m.news.Networks = true
		}
	case kindMember:
		if there = drop(m.members, id, mod); there {
			m.news.Members = true
		}
	case kindCursor:
		there = drop(m.cursors, id, mod)
	case kindEndpoint:
		if there = drop(m.segment(id).endpoints, linkspan.ID(rest), mod); there {
			m.changed(id)
		}
	case kindClaim:
		s, addr := m.segment(id), fromDigits(rest)
		if there = drop(s.claims, addr, mod); there {
			s.taken.Remove(addr)
			s.counts[familyOf(addr)].claims--
		}
	case kindKeeper:
		there = drop(m.segment(id).keepers, linkspan.ID(rest), mod)
	case kindBlock:
		s, addr := m.segment(id), fromDigits(rest)
		for prefix := range s.blocks {
			if prefix.Addr() == addr {
				if there = drop(s.blocks, prefix, mod); there {
					delete(s.own, prefix)
					s.counts[familyOf(addr)].blocks--
				}
			}
		}
	}
	if there {
		delete(m.mine, key)
		delete(m.doubtful, key)
	}
	if s := m.on[id]; s != nil && len(s.endpoints)+len(s.claims)+len(s.blocks)+len(s.keepers) == 0 {
		delete(m.on, id)
	}
}

func drop[K comparable, V any](table map[K]seen[V], key K, mod int64) bool {
	old, there := table[key]
	if !there || old.mod > mod {
		return false
	}
	delete(table, key)
	return true
}

// passed notes that the watch has told all changes up to a revision.
func (m *mirror) passed(revision int64) {
	m.revision = max(m.revision, revision)
	for key, mod := range m.gone {
		if mod <= m.revision {
			delete(m.gone, key)
		}
	}
}

// sweep removes what a list of all keys at a revision did not have: begin counts
// a new round, and what was put since belongs to it.
func (m *mirror) sweep(revision int64) {
	l := m.layout
	for _, id := range stale(m.networks, m.round) {
		m.remove(l.network(id), revision)
	}
	for _, id := range stale(m.members, m.round) {
		m.remove(l.member(id), revision)
	}
	for _, id := range stale(m.cursors, m.round) {
		m.remove(l.cursor(id), revision)
	}
	for network, s := range m.on {
		for _, id := range stale(s.endpoints, m.round) {
			m.remove(l.endpoint(network, id), revision)
		}
		for _, addr := range stale(s.claims, m.round) {
			m.remove(l.claim(network, addr), revision)
		}
		for _, id := range stale(s.keepers, m.round) {
			m.remove(l.keeper(network, id), revision)
		}
		for _, prefix := range stale(s.blocks, m.round) {
			m.remove(l.block(network, prefix), revision)
		}
	}
	m.passed(revision)
}

func stale[K comparable, V any](table map[K]seen[V], round uint32) []K {
	var keys []K
	for key, v := range table {
		if v.round != round {
			keys = append(keys, key)
		}
	}
	return keys
}
