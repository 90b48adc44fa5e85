package iptables

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/linkspan/linkspan/firewall"
	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/op"
)

var _ firewall.Whole = Backend{}

// Tables names the tables of iptables-nft. iptables-legacy tells nobody of
// changes.
func (b Backend) Tables() []string {
	if b.Variant == Legacy {
		return nil
	}
	return tables()
}

// Mend compares all ops at once, with one listing for each address family.
func (b Backend) Mend(h *kernel.Host, ops []firewall.Op) (op.Plan, error) {
	var plan op.Plan
	if differs := (AddChains{b.Variant}).Check(context.Background(), h); differs != nil {
		plan = append(plan, op.Step{Why: first(differs), Op: MendChains{b.Variant}})
	}
	change := ChangeRules{Variant: b.Variant}
	lost := 0
	for _, ipv6 := range families(h) {
		there, err := b.Variant.save(h, "", ipv6)
		if err != nil {
			return nil, fmt.Errorf("looking for rules: %w", err)
		}
		for _, o := range ops {
			add, ok := o.(AddRules)
			if !ok {
				continue
			}
			damaged := make(map[string]bool) // chains in which the op lacks a rule
			for _, r := range add.of(ipv6) {
				if there.rules[r.key()] == 0 {
					damaged[r.Table+" "+r.Chain] = true
					lost++
				}
			}
			// Their order counts: all of the chain's come anew.
			change.Add = append(change.Add, slices.DeleteFunc(add.of(ipv6), func(r Rule) bool { return !damaged[r.Table+" "+r.Chain] })...)
		}
	}
	if lost > 0 {
		plan = append(plan, op.Step{Why: fmt.Sprintf("%d rules are missing.", lost), Op: change})
	}
	return plan, nil
}

// MendChains makes those of our chains, their first rules and the jumps into
// them that are missing.
type MendChains struct {
	Variant Variant `json:",omitempty"`
}

// Backend names the backend that the op belongs to, and the variant.
func (o MendChains) Backend() string { return Name + string(o.Variant) }

// Do makes what is missing, in one transaction for each table.
func (o MendChains) Do(_ context.Context, h *kernel.Host) error {
	for _, ipv6 := range families(h) {
		err := undisturbed(func() error {
			there, err := o.Variant.save(h, "", ipv6)
			if err == nil {
				err = o.Variant.restore(h, "", ipv6, creation(ipv6, there))
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("mending chains: %w", err)
		}
	}
	return nil
}

// Undo does nothing: what was mended is AddChains'.
func (o MendChains) Undo(context.Context, *kernel.Host) error { return nil }

// Check looks for all of them.
func (o MendChains) Check(ctx context.Context, h *kernel.Host) error {
	return AddChains(o).Check(ctx, h)
}

// String prints what is done if all chains are there and the rules in them and
// the jumps are not.
func (o MendChains) String() string {
	var commands []string
	for _, ipv6 := range []bool{false, true} {
		all := dump{chains: make(map[string]bool)}
		for _, c := range chains(ipv6) {
			all.chains[c.table+" "+c.name] = true
		}
		commands = append(commands, fmt.Sprintf("%s --noflush --wait <<'EOF'\n%sEOF", o.Variant.command(ipv6, "restore"), creation(ipv6, all)))
	}
	return strings.Join(commands, "\n")
}

// first returns the first of several faults.
func first(faults error) string {
	line, _, more := strings.Cut(faults.Error(), "\n")
	if more {
		line += ", and more"
	}
	return line
}
