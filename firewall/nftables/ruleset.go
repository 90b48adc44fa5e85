package nftables

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/kernel"
)

// ruleset is one table in both of its forms, as text for nft(8) and as values
// for netlink. They are written side by side; a test proves them equal.
type ruleset struct {
	ns     string // pinned namespace; empty: the machine's own
	table  *nftables.Table
	family string // as nft spells it
	sets   []set
	chains []chain
}

type set struct {
	nftables.Set
	decl string // what nft writes between the braces
}

type chain struct {
	nftables.Chain
	decl  string // of a base chain: its hook
	rules []rule
}

// rule has its reason as its comment, which nft list shows.
type rule struct {
	text  string
	why   string
	exprs []expr.Any
}

// owner is the set that says whose the table is: see the package comment.
func owner() set {
	return set{
		Set:  nftables.Set{Name: "owner", KeyType: nftables.TypeMark, KeyByteOrder: binaryutil.NativeEndian},
		decl: fmt.Sprintf("type mark; elements = { %d comment \"linkspan\" }", kernel.Mark),
	}
}

func ownerElement() nftables.SetElement {
	return nftables.SetElement{Key: binary.NativeEndian.AppendUint32(nil, kernel.Mark), Comment: "linkspan"}
}

// add creates the table and all in it, in one transaction. It fails if a table
// of that name exists.
func (r ruleset) add(h *kernel.Host) error {
	err := h.Transact(r.ns, func(conn *nftables.Conn) error {
		conn.CreateTable(r.table)
		return r.fill(conn, false)
	})
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EEXIST):
		return linkspan.Errorf(linkspan.ErrConflict, "adding table %s: one of that name exists already (see: %s): %w", r.name(), r.show(), err)
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EAFNOSUPPORT), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EPROTONOSUPPORT):
		return linkspan.Errorf(linkspan.ErrUnsupported, "adding table %s: this kernel lacks a part of nftables: %w", r.name(), err)
	}
	return fmt.Errorf("adding table %s: %w", r.name(), err)
}

// again makes a table that somebody has flushed once more, without what else was
// in it (see Backend.Mend): nothing may have to wait until all of it is back. It
// tells whether it did.
func (r ruleset) again(conn *nftables.Conn) (bool, error) {
	found, err := r.find(conn)
	if err != nil || found {
		return false, err
	}
	conn.CreateTable(r.table)
	return true, r.fill(conn, false)
}

// fill queues all sets, chains and rules; with again, those that are there stay
// or are made as they should be.
func (r ruleset) fill(conn *nftables.Conn, again bool) error {
	for i, s := range append([]set{owner()}, r.sets...) {
		s.Table, s.ID = r.table, uint32(i+1) // the library's own counter is not safe for concurrent use
		var initial []nftables.SetElement
		if i == 0 {
			initial = []nftables.SetElement{ownerElement()}
		}
		if err := conn.AddSet(&s.Set, initial); err != nil {
			return err
		}
	}
	for _, c := range r.chains { // all chains before the rules that go to one
		c.Table = r.table
		conn.AddChain(&c.Chain)
		if again {
			conn.FlushChain(&c.Chain)
		}
	}
	for _, c := range r.chains {
		c.Table = r.table
		for _, rule := range c.rules {
			conn.AddRule(&nftables.Rule{
				Table: r.table, Chain: &c.Chain, Exprs: rule.exprs,
				UserData: userdata.AppendString(nil, userdata.TypeComment, rule.why),
			})
		}
	}
	return nil
}

// mend makes sets, chains and rules as they should be, in one transaction, and
// keeps the elements of sets that are as they should be. What cannot be mended
// is made anew, without elements.
func (r ruleset) mend(h *kernel.Host) error {
	err := h.Transact(r.ns, func(conn *nftables.Conn) error {
		if _, err := r.find(conn); err != nil {
			return err
		}
		conn.AddTable(r.table)
		return r.fill(conn, true)
	})
	if err == nil || errors.Is(err, linkspan.ErrConflict) {
		return err
	}
	again := h.Transact(r.ns, func(conn *nftables.Conn) error {
		conn.AddTable(r.table)
		conn.DelTable(r.table)
		conn.AddTable(r.table)
		return r.fill(conn, false)
	})
	if again != nil {
		return fmt.Errorf("mending table %s: %w", r.name(), errors.Join(err, again))
	}
	return nil
}

