package lab

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"github.com/linkspan/linkspan"
)

// File is a lab as its author writes it:
//
//	name: lan
//	switches:
//	  sw: {stp: false}
//	nodes:
//	  a: {addresses: {eth0: [10.0.0.1/24]}}
//	  b: {addresses: {eth0: [10.0.0.2/24]}, run: python3 -m http.server 80}
//	links:
//	  - [a:eth0, sw]
//	  - {ends: [b:eth0, sw], rate: 1mbit, loss: 5%}
type File struct {
	Name     string            `yaml:"name"`
	Switches map[string]Switch `yaml:"switches,omitempty"`
	Nodes    map[string]Node   `yaml:"nodes"`
	Links    []Link            `yaml:"links,omitempty"`
}

// Switch is a bridge in the lab's root namespace.
type Switch struct {
	STP       bool              `yaml:"stp,omitempty"`
	MAC       string            `yaml:"mac,omitempty"`       // else made from the names
	MACs      map[string]string `yaml:"macs,omitempty"`      // by port; else made from the names
	Settings  map[string]uint32 `yaml:"settings,omitempty"`  // by ip-link(8)'s word and in its unit: priority: 4096
	Addresses []Prefix          `yaml:"addresses,omitempty"` // of the root's own port
}

// Node is a network namespace, and a process in it if Run is given.
type Node struct {
	Addresses map[string][]Prefix `yaml:"addresses,omitempty"` // by interface
	MACs      map[string]string   `yaml:"macs,omitempty"`      // by interface; else made from the names
	Routes    []Route             `yaml:"routes,omitempty"`
	Sysctls   map[string]string   `yaml:"sysctls,omitempty"` // net.ipv4.ip_forward: "1"
	Start     []string            `yaml:"start,omitempty"`   // given to sh -c one after the other, each to its end
	Run       string              `yaml:"run,omitempty"`     // given to sh -c, and left running
}

// Route is a line of a node's routing table: by way of a neighbour, or straight
// out of an interface.
type Route struct {
	To  Target `yaml:"to"`
	Via Addr   `yaml:"via,omitempty"`
	Dev string `yaml:"dev,omitempty"` // else the interface with an address in one subnet with Via
}

// Link is a cable between two ends: node:interface, or a switch, whose port may be
// named too: sw:port7. It is written as a list of the two, or with an
// impairment as {ends: [a:eth0, sw], loss: 5%}.
type Link struct {
	Ends       [2]string `yaml:"ends"`
	MTU        int       `yaml:"mtu,omitempty"` // bytes; 1500 if it is not given
	Down       []string  `yaml:"down,omitempty"`
	Impairment `yaml:",inline"`
}

// Impairment is what is wrong with a cable, each way.
type Impairment struct {
	Rate  Rate  `yaml:"rate,omitempty"`
	Loss  Share `yaml:"loss,omitempty"`
	Delay Delay `yaml:"delay,omitempty"`
}

// end is one end of a link, taken apart. A switch's face is empty unless the
// author named the port.
type end struct{ node, face string }

func (e end) String() string {
	if e.face == "" {
		return e.node
	}
	return e.node + ":" + e.face
}

func (l Link) end(i int) end {
	node, face, _ := strings.Cut(l.Ends[i], ":")
	return end{node, face}
}

func (l Link) String() string { return l.Ends[0] + " - " + l.Ends[1] }

// UnmarshalYAML reads a list of two ends, or the long form.
func (l *Link) UnmarshalYAML(node ast.Node) error {
	if _, isList := node.(*ast.SequenceNode); isList {
		return readEnds(node, &l.Ends)
	}
	var long struct {
		Ends  ends  `yaml:"ends"`
		MTU   int   `yaml:"mtu"`
		Down  names `yaml:"down"`
		Rate  Rate  `yaml:"rate"`
		Loss  Share `yaml:"loss"`
		Delay Delay `yaml:"delay"`
	}
	if err := yaml.NodeToValue(node, &long, yaml.Strict()); err != nil {
		return err
	}
	*l = Link{Ends: long.Ends, MTU: long.MTU, Down: long.Down, Impairment: Impairment{long.Rate, long.Loss, long.Delay}}
	return nil
}

// MarshalYAML writes the short form if there is nothing to add to it, on one line.
func (l Link) MarshalYAML() ([]byte, error) {
	if l.MTU == 0 && len(l.Down) == 0 && l.Impairment == (Impairment{}) {
		return fmt.Appendf(nil, "[%q, %q]", l.Ends[0], l.Ends[1]), nil
	}
	type long Link
	return yaml.MarshalWithOptions(long(l), yaml.Flow(true))
}

type ends [2]string

// UnmarshalYAML reads a list of two.
func (e *ends) UnmarshalYAML(node ast.Node) error { return readEnds(node, (*[2]string)(e)) }

