package firewall

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/sandbox"
)

// ResolverAddress is where programs in a sandbox find the embedded resolver
// (Docker Engine, embedded DNS).
const ResolverAddress = "127.0.0.11"

// Mode says how containers of a network and the world outside meet, in one
// address family (Docker's gateway_mode_ipv4 and gateway_mode_ipv6).
type Mode string

// The modes.
const (
	// NAT translates published ports; nothing else is forwarded in. It is the
	// zero Mode.
	NAT Mode = ""
	// Unprotected translates published ports, and forwards in whatever is sent
	// straight to a container's address.
	Unprotected Mode = "nat-unprotected"
	// Routed translates nothing; published ports, and ICMP, are forwarded in.
	Routed Mode = "routed"
)

// Network is what the firewall must know of a network.
type Network struct {
	Bridge   string         // link name, 1 to 15 bytes
	Subnets  []netip.Prefix // of either family; no two networks' overlap
	Internal bool           // nothing is forwarded in or out
	ICC      bool           // containers may talk to each other

	Mode4, Mode6 Mode // without effect if Internal

	// Direct forwards in, in mode NAT too, what is sent straight to a published
	// port at a container's own address; Trusted does so only for what comes in
	// by one of these links. Without effect if Internal, and in other modes.
	Direct  bool
	Trusted []string

	// Masquerade gives packets that leave the network an address of the link
	// that they leave by. Without effect if Internal, and in Mode Routed.
	Masquerade bool

	// SNAT4 and SNAT6, if not zero, are the source addresses to give instead
	// (Docker's host_ipv4 and host_ipv6). Without effect unless Masquerade.
	SNAT4, SNAT6 netip.Addr
}

