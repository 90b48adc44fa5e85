package nftables

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/kernel"
)

// Element is one element of a set or map of table "inet linkspan", in nft's
// spelling: Key has a word for each part of a concatenation, Value is what a
// map maps it to.
type Element struct {
	Set   string
	Key   []string
	Value string `json:",omitempty"`
}

// exclusive is the verdict map in which every network has an element, and no
// two networks the same.
const exclusive = "within"

// AddElements adds elements, in one transaction.
type AddElements struct{ Elements []Element }

// Do adds the elements. It fails with linkspan.ErrConflict if map "within" has
// one of the keys already, or a subnet overlaps another. A table that somebody
// has flushed is made again, without what else was in it (see Backend.Mend).
//
// The client library cannot ask the kernel to refuse an element that is there
// (NLM_F_EXCL), and without that flag adding it again succeeds silently. But an
// existing key with another value is always refused. So another verdict is
// added and deleted first, in the same transaction: nobody ever sees it. It is
// done for one map only, because the next transaction waits some 0.1 ms for
// what was deleted.
func (o AddElements) Do(_ context.Context, h *kernel.Host) error {
	table := base()
	encoded, err := o.encode(table)
	if err != nil {
		return err
	}
	add := func(conn *nftables.Conn) error {
		if _, err := table.again(conn); err != nil {
			return err
		}
		var errs []error
		for _, e := range bundled(encoded) {
			if probe, ok := e.probe(); ok {
				errs = append(errs, conn.SetAddElements(e.set, probe), conn.SetDeleteElements(e.set, probe))
			}
			errs = append(errs, conn.SetAddElements(e.set, e.items))
		}
		return errors.Join(errs...)
	}
	if err = h.Transact(table.ns, add); isMissing(err) { // it was flushed after we had found it
		err = h.Transact(table.ns, add)
	}
	if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EEXIST) {
		return linkspan.Errorf(linkspan.ErrConflict, "adding elements %s: one is there already, or overlaps one (see: %s): %w", o.words(), table.show(), err)
	}
	if err != nil {
		return fmt.Errorf("adding elements %s: %w", o.words(), err)
	}
	return nil
}

// Undo deletes the elements that are there.
func (o AddElements) Undo(_ context.Context, h *kernel.Host) error {
	table := base()
	encoded, err := o.encode(table)
	if err != nil {
		return nil //nolint:nilerr // what cannot be encoded was never done
	}
	err = o.remove(h, table, func(*nftables.Conn) ([]element, error) { return encoded, nil })
	if isMissing(err) { // some are gone: look which
		err = o.remove(h, table, func(conn *nftables.Conn) ([]element, error) {
			present, _, compareErr := compare(conn, table, encoded)
			return present, compareErr
		})
	}
	if err != nil && !kernel.IsGone(err) {
		return fmt.Errorf("deleting elements %s: %w", o.words(), err)
	}
	return nil
}

func (o AddElements) remove(h *kernel.Host, table ruleset, choose func(*nftables.Conn) ([]element, error)) error {
	return h.Transact(table.ns, func(conn *nftables.Conn) error {
		found, err := table.find(conn)
		if err != nil || !found {
			return err
		}
		chosen, err := choose(conn)
		for _, e := range slices.Backward(bundled(chosen)) {
			err = errors.Join(err, conn.SetDeleteElements(e.set, e.items))
		}
		return err
	})
}

// Check looks for each element.
func (o AddElements) Check(_ context.Context, h *kernel.Host) error {
	table := base()
	encoded, err := o.encode(table)
	if err != nil {
		return err
	}
	return h.Transact(table.ns, func(conn *nftables.Conn) error {
		found, err := table.find(conn)
		if err != nil {
			return err
		}
		if !found {
			return linkspan.Errorf(linkspan.ErrNotFound, "table %s is missing (see: %s tables)", table.name(), table.list())
		}
		_, missing, err := compare(conn, table, encoded)
		errs := []error{err}
		for _, e := range missing {
			errs = append(errs, fmt.Errorf("element %s is missing (see: %s %s %s %s)", e.Element, table.list(), e.kind, table.name(), e.Set))
		}
		return errors.Join(errs...)
	})
}

