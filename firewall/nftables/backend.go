package nftables

import (
	"fmt"
	"net/netip"

	"github.com/linkspan/linkspan/firewall"
	"github.com/linkspan/linkspan/op"
)

// Backend plans rules for nftables. Its zero value is ready.
type Backend struct {
	// Accept is a mark by which the machine's own rules let packets in.
	Accept firewall.Mark
}

// Name is what users call this backend.
const Name = "nftables"

// Backend names the backend that the op belongs to.
func (AddTable) Backend() string { return Name }

// Backend names the backend that the op belongs to.
func (AddElements) Backend() string { return Name }

// Kinds names the ops of this package for op.NewCodec. The names are part of
// stored plans: they never change.
func Kinds() op.Kinds {
	return op.Kinds{
		"nft-table":    AddTable{},
		"nft-change":   ChangeElements{},
		"nft-elements": AddElements{},
		"nft-mend":     MendTable{},
		"nft-user":     AddUserTable{},
		"nft-put":      PutElements{},
		"nft-resolver": AddResolver{},

		"nft-guard":      AddGuard{},
		"nft-guard-port": GuardPort{},
		"nft-reguard":    ChangeGuard{},
	}
}

// Base plans the table "inet linkspan" with its chains, sets and maps.
func (b Backend) Base() op.Plan {
	return op.Plan{{
		Why: "The rules that all networks share: they look up in sets and maps what they need to know of a network.",
		Op:  AddTable(b),
	}, {
		Why: "A place for rules of your own about forwarded packets: it is asked first, and never changed once it is there.",
		Op:  AddUserTable{},
	}}
}

// Network plans the elements that make the rules hold for one network, in one
// transaction.
func (Backend) Network(n firewall.Network) op.Plan {
	name := n.Bridge
	elements := []Element{{Set: "within", Key: []string{name, name}, Value: "accept"}}
	if !n.ICC {
		elements[0].Value = "goto apart"
	}
	add := func(set, value string, key ...string) {
		elements = append(elements, Element{Set: set, Key: key, Value: value})
	}
	add("networks", "", name)
	if n.Internal {
		add("internal", "", name)
		return op.Plan{{Why: n.Describe(), Op: AddElements{elements}}}
	}
	add("into", into(n, n.Mode4), "ipv4", name)
	add("into", into(n, n.Mode6), "ipv6", name)
	if n.Opens(false) || n.Opens(true) {
		for _, link := range n.Trusted {
			add("trusted", "", link, name)
		}
	}
	if !n.Masquerade || n.Mode4 == firewall.Routed && n.Mode6 == firewall.Routed {
		return op.Plan{{Why: n.Describe(), Op: AddElements{elements}}}
	}
	if n.SNAT4.IsValid() {
		add("snat4", n.SNAT4.String(), name)
	}
	if n.SNAT6.IsValid() {
		add("snat6", n.SNAT6.String(), name)
	}
	add("masq", "", name)
	for _, subnet := range n.Subnets {
		if n.Masqueraded(subnet) {
			add("subnets"+family(subnet.Addr()), "", subnet.Masked().String())
		}
	}
	return op.Plan{{Why: n.Describe(), Op: AddElements{elements}}}
}

// into returns the verdict on what nobody inside has asked for.
func into(n firewall.Network, mode firewall.Mode) string {
	switch {
	case mode == firewall.Unprotected:
		return "accept"
	case mode == firewall.Routed:
		return "goto routed"
	case n.Direct:
		return "goto direct"
	case len(n.Trusted) > 0:
		return "goto trusted"
	}
	return "drop"
}

// Resolver plans the rewriting of the resolver's ports.
func (Backend) Resolver(ns string, udp, tcp uint16) op.Plan {
	return op.Plan{{
		Why: fmt.Sprintf("Programs ask %s on port 53; the resolver listens elsewhere, so that a program may have port 53.", firewall.ResolverAddress),
		Op:  AddResolver{NS: ns, UDP: udp, TCP: tcp},
	}}
}

// family returns what the names of sets of an address family end in.
func family(addr netip.Addr) string {
	if addr.Is4() {
		return "4"
	}
	return "6"
}
