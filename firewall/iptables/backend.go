package iptables

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"

	"github.com/linkspan/linkspan/firewall"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/sandbox"
)

// Backend plans rules for iptables. Its zero value is ready, and means the
// machine's own choice of program.
type Backend struct {
	Variant Variant
	// Accept is a mark by which the machine's own rules let packets in.
	Accept firewall.Mark
}

// Kinds names the ops of this package for op.NewCodec. The names are part of
// stored plans: they never change.
func Kinds() op.Kinds {
	return op.Kinds{
		"iptables-chains": AddChains{},
		"iptables-change": ChangeRules{},
		"iptables-mend":   MendChains{},
		"iptables-rules":  AddRules{},
	}
}

// Base plans the chains of the package comment.
func (b Backend) Base() op.Plan {
	return op.Plan{{
		Why: "The chains that the rules of networks and ports go to, and the ways into them.",
		Op:  AddChains{b.Variant},
	}}
}

// Network plans the rules of one network.
func (b Backend) Network(n firewall.Network) op.Plan {
	rules := b.networkRules(n, false)
	for _, subnet := range n.Subnets {
		if subnet.Addr().Is6() {
			rules = append(rules, b.networkRules(n, true)...)
			break
		}
	}
	return op.Plan{{Why: n.Describe(), Op: AddRules{Variant: b.Variant, Rules: rules}}}
}

// list collects rules of one address family.
type list struct {
	ipv6  bool
	rules []Rule
}

func (l *list) add(table, chain, format string, args ...any) {
	l.rules = append(l.rules, Rule{IPv6: l.ipv6, Table: table, Chain: chain, Spec: strings.TrimSpace(fmt.Sprintf(format, args...))})
}

func (b Backend) networkRules(n firewall.Network, ipv6 bool) []Rule {
	l, br := list{ipv6: ipv6}, n.Bridge
	if n.Internal {
		l.add("filter", "LINKSPAN-INTERNAL", "-i %s ! -o %s -j DROP", br, br)
		l.add("filter", "LINKSPAN-INTERNAL", "! -i %s -o %s -j DROP", br, br)
	} else {
		l.add("filter", "LINKSPAN-KNOWN", "-o %s -j ACCEPT", br)
		l.add("filter", "LINKSPAN-KNOWN", "-i %s -j ACCEPT", br)
	}
	if n.ICC {
		l.add("filter", "LINKSPAN-INTO", "-i %s -o %s -j ACCEPT", br, br)
	} else {
		l.add("filter", "LINKSPAN-INTO", "-i %s -o %s -j LINKSPAN-LINKED", br, br)
		l.add("filter", "LINKSPAN-INTO", "-i %s -o %s -j DROP", br, br)
	}
	if !ipv6 {
		l.add("raw", "LINKSPAN-LOOPBACK", "-i %s -j DROP", br)
	}
	if n.Internal {
		return l.rules
	}
	l.add("filter", "LINKSPAN-INTO", "-o %s -m conntrack --ctstate DNAT -j ACCEPT", br)
	if b.Accept != (firewall.Mark{}) {
		l.add("filter", "LINKSPAN-INTO", "-o %s -m mark --mark %s -j ACCEPT", br, markWords(b.Accept))
	}
	switch {
	case n.Mode(ipv6) == firewall.Unprotected:
		l.add("filter", "LINKSPAN-INTO", "-o %s -j ACCEPT", br)
	case n.Mode(ipv6) == firewall.Routed:
		icmp := "icmp"
		if ipv6 {
			icmp = "ipv6-icmp"
		}
		l.add("filter", "LINKSPAN-INTO", "-o %s -p %s -j ACCEPT", br, icmp)
		l.add("filter", "LINKSPAN-INTO", "-o %s -j LINKSPAN-OPEN", br)
		l.add("filter", "LINKSPAN-INTO", "-o %s -j DROP", br)
	default:
		if n.Direct {
			l.add("filter", "LINKSPAN-INTO", "-o %s -j LINKSPAN-OPEN", br)
		} else {
			for _, link := range n.Trusted {
				l.add("filter", "LINKSPAN-INTO", "-i %s -o %s -j LINKSPAN-OPEN", link, br)
			}
		}
		l.add("filter", "LINKSPAN-INTO", "-o %s -j DROP", br)
	}
	l.add("filter", "LINKSPAN-OUT", "-i %s -j ACCEPT", br)
	if !ipv6 {
		l.add("nat", "LINKSPAN-TRANSLATED", "-s 127.0.0.0/8 -o %s -j MASQUERADE", br)
	}
	l.add("nat", "LINKSPAN-TRANSLATED", "-o %s -j ACCEPT", br)
	for _, subnet := range n.Subnets {
		if subnet.Addr().Is6() == ipv6 && n.Masqueraded(subnet) {
			l.add("nat", "LINKSPAN-MASQUERADE", "%s! -o %s -j %s", source(subnet), br, leaveAs(n, ipv6))
		}
	}
	return l.rules
}

// markWords writes a mark as iptables-save does.
func markWords(m firewall.Mark) string {
	if m.Mask == 0xffffffff {
		return fmt.Sprintf("%#x", m.Value)
	}
	return m.String()
}

// leaveAs returns the target for packets that leave a network.
func leaveAs(n firewall.Network, ipv6 bool) string {
	addr := n.SNAT4
	if ipv6 {
		addr = n.SNAT6
	}
	if !addr.IsValid() {
		return "MASQUERADE"
	}
	return "SNAT --to-source " + addr.String()
}

