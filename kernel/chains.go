package kernel

import (
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"
)

// Chain is a base chain of nftables: one that packets pass by themselves.
type Chain struct {
	Table  string // with its family: "inet linkspan"
	Name   string
	Hook   string // "forward"
	Policy string // "accept" or "drop"
	Rules  int    // of the chain itself; those it jumps to are not counted
}

// String says it in one line.
func (c Chain) String() string {
	return fmt.Sprintf("%s %s: hook %s, policy %s, %d rules", c.Table, c.Name, c.Hook, c.Policy, c.Rules)
}

// Chains lists the base chains of a namespace, "" for the machine's own, in the
// order of their names (nft list chains). Rules of the legacy iptables are not in
// nftables and not among them. A chain that goes meanwhile is left out.
func (h *Host) Chains(ns string) ([]Chain, error) {
	var found []Chain
	err := h.Transact(ns, func(conn *nftables.Conn) error {
		all, err := Dump(conn.ListChains)
		if err != nil {
			return err
		}
		for _, c := range all {
			if c.Hooknum == nil {
				continue
			}
			rules, err := Dump(func() ([]*nftables.Rule, error) { return conn.GetRules(c.Table, c) })
			if err != nil {
				continue // it has gone
			}
			chain := Chain{Table: familyName(c.Table.Family) + " " + c.Table.Name, Name: c.Name, Hook: hookName(c), Policy: "accept", Rules: len(rules)}
			if c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop {
				chain.Policy = "drop"
			}
			found = append(found, chain)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("listing the chains of %s (see: nft list chains): %w", nameOf(ns), err)
	}
	slices.SortFunc(found, func(a, b Chain) int { return strings.Compare(a.Table+"\x00"+a.Name, b.Table+"\x00"+b.Name) })
	return found, nil
}

func familyName(family nftables.TableFamily) string {
	switch family {
	case nftables.TableFamilyINet:
		return "inet"
	case nftables.TableFamilyIPv4:
		return "ip"
	case nftables.TableFamilyIPv6:
		return "ip6"
	case nftables.TableFamilyARP:
		return "arp"
	case nftables.TableFamilyNetdev:
		return "netdev"
	case nftables.TableFamilyBridge:
		return "bridge"
	}
	return fmt.Sprintf("family-%d", family)
}

// hookName is a hook's word; what a number means depends on the family.
func hookName(c *nftables.Chain) string {
	names := []string{"prerouting", "input", "forward", "output", "postrouting", "ingress"}
	switch c.Table.Family {
	case nftables.TableFamilyNetdev:
		names = []string{"ingress", "egress"}
	case nftables.TableFamilyARP:
		names = []string{"input", "output", "forward"}
	}
	if hook := int(*c.Hooknum); hook < len(names) {
		return names[hook]
	}
	return fmt.Sprint(*c.Hooknum)
}
