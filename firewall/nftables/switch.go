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
	"github.com/linkspan/linkspan/firewall"
	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/sandbox"
)

var _ firewall.Switcher = Backend{}

// Switch plans one transaction that takes ports back and publishes others: no
// packet meets neither of the two. Conversations under way do not notice, as
// the kernel asks the maps about first packets only.
func (Backend) Switch(bridge string, old, fresh []sandbox.Port) op.Plan {
	o := SwitchElements{Remove: elementsOf(bridge, old), Add: elementsOf(bridge, fresh)}
	if len(o.Remove)+len(o.Add) == 0 {
		return nil
	}
	return op.Plan{{Why: "Published ports change in one step: " + words(old) + " become " + words(fresh) + ".", Op: o}}
}

func elementsOf(bridge string, ports []sandbox.Port) []Element {
	var elements []Element
	for _, p := range ports {
		if !p.Relayed() {
			elements = append(elements, portElements(bridge, p)...)
		}
	}
	bySet(elements)
	return elements
}

func words(ports []sandbox.Port) string {
	if len(ports) == 0 {
		return "none"
	}
	words := make([]string, len(ports))
	for i, p := range ports {
		words[i] = p.String()
	}
	return strings.Join(words, ", ")
}

// SwitchElements deletes elements and adds others, in one transaction.
type SwitchElements struct{ Remove, Add []Element }

// Do fails, and changes nothing, if an element that is to go is not there.
func (o SwitchElements) Do(_ context.Context, h *kernel.Host) error { return o.transact(h) }

// Undo switches back. What is gone already is success.
func (o SwitchElements) Undo(ctx context.Context, h *kernel.Host) error {
	err := (SwitchElements{Remove: o.Add, Add: o.Remove}).transact(h)
	if !isMissing(err) {
		return err
	}
	return errors.Join((AddElements{o.Add}).Undo(ctx, h), ignore(linkspan.ErrUnavailable, (AddElements{o.Remove}).Do(ctx, h)))
}

func ignore(kind, err error) error {
	if errors.Is(err, kind) {
		return nil
	}
	return err
}

func (o SwitchElements) transact(h *kernel.Host) error {
	table := base()
	removed, err := (AddElements{o.Remove}).encode(table)
	if err != nil {
		return err
	}
	added, err := (AddElements{o.Add}).encode(table)
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
		var errs []error
		for _, e := range slices.Backward(bundled(removed)) {
			errs = append(errs, conn.SetDeleteElements(e.set, e.items))
		}
		for _, e := range bundled(added) {
			errs = append(errs, conn.SetAddElements(e.set, e.items))
		}
		return errors.Join(errs...)
	})
	if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EEXIST) {
		return linkspan.Errorf(linkspan.ErrConflict, "switching published ports: one is there already (see: %s): %w", table.show(), err)
	}
	if err != nil {
		return fmt.Errorf("switching published ports: %w", err)
	}
	return nil
}

// Check looks for each element that was added.
func (o SwitchElements) Check(ctx context.Context, h *kernel.Host) error {
	return (AddElements{o.Add}).Check(ctx, h)
}

func (o SwitchElements) String() string {
	var text strings.Builder
	text.WriteString("nft -f - <<'EOF'\n")
	for _, e := range slices.Backward(o.Remove) {
		fmt.Fprintf(&text, "delete element inet linkspan %s { %s }\n", e.Set, e.key())
	}
	for _, e := range o.Add {
		fmt.Fprintf(&text, "add element inet linkspan %s { %s }\n", e.Set, e.words())
	}
	text.WriteString("EOF")
	return text.String()
}

// key is the element without its value, which nft wants for a deletion.
func (e Element) key() string {
	e.Value = ""
	return e.words()
}
