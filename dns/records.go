package dns

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/linkspan/linkspan"
)

// Record is one name that a user gives a network, beside those of its
// endpoints: it has an address, or leads to another name of the network.
type Record struct {
	Name   string     // may begin with "*."
	Addr   netip.Addr // zero: Target counts
	Target string
}

// ParseRecords reads records as users write them, separated by commas or white
// space: "db=10.0.0.5,db=fd00::5,*.dev=10.0.0.9,www=web". A name may have
// several addresses, or lead to one other name.
func ParseRecords(s string) ([]Record, error) {
	var records []Record
	kinds := make(map[string]bool) // by folded name: whether it has addresses
	for _, word := range strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' || r == '\n' }) {
		name, value, ok := strings.Cut(word, "=")
		name = strings.TrimSuffix(name, ".")
		if !ok || !recordName(name, true) {
			return nil, linkspan.Errorf(linkspan.ErrInvalid, "invalid record %q: want NAME=ADDRESS or NAME=OTHERNAME, such as db=10.0.0.5", word)
		}
		record := Record{Name: name}
		addr, err := netip.ParseAddr(value)
		switch {
		case err == nil && addr.Zone() == "":
			record.Addr = addr.Unmap()
		case recordName(strings.TrimSuffix(value, "."), false):
			record.Target = strings.TrimSuffix(value, ".")
		default:
			return nil, linkspan.Errorf(linkspan.ErrInvalid, "invalid record %q: %q is neither an address nor a name", word, value)
		}
		hasAddrs, seen := kinds[fold(name)]
		if seen && (!hasAddrs || record.Target != "") {
			return nil, linkspan.Errorf(linkspan.ErrInvalid, "invalid record %q: %s leads to another name and can have nothing beside that", word, name)
		}
		kinds[fold(name)] = record.Target == ""
		records = append(records, record)
	}
	return records, nil
}

// recordName tells whether a name can be asked for, of at most 253 characters
// in labels of 1 to 63 (RFC 1035, section 2.3.4).
func recordName(name string, wild bool) bool {
	if wild {
		name = strings.TrimPrefix(name, "*.")
	}
	if name == "" || len(name) > 253 {
		return false
	}
	numbers := true
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > maxLabel {
			return false
		}
		for i := range len(label) {
			c := folded(label[i])
			if c == 0 {
				return false
			}
			numbers = numbers && '0' <= c && c <= '9'
		}
	}
	return !numbers // a mistyped address, not a name
}

// recordOwner begins the owner of a user's record; no ID has a blank in it.
const recordOwner = "record "

// SetRecords makes the given ones the user's records of the zone, in place of
// those that were.
func (z *Zone) SetRecords(records []Record) {
	entries := make(map[linkspan.ID]Entry)
	for _, r := range records {
		owner := linkspan.ID(recordOwner + fold(r.Name))
		e := entries[owner]
		e.Names, e.Target = []string{r.Name}, r.Target
		if r.Addr.IsValid() {
			e.Addrs = append(e.Addrs, r.Addr)
		}
		entries[owner] = e
	}
	z.mu.RLock()
	var gone []linkspan.ID
	for owner := range z.owners {
		if _, stays := entries[owner]; !stays && strings.HasPrefix(string(owner), recordOwner) {
			gone = append(gone, owner)
		}
	}
	z.mu.RUnlock()
	for owner, e := range entries {
		z.Set(owner, e)
	}
	for _, owner := range slices.Sorted(slices.Values(gone)) {
		z.Delete(owner)
	}
}