// Validate returns an error of kind linkspan.ErrInvalid if no rules can be made
// for the network.
func (n Network) Validate() error {
	if !isLink(n.Bridge) {
		return linkspan.Errorf(linkspan.ErrInvalid, "planning firewall rules: %q is no link name (1 to 15 bytes without blanks, quotes, slashes and asterisks)", n.Bridge)
	}
	for _, link := range n.Trusted {
		if !isLink(link) {
			return linkspan.Errorf(linkspan.ErrInvalid, "planning firewall rules for %s: the trusted interface %q is no link name", n.Bridge, link)
		}
	}
	for _, subnet := range n.Subnets {
		if !subnet.IsValid() || subnet.Addr().Is4In6() || subnet.Bits() == 0 {
			return linkspan.Errorf(linkspan.ErrInvalid, "planning firewall rules for %s: %s is no subnet", n.Bridge, subnet)
		}
	}
	for _, mode := range []Mode{n.Mode4, n.Mode6} {
		if mode != NAT && mode != Unprotected && mode != Routed {
			return linkspan.Errorf(linkspan.ErrInvalid, "planning firewall rules for %s: %q is no gateway mode (nat, nat-unprotected or routed)", n.Bridge, mode)
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

func isLink(name string) bool {
	return name != "" && len(name) <= 15 && !strings.ContainsAny(name, "\"\\/ \t\n*")
}

// Opens tells whether published ports are open at the containers' own addresses
// too, to some at least, although they are translated.
func (n Network) Opens(ipv6 bool) bool {
	return !n.Internal && n.Mode(ipv6) == NAT && (n.Direct || len(n.Trusted) > 0)
}

// Masqueraded tells whether packets from a subnet get another source address
// on their way out of the network.
func (n Network) Masqueraded(subnet netip.Prefix) bool {
	return n.Masquerade && !n.Internal && n.Mode(subnet.Addr().Is6()) != Routed
}

// Mode returns the mode of an address family.
func (n Network) Mode(ipv6 bool) Mode {
	if ipv6 {
		return n.Mode6
	}
	return n.Mode4
}

// Mark is a mark of packets by which a machine's own rules let them into any
// network that is not internal: those whose mark, seen through the mask, is the
// value. The zero Mark is none.
type Mark struct{ Value, Mask uint32 }

// ParseMark reads a mark as dockerd's --bridge-accept-fwmark takes it: a number,
// or one with a mask behind a slash, in any base that begins as in Go. An error
// is of kind linkspan.ErrInvalid.
func ParseMark(text string) (Mark, error) {
	value, mask, masked := strings.Cut(text, "/")
	number := func(word string) (uint32, error) {
		n, err := strconv.ParseUint(word, 0, 32)
		return uint32(n), err
	}
	m := Mark{Mask: 0xffffffff}
	var err error
	if m.Value, err = number(value); err == nil && masked {
		m.Mask, err = number(mask)
	}
	if err != nil || m.Mask == 0 || m.Value&^m.Mask != 0 {
		return Mark{}, linkspan.Errorf(linkspan.ErrInvalid, "invalid firewall mark %q: want a number, or number/mask with no bit outside the mask", text)
	}
	return m, nil
}

func (m Mark) String() string { return fmt.Sprintf("%#x/%#x", m.Value, m.Mask) }

// Op is an op that makes rules of the machine's own namespace. It names its
// backend, so that a daemon that starts with another one finds what to replace.
type Op interface {
	op.Op
	Backend() string
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

	// Ports plans that published ports of an endpoint lead to it, by the network
	// on the given bridge: in one transaction, whose cost depends neither on the
	// length of a range nor on what is published already. Its undoing takes
	// them back. Nothing is planned for ports that the endpoint's shim relays
	// because the families differ, nor for those who ask from that very network:
	// they reach the socket that holds the port, and the shim relays. Network
	// must have been done, with the mode of the ports' family:
	// sandbox.Port.Routed belongs to Routed.
	//
	// What Sources do not allow is dropped, unless the machine itself sent it.
	Ports(bridge string, ports []sandbox.Port) op.Plan

	// Resolver plans, in the sandbox's namespace ns, that what programs send to
	// port 53 of ResolverAddress reaches the sockets that listen on the given
	// ports of that address.
	Resolver(ns string, udp, tcp uint16) op.Plan
}

// Switcher is a Backend that can change what is published of a running endpoint
// in one transaction. Without it, some ports are taken back and others are
// published after that.
type Switcher interface {
	// Switch plans that old ports, which Ports has published on the bridge, are
	// replaced by fresh ones.
	Switch(bridge string, old, fresh []sandbox.Port) op.Plan
}

// Linker is a Backend that lets containers through to others of a network that
// keeps them apart (Network.ICC is off).
type Linker interface {
	// Links plans that the links' askers reach what they lead to. The network on
	// the bridge must have been done. The ports of the bridge stay isolated: what
	// is let through goes by the host, which the containers' neighbour tables must
	// say.
	Links(bridge string, links []sandbox.Link) op.Plan
}

// Mender is a Backend that finds what somebody took away, of many ops at once.
type Mender interface {
	// Mend plans to put back what is missing of ops that were done. It reads
	// the rules once. Nothing missing: an empty plan.
	Mend(h *kernel.Host, ops []Op) (op.Plan, error)

	// Tables names the tables of nftables whose changes may be about our rules.
	// None says that the kernel does not report changes of rules.
	Tables() []string
}

// Whole is a Backend with all its extras.
type Whole interface {
	Backend
	Switcher
	Linker
	Mender
}

// Obstacle is a rule of somebody else's that stops what ours let pass.
type Obstacle struct {
	Chain  string // where it is: "FORWARD of table ip filter"
	Rule   string // what it says, or that it is the chain's policy
	Show   string // the command that shows it
	Remedy string // what to do
}

func (o Obstacle) String() string {
	return o.Chain + " stops forwarded packets: " + o.Rule + " (see: " + o.Show + "); " + o.Remedy
}

// ResolveBy returns a backend whose resolver's rules are another's: those are
// in namespaces of our own, where no other rules are to be got along with.
func ResolveBy(rules Whole, resolver Backend) Whole { return resolvedBy{rules, resolver} }

type resolvedBy struct {
	Whole
	resolver Backend
}

func (b resolvedBy) Resolver(ns string, udp, tcp uint16) op.Plan {
	return b.resolver.Resolver(ns, udp, tcp)
}