func (o AddElements) String() string {
	var text strings.Builder
	text.WriteString("nft -f - <<'EOF'\n")
	for _, e := range o.Elements {
		verb := "add"
		if e.Set == exclusive {
			verb = "create"
		}
		fmt.Fprintf(&text, "%s element inet linkspan %s { %s }\n", verb, e.Set, e.words())
	}
	text.WriteString("EOF")
	return text.String()
}

func (o AddElements) words() string {
	const most = 8 // for a reader
	words := make([]string, 0, most)
	for _, e := range o.Elements[:min(most, len(o.Elements))] {
		words = append(words, e.String())
	}
	if left := len(o.Elements) - most; left > 0 {
		words = append(words, fmt.Sprintf("and %d more", left))
	}
	return strings.Join(words, ", ")
}

func (e Element) String() string { return fmt.Sprintf("%s { %s }", e.Set, e.words()) }

func (e Element) words() string {
	words := slices.Clone(e.Key)
	for i, part := range e.parts() {
		if part == nftables.TypeIFName.Name && i < len(words) {
			words[i] = `"` + words[i] + `"`
		}
	}
	text := strings.Join(words, " . ")
	if e.Value != "" {
		text += " : " + e.Value
	}
	return text
}

// parts names the types of the key's parts.
func (e Element) parts() []string {
	for _, s := range baseSets() {
		if s.Name == e.Set {
			return strings.Split(s.KeyType.Name, " . ")
		}
	}
	return nil
}

// element is an Element with its netlink form: a range of addresses has two
// items, its start and what follows its end.
type element struct {
	Element
	kind  string // set or map
	set   *nftables.Set
	items []nftables.SetElement
}

func (o AddElements) encode(table ruleset) ([]element, error) {
	encoded := make([]element, 0, len(o.Elements))
	for _, e := range o.Elements {
		i := slices.IndexFunc(table.sets, func(s set) bool { return s.Name == e.Set })
		if i < 0 {
			return nil, linkspan.Errorf(linkspan.ErrInvalid, "encoding element %s: table %s has no such set", e, table.name())
		}
		s := table.sets[i]
		s.Table = table.table
		items, err := e.encode(s)
		if err != nil {
			return nil, linkspan.Errorf(linkspan.ErrInvalid, "encoding element %s: %w", e, err)
		}
		encoded = append(encoded, element{Element: e, kind: s.kind(), set: &s.Set, items: items})
	}
	return encoded, nil
}

func (e Element) encode(s set) ([]nftables.SetElement, error) {
	types := strings.Split(s.KeyType.Name, " . ")
	if len(e.Key) != len(types) {
		return nil, fmt.Errorf("its key has %d parts, want %d", len(e.Key), len(types))
	}
	if s.Interval && !s.Concatenation {
		if e.Value != "" {
			return nil, errors.New("an element of a set has no value")
		}
		return encodePrefix(e.Key[0], int(s.KeyType.Bytes))
	}
	item := nftables.SetElement{}
	for i, word := range e.Key {
		first, last, err := encodeWord(types[i], word)
		if err != nil {
			return nil, err
		}
		item.Key, item.KeyEnd = append(item.Key, padded(first)...), append(item.KeyEnd, padded(last)...)
	}
	if !s.Interval {
		if string(item.Key) != string(item.KeyEnd) {
			return nil, errors.New("want one value, not a range")
		}
		item.KeyEnd = nil
	}
	switch {
	case !s.IsMap && e.Value != "":
		return nil, errors.New("an element of a set has no value")
	case s.IsMap && s.DataType == nftables.TypeVerdict:
		verdict, err := encodeVerdict(e.Value)
		if err != nil {
			return nil, err
		}
		item.VerdictData = verdict
	case s.IsMap:
		words, types := strings.Split(e.Value, " . "), strings.Split(s.DataType.Name, " . ")
		if len(words) != len(types) {
			return nil, fmt.Errorf("its value has %d parts, want %d", len(words), len(types))
		}
		for i, word := range words {
			value, last, err := encodeWord(types[i], word)
			if err != nil {
				return nil, err
			}
			if string(value) != string(last) {
				return nil, fmt.Errorf("want one value, not %s", word)
			}
			if len(types) > 1 {
				value = padded(value)
			}
			item.Val = append(item.Val, value...)
		}
	}
	return []nftables.SetElement{item}, nil
}

