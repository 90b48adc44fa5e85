package dns

import (
	"bytes"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/linkspan/linkspan"
)

// Entry is what one owner, usually an endpoint, contributes to a Zone.
type Entry struct {
	Names []string     // all resolve to Addrs; the first is the name that a PTR question gets
	Addrs []netip.Addr // IPv4 and IPv6; may be empty: the names are then known and have no address
	// Target is another name of the zone, looked up in place of Names when the
	// question comes; it counts for a name for which nobody has an address.
	Target string
}

// Zone holds the names of one network. It is safe for concurrent use and is
// meant to be shared by the resolvers of all sandboxes on the network. An
// update costs what its owner's names cost, however large the zone is; each
// update is seen whole or not at all.
//
// Names are compared without regard to case (RFC 4343). One that begins with
// "*." stands for all names with the same rest and more labels in front that
// are not there themselves; the one with the longest rest counts (a simpler
// rule than that of RFC 4592).
type Zone struct {
	network string // as given: the suffix of PTR answers
	folded  string // lower case: compared with the suffix of a question

	wild atomic.Int32 // names that begin with "*.": without any, nobody looks for them

	mu      sync.RWMutex // held for one map access by readers, for one owner's names by Set and Delete
	owners  map[linkspan.ID]Entry
	names   map[string]*record
	reverse map[netip.Addr][]*pointer // one an owner; the last answers
}

// record is all that one name resolves to. It is immutable: an update replaces
// it, so that a reader may use it without the zone's lock. Addresses are kept
// as they go on the wire, sorted and without duplicates.
type record struct {
	members []member
	v4      [][4]byte
	v6      [][16]byte
	target  []byte // folded; of a record without addresses
}

type member struct {
	owner  linkspan.ID
	addrs  []netip.Addr
	target string
}

// pointer is the PTR record of one address.
type pointer struct {
	owner  linkspan.ID
	target string // "web.lab.", in presentation form
	wire   []byte // target on the wire; nil when only the library can tell how, or whether, to encode it
}

// NewZone returns the empty zone of the named network.
func NewZone(network string) *Zone {
	return &Zone{
		network: network,
		folded:  fold(network),
		owners:  make(map[linkspan.ID]Entry),
		names:   make(map[string]*record),
		reverse: make(map[netip.Addr][]*pointer),
	}
}

// Network returns the name that NewZone was given.
func (z *Zone) Network() string { return z.network }

// Set makes e all that owner contributes to the zone. Names given twice count
// once; a trailing dot is ignored, and so are empty names. When two owners
// claim one address, the later Set answers its PTR questions.
func (z *Zone) Set(owner linkspan.ID, e Entry) {
	e = e.clean()
	z.mu.Lock()
	defer z.mu.Unlock()
	old := z.owners[owner]
	z.forgetAddrs(owner, old)
	for _, name := range old.Names {
		if key := fold(name); !slices.ContainsFunc(e.Names, func(n string) bool { return fold(n) == key }) {
			z.replace(key, owner, nil)
		}
	}
	for _, name := range e.Names {
		z.replace(fold(name), owner, &member{owner, e.Addrs, fold(e.Target)})
	}
	if len(e.Names) > 0 && !wildcard(e.Names[0]) {
		p := newPointer(owner, e.Names[0], z.network)
		for _, a := range e.Addrs {
			z.reverse[a] = append(z.reverse[a], p)
		}
	}
	z.owners[owner] = e
}

// Delete removes all that owner contributed; an owner that is not there is no
// error.
func (z *Zone) Delete(owner linkspan.ID) {
	z.mu.Lock()
	defer z.mu.Unlock()
	old, ok := z.owners[owner]
	if !ok {
		return
	}
	z.forgetAddrs(owner, old)
	for _, name := range old.Names {
		z.replace(fold(name), owner, nil)
	}
	delete(z.owners, owner)
}

// Len returns how many owners contribute to the zone.
func (z *Zone) Len() int {
	z.mu.RLock()
	defer z.mu.RUnlock()
	return len(z.owners)
}

// Lookup returns the addresses of a name, in ascending order, IPv4 first, and
// whether the zone knows the name at all.
func (z *Zone) Lookup(name string) ([]netip.Addr, bool) {
	rec := z.find([]byte(fold(name)))
	if rec == nil {
		return nil, false
	}
	addrs := make([]netip.Addr, 0, len(rec.v4)+len(rec.v6))
	for _, a := range rec.v4 {
		addrs = append(addrs, netip.AddrFrom4(a))
	}
	for _, a := range rec.v6 {
		addrs = append(addrs, netip.AddrFrom16(a))
	}
	return addrs, true
}

// Reverse returns the name of an address in full, "web.lab." for web on the
// network lab, and whether the zone knows the address.
func (z *Zone) Reverse(addr netip.Addr) (string, bool) {
	p := z.pointer(addr.Unmap().WithZone(""))
	if p == nil {
		return "", false
	}
	return p.target, true
}

// maxTargets is how many names may lead on to another.
const maxTargets = 8

// find returns the record of a folded name, or nil. Where a name leads to
// another one it is that one's.
func (z *Zone) find(key []byte) *record {
	z.mu.RLock()
	defer z.mu.RUnlock()
	return z.follow(z.names[string(key)]) // this form of index does not allocate
}

