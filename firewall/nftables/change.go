package nftables

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/op"
)

// ChangeElements deletes elements and adds others in one transaction: no packet
// meets a set that lacks both.
type ChangeElements struct{ Delete, Add []Element }

// Do makes the change. What is done already is passed over.
func (o ChangeElements) Do(_ context.Context, h *kernel.Host) error {
	return o.swap(h, o.Delete, o.Add)
}

// Undo goes back.
func (o ChangeElements) Undo(_ context.Context, h *kernel.Host) error {
	err := o.swap(h, o.Add, o.Delete)
	if err != nil && errors.Is(err, linkspan.ErrUnavailable) {
		return nil // the table is gone: with it the elements
	}
	return err
}

func (o ChangeElements) swap(h *kernel.Host, remove, add []Element) error {
	table := base()
	gone, err := AddElements{remove}.encode(table)
	if err != nil {
		return err
	}
	fresh, err := AddElements{add}.encode(table)
	if err != nil {
		return err
	}
	err = h.Transact(table.ns, func(conn *nftables.Conn) error {
		found, findErr := table.find(conn)
		if findErr != nil {
			return findErr
		}
		if !found {
			return linkspan.Errorf(linkspan.ErrUnavailable, "table %s is missing: somebody flushed it (see: %s tables)", table.name(), table.list())
		}
		present, _, goneErr := compare(conn, table, gone)
		_, missing, freshErr := compare(conn, table, fresh)
		errs := []error{goneErr, freshErr}
		for _, e := range bundled(present) {
			errs = append(errs, conn.SetDeleteElements(e.set, e.items))
		}
		for _, e := range bundled(missing) {
			errs = append(errs, conn.SetAddElements(e.set, e.items))
		}
		return errors.Join(errs...)
	})
	if err != nil {
		return fmt.Errorf("changing elements %s to %s: %w", AddElements{remove}.words(), AddElements{add}.words(), err)
	}
	return nil
}

// Check looks for the new elements.
func (o ChangeElements) Check(ctx context.Context, h *kernel.Host) error {
	return AddElements{o.Add}.Check(ctx, h)
}

func (o ChangeElements) String() string {
	var text strings.Builder
	text.WriteString("nft -f - <<'EOF'\n")
	for _, e := range o.Delete {
		fmt.Fprintf(&text, "delete element inet linkspan %s { %s }\n", e.Set, e.keyWords())
	}
	for _, e := range o.Add {
		fmt.Fprintf(&text, "add element inet linkspan %s { %s }\n", e.Set, e.words())
	}
	text.WriteString("EOF")
	return text.String()
}

// keyWords are the words without the value, as nft wants them to delete.
func (e Element) keyWords() string {
	e.Value = ""
	return e.words()
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