func encodeVerdict(word string) (*expr.Verdict, error) {
	if chain, ok := strings.CutPrefix(word, "goto "); ok {
		return &expr.Verdict{Kind: expr.VerdictGoto, Chain: chain}, nil
	}
	switch word {
	case "accept":
		return &expr.Verdict{Kind: expr.VerdictAccept}, nil
	case "drop":
		return &expr.Verdict{Kind: expr.VerdictDrop}, nil
	}
	return nil, fmt.Errorf("%q is no verdict", word)
}

// encodePrefix returns the two items of a range. One that reaches the last
// address of all has no end.
func encodePrefix(text string, length int) ([]nftables.SetElement, error) {
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		return nil, err
	}
	start := prefix.Masked().Addr().AsSlice()
	if len(start) != length {
		return nil, fmt.Errorf("%s is of the wrong family", prefix)
	}
	items := []nftables.SetElement{{Key: start}}
	end := slices.Clone(start)
	for bit := prefix.Bits() - 1; bit >= 0; bit-- { // add one at the prefix's last bit
		mask := byte(0x80) >> (bit % 8)
		end[bit/8] ^= mask
		if end[bit/8]&mask != 0 {
			return append(items, nftables.SetElement{Key: end, IntervalEnd: true}), nil
		}
	}
	return items, nil
}

// probe returns an element of the exclusive map with another verdict.
func (e element) probe() ([]nftables.SetElement, bool) {
	if e.Set != exclusive {
		return nil, false
	}
	other := e.items[0]
	other.VerdictData = &expr.Verdict{Kind: expr.VerdictAccept}
	if e.items[0].VerdictData.Kind == expr.VerdictAccept {
		other.VerdictData = &expr.Verdict{Kind: expr.VerdictDrop}
	}
	return []nftables.SetElement{other}, true
}

// bundled joins neighbours of one set, as many as fit into one message: a
// netlink attribute has at most 64 KiB.
func bundled(elements []element) []element {
	const most = 400 // items of some 100 bytes
	var bundles []element
	for _, e := range elements {
		if n := len(bundles) - 1; n >= 0 && bundles[n].Set == e.Set && e.Set != exclusive && len(bundles[n].items)+len(e.items) <= most {
			bundles[n].items = append(bundles[n].items, e.items...)
			continue
		}
		e.items = slices.Clone(e.items)
		bundles = append(bundles, e)
	}
	return bundles
}

// compare sorts elements into those that the kernel has and those it lacks.
func compare(conn *nftables.Conn, table ruleset, elements []element) (present, missing []element, err error) {
	names, err := table.setNames(conn)
	if err != nil {
		return nil, nil, err
	}
	dumps := make(map[string][]nftables.SetElement)
	for _, e := range elements {
		dump, known := dumps[e.Set]
		if !known && names[e.Set] {
			if dump, err = conn.GetSetElements(e.set); err != nil {
				return nil, nil, fmt.Errorf("listing %s %s: %w", e.kind, e.Set, err)
			}
			dumps[e.Set] = dump
		}
		if holdsAll(dump, e.items) {
			present = append(present, e)
		} else {
			missing = append(missing, e)
		}
	}
	return present, missing, nil
}

func holdsAll(dump, items []nftables.SetElement) bool {
	return !slices.ContainsFunc(items, func(item nftables.SetElement) bool { return !holds(dump, item) })
}

func holds(dump []nftables.SetElement, want nftables.SetElement) bool {
	return slices.ContainsFunc(dump, func(got nftables.SetElement) bool { return same(got, want) })
}

// same compares an element as the kernel lists it with one that we would add.
func same(got, want nftables.SetElement) bool {
	if string(got.Key) != string(want.Key) || string(got.KeyEnd) != string(want.KeyEnd) || got.IntervalEnd != want.IntervalEnd {
		return false
	}
	if want.VerdictData == nil {
		return string(got.Val) == string(want.Val)
	}
	// The library gives a verdict as the raw attribute: after a header of four
	// bytes its code, then the name of a chain as an attribute.
	return len(got.Val) >= 8 && binary.BigEndian.Uint32(got.Val[4:8]) == uint32(want.VerdictData.Kind) &&
		strings.Contains(string(got.Val[8:]), want.VerdictData.Chain)
}
