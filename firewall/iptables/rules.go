package iptables

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/kernel"
)

// Rule is one rule. Its Spec is in the words and the order in which
// iptables-save lists it, by which it is found again.
type Rule struct {
	IPv6  bool `json:",omitempty"`
	Table string
	Chain string
	Spec  string
}

func (r Rule) line(verb string) string { return verb + " " + r.Chain + " " + r.Spec }
func (r Rule) key() string             { return r.Table + " " + r.line("-A") }

// AddRules appends rules to chains.
type AddRules struct {
	NS      string  `json:",omitempty"`
	Variant Variant `json:",omitempty"`
	Rules   []Rule
}

// Backend names the backend that the op belongs to, and the variant.
func (o AddRules) Backend() string { return Name + string(o.Variant) }

// Do appends the rules, in one transaction for each table. It fails with
// linkspan.ErrConflict if one is there already. Chains that somebody has removed
// are made again, without what else was in them (see Backend.Mend).
func (o AddRules) Do(ctx context.Context, h *kernel.Host) error {
	return undisturbed(func() error { return o.add(ctx, h) })
}

func (o AddRules) add(ctx context.Context, h *kernel.Host) error {
	families, damaged := o.families(), false
	for _, ipv6 := range families {
		there, err := o.Variant.save(h, o.NS, ipv6)
		if err != nil {
			return fmt.Errorf("looking for rules: %w", err)
		}
		for _, r := range o.of(ipv6) {
			if there.rules[r.key()] > 0 {
				return linkspan.Errorf(linkspan.ErrConflict, "adding rule %q to table %s: it is there already (see: %s)", r.line("-A"), r.Table, o.show(r))
			}
		}
		damaged = damaged || there.lacks(o.of(ipv6))
	}
	if damaged {
		if err := (MendChains{o.Variant}).Do(ctx, h); err != nil {
			return err
		}
	}
	for i, ipv6 := range families {
		if err := o.Variant.restore(h, o.NS, ipv6, script(o.of(ipv6), "-A")); err != nil {
			for _, done := range families[:i] {
				err = errors.Join(err, o.remove(h, done))
			}
			return fmt.Errorf("adding rules: %w", err)
		}
	}
	return nil
}

// Undo deletes those of the rules that are there.
func (o AddRules) Undo(_ context.Context, h *kernel.Host) error {
	var errs []error
	for _, ipv6 := range o.families() {
		if err := o.remove(h, ipv6); err != nil && !kernel.IsGone(err) && !errors.Is(err, linkspan.ErrNotFound) {
			errs = append(errs, fmt.Errorf("deleting rules: %w", err))
		}
	}
	return errors.Join(errs...)
}

func (o AddRules) remove(h *kernel.Host, ipv6 bool) error {
	return undisturbed(func() error { return o.removeOnce(h, ipv6) })
}

func (o AddRules) removeOnce(h *kernel.Host, ipv6 bool) error {
	there, err := o.Variant.save(h, o.NS, ipv6)
	if err != nil {
		return err
	}
	var present []Rule
	for _, r := range o.of(ipv6) {
		for range there.rules[r.key()] {
			present = append(present, r)
		}
	}
	if present == nil {
		return nil
	}
	return o.Variant.restore(h, o.NS, ipv6, script(present, "-D"))
}

// Check looks for each rule.
func (o AddRules) Check(_ context.Context, h *kernel.Host) error {
	var errs []error
	for _, ipv6 := range o.families() {
		there, err := o.Variant.save(h, o.NS, ipv6)
		if err != nil {
			return fmt.Errorf("looking for rules: %w", err)
		}
		for _, r := range o.of(ipv6) {
			if there.rules[r.key()] == 0 {
				errs = append(errs, fmt.Errorf("rule %q is missing from table %s (see: %s)", r.line("-A"), r.Table, o.show(r)))
			}
		}
	}
	return errors.Join(errs...)
}

func (o AddRules) String() string {
	var commands []string
	for _, ipv6 := range o.families() {
		commands = append(commands, fmt.Sprintf("%s%s --noflush --wait <<'EOF'\n%sEOF",
			nsenter(o.NS), o.Variant.command(ipv6, "restore"), script(o.of(ipv6), "-A")))
	}
	return strings.Join(commands, "\n")
}

func (o AddRules) show(r Rule) string {
	return fmt.Sprintf("%s%s -t %s -S %s", nsenter(o.NS), o.Variant.command(r.IPv6, ""), r.Table, r.Chain)
}

// families returns the address families that have rules.
func (o AddRules) families() []bool {
	var families []bool
	for _, ipv6 := range []bool{false, true} {
		if len(o.of(ipv6)) > 0 {
			families = append(families, ipv6)
		}
	}
	return families
}

func (o AddRules) of(ipv6 bool) []Rule {
	return slices.DeleteFunc(slices.Clone(o.Rules), func(r Rule) bool { return r.IPv6 != ipv6 })
}

// script returns the input of iptables-restore that does the same with all
// rules, table by table.
func script(rules []Rule, verb string) string {
	var text strings.Builder
	for _, table := range tables() {
		begun := false
		for _, r := range rules {
			if r.Table != table {
				continue
			}
			if !begun {
				fmt.Fprintf(&text, "*%s\n", table)
				begun = true
			}
			fmt.Fprintln(&text, r.line(verb))
		}
		if begun {
			text.WriteString("COMMIT\n")
		}
	}
	return text.String()
}

// tables are in the order in which it is safe to change them: what keeps
// packets out before what lets them in.
func tables() []string { return []string{"raw", "filter", "nat"} }

// lacks tells whether somebody has removed a chain of ours that rules belong in.
func (d dump) lacks(rules []Rule) bool {
	return slices.ContainsFunc(rules, func(r Rule) bool { return ours(r.Chain) && !d.chains[r.Table+" "+r.Chain] })
}

func ours(chain string) bool { return strings.HasPrefix(chain, "LINKSPAN-") }
