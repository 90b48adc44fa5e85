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

// Name is what users call this backend.
const Name = "iptables"

// userChain is the one chain that is not ours to change once it is there.
const userChain = "LINKSPAN-USER"

// AddChains makes the chains of both address families, and the jumps to them.
// A machine without IPv6 gets those of IPv4 alone.
type AddChains struct {
	Variant Variant `json:",omitempty"`
}

// Backend names the backend that the op belongs to, and the variant.
func (o AddChains) Backend() string { return Name + string(o.Variant) }

// chain is one of ours, with the rules that it has from the start.
type chain struct {
	table, name string
	rules       []string
}

// jump leads from a chain of the kernel's to one of ours. It is put first.
type jump struct{ table, from, spec string }

func chains(ipv6 bool) []chain {
	all := []chain{
		{table: "filter", name: userChain},
		{table: "filter", name: "LINKSPAN-INTERNAL"},
		{table: "filter", name: "LINKSPAN-KNOWN"},
		{table: "filter", name: "LINKSPAN-OPEN"},
		{table: "filter", name: "LINKSPAN-LINKED"},
		{table: "filter", name: "LINKSPAN-INTO"},
		{table: "filter", name: "LINKSPAN-OUT"},
		{table: "filter", name: "LINKSPAN-FORWARD", rules: []string{
			"-j LINKSPAN-INTERNAL", "-m conntrack --ctstate RELATED,ESTABLISHED -j LINKSPAN-KNOWN", "-j LINKSPAN-INTO", "-j LINKSPAN-OUT",
		}},
		{table: "filter", name: "LINKSPAN-GUARD"},
		{table: "nat", name: "LINKSPAN-PORTS"},
		{table: "nat", name: "LINKSPAN-TRANSLATED"},
		{table: "nat", name: "LINKSPAN-MASQUERADE"},
	}
	if ipv6 {
		return all
	}
	return append([]chain{{table: "raw", name: "LINKSPAN-LOOPBACK"}}, all...)
}

// jumps are in reverse: the last one is put before the others.
func jumps(ipv6 bool) []jump {
	const ports = " -m addrtype --dst-type LOCAL -j LINKSPAN-PORTS"
	all := []jump{
		{"filter", "FORWARD", "-j LINKSPAN-FORWARD"},
		{"filter", "FORWARD", "-j " + userChain},
		{"filter", "INPUT", "-j LINKSPAN-GUARD"},
		{"nat", "POSTROUTING", "-j LINKSPAN-MASQUERADE"},
		{"nat", "POSTROUTING", "-m conntrack --ctstate DNAT -j LINKSPAN-TRANSLATED"},
	}
	if ipv6 {
		return append(all,
			jump{"nat", "PREROUTING", "! -s fe80::/10" + ports}, // a link-local asker cannot be answered from another link
			jump{"nat", "OUTPUT", "! -d ::1/128" + ports})       // nothing leaves the machine from ::1
	}
	return append(all,
		jump{"raw", "PREROUTING", "-d 127.0.0.0/8 -j LINKSPAN-LOOPBACK"},
		jump{"raw", "PREROUTING", "-s 127.0.0.0/8 -j LINKSPAN-LOOPBACK"},
		jump{"nat", "PREROUTING", "! -d 127.0.0.0/8" + ports},
		jump{"nat", "OUTPUT", strings.TrimSpace(ports)})
}

// Do makes them, in one transaction for each table. It fails with
// linkspan.ErrConflict if one is there already, but for the user's.
func (o AddChains) Do(_ context.Context, h *kernel.Host) error {
	var errs []error
	for _, ipv6 := range families(h) {
		there, err := o.Variant.save(h, "", ipv6)
		if err != nil {
			return fmt.Errorf("looking for chains: %w", err)
		}
		for _, c := range chains(ipv6) {
			if c.name != userChain && there.chains[c.table+" "+c.name] {
				return linkspan.Errorf(linkspan.ErrConflict, "adding chain %s to table %s: it is there already (see: %s -t %s -S)", c.name, c.table, o.Variant.command(ipv6, ""), c.table)
			}
		}
		errs = append(errs, o.Variant.restore(h, "", ipv6, creation(ipv6, there)))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("adding chains: %w", errors.Join(err, o.remove(h)))
	}
	return nil
}

