package iptables

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/op"
)

// ChangeRules deletes rules and appends others, in one transaction for each
// table.
type ChangeRules struct {
	Variant     Variant `json:",omitempty"`
	Delete, Add []Rule
}

// Do makes the change. What is done already is passed over; chains that somebody
// has removed are made again, as by AddRules.
func (o ChangeRules) Do(ctx context.Context, h *kernel.Host) error {
	return undisturbed(func() error { return o.swap(ctx, h, o.Delete, o.Add) })
}

// Undo goes back.
func (o ChangeRules) Undo(ctx context.Context, h *kernel.Host) error {
	return undisturbed(func() error { return o.swap(ctx, h, o.Add, o.Delete) })
}

func (o ChangeRules) swap(ctx context.Context, h *kernel.Host, remove, add []Rule) error {
	for _, ipv6 := range (AddRules{Rules: slices.Concat(remove, add)}).families() {
		there, err := o.Variant.save(h, "", ipv6)
		if err != nil {
			return fmt.Errorf("looking for rules: %w", err)
		}
		// All go and the new ones come, since what counts is their order too.
		gone := slices.DeleteFunc(AddRules{Rules: union(remove, add)}.of(ipv6), func(r Rule) bool { return there.rules[r.key()] == 0 })
		fresh := AddRules{Rules: add}.of(ipv6)
		if there.lacks(fresh) {
			if err := (MendChains{o.Variant}).Do(ctx, h); err != nil {
				return err
			}
		}
		if input := changes(gone, fresh); input != "" {
			if err := o.Variant.restore(h, "", ipv6, input); err != nil {
				return fmt.Errorf("changing rules: %w", err)
			}
		}
	}
	return nil
}

// changes returns the input of iptables-restore that appends rules and deletes
// others.
func changes(gone, fresh []Rule) string {
	var text strings.Builder
	for _, table := range tables() {
		var lines []string
		for _, r := range gone {
			if r.Table == table {
				lines = append(lines, r.line("-D"))
			}
		}
		for _, r := range fresh {
			if r.Table == table {
				lines = append(lines, r.line("-A"))
			}
		}
		if lines != nil {
			fmt.Fprintf(&text, "*%s\n%s\nCOMMIT\n", table, strings.Join(lines, "\n"))
		}
	}
	return text.String()
}

// Check looks for the new rules.
func (o ChangeRules) Check(ctx context.Context, h *kernel.Host) error {
	return AddRules{Variant: o.Variant, Rules: o.Add}.Check(ctx, h)
}

func (o ChangeRules) String() string {
	var commands []string
	for _, ipv6 := range (AddRules{Rules: slices.Concat(o.Delete, o.Add)}).families() {
		commands = append(commands, fmt.Sprintf("%s --noflush --wait <<'EOF'\n%sEOF", o.Variant.command(ipv6, "restore"),
			changes(AddRules{Rules: o.Delete}.of(ipv6), AddRules{Rules: o.Add}.of(ipv6))))
	}
	return strings.Join(commands, "\n")
}

// Thing names the rules by the link or address that the last of them is about,
// which is their network's or their endpoint's own.
func (o AddRules) Thing() string {
	if len(o.Rules) == 0 {
		return "no rules"
	}
	words := strings.Fields(o.Rules[0].Spec)
	for i, word := range words[:len(words)-1] {
		if word == "-i" || word == "-o" {
			return "rules of " + words[i+1]
		}
	}
	return "rules " + o.Rules[0].Spec
}

// Into swaps the rules of the chains in which something differs.
func (o AddRules) Into(to op.Op) ([]op.Op, bool) {
	fresh, ok := to.(AddRules)
	change := ChangeRules{Variant: o.Variant}
	all := slices.Concat(o.Rules, fresh.Rules)
	for i, r := range all {
		elsewhere := func(other Rule) bool {
			return other.IPv6 != r.IPv6 || other.Table != r.Table || other.Chain != r.Chain
		}
		if slices.IndexFunc(all, func(other Rule) bool { return !elsewhere(other) }) < i {
			continue // another rule of the chain came before
		}
		before, after := slices.DeleteFunc(slices.Clone(o.Rules), elsewhere), slices.DeleteFunc(slices.Clone(fresh.Rules), elsewhere)
		if !slices.Equal(before, after) {
			change.Delete, change.Add = append(change.Delete, before...), append(change.Add, after...)
		}
	}
	return []op.Op{change}, ok && o.Variant == fresh.Variant && o.NS == fresh.NS
}

// union returns the rules of two lists, each once.
func union(a, b []Rule) []Rule {
	all := slices.Clone(a)
	for _, r := range b {
		if !slices.Contains(all, r) {
			all = append(all, r)
		}
	}
	return all
}