// remove deletes the table and all in it.
func (r ruleset) remove(h *kernel.Host) error {
	err := h.Transact(r.ns, func(conn *nftables.Conn) error {
		found, err := r.find(conn)
		if found && err == nil {
			conn.DelTable(r.table)
		}
		return err
	})
	if err != nil && !kernel.IsGone(err) {
		return fmt.Errorf("removing table %s: %w", r.name(), err)
	}
	return nil
}

// find tells whether the table exists. If it does and is not ours, that is an
// error of kind linkspan.ErrConflict.
func (r ruleset) find(conn *nftables.Conn) (bool, error) {
	if _, err := conn.ListTableOfFamily(r.table.Name, r.table.Family); err != nil {
		if isMissing(err) {
			return false, nil
		}
		return false, fmt.Errorf("looking up table %s: %w", r.name(), err)
	}
	// Somebody may have flushed all sets: what is left of ours has no owner.
	elements, err := r.owners(conn)
	if err == nil && (len(elements) == 0 || holds(elements, ownerElement())) {
		return true, nil
	}
	// An error most likely says that there is no such set; the library does not
	// hand its number on.
	return false, linkspan.Errorf(linkspan.ErrConflict, "table %s bears no mark of ours and is left alone (see: %s table %s)", r.name(), r.list(), r.name())
}

// check compares table, sets, chains and rules with the kernel's.
func (r ruleset) check(h *kernel.Host) error {
	return h.Transact(r.ns, func(conn *nftables.Conn) error {
		found, err := r.find(conn)
		if err != nil {
			return err
		}
		if !found {
			return linkspan.Errorf(linkspan.ErrNotFound, "table %s is missing (see: %s tables)", r.name(), r.list())
		}
		differs, err := r.differences(conn)
		return errors.Join(differs, err)
	})
}

// differences returns what differs in a table that is there, or an error.
func (r ruleset) differences(conn *nftables.Conn) (differs, err error) {
	missing, err := r.checkSets(conn)
	if err != nil {
		return nil, err
	}
	chains, err := conn.ListChainsOfTableFamily(r.table.Family)
	if err != nil {
		return nil, fmt.Errorf("listing the chains of table %s: %w", r.name(), err)
	}
	errs := []error{missing}
	for _, want := range r.chains {
		errs = append(errs, r.checkChain(conn, chains, want))
	}
	return errors.Join(errs...), nil
}

func (r ruleset) checkSets(conn *nftables.Conn) (missing, err error) {
	names, err := r.setNames(conn)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, want := range r.sets {
		if !names[want.Name] {
			errs = append(errs, fmt.Errorf("%s %s is missing from table %s (see: %s)", want.kind(), want.Name, r.name(), r.show()))
		}
	}
	elements, err := r.owners(conn)
	if err == nil && len(elements) == 0 {
		errs = append(errs, fmt.Errorf("our mark is missing from set owner of table %s (see: %s)", r.name(), r.show()))
	}
	return errors.Join(errs...), nil
}

// owners returns the elements of the set that says whose the table is.
func (r ruleset) owners(conn *nftables.Conn) ([]nftables.SetElement, error) {
	s := owner().Set
	s.Table = r.table
	return conn.GetSetElements(&s)
}

// setNames returns the names of the sets and maps that the table has.
func (r ruleset) setNames(conn *nftables.Conn) (map[string]bool, error) {
	sets, err := conn.GetSets(r.table)
	if err != nil {
		return nil, fmt.Errorf("listing the sets of table %s: %w", r.name(), err)
	}
	names := make(map[string]bool)
	for _, s := range sets {
		names[s.Name] = true
	}
	return names, nil
}

