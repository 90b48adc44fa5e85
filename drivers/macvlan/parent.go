package macvlan

import (
	"net"
	"strconv"
	"strings"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/op"
)

// parent is the link whose wire a network shares.
type parent struct {
	name  string
	own   bool   // there is none outside: the network's own
	trunk string // of a name such as eth0.50: the link that carries the VLAN
	vlan  int
	fault error // why the name cannot be a VLAN's; a link of that name may be there
}

// parseParent reads the option parent. The prefix starts the name of a parent
// of the network's own.
func parseParent(n network.Network, prefix string) (parent, error) {
	name := n.Options[OptionParent]
	p := parent{name: name}
	switch {
	case name == "":
		return parent{name: prefix + n.ID.Short(), own: true}, nil
	case name == "lo":
		return p, linkspan.Errorf(linkspan.ErrInvalid, "loopback interface is not a valid macvlan parent link")
	case len(name) > 15 || strings.ContainsAny(name, "/ \t\n"):
		return p, linkspan.Errorf(linkspan.ErrInvalid, "-o parent interface was not found on the host: %q cannot be the name of a link (1 to 15 bytes, no blanks and no '/')", name)
	}
	p.trunk, p.vlan, p.fault = parseVLAN(name)
	return p, nil
}

// parseVLAN reads "eth0.50".
func parseVLAN(name string) (trunk string, id int, err error) {
	trunk, number, dotted := strings.Cut(name, ".")
	if !dotted {
		return "", 0, linkspan.Errorf(linkspan.ErrInvalid, "-o parent interface was not found on the host: %s: make it first, or name a VLAN of a link that is there, such as eth0.10 (see: ip link)", name)
	}
	if trunk == "" || strings.Contains(number, ".") {
		return "", 0, linkspan.Errorf(linkspan.ErrInvalid, "required interface name format is: name.vlan_id, ex. eth0.10 for vlan 10, instead received %s", name)
	}
	id, err = strconv.Atoi(number)
	if err != nil || strconv.Itoa(id) != number {
		return "", 0, linkspan.Errorf(linkspan.ErrInvalid, "unable to parse a valid vlan id from: %s (ex. eth0.10 for vlan 10)", name)
	}
	if id < 1 || id > 4094 {
		return "", 0, linkspan.Errorf(linkspan.ErrInvalid, "vlan id must be between 1-4094, received: %d", id)
	}
	return trunk, id, nil
}

// check says why the parent cannot be one on this host.
func (p parent) check(h *kernel.Host, kind string) error {
	if p.own {
		return nil
	}
	links, err := h.Links("")
	if err != nil {
		return err
	}
	link, err := links.LinkByName(p.name)
	if err == nil {
		if link.Attrs().Flags&net.FlagLoopback != 0 {
			return linkspan.Errorf(linkspan.ErrInvalid, "loopback interface is not a valid %s parent link", kind)
		}
		return nil
	}
	if !kernel.IsGone(err) {
		return err
	}
	if p.fault != nil {
		return p.fault
	}
	if _, err := links.LinkByName(p.trunk); err != nil {
		return linkspan.Errorf(linkspan.ErrInvalid, "-o parent interface was not found on the host: %s (see: ip link)", p.trunk)
	}
	return checkKind(h, "vlan", "parents such as "+p.name)
}

// plan makes the parent, as far as it is ours to make.
func (p parent) plan(n network.Network) op.Plan {
	switch {
	case p.own:
		return p.nowhere(n)
	case p.fault == nil:
		return op.Plan{{
			Why: "The parent takes the frames of one VLAN from the trunk. The last network that uses it takes it away; one that was there before stays.",
			Op:  op.ShareVLAN{Name: p.name, Parent: p.trunk, ID: p.vlan, User: n.ID.Short()},
		}}
	}
	return nil
}

// nowhere plans a parent that leads to nobody. (Docker makes a dummy link, which
// kernels may lack; the effect is the same.)
func (p parent) nowhere(n network.Network) op.Plan {
	const end = "end0"
	ns := "linkspan-" + n.ID.Short()
	quiet := "/disable_ipv6"
	return op.Plan{
		{Why: "What leaves a network without a parent must end somewhere: in a network stack with nobody in it.", Op: op.AddNetns{Name: ns}},
		{Why: "The parent is one end of a cable into it.", Op: op.AddVeth{Name: p.name, MAC: n.MAC, Peer: end, PeerMAC: farMAC(n.MAC), PeerNS: ns}},
		{Why: "The host does not talk here.", Op: op.SetSysctl{Key: "net/ipv6/conf/" + p.name + quiet, Value: "1"}},
		{Why: "Nor does the empty stack.", Op: op.SetSysctl{NS: ns, Key: "net/ipv6/conf/" + end + quiet, Value: "1"}},
		{Why: "A cable has a carrier when both ends are up.", Op: op.SetUp{NS: ns, Link: end}},
		{Why: "Containers of the network hear each other from here on.", Op: op.SetUp{Link: p.name}},
	}
}

// farMAC returns another address than the given one, and the same each time.
func farMAC(near string) string {
	mac, err := net.ParseMAC(near)
	if err != nil {
		return near // a network's MAC was made, not typed
	}
	mac[5] ^= 0xff
	return mac.String()
}