// Ports plans the rules of published ports.
func (b Backend) Ports(bridge string, ports []sandbox.Port) op.Plan {
	rules, words := rulesOf(bridge, ports)
	if rules == nil {
		return nil
	}
	return op.Plan{{Why: "Published: " + words + ".", Op: AddRules{Variant: b.Variant, Rules: rules}}}
}

// Links plans the rules of who may ask whom.
func (b Backend) Links(bridge string, links []sandbox.Link) op.Plan {
	if len(links) == 0 {
		return nil
	}
	var rules []Rule
	words := make([]string, len(links))
	for i, of := range links {
		l := list{ipv6: of.To.Addr().Is6()}
		l.add("filter", "LINKSPAN-LINKED", "-s %s/%d %s-i %s -o %s %s -j ACCEPT", of.From, of.From.BitLen(), destination(of.To.Addr()), bridge, bridge, dport(of.Protocol, of.To.Port(), of.Count))
		rules, words[i] = append(rules, l.rules...), of.String()
	}
	return op.Plan{{Why: "Linked: " + strings.Join(words, ", ") + ".", Op: AddRules{Variant: b.Variant, Rules: rules}}}
}

// Switch plans that some rules of published ports take the place of others.
func (b Backend) Switch(bridge string, old, fresh []sandbox.Port) op.Plan {
	gone, before := rulesOf(bridge, old)
	rules, words := rulesOf(bridge, fresh)
	if len(gone)+len(rules) == 0 {
		return nil
	}
	return op.Plan{{
		Why: "Published ports change in one step: " + cmp.Or(before, "none") + " become " + cmp.Or(words, "none") + ".",
		Op:  ChangeRules{Variant: b.Variant, Delete: gone, Add: rules},
	}}
}

// rulesOf returns the rules of published ports, and the ports in words.
func rulesOf(bridge string, ports []sandbox.Port) ([]Rule, string) {
	var rules []Rule
	var words []string
	for _, p := range ports {
		if !p.Relayed() {
			rules, words = append(rules, portRules(bridge, p)...), append(words, p.String())
		}
	}
	return rules, strings.Join(words, ", ")
}

func portRules(bridge string, p sandbox.Port) []Rule {
	l := list{ipv6: p.To.Addr().Is6()}
	from := []string{""}
	if p.Sources != nil {
		from = nil
		for _, prefix := range p.Sources {
			if prefix.Addr().Is6() == l.ipv6 {
				from = append(from, source(prefix))
			}
		}
	}
	if p.Routed || p.Direct {
		for _, s := range from {
			l.add("filter", "LINKSPAN-OPEN", "%s%s%s -j ACCEPT", s, destination(p.To.Addr()), dport(p.Protocol, p.To.Port(), p.Count))
		}
	}
	if p.Routed {
		return l.rules
	}
	host, port, to := destination(p.Host), dport(p.Protocol, p.First, p.Count), target(p)
	for _, s := range from {
		l.add("nat", "LINKSPAN-PORTS", "%s%s! -i %s %s -j DNAT --to-destination %s", s, host, bridge, port, to)
	}
	if p.Sources == nil {
		return l.rules
	}
	l.add("nat", "LINKSPAN-PORTS", "%s! -i %s %s -m addrtype --src-type LOCAL -j DNAT --to-destination %s", host, bridge, port, to)
	for _, s := range from {
		l.add("filter", "LINKSPAN-GUARD", "%s%s%s -j RETURN", s, host, port)
	}
	l.add("filter", "LINKSPAN-GUARD", "%s%s -m addrtype ! --src-type LOCAL -j DROP", host, port)
	return l.rules
}

// target returns where the n-th of the host's ports leads: to the n-th of the
// container's, which for a range that shifts its numbers is told by the first.
func target(p sandbox.Port) string {
	addr := p.To.Addr().String()
	if p.Count > 1 && p.First == p.To.Port() {
		return addr
	}
	if p.To.Addr().Is6() {
		addr = "[" + addr + "]"
	}
	if p.Count == 1 {
		return fmt.Sprintf("%s:%d", addr, p.To.Port())
	}
	return fmt.Sprintf("%s:%d-%d/%d", addr, p.To.Port(), int(p.To.Port())+int(p.Count)-1, p.First)
}

func dport(protocol string, first, count uint16) string {
	if count == 1 {
		return fmt.Sprintf("-p %s -m %s --dport %d", protocol, protocol, first)
	}
	return fmt.Sprintf("-p %s -m %s --dport %d:%d", protocol, protocol, first, int(first)+int(count)-1)
}

// source and destination return a match with a blank behind it, or nothing if
// every address will do.
func source(prefix netip.Prefix) string {
	if prefix.Bits() == 0 {
		return ""
	}
	return "-s " + prefix.Masked().String() + " "
}

func destination(addr netip.Addr) string {
	if addr.IsUnspecified() {
		return ""
	}
	return fmt.Sprintf("-d %s/%d ", addr, addr.BitLen())
}

// Resolver plans the redirection of the resolver's port, in the sandbox.
func (b Backend) Resolver(ns string, udp, tcp uint16) op.Plan {
	to := func(protocol string, port uint16) Rule {
		return Rule{Table: "nat", Chain: "OUTPUT", Spec: fmt.Sprintf("-d %s/32 %s -j DNAT --to-destination %s:%d",
			firewall.ResolverAddress, dport(protocol, 53, 1), firewall.ResolverAddress, port)}
	}
	return op.Plan{{
		Why: fmt.Sprintf("Programs ask %s on port 53; the resolver listens elsewhere, so that a program may have port 53.", firewall.ResolverAddress),
		Op:  AddRules{NS: ns, Variant: b.Variant, Rules: []Rule{to("udp", udp), to("tcp", tcp)}},
	}}
}
