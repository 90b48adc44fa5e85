package firewall

import (
	"net/netip"
	"strings"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/op"
)

// ResolverAddress is where programs in a sandbox find the embedded resolver
// (Docker Engine, embedded DNS).
const ResolverAddress = "127.0.0.11"

// Network is what the firewall must know of a network.
type Network struct {
	Bridge   string         // link name, 1 to 15 bytes
	Subnets  []netip.Prefix // of either family; no two networks' overlap
	Internal bool           // nothing is forwarded in or out
	ICC      bool           // containers may talk to each other

	// Masquerade gives packets that leave the network an address of the link
	// that they leave by. Without effect if Internal.
	Masquerade bool

	// SNAT4 and SNAT6, if not zero, are the source addresses to give instead
	// (Docker's host_ipv4 and host_ipv6). Without effect unless Masquerade.
	SNAT4, SNAT6 netip.Addr
}

// Validate returns an error of kind linkspan.ErrInvalid if no rules can be made
// for the network.
func (n Network) Validate() error {
	if n.Bridge == "" || len(n.Bridge) > 15 || strings.ContainsAny(n.Bridge, "\"\\/ \t\n*") {
		return linkspan.Errorf(linkspan.ErrInvalid, "planning firewall rules: %q is no link name (1 to 15 bytes without blanks, quotes, slashes and asterisks)", n.Bridge)
	}
	for _, subnet := range n.Subnets {
		if !subnet.IsValid() || subnet.Addr().Is4In6() || subnet.Bits() == 0 {
			return linkspan.Errorf(linkspan.ErrInvalid, "planning firewall rules for %s: %s is no subnet", n.Bridge, subnet)
		}
	}
	if n.SNAT4.IsValid() && !n.SNAT4.Is4() {
		return linkspan.Errorf(linkspan.ErrInvalid, "planning firewall rules for %s: source address %s is not an IPv4 address", n.Bridge, n.SNAT4)
	}
	if n.SNAT6.IsValid() && (!n.SNAT6.Is6() || n.SNAT6.Is4In6() || n.SNAT6.Zone() != "") {
		return linkspan.Errorf(linkspan.ErrInvalid, "planning firewall rules for %s: source address %s is not a plain IPv6 address", n.Bridge, n.SNAT6)
	}
	return nil
}

// Backend plans rules for one kind of firewall. It is pure: plans are carried
// out by an op.Executor.
type Backend interface {
	// Base plans what all networks share. It is done once per machine; at later
	// starts of the daemon its Check succeeds and there is nothing to do.
	Base() op.Plan

	// Network plans the rules of one network, which must be valid (see
	// Network.Validate). Base must have been done.
	Network(Network) op.Plan

	// Resolver plans, in the sandbox's namespace ns, that what programs send to
	// port 53 of ResolverAddress reaches the sockets that listen on the given
	// ports of that address.
	Resolver(ns string, udp, tcp uint16) op.Plan
}
