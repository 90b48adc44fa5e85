package lab

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
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
//	  - [b:eth0, sw]
type File struct {
	Name     string            `yaml:"name"`
	Switches map[string]Switch `yaml:"switches,omitempty"`
	Nodes    map[string]Node   `yaml:"nodes"`
	Links    []Link            `yaml:"links,omitempty"`
}

// Switch is a bridge in the lab's root namespace.
type Switch struct {
	STP       bool     `yaml:"stp,omitempty"`
	Addresses []Prefix `yaml:"addresses,omitempty"` // of the root's own port
}

// Node is a network namespace, and a process in it if Run is given.
type Node struct {
	Addresses map[string][]Prefix `yaml:"addresses,omitempty"` // by interface
	MACs      map[string]string   `yaml:"macs,omitempty"`      // by interface; else made from the names
	Routes    []Route             `yaml:"routes,omitempty"`
	Sysctls   map[string]string   `yaml:"sysctls,omitempty"` // net.ipv4.ip_forward: "1"
	Run       string              `yaml:"run,omitempty"`     // given to sh -c
}

// Route is a line of a node's routing table.
type Route struct {
	To  Prefix `yaml:"to"` // 0.0.0.0/0 for the default route
	Via Addr   `yaml:"via"`
}

// Link is a cable between two ends: node:interface, or the name of a switch.
type Link [2]string

// end is one end of a link, taken apart.
type end struct{ node, face string }

func (l Link) end(i int) end {
	node, face, _ := strings.Cut(l[i], ":")
	return end{node, face}
}

// Prefix is an address with the length of its subnet.
type Prefix struct{ netip.Prefix }

// UnmarshalYAML reads 10.0.0.1/24.
func (p *Prefix) UnmarshalYAML(node ast.Node) (err error) {
	p.Prefix, err = scalar(node, netip.ParsePrefix)
	return err
}

// Addr is an address.
type Addr struct{ netip.Addr }

// UnmarshalYAML reads 10.0.0.1.
func (a *Addr) UnmarshalYAML(node ast.Node) (err error) {
	a.Addr, err = scalar(node, netip.ParseAddr)
	return err
}

// scalar reads a value whose faults are to be named with their place.
func scalar[T any](node ast.Node, parse func(string) (T, error)) (T, error) {
	value, err := parse(node.GetToken().Value)
	if err != nil {
		position := node.GetToken().Position
		err = fmt.Errorf("[%d:%d] %w", position.Line, position.Column, err)
	}
	return value, err
}

