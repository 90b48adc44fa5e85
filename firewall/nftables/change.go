package nftables

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/op"
)

// ChangeElements deletes elements and adds others in one transaction: no packet
// meets a set that lacks both.
type ChangeElements struct{ Delete, Add []Element }

// Do makes the change, and the table before it if somebody has flushed it. What
// is done already is passed over. An element that is there with another value is
// somebody else's: linkspan.ErrConflict.
func (o ChangeElements) Do(_ context.Context, h *kernel.Host) error {
	return o.change(h, o.Delete, o.Add, true)
}

// Undo goes back.
func (o ChangeElements) Undo(_ context.Context, h *kernel.Host) error {
	err := o.change(h, o.Add, o.Delete, false)
	if errors.Is(err, linkspan.ErrUnavailable) {
		return nil // the table is gone: with it the elements
	}
	return err
}

func (o ChangeElements) change(h *kernel.Host, remove, add []Element, again bool) error {
	table := base()
	gone, err := AddElements{remove}.encode(table)
	if err != nil {
		return err
	}
	fresh, err := AddElements{add}.encode(table)
	if err != nil {
		return err
	}
	// The kernel is not asked first for what there is: of thousands of elements it
	// would list all.
	err = o.transact(h, table, again, fresh, func(*nftables.Conn) ([]element, []element, error) { return gone, fresh, nil })
	if isMissing(err) {
		err = o.transact(h, table, again, fresh, func(conn *nftables.Conn) ([]element, []element, error) {
			present, _, goneErr := compare(conn, table, gone)
			_, missing, freshErr := compare(conn, table, fresh)
			return present, missing, errors.Join(goneErr, freshErr)
		})
	}
	switch {
	case errors.Is(err, unix.EBUSY), errors.Is(err, unix.EEXIST):
		return linkspan.Errorf(linkspan.ErrConflict, "changing elements %s to %s: one is there already (see: %s): %w", AddElements{remove}.words(), AddElements{add}.words(), table.show(), err)
	case err != nil:
		return fmt.Errorf("changing elements %s to %s: %w", AddElements{remove}.words(), AddElements{add}.words(), err)
	}
	return nil
}

// transact deletes and adds what choose returns. If the table is missing, it is an
// error or, with again, made once more and gets all that is fresh.
func (o ChangeElements) transact(h *kernel.Host, table ruleset, again bool, all []element, choose func(*nftables.Conn) (gone, fresh []element, err error)) error {
	return h.Transact(table.ns, func(conn *nftables.Conn) error {
		made := false
		var err error
		if again {
			made, err = table.again(conn)
		} else {
			_, err = mustBeThere(conn, table)
		}
		if err != nil {
			return err
		}
		gone, fresh := []element(nil), all
		if !made {
			gone, fresh, err = choose(conn)
		}
		for _, e := range slices.Backward(bundled(gone)) {
			err = errors.Join(err, conn.SetDeleteElements(e.set, e.items))
		}
		for _, e := range bundled(fresh) {
			err = errors.Join(err, conn.SetAddElements(e.set, e.items))
		}
		return err
	})
}

// Check looks for the new elements.
func (o ChangeElements) Check(ctx context.Context, h *kernel.Host) error {
	return AddElements{o.Add}.Check(ctx, h)
}

func (o ChangeElements) String() string {
	var text strings.Builder
	text.WriteString("nft -f - <<'EOF'\n")
	for _, e := range slices.Backward(o.Delete) {
		e.Value = "" // nft wants none to delete
		fmt.Fprintf(&text, "delete element inet linkspan %s { %s }\n", e.Set, e.words())
	}
	for _, e := range o.Add {
		fmt.Fprintf(&text, "add element inet linkspan %s { %s }\n", e.Set, e.words())
	}
	text.WriteString("EOF")
	return text.String()
}

// Thing names the elements by the first of them, whose key is their network's
// or their endpoint's own.
func (o AddElements) Thing() string {
	if len(o.Elements) == 0 {
		return "no elements"
	}
	return "elements of " + o.Elements[0].Set + " " + strings.Join(o.Elements[0].Key, " . ")
}

// Into swaps the elements that differ.
func (o AddElements) Into(to op.Op) ([]op.Op, bool) {
	fresh, ok := to.(AddElements)
	change := ChangeElements{Delete: without(o.Elements, fresh.Elements), Add: without(fresh.Elements, o.Elements)}
	return []op.Op{change}, ok
}

// without returns the elements that are not among others.
func without(elements, others []Element) []Element {
	var rest []Element
	for _, e := range elements {
		if !slices.ContainsFunc(others, func(o Element) bool { return o.Set == e.Set && o.Value == e.Value && slices.Equal(o.Key, e.Key) }) {
			rest = append(rest, e)
		}
	}
	return rest
}
