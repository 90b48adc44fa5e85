package nftables

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/google/nftables"

	"github.com/linkspan/linkspan/firewall"
	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/op"
)

var _ firewall.Whole = Backend{}

// Tables names our tables.
func (Backend) Tables() []string { return []string{base().table.Name, userTable} }

// Mend compares all ops at once: each set is listed once, however many ops have
// elements in it.
func (Backend) Mend(h *kernel.Host, ops []firewall.Op) (op.Plan, error) {
	table := base()
	var wanted []Element
	var whole AddTable
	users := false
	for _, o := range ops {
		switch o := o.(type) {
		case AddElements:
			wanted = append(wanted, o.Elements...)
		case AddTable:
			whole = o
		case AddUserTable:
			users = true
		}
	}
	encoded, err := AddElements{wanted}.encode(table)
	if err != nil {
		return nil, err
	}
	var plan op.Plan
	err = h.Transact("", func(conn *nftables.Conn) error {
		plan = nil
		if users {
			missing, userErr := userMissing(conn)
			if userErr != nil {
				return userErr
			}
			if missing != nil {
				plan = append(plan, op.Step{Why: missing.Error(), Op: AddUserTable{}})
			}
		}
		found, findErr := table.find(conn)
		if findErr != nil {
			return findErr
		}
		missing := encoded
		if !found {
			plan = append(plan, op.Step{Why: "Table " + table.name() + " is missing.", Op: whole})
		} else {
			differs, checkErr := whole.table().differences(conn)
			if checkErr != nil {
				return checkErr
			}
			if differs != nil {
				plan = append(plan, op.Step{Why: first(differs), Op: MendTable(whole)})
			}
			if missing, checkErr = lacking(conn, table, encoded); checkErr != nil {
				return checkErr
			}
		}
		if len(missing) == 0 {
			return nil
		}
		lost := make([]Element, len(missing))
		for i, e := range missing {
			lost[i] = e.Element
		}
		plan = append(plan, op.Step{
			Why: fmt.Sprintf("%d elements are missing from table %s.", len(lost), table.name()),
			Op:  PutElements{lost},
		})
		return nil
	})
	return plan, err
}

// lacking returns the elements that the kernel lacks.
func lacking(conn *nftables.Conn, table ruleset, elements []element) ([]element, error) {
	missing, _, err := sift(conn, table, elements)
	return missing, err
}

// sift returns the elements that the kernel lacks, and those of them whose key
// it has with another value.
func sift(conn *nftables.Conn, table ruleset, elements []element) (missing, wrong []element, err error) {
	names, err := table.setNames(conn)
	if err != nil {
		return nil, nil, err
	}
	there := make(map[string]map[string]nftables.SetElement) // by set, by key
	for _, e := range elements {
		if there[e.Set] == nil {
			there[e.Set] = make(map[string]nftables.SetElement)
			if names[e.Set] {
				dump, err := conn.GetSetElements(e.set)
				if err != nil {
					return nil, nil, fmt.Errorf("listing %s %s: %w", e.kind, e.Set, err)
				}
				for _, got := range dump {
					there[e.Set][identity(got)] = got
				}
			}
		}
		for _, item := range e.items {
			got, known := there[e.Set][identity(item)]
			if known && same(got, item) {
				continue
			}
			missing = append(missing, e)
			if known {
				wrong = append(wrong, e)
			}
			break
		}
	}
	return missing, wrong, nil
}

func identity(e nftables.SetElement) string {
	return fmt.Sprintf("%s %s %t", e.Key, e.KeyEnd, e.IntervalEnd)
}

// PutElements adds elements, in the place of such as have the same key.
type PutElements struct{ Elements []Element }

// Backend names the backend that the op belongs to.
func (PutElements) Backend() string { return Name }

// Do puts them there, in one transaction. What is there already is passed over.
func (o PutElements) Do(_ context.Context, h *kernel.Host) error {
	table := base()
	encoded, err := AddElements(o).encode(table)
	if err != nil {
		return err
	}
	err = h.Transact(table.ns, func(conn *nftables.Conn) error {
		missing, wrong, siftErr := sift(conn, table, encoded)
		errs := []error{siftErr}
		for _, e := range bundled(wrong) {
			errs = append(errs, conn.SetDeleteElements(e.set, e.items)) // by key: the value does not count
		}
		for _, e := range bundled(missing) {
			errs = append(errs, conn.SetAddElements(e.set, e.items))
		}
		return errors.Join(errs...)
	})
	if err != nil {
		return fmt.Errorf("putting back %d elements of table %s: %w", len(o.Elements), table.name(), err)
	}
	return nil
}

// Undo deletes the elements that are there.
func (o PutElements) Undo(ctx context.Context, h *kernel.Host) error {
	return AddElements(o).Undo(ctx, h)
}

// Check looks for each element.
func (o PutElements) Check(ctx context.Context, h *kernel.Host) error {
	return AddElements(o).Check(ctx, h)
}

// String prints what is done if none of the keys is there.
func (o PutElements) String() string { return AddElements(o).String() }

// MendTable makes sets, chains and rules of our table as they should be again.
type MendTable struct {
	Accept firewall.Mark `json:",omitzero"`
}

// Backend names the backend that the op belongs to.
func (MendTable) Backend() string { return Name }

// Do mends the table in one transaction.
func (o MendTable) Do(_ context.Context, h *kernel.Host) error { return AddTable(o).table().mend(h) }

// Undo does nothing: what was mended is AddTable's.
func (MendTable) Undo(context.Context, *kernel.Host) error { return nil }

// Check compares the table.
func (o MendTable) Check(_ context.Context, h *kernel.Host) error {
	return AddTable(o).table().check(h)
}

func (o MendTable) String() string {
	table := AddTable(o).table()
	var text strings.Builder
	text.WriteString("nft -f - <<'EOF'\n")
	bare := table
	bare.chains = nil
	for _, c := range table.chains {
		c.rules = nil
		bare.chains = append(bare.chains, c)
	}
	bare.declare(&text)
	for _, c := range table.chains {
		fmt.Fprintf(&text, "flush chain %s %s\n", table.name(), c.Name)
	}
	table.sets = nil
	table.declare(&text)
	text.WriteString("EOF")
	return text.String()
}

// first returns the first of several faults.
func first(faults error) string {
	line, _, more := strings.Cut(faults.Error(), "\n")
	if more {
		line += ", and more"
	}
	return line
}