func (r ruleset) checkChain(conn *nftables.Conn, chains []*nftables.Chain, want chain) error {
	show := fmt.Sprintf("%s chain %s %s", r.list(), r.name(), want.Name)
	var got *nftables.Chain
	for _, c := range chains {
		if c.Table.Name == r.table.Name && c.Name == want.Name {
			got = c
		}
	}
	if got == nil {
		return fmt.Errorf("chain %s is missing from table %s (see: %s)", want.Name, r.name(), r.show())
	}
	if want.Hooknum == nil {
		if got.Hooknum != nil {
			return fmt.Errorf("chain %s of table %s is a base chain (see: %s)", want.Name, r.name(), show)
		}
	} else if got.Hooknum == nil || got.Policy == nil || got.Type != want.Type || *got.Hooknum != *want.Hooknum ||
		*got.Priority != *want.Priority || *got.Policy != nftables.ChainPolicyAccept {
		return fmt.Errorf("chain %s of table %s is not a %s (see: %s)", want.Name, r.name(), want.decl, show)
	}
	rules, err := conn.GetRules(r.table, got)
	if err != nil {
		return fmt.Errorf("listing the rules of chain %s: %w", want.Name, err)
	}
	for i, rule := range want.rules {
		if i >= len(rules) || !sameRule(byte(r.table.Family), rules[i].Exprs, rule.exprs) {
			return fmt.Errorf("rule %d of chain %s in table %s is not %q (see: %s)", i+1, want.Name, r.name(), rule.text, show)
		}
	}
	if len(rules) > len(want.rules) {
		return fmt.Errorf("chain %s in table %s has %d rules too many (see: %s)", want.Name, r.name(), len(rules)-len(want.rules), show)
	}
	return nil
}

// sameRule compares rules by their netlink form. Some versions of nft(8) change
// the byte order of fields of one byte, to no effect.
func sameRule(family byte, a, b []expr.Any) bool {
	swaps := func(e expr.Any) bool { _, swap := e.(*expr.Byteorder); return swap }
	a, b = slices.DeleteFunc(slices.Clone(a), swaps), slices.DeleteFunc(slices.Clone(b), swaps)
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		x, errX := expr.Marshal(family, a[i])
		y, errY := expr.Marshal(family, b[i])
		if errX != nil || errY != nil || !bytes.Equal(x, y) {
			return false
		}
	}
	return true
}

// isMissing tells that the kernel knows no table, set or chain of that name.
func isMissing(err error) bool { return errors.Is(err, unix.ENOENT) }

func (s set) kind() string {
	if s.IsMap {
		return "map"
	}
	return "set"
}

func (r ruleset) name() string { return r.family + " " + r.table.Name }
func (r ruleset) list() string { return nft(r.ns) + " list" }
func (r ruleset) show() string { return r.list() + " table " + r.name() }

func (r ruleset) String() string {
	var text strings.Builder
	fmt.Fprintf(&text, "%s -f - <<'EOF'\ncreate table %s\n", nft(r.ns), r.name())
	r.declare(&text)
	text.WriteString("EOF")
	return text.String()
}

// declare writes the table as nft reads it.
func (r ruleset) declare(text *strings.Builder) {
	fmt.Fprintf(text, "table %s {\n", r.name())
	for _, s := range append([]set{owner()}, r.sets...) {
		fmt.Fprintf(text, "\t%s %s { %s; }\n", s.kind(), s.Name, s.decl)
	}
	for _, c := range r.chains {
		fmt.Fprintf(text, "\tchain %s {\n", c.Name)
		if c.decl != "" {
			fmt.Fprintf(text, "\t\t%s; policy accept;\n", c.decl)
		}
		for _, rule := range c.rules {
			fmt.Fprintf(text, "\t\t%s comment %q\n", rule.text, rule.why)
		}
		text.WriteString("\t}\n")
	}
	text.WriteString("}\n")
}

// nft returns the nft command for a namespace. It enters nothing but the
// network namespace, unlike ip netns exec, which remounts /sys.
func nft(ns string) string {
	if ns == "" {
		return "nft"
	}
	return "nsenter --net=" + kernel.Pin(ns) + " nft"
}