// plainName is what may name a lab, node or switch: it becomes part of the
// names of namespaces and links.
var plainName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,14}$`)

// Parse reads a lab file and refuses what could not be built, with line and
// column. The warnings name what can be built and will hurt.
func Parse(text []byte) (f File, warnings []string, err error) {
	tree, err := parser.ParseBytes(text, 0)
	if err != nil {
		return f, nil, invalid(err)
	}
	if err = yaml.UnmarshalWithOptions(text, &f, yaml.Strict()); err != nil {
		return f, nil, invalid(err)
	}
	c := checker{file: f, tree: tree}
	if err = c.check(); err != nil {
		return f, nil, err
	}
	return f, c.loops(), nil
}

func invalid(err error) error {
	return linkspan.Errorf(linkspan.ErrInvalid, "lab file: %s", strings.TrimSpace(yaml.FormatError(err, false, false)))
}

// checker finds what the grammar cannot.
type checker struct {
	file File
	tree *ast.File
}

// at words a fault at a place of the file.
func (c checker) at(path, format string, args ...any) error {
	where := ""
	if p, err := yaml.PathString(path); err == nil {
		if node, err := p.FilterFile(c.tree); err == nil && node != nil {
			position := node.GetToken().Position
			where = fmt.Sprintf("[%d:%d] ", position.Line, position.Column)
		}
	}
	return linkspan.Errorf(linkspan.ErrInvalid, "lab file: %s%s", where, fmt.Sprintf(format, args...))
}

func (c checker) check() error {
	if !plainName.MatchString(c.file.Name) {
		return c.at("$.name", "name %q: a letter, then at most 14 small letters, digits or dashes", c.file.Name)
	}
	for name := range c.file.Switches {
		if !plainName.MatchString(name) {
			return c.at("$.switches."+name, "switch %q: a letter, then at most 14 small letters, digits or dashes", name)
		}
		if _, double := c.file.Nodes[name]; double {
			return c.at("$.switches."+name, "%s is a node and a switch", name)
		}
	}
	faces, err := c.links()
	if err != nil {
		return err
	}
	owners := map[netip.Addr]string{}
	for _, name := range sorted(c.file.Nodes) {
		if err := c.node(name, faces, owners); err != nil {
			return err
		}
	}
	return nil
}

// links checks both ends of each link and returns the interfaces that they make.
func (c checker) links() (map[end]bool, error) {
	faces := map[end]bool{}
	for i, link := range c.file.Links {
		path := fmt.Sprintf("$.links[%d]", i)
		if _, a := c.file.Switches[link[0]]; a {
			if _, b := c.file.Switches[link[1]]; b {
				return nil, c.at(path, "link %s - %s: two switches cannot be joined by a cable of the lab; give a node two interfaces and a bridge", link[0], link[1])
			}
		}
		for j := range link {
			e := link.end(j)
			if _, isSwitch := c.file.Switches[link[j]]; isSwitch {
				continue
			}
			if _, isNode := c.file.Nodes[e.node]; !isNode {
				return nil, c.at(path, "link %s - %s: there is no node or switch %q", link[0], link[1], e.node)
			}
			if e.face == "" || len(e.face) > 15 || strings.ContainsAny(e.face, "/ \t:") {
				return nil, c.at(path, "link %s - %s: %q names no interface: want NODE:INTERFACE, 1 to 15 bytes", link[0], link[1], link[j])
			}
			if faces[e] {
				return nil, c.at(path, "link %s - %s: %s has a cable already", link[0], link[1], link[j])
			}
			faces[e] = true
		}
	}
	return faces, nil
}

func (c checker) node(name string, faces map[end]bool, owners map[netip.Addr]string) error {
	path := "$.nodes." + name
	if !plainName.MatchString(name) {
		return c.at(path, "node %q: a letter, then at most 14 small letters, digits or dashes", name)
	}
	node := c.file.Nodes[name]
	for _, face := range sorted(node.Addresses) {
		if !faces[end{name, face}] && face != "lo" {
			return c.at(path+".addresses."+face, "node %s has no interface %s: no link names it", name, face)
		}
		for _, address := range node.Addresses[face] {
			if holder, taken := owners[address.Addr()]; taken {
				return c.at(path+".addresses."+face, "address %s of %s:%s is that of %s already", address.Addr(), name, face, holder)
			}
			owners[address.Addr()] = name + ":" + face
		}
	}
	for _, face := range sorted(node.MACs) {
		if mac, err := net.ParseMAC(node.MACs[face]); err != nil || len(mac) != 6 || mac[0]&1 != 0 {
			return c.at(path+".macs."+face, "%q is no MAC that an interface can have", node.MACs[face])
		}
	}
	for i, route := range node.Routes {
		if !route.Via.IsValid() || route.Via.Is4() != route.To.Addr().Is4() {
			return c.at(fmt.Sprintf("%s.routes[%d]", path, i), "route to %s: via must be an address of the same family", route.To)
		}
	}
	for _, key := range sorted(node.Sysctls) {
		if !strings.HasPrefix(key, "net.") {
			return c.at(path+".sysctls", "sysctl %s is not the node's own: only net.* belong to a network namespace", key)
		}
	}
	return nil
}

// loops warns of cycles through switches that do not run the spanning tree:
// one broadcast would go round for ever. A node that has interfaces on two
// switches closes no loop unless it bridges, which the file cannot know.
func (c checker) loops() []string {
	var warnings []string
	pairs := map[string]int{}
	for _, link := range c.file.Links {
		for i := range link {
			if s, isSwitch := c.file.Switches[link[i]]; isSwitch && !s.STP {
				pairs[link[i]+" "+link.end(1-i).node]++
			}
		}
	}
	for _, pair := range sorted(pairs) {
		if pairs[pair] > 1 {
			name, node, _ := strings.Cut(pair, " ")
			warnings = append(warnings, fmt.Sprintf("node %s has %d cables to switch %s, which runs no spanning tree: if the node bridges them, one broadcast goes round for ever (set stp: true)", node, pairs[pair], name))
		}
	}
	return warnings
}

func sorted[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}