// findWild returns the record of the wildcard that fits a folded name, or nil.
func (z *Zone) findWild(key []byte) *record {
	if z.wild.Load() == 0 || len(key) > maxName {
		return nil
	}
	z.mu.RLock()
	defer z.mu.RUnlock()
	var buf [maxName + 1]byte
	buf[0] = '*'
	for i, c := range key {
		if c == '.' && i > 0 {
			n := copy(buf[1:], key[i:])
			if rec := z.names[string(buf[:1+n])]; rec != nil {
				return z.follow(rec)
			}
		}
	}
	return nil
}

// follow goes from a record to the one that it leads to, in the end. The
// caller holds the lock.
func (z *Zone) follow(rec *record) *record {
	for range maxTargets {
		if rec == nil || rec.target == nil {
			return rec
		}
		next := z.names[string(rec.target)]
		if next == nil {
			return rec
		}
		rec = next
	}
	return rec
}

func wildcard(name string) bool { return strings.HasPrefix(name, "*.") }

func (z *Zone) pointer(addr netip.Addr) *pointer {
	z.mu.RLock()
	defer z.mu.RUnlock()
	if held := z.reverse[addr]; len(held) > 0 {
		return held[len(held)-1]
	}
	return nil
}

// replace swaps the record of one name for one in which owner has the given
// part, or, if that is nil, does not occur at all. The caller holds the lock.
func (z *Zone) replace(key string, owner linkspan.ID, part *member) {
	old := z.names[key]
	var members []member
	if old != nil {
		members = make([]member, 0, len(old.members)+1)
		for _, m := range old.members {
			if m.owner != owner {
				members = append(members, m)
			}
		}
	}
	if part != nil {
		members = append(members, *part)
	}
	if wildcard(key) {
		switch {
		case old == nil && len(members) > 0:
			z.wild.Add(1)
		case old != nil && len(members) == 0:
			z.wild.Add(-1)
		}
	}
	if len(members) == 0 {
		delete(z.names, key)
		return
	}
	z.names[key] = newRecord(members)
}

// forgetAddrs drops the PTR records that owner still holds. The caller holds
// the lock.
func (z *Zone) forgetAddrs(owner linkspan.ID, e Entry) {
	for _, a := range e.Addrs {
		held := slices.DeleteFunc(slices.Clone(z.reverse[a]), func(p *pointer) bool { return p.owner == owner })
		if len(held) == 0 {
			delete(z.reverse, a)
		} else {
			z.reverse[a] = held
		}
	}
}

func newRecord(members []member) *record {
	rec := &record{members: members}
	for _, m := range members {
		for _, a := range m.addrs {
			if a.Is4() {
				rec.v4 = append(rec.v4, a.As4())
			} else {
				rec.v6 = append(rec.v6, a.As16())
			}
		}
	}
	slices.SortFunc(rec.v4, func(a, b [4]byte) int { return bytes.Compare(a[:], b[:]) })
	slices.SortFunc(rec.v6, func(a, b [16]byte) int { return bytes.Compare(a[:], b[:]) })
	rec.v4 = slices.Compact(rec.v4)
	rec.v6 = slices.Compact(rec.v6)
	for _, m := range members {
		if m.target != "" && len(rec.v4)+len(rec.v6) == 0 {
			rec.target = []byte(m.target)
		}
	}
	return rec
}

func newPointer(owner linkspan.ID, name, network string) *pointer {
	full := name + "." + network
	return &pointer{owner: owner, target: full + ".", wire: encodeName(full)}
}

// encodeName returns the wire form of a dotted name made of letters, digits,
// hyphens and underscores. It returns nil for all other names: characters that
// need escaping, labels over 63 bytes, and names under "arpa", which could
// share a compressed suffix with the question that they answer.
func encodeName(name string) []byte {
	wire := make([]byte, 0, len(name)+2)
	last := ""
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > maxLabel {
			return nil
		}
		for i := range len(label) {
			if folded(label[i]) == 0 {
				return nil
			}
		}
		wire = append(wire, byte(len(label)))
		wire = append(wire, label...)
		last = label
	}
	wire = append(wire, 0)
	if len(wire) > maxName || strings.EqualFold(last, "arpa") {
		return nil
	}
	return wire
}

// clean returns e with its own copies of both lists, free of empty and
// repeated names and of addresses that are not plain.
func (e Entry) clean() Entry {
	out := Entry{Target: e.Target}
	seen := make(map[string]bool, len(e.Names))
	for _, name := range e.Names {
		name = strings.TrimSuffix(name, ".")
		if key := fold(name); key != "" && !seen[key] {
			seen[key] = true
			out.Names = append(out.Names, name)
		}
	}
	for _, a := range e.Addrs {
		if a.IsValid() {
			out.Addrs = append(out.Addrs, a.Unmap().WithZone(""))
		}
	}
	return out
}

// fold returns the form of a name under which tables hold it: no trailing dot,
// ASCII letters in lower case (RFC 4343 folds no others).
func fold(name string) string {
	name = strings.TrimSuffix(name, ".")
	for i := range len(name) {
		if c := name[i]; 'A' <= c && c <= 'Z' {
			b := []byte(name)
			for j := i; j < len(b); j++ {
				if 'A' <= b[j] && b[j] <= 'Z' {
					b[j] += 'a' - 'A'
				}
			}
			return string(b)
		}
	}
	return name
}
