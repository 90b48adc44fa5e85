package nftables

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"

	"github.com/linkspan/linkspan/firewall"
	"github.com/linkspan/linkspan/kernel"
)

// Obstacles returns rules and policies of other tables that stop what is
// forwarded from or to one of the links, whatever our own rules say: a packet
// must be accepted by each base chain that it passes. What should pass is whatever
// comes from a link, and, to it, answers and what was sent to a published port. four
// are links that carry IPv4, six IPv6. Rules of iptables-nft are among them. A rule
// whose conditions are about anything but the names of links and connection tracking
// is passed over.
func Obstacles(h *kernel.Host, four, six []string) ([]firewall.Obstacle, error) {
	var found []firewall.Obstacle
	err := h.Transact("", func(conn *nftables.Conn) error {
		found = nil
		chains, err := conn.ListChains()
		if err != nil {
			return fmt.Errorf("listing the chains of all tables (see: nft list ruleset): %w", err)
		}
		for _, c := range chains {
			if c.Hooknum == nil || *c.Hooknum != *nftables.ChainHookForward || c.Type != nftables.ChainTypeFilter || !routes(c.Table) {
				continue
			}
			w := walk{conn: conn, chains: chains, table: c.Table, rules: make(map[string][]*nftables.Rule)}
			links := slices.Concat(four, six)
			switch c.Table.Family {
			case nftables.TableFamilyIPv4:
				links = four
			case nftables.TableFamilyIPv6:
				links = six
			}
			rule, err := w.obstacle(c, links)
			if err != nil {
				return err
			}
			if rule != "" {
				found = append(found, obstacle(c, rule))
			}
		}
		return nil
	})
	return found, err
}

// routes tells whether a table is asked about packets that the machine routes,
// and is neither ours nor made for our users.
func routes(t *nftables.Table) bool {
	switch t.Family {
	case nftables.TableFamilyINet:
		return t.Name != base().table.Name && t.Name != userTable
	case nftables.TableFamilyIPv4, nftables.TableFamilyIPv6:
		return true
	}
	return false
}

func obstacle(c *nftables.Chain, rule string) firewall.Obstacle {
	family := map[nftables.TableFamily]string{nftables.TableFamilyINet: "inet", nftables.TableFamilyIPv4: "ip", nftables.TableFamilyIPv6: "ip6"}[c.Table.Family]
	o := firewall.Obstacle{
		Chain: fmt.Sprintf("chain %s of table %s %s", c.Name, family, c.Table.Name),
		Rule:  rule,
		Show:  fmt.Sprintf("nft list chain %s %s %s", family, c.Table.Name, c.Name),
		Remedy: fmt.Sprintf("let them pass: nft insert rule %[1]s %[2]s %[3]s iifname BRIDGE accept; nft insert rule %[1]s %[2]s %[3]s oifname BRIDGE accept",
			family, c.Table.Name, c.Name),
	}
	switch {
	case c.Table.Name == "firewalld":
		o.Remedy = "put the bridges into a zone that forwards: firewall-cmd --permanent --zone=trusted --add-interface=BRIDGE; firewall-cmd --reload"
	case c.Table.Name == "filter" && c.Name == "FORWARD":
		o.Remedy = "start the daemon with --firewall-backend iptables, whose rules come first in that chain"
	}
	return o
}

// walk follows a packet through the chains of one table.
type walk struct {
	conn   *nftables.Conn
	chains []*nftables.Chain
	table  *nftables.Table
	rules  map[string][]*nftables.Rule // by chain
}

// obstacle returns what stops a packet from or to one of the links, or "".
func (w walk) obstacle(c *nftables.Chain, links []string) (string, error) {
	for _, link := range links {
		for _, p := range []packet{
			{iif: link, state: expr.CtStateBitNEW}, {oif: link, state: expr.CtStateBitESTABLISHED}, {oif: link, state: expr.CtStateBitNEW, status: destinationTranslated},
		} {
			verdict, where, err := w.through(c.Name, p, 0)
			switch {
			case err != nil:
				return "", err
			case verdict == expr.VerdictDrop && strings.HasPrefix(where, "LINKSPAN-"):
				// Our own opinion, as package iptables puts it.
			case verdict == expr.VerdictDrop:
				return "a rule in chain " + where + " drops or rejects whatever comes so far", nil
			case verdict != expr.VerdictAccept && c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop:
				return "its policy is drop", nil
			}
		}
	}
	return "", nil
}

// packet is what is known of one: the links that it comes from and leaves by, and
// what connection tracking says of it. An empty name is some link of the machine's
// that no rule names.
type packet struct {
	iif, oif      string
	state, status uint32
}