func readEnds(node ast.Node, ends *[2]string) error {
	var found names
	if err := found.UnmarshalYAML(node); err != nil {
		return err
	}
	if len(found) != 2 {
		return fault(node, "a link has two ends, not %d", len(found))
	}
	*ends = [2]string(found)
	return nil
}

// names are ends of links.
type names []string

// UnmarshalYAML reads a list of words. The parser takes a:eth0 for a map of one
// entry if it stands within braces and without quotes.
func (n *names) UnmarshalYAML(node ast.Node) error {
	list, isList := bare(node).(*ast.SequenceNode)
	if !isList {
		return fault(node, "want a list of ends, as [a:eth0, sw]")
	}
	*n = nil
	for _, item := range list.Values {
		switch item := bare(item).(type) {
		case *ast.StringNode:
			*n = append(*n, item.Value)
			continue
		case *ast.MappingNode:
			if len(item.Values) == 1 {
				*n = append(*n, item.Values[0].Key.GetToken().Value+":"+item.Values[0].Value.GetToken().Value)
				continue
			}
		}
		return fault(item, "want an end, as a:eth0 or sw")
	}
	return nil
}

// Prefix is an address with the length of its subnet.
type Prefix struct{ netip.Prefix }

// UnmarshalYAML reads 10.0.0.1/24.
func (p *Prefix) UnmarshalYAML(node ast.Node) (err error) {
	p.Prefix, err = scalar(node, netip.ParsePrefix)
	return err
}

// MarshalYAML writes 10.0.0.1/24.
func (p Prefix) MarshalYAML() (any, error) { return p.String(), nil }

// Target is what a route leads to.
type Target struct {
	netip.Prefix      // not valid for "default"
	Default      bool // of the family of the route's gateway
}

// UnmarshalYAML reads 10.0.0.0/24, or default.
func (t *Target) UnmarshalYAML(node ast.Node) (err error) {
	if t.Default = node.GetToken().Value == "default"; t.Default {
		return nil
	}
	t.Prefix, err = scalar(node, netip.ParsePrefix)
	return err
}

// MarshalYAML writes 10.0.0.0/24, or default.
func (t Target) MarshalYAML() (any, error) {
	if t.Default {
		return "default", nil
	}
	return t.String(), nil
}

// to returns the prefix that a route leads to.
func (r Route) to() netip.Prefix {
	switch {
	case !r.To.Default:
		return r.To.Prefix
	case r.Via.Is6():
		return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
}

// Addr is an address.
type Addr struct{ netip.Addr }

// UnmarshalYAML reads 10.0.0.1.
func (a *Addr) UnmarshalYAML(node ast.Node) (err error) {
	a.Addr, err = scalar(node, netip.ParseAddr)
	return err
}

// MarshalYAML writes 10.0.0.1.
func (a Addr) MarshalYAML() (any, error) { return a.String(), nil }

// IsZero tells whether there is an address at all.
func (a Addr) IsZero() bool { return !a.IsValid() }

// scalar reads a value whose faults are to be named with their place.
func scalar[T any](node ast.Node, parse func(string) (T, error)) (T, error) {
	value, err := parse(node.GetToken().Value)
	if err != nil {
		err = fault(node, "%w", err)
	}
	return value, err
}

// fault words what is wrong at a place of the file.
func fault(node ast.Node, format string, args ...any) error {
	position := node.GetToken().Position
	return fmt.Errorf("[%d:%d] %w", position.Line, position.Column, fmt.Errorf(format, args...))
}

// Parse reads a lab file and refuses what could not be built, with line and
// column. The warnings, with theirs, name what can be built and will hurt.
func Parse(text []byte) (f File, warnings []string, err error) {
	tree, err := parser.ParseBytes(text, 0)
	if err != nil {
		return f, nil, invalid(err)
	}
	var docs []ast.Node
	for _, doc := range tree.Docs {
		if doc.Body != nil {
			docs = append(docs, doc.Body)
		}
	}
	switch {
	case len(docs) == 0:
		return f, nil, invalid(fmt.Errorf("[1:1] the file is empty: want at least name and nodes"))
	case len(docs) > 1:
		return f, nil, invalid(fault(docs[1], "a second document: a file holds one lab"))
	}
	if err = yaml.UnmarshalWithOptions(text, &f, yaml.Strict()); err != nil {
		return f, nil, invalid(err)
	}
	c := checker{file: f, tree: docs[0]}
	if err = c.check(); err != nil {
		return f, nil, err
	}
	return f, c.warnings(), nil
}

func invalid(err error) error {
	return linkspan.Errorf(linkspan.ErrInvalid, "lab file: %s", strings.TrimSpace(yaml.FormatError(err, false, false)))
}