// creation returns the input of iptables-restore that makes what is missing.
func creation(ipv6 bool, there dump) string {
	var text strings.Builder
	for _, table := range tables() {
		var lines []string
		for _, c := range chains(ipv6) {
			if c.table != table {
				continue
			}
			if !there.chains[table+" "+c.name] {
				lines = append(lines, "-N "+c.name)
			}
			for _, rule := range c.rules { // all of them anew, since their order counts
				for range there.rules[table+" -A "+c.name+" "+rule] {
					lines = append(lines, "-D "+c.name+" "+rule)
				}
			}
			for _, rule := range c.rules {
				lines = append(lines, "-A "+c.name+" "+rule)
			}
		}
		for _, j := range jumps(ipv6) {
			if j.table != table {
				continue
			}
			for range there.rules[j.key()] { // the user's may be there, and comes first again
				lines = append(lines, "-D "+j.from+" "+j.spec)
			}
			lines = append(lines, "-I "+j.from+" "+j.spec)
		}
		if lines != nil {
			fmt.Fprintf(&text, "*%s\n%s\nCOMMIT\n", table, strings.Join(lines, "\n"))
		}
	}
	return text.String()
}

func (j jump) key() string { return j.table + " -A " + j.from + " " + j.spec }

// Undo removes chains and jumps with all rules, but for a user's chain that is
// not empty.
func (o AddChains) Undo(_ context.Context, h *kernel.Host) error {
	if err := o.remove(h); err != nil {
		return fmt.Errorf("removing chains: %w", err)
	}
	return nil
}

func (o AddChains) remove(h *kernel.Host) error {
	var errs []error
	for _, ipv6 := range families(h) {
		there, err := o.Variant.save(h, "", ipv6)
		if err == nil {
			if input := removal(ipv6, there); input != "" {
				err = o.Variant.restore(h, "", ipv6, input)
			}
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func removal(ipv6 bool, there dump) string {
	used := false
	for rule := range there.rules {
		used = used || strings.HasPrefix(rule, "filter -A "+userChain+" ")
	}
	var text strings.Builder
	for _, table := range slices.Backward(tables()) {
		var lines, deletions []string
		for _, j := range jumps(ipv6) {
			if j.table == table && (!used || !strings.HasSuffix(j.spec, userChain)) {
				for range there.rules[j.key()] {
					lines = append(lines, "-D "+j.from+" "+j.spec)
				}
			}
		}
		for _, c := range chains(ipv6) {
			if c.table == table && there.chains[table+" "+c.name] && (!used || c.name != userChain) {
				lines, deletions = append(lines, "-F "+c.name), append(deletions, "-X "+c.name)
			}
		}
		if lines != nil {
			fmt.Fprintf(&text, "*%s\n%s\nCOMMIT\n", table, strings.Join(append(lines, deletions...), "\n"))
		}
	}
	return text.String()
}

// Check looks for each chain, its first rules, and the jumps.
func (o AddChains) Check(_ context.Context, h *kernel.Host) error {
	var errs []error
	for _, ipv6 := range families(h) {
		there, err := o.Variant.save(h, "", ipv6)
		if err != nil {
			return fmt.Errorf("looking for chains: %w", err)
		}
		missing := func(what, table string) {
			errs = append(errs, fmt.Errorf("%s is missing from table %s (see: %s -t %s -S)", what, table, o.Variant.command(ipv6, ""), table))
		}
		for _, c := range chains(ipv6) {
			if !there.chains[c.table+" "+c.name] {
				missing("chain "+c.name, c.table)
				continue
			}
			for _, rule := range c.rules {
				if there.rules[c.table+" -A "+c.name+" "+rule] == 0 {
					missing(fmt.Sprintf("rule %q", "-A "+c.name+" "+rule), c.table)
				}
			}
		}
		for _, j := range jumps(ipv6) {
			if there.rules[j.key()] == 0 {
				missing(fmt.Sprintf("rule %q", "-A "+j.from+" "+j.spec), j.table)
			}
		}
	}
	return errors.Join(errs...)
}

func (o AddChains) String() string {
	var commands []string
	for _, ipv6 := range []bool{false, true} {
		commands = append(commands, fmt.Sprintf("%s --noflush --wait <<'EOF'\n%sEOF", o.Variant.command(ipv6, "restore"), creation(ipv6, dump{})))
	}
	return strings.Join(commands, "\n")
}

// families returns the address families that the machine has.
func families(h *kernel.Host) []bool {
	if _, err := h.ReadSysctl("", "net/ipv6/conf/all/forwarding"); err != nil {
		return []bool{false}
	}
	return []bool{false, true}
}
