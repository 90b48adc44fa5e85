// Package topology draws what is plugged into what: namespaces, links, bridges,
// addresses, published ports and the chains of rules of one machine.
//
// A veth pair is a cable. Each end knows the index of the other and a number for
// the namespace in which it is, and nothing more:
//
//	7: veth0123456@if2: <…> master br-lab link-netnsid 0
//
// So to follow a cable one needs to look into every namespace and match the
// ends. That is what Gather does; a Picture is the result as plain data, and the
// functions of this package print it as text, Mermaid, Graphviz's dot, SVG or JSON.
package topology

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"github.com/linkspan/linkspan/kernel"
)

// Picture is one machine: its own namespace first, then the others by name.
type Picture struct {
	Namespaces []Namespace
	Cables     []Cable
}

// Namespace is a network stack.
type Namespace struct {
	Name      string // "" for the machine's own
	Container string `json:",omitempty"` // whose it is
	Links     []Link
	Ports     []string `json:",omitempty"` // published: 0.0.0.0:8080->80/tcp
	Rules     []string `json:",omitempty"` // chains of nftables: "inet linkspan forward: hook forward, policy accept, 9 rules"
}

// Link is an interface in a namespace.
type Link struct {
	Name      string
	Kind      string
	MAC       string         `json:",omitempty"`
	MTU       int            // bytes
	Up        bool           // administratively: a cable may still be missing
	Master    string         `json:",omitempty"` // bridge that it is a port of
	Addresses []netip.Prefix `json:",omitempty"`
	Network   string         `json:",omitempty"` // that a bridge is the switch of
}

// End is one end of a cable.
type End struct{ Namespace, Link string }

// Cable joins two links: a veth pair, or a macvlan and its parent.
type Cable struct{ From, To End }

// Owner is what the daemon knows of a namespace.
type Owner struct {
	Container string
	Ports     []string
}

// Known is what the daemon knows: owners by name of their pinned namespace, and
// networks by name of their bridge.
type Known struct {
	Owners   map[string]Owner
	Networks map[string]string
}

// Gather looks into the machine's own namespace and those of the owners. A
// namespace that goes while it looks is left out.
func Gather(host *kernel.Host, known Known) (Picture, error) {
	var picture Picture
	seen := map[string][]kernel.Link{}
	names := []string{""}
	for name := range known.Owners {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		links, err := host.Survey(name)
		if err != nil && name != "" && kernel.IsGone(err) {
			continue
		}
		if err != nil {
			return picture, err
		}
		seen[name] = links
		ns := namespaceOf(name, links, known)
		chains, err := host.Chains(name)
		if err != nil && !kernel.IsGone(err) {
			return picture, err
		}
		for _, chain := range chains {
			ns.Rules = append(ns.Rules, chain.String())
		}
		picture.Namespaces = append(picture.Namespaces, ns)
	}
	var err error
	picture.Cables, err = cables(host, seen)
	return picture, err
}

func namespaceOf(name string, links []kernel.Link, known Known) Namespace {
	owner := known.Owners[name]
	ns := Namespace{Name: name, Container: owner.Container, Ports: owner.Ports}
	for _, l := range links {
		link := Link{Name: l.Name, Kind: l.Kind, MAC: l.MAC, MTU: l.MTU, Up: l.Up, Master: l.Master, Addresses: l.Addresses}
		if l.Kind == "bridge" && name == "" {
			link.Network = known.Networks[l.Name]
		}
		ns.Links = append(ns.Links, link)
	}
	return ns
}

// cables matches the ends: a peer is known by its index and by the number that
// this namespace has for the peer's.
func cables(host *kernel.Host, seen map[string][]kernel.Link) ([]Cable, error) {
	var found []Cable
	for from, links := range seen {
		numbers, err := numbersOf(host, from, seen)
		if err != nil {
			return nil, err
		}
		for _, l := range links {
			if l.Peer == 0 || l.Peer == l.Index && l.PeerNS < 0 {
				continue
			}
			to, known := numbers[l.PeerNS]
			if !known {
				continue
			}
			for _, other := range seen[to] {
				if other.Index == l.Peer {
					found = append(found, Cable{End{from, l.Name}, End{to, other.Name}})
				}
			}
		}
	}
	return once(found), nil
}

// numbersOf returns the names of the namespaces by the numbers that one of them
// has for the others; -1 is itself.
func numbersOf(host *kernel.Host, from string, seen map[string][]kernel.Link) (map[int]string, error) {
	numbers := map[int]string{}
	for to := range seen {
		if to == from {
			continue
		}
		id, err := host.NamespaceID(from, to)
		if err != nil && !kernel.IsGone(err) {
			return nil, err
		}
		if err == nil && id >= 0 {
			numbers[id] = to
		}
	}
	numbers[-1] = from
	return numbers, nil
}

// once leaves out the second sight of a cable, from its other end.
func once(cables []Cable) []Cable {
	for i, c := range cables {
		if compareEnds(c.From, c.To) > 0 {
			cables[i] = Cable{c.To, c.From}
		}
	}
	slices.SortFunc(cables, func(a, b Cable) int {
		return cmp.Or(compareEnds(a.From, b.From), compareEnds(a.To, b.To))
	})
	return slices.Compact(cables)
}

func compareEnds(a, b End) int {
	return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Link, b.Link))
}

// Title is what a namespace is called in a drawing.
func (n Namespace) Title() string {
	switch {
	case n.Name == "":
		return "host"
	case n.Container != "":
		return n.Container
	}
	return n.Name
}

// others returns the far ends of the cables at a link: one for a veth, one for
// each macvlan on a parent.
func (p Picture) others(end End) []End {
	var far []End
	for _, c := range p.Cables {
		switch end {
		case c.From:
			far = append(far, c.To)
		case c.To:
			far = append(far, c.From)
		}
	}
	return far
}

// link finds the link at an end.
func (p Picture) link(end End) (Namespace, Link, bool) {
	for _, ns := range p.Namespaces {
		if ns.Name != end.Namespace {
			continue
		}
		for _, l := range ns.Links {
			if l.Name == end.Link {
				return ns, l, true
			}
		}
	}
	return Namespace{}, Link{}, false
}