// through returns the verdict of a chain on a packet, and in which chain it was
// found. VerdictContinue says that it has none.
func (w walk) through(name string, p packet, depth int) (expr.VerdictKind, string, error) {
	if depth > 16 { // NFT_JUMP_STACK_SIZE: the kernel would not have taken it
		return expr.VerdictContinue, name, nil
	}
	rules, known := w.rules[name]
	if !known {
		var err error
		if rules, err = w.conn.GetRules(w.table, &nftables.Chain{Name: name, Table: w.table}); err != nil {
			return 0, name, fmt.Errorf("listing the rules of chain %s in table %s: %w", name, w.table.Name, err)
		}
		w.rules[name] = rules
	}
	for _, rule := range rules {
		verdict, err := w.decide(rule.Exprs, p)
		if err != nil {
			return 0, name, err
		}
		switch verdict.Kind {
		case expr.VerdictAccept, expr.VerdictDrop:
			return verdict.Kind, name, nil
		case expr.VerdictReturn:
			return expr.VerdictContinue, name, nil
		case expr.VerdictJump, expr.VerdictGoto:
			kind, where, err := w.through(verdict.Chain, p, depth+1)
			if err != nil || kind != expr.VerdictContinue || verdict.Kind == expr.VerdictGoto {
				return kind, where, err
			}
		}
	}
	return expr.VerdictContinue, name, nil
}

// decide returns the verdict of one rule, which is to continue if it does not
// match the packet, or may not.
func (w walk) decide(exprs []expr.Any, p packet) (expr.Verdict, error) {
	passedOver := expr.Verdict{Kind: expr.VerdictContinue}
	names := make(map[uint32]string)  // registers that hold a link's name
	values := make(map[uint32][]byte) // and those that hold what is tracked
	for _, e := range exprs {
		holds := true
		switch e := e.(type) {
		case *expr.Meta:
			switch e.Key {
			case expr.MetaKeyIIFNAME:
				names[e.Register] = p.iif
			case expr.MetaKeyOIFNAME:
				names[e.Register] = p.oif
			default:
				holds = false
			}
		case *expr.Ct:
			switch e.Key {
			case expr.CtKeySTATE:
				values[e.Register] = binaryutil.NativeEndian.PutUint32(p.state)
			case expr.CtKeySTATUS:
				values[e.Register] = binaryutil.NativeEndian.PutUint32(p.status)
			default:
				holds = false
			}
		case *expr.Bitwise:
			value, known := values[e.SourceRegister]
			values[e.DestRegister] = masked(value, e.Mask, e.Xor)
			holds = known
		case *expr.Cmp:
			holds = compared(e, names, values)
		case *expr.Lookup:
			value, known := values[e.SourceRegister]
			found, err := w.listed(e.SetName, value)
			if err != nil {
				return passedOver, err
			}
			holds = known && !e.IsDestRegSet && found != e.Invert
		case *expr.Counter, *expr.Log:
		case *expr.Verdict:
			return *e, nil
		case *expr.Reject:
			return expr.Verdict{Kind: expr.VerdictDrop}, nil
		case *expr.Target:
			if e.Name == "REJECT" {
				return expr.Verdict{Kind: expr.VerdictDrop}, nil
			}
			holds = false
		default:
			holds = false
		}
		if !holds {
			return passedOver, nil
		}
	}
	return passedOver, nil
}

// compared tells whether a comparison holds of a register of which something is
// known.
func compared(e *expr.Cmp, names map[uint32]string, values map[uint32][]byte) bool {
	if e.Op != expr.CmpOpEq && e.Op != expr.CmpOpNeq {
		return false
	}
	if name, known := names[e.Register]; known {
		return matches(name, e.Data) == (e.Op == expr.CmpOpEq)
	}
	value, known := values[e.Register]
	return known && bytes.Equal(value, e.Data) == (e.Op == expr.CmpOpEq)
}

func masked(value, mask, xor []byte) []byte {
	result := bytes.Clone(value)
	for i := range result {
		if i < len(mask) && i < len(xor) {
			result[i] = result[i]&mask[i] ^ xor[i]
		}
	}
	return result
}

// listed tells whether a set has a value among its elements.
func (w walk) listed(set string, value []byte) (bool, error) {
	if value == nil {
		return false, nil
	}
	elements, err := w.conn.GetSetElements(&nftables.Set{Name: set, Table: w.table})
	if err != nil {
		return false, fmt.Errorf("listing set %s of table %s: %w", set, w.table.Name, err)
	}
	return slices.ContainsFunc(elements, func(e nftables.SetElement) bool { return bytes.Equal(e.Key, value) }), nil
}

// matches compares a link's name with a rule's: all of it, or what it begins
// with, which has no zero at its end.
func matches(name string, data []byte) bool {
	want := string(bytes.TrimRight(data, "\x00"))
	if len(want) < len(data) {
		return name == want
	}
	return name != "" && strings.HasPrefix(name, want)
}
