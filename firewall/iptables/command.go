package iptables

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/kernel"
)

// Variant says which of the programs called iptables is meant.
type Variant string

// The variants.
const (
	Default Variant = ""       // whatever the command iptables is
	NFT     Variant = "nft"    // rules in nftables
	Legacy  Variant = "legacy" // rules in tables of their own
)

// Command names the program that rules are sent to.
func (v Variant) Command() string { return v.command(false, "restore") }

// command names a program: ip6tables-legacy-restore.
func (v Variant) command(ipv6 bool, tool string) string {
	name := "iptables"
	if ipv6 {
		name = "ip6tables"
	}
	if v != Default {
		name += "-" + string(v)
	}
	if tool != "" {
		name += "-" + tool
	}
	return name
}

// run runs a program in a namespace with the given input. The child is forked
// by the very thread that is in the namespace, so it is in it too.
func run(h *kernel.Host, ns, input, name string, args ...string) (string, error) {
	var output, complaint bytes.Buffer
	err := h.Inside(ns, func() error {
		cmd := exec.Command(name, args...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &output, &complaint
		return cmd.Run()
	})
	var exit *exec.ExitError
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return "", linkspan.Errorf(linkspan.ErrUnsupported, "%s is not installed: install package iptables, or choose --firewall-backend nftables", name)
	case errors.As(err, &exit):
		return "", fmt.Errorf("%s: %s (%w)", name, strings.TrimSpace(complaint.String()), err)
	case err != nil:
		return "", fmt.Errorf("running %s: %w", name, err)
	}
	return output.String(), nil
}

// restore sends changes to one address family, all or nothing for each table.
func (v Variant) restore(h *kernel.Host, ns string, ipv6 bool, input string) error {
	_, err := run(h, ns, input, v.command(ipv6, "restore"), "--noflush", "--wait")
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return refusal{err}
	}
	return err
}

// refusal is a change that iptables-restore did not make.
type refusal struct{ error }

func (r refusal) Unwrap() error { return r.error }

// looks is how often what there is is looked at before a refusal counts.
const looks = 5

// undisturbed runs a change that rests on a look at what there is. Between the
// look and the change somebody else may flush it all, and the change is refused:
// then it is begun anew, with another look.
func undisturbed(change func() error) error {
	var err error
	for range looks {
		if err = change(); !errors.As(err, new(refusal)) {
			return err
		}
	}
	return err
}

// dump is what one address family has.
type dump struct {
	chains map[string]bool // "table chain", but for the kernel's own
	rules  map[string]int  // "table -A chain spec": how many
}

func (v Variant) save(h *kernel.Host, ns string, ipv6 bool) (dump, error) {
	text, err := run(h, ns, "", v.command(ipv6, "save"))
	if err != nil {
		return dump{}, err
	}
	return parse(text), nil
}

// parse reads the output of iptables-save.
func parse(text string) dump {
	d := dump{chains: make(map[string]bool), rules: make(map[string]int)}
	table := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "*"):
			table = line[1:]
		case strings.HasPrefix(line, ":"):
			if name, rest, _ := strings.Cut(line[1:], " "); strings.HasPrefix(rest, "- ") {
				d.chains[table+" "+name] = true
			}
		case strings.HasPrefix(line, "-A "):
			d.rules[table+" "+line]++
		}
	}
	return d
}

// nsenter returns what a command is preceded by to run in a namespace.
func nsenter(ns string) string {
	if ns == "" {
		return ""
	}
	return "nsenter --net=" + kernel.Pin(ns) + " "
}
