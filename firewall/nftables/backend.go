package nftables

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/linkspan/linkspan/firewall"
	"github.com/linkspan/linkspan/op"
)

// Backend plans rules for nftables. Its zero value is ready.
type Backend struct{}

var _ firewall.Backend = Backend{}

// Kinds names the ops of this package for op.NewCodec. The names are part of
// stored plans: they never change.
func Kinds() op.Kinds {
	return op.Kinds{
		"nft-table":    AddTable{},
		"nft-elements": AddElements{},
		"nft-resolver": AddResolver{},
	}
}

// Base plans the table "inet linkspan" with its chains, sets and maps.
func (Backend) Base() op.Plan {
	return op.Plan{{
		Why: "The rules that all networks share: they look up in sets and maps what they need to know of a network.",
		Op:  AddTable{},
	}}
}

// Network plans the elements that make the rules hold for one network, in one
// transaction.
func (Backend) Network(n firewall.Network) op.Plan {
	name := n.Bridge
	var elements []Element
	add := func(set, value string, key ...string) {
		elements = append(elements, Element{Set: set, Key: key, Value: value})
	}
	if n.ICC {
		add("within", "accept", name, name)
	} else {
		add("within", "drop", name, name)
	}
	if n.Internal {
		add("internal", "", name)
		return op.Plan{{Why: why(n), Op: AddElements{elements}}}
	}
	add("into", "drop", name)
	if !n.Masquerade {
		return op.Plan{{Why: why(n), Op: AddElements{elements}}}
	}
	if n.SNAT4.IsValid() {
		add("snat4", n.SNAT4.String(), name)
	}
	if n.SNAT6.IsValid() {
		add("snat6", n.SNAT6.String(), name)
	}
	add("masq", "", name)
	for _, subnet := range n.Subnets {
		add(bySubnet(subnet), "", subnet.Masked().String())
	}
	return op.Plan{{Why: why(n), Op: AddElements{elements}}}
}

// Resolver plans the rewriting of the resolver's ports.
func (Backend) Resolver(ns string, udp, tcp uint16) op.Plan {
	return op.Plan{{
		Why: fmt.Sprintf("Programs ask %s on port 53; the resolver listens elsewhere, so that a program may have port 53.", firewall.ResolverAddress),
		Op:  AddResolver{NS: ns, UDP: udp, TCP: tcp},
	}}
}

func bySubnet(p netip.Prefix) string {
	if p.Addr().Is4() {
		return "subnets4"
	}
	return "subnets6"
}

func why(n firewall.Network) string {
	var text strings.Builder
	switch {
	case n.Internal:
		fmt.Fprintf(&text, "Internal: nothing is forwarded into or out of %s", n.Bridge)
	case n.Masquerade:
		fmt.Fprintf(&text, "Only answers are forwarded into %s; what leaves it bears the machine's address", n.Bridge)
	default:
		fmt.Fprintf(&text, "Only answers are forwarded into %s", n.Bridge)
	}
	if !n.ICC {
		text.WriteString(", and none of its containers reaches another")
	}
	text.WriteByte('.')
	return text.String()
}
