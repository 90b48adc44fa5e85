package lab

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/kernel"
)

// plainName is what may name a lab, node or switch: it becomes part of the
// names of namespaces and links.
var plainName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,14}$`)

const plainWords = "a letter, then at most 14 small letters, digits or dashes"

// checker finds what the grammar cannot.
type checker struct {
	file File
	tree ast.Node
}

// at words a fault at a place of the file.
func (c checker) at(path []any, format string, args ...any) error {
	return linkspan.Errorf(linkspan.ErrInvalid, "lab file: %s%s", place(c.tree, path...), fmt.Sprintf(format, args...))
}

// under is a path with more steps.
func under(path []any, more ...any) []any { return append(slices.Clone(path), more...) }

func (c checker) check() error {
	if !plainName.MatchString(c.file.Name) {
		return c.at([]any{"name"}, "name %q: %s", c.file.Name, plainWords)
	}
	owners := map[netip.Addr]string{}
	for _, name := range sorted(c.file.Switches) {
		if err := c.bridge(name, owners); err != nil {
			return err
		}
	}
	faces, err := c.links()
	if err != nil {
		return err
	}
	for _, name := range sorted(c.file.Switches) {
		path := []any{"switches", name, "macs"}
		if err := c.macs(path, c.file.Switches[name].MACs, name, faces); err != nil {
			return err
		}
	}
	for _, name := range sorted(c.file.Nodes) {
		if err := c.node(name, faces, owners); err != nil {
			return err
		}
	}
	return nil
}

func (c checker) bridge(name string, owners map[netip.Addr]string) error {
	path := []any{"switches", name}
	if !plainName.MatchString(name) {
		return c.at(path, "switch %q: %s", name, plainWords)
	}
	if name == "lo" {
		return c.at(path, "switch lo: every machine has a link of that name already")
	}
	if _, double := c.file.Nodes[name]; double {
		return c.at(path, "%s is a node and a switch", name)
	}
	s := c.file.Switches[name]
	if s.MAC != "" && !isMAC(s.MAC) {
		return c.at(under(path, "mac"), "%q is no MAC that an interface can have", s.MAC)
	}
	for _, word := range sorted(s.Settings) {
		known, ok := bridgeSettings[word]
		if !ok {
			return c.at(under(path, "settings", word), "unknown setting %q: there are %s", word, strings.Join(sorted(bridgeSettings), ", "))
		}
		if value := s.Settings[word]; value < known.least || value > known.most {
			return c.at(under(path, "settings", word), "%s %d: want %d to %d", word, value, known.least, known.most)
		}
	}
	for i, address := range s.Addresses {
		if err := c.address(under(path, "addresses", i), name, address, owners); err != nil {
			return err
		}
	}
	return nil
}

// bridgeSettings are the settings of a switch that a file may give, as ip-link(8)
// calls them and in its unit, hundredths of a second for times.
var bridgeSettings = map[string]struct {
	setting            kernel.BridgeSetting
	usual, least, most uint32
}{
	"priority":      {kernel.BridgePriority, 32768, 0, 65535},
	"forward_delay": {kernel.BridgeForwardDelay, 1500, 200, 3000},
	"hello_time":    {kernel.BridgeHelloTime, 200, 100, 1000},
	"max_age":       {kernel.BridgeMaxAge, 2000, 600, 4000},
	"ageing_time":   {kernel.BridgeAgeingTime, 30000, 0, 100_000_000},
}

// links checks both ends of each link and returns the interfaces that they make.
func (c checker) links() (map[end]bool, error) {
	faces := map[end]bool{}
	rootLinks := map[string]string{"lo": "lo"} // by name: what it is
	for name := range c.file.Switches {
		rootLinks[name] = "switch " + name
	}
	for i, link := range c.file.Links {
		path := []any{"links", i}
		if a, b := link.end(0), link.end(1); c.file.isSwitch(a) && a.node == b.node {
			return nil, c.at(path, "link %s: a cable from a switch to itself: one broadcast would go round for ever", link)
		}
		for j := range link.Ends {
			e := link.end(j)
			if _, isNode := c.file.Nodes[e.node]; !isNode && !c.file.isSwitch(e) {
				return nil, c.at(path, "link %s: there is no node or switch %q", link, e.node)
			}
			e.face = c.file.face(i, j)
			if !isFace(e.face) {
				return nil, c.at(path, "link %s: %q names no interface: want NODE:INTERFACE, 1 to 15 bytes", link, link.Ends[j])
			}
			if faces[e] {
				return nil, c.at(path, "link %s: %s has a cable already", link, link.Ends[j])
			}
			faces[e] = true
			if !c.file.isSwitch(e) {
				continue
			}
			if holder := rootLinks[e.face]; holder != "" {
				return nil, c.at(path, "link %s: port %s of switch %s has the name of %s", link, e.face, e.node, holder)
			}
			rootLinks[e.face] = "a port of switch " + e.node
		}
		if err := c.line(path, link); err != nil {
			return nil, err
		}
	}
	return faces, nil
}

// line checks what a link says about its cable.
func (c checker) line(path []any, link Link) error {
	if link.MTU != 0 && (link.MTU < 68 || link.MTU > 65535) {
		return c.at(under(path, "mtu"), "mtu %d: want 68 to 65535 bytes", link.MTU)
	}
	for i, down := range link.Down {
		if !slices.Contains(link.Ends[:], down) {
			return c.at(under(path, "down", i), "down: %s is no end of link %s", down, link)
		}
	}
	return nil
}

// isFace tells whether a link may have this name. "all" and "default" are
// places of sysctls beside those of the links.
func isFace(name string) bool {
	return name != "" && len(name) <= 15 && !strings.ContainsAny(name, "/: \t\n\"'") &&
		!slices.Contains([]string{".", "..", "lo", "all", "default"}, name)
}

func isMAC(text string) bool {
	mac, err := net.ParseMAC(text)
	return err == nil && len(mac) == 6 && mac[0]&1 == 0 && !slices.Equal(mac, make(net.HardwareAddr, 6))
}

func (c checker) macs(path []any, macs map[string]string, owner string, faces map[end]bool) error {
	for _, face := range sorted(macs) {
		if !faces[end{owner, face}] {
			return c.at(under(path, face), "%s has no interface %s: no link names it", owner, face)
		}
		if !isMAC(macs[face]) {
			return c.at(under(path, face), "%q is no MAC that an interface can have", macs[face])
		}
	}
	return nil
}

// address checks that an address is a host's, and nobody else's.
func (c checker) address(path []any, owner string, address Prefix, owners map[netip.Addr]string) error {
	addr := address.Addr()
	if holder, taken := owners[addr]; taken {
		return c.at(path, "address %s of %s is that of %s already", addr, owner, holder)
	}
	owners[addr] = owner
	whole := address.Bits() >= addr.BitLen()-1 // RFC 3021
	switch {
	case addr.IsMulticast(), addr.IsUnspecified(), addr.Is4In6():
		return c.at(path, "address %s of %s is no host's", addr, owner)
	case !whole && addr == address.Masked().Addr() && addr.Is4():
		return c.at(path, "address %s of %s is that of the subnet itself", address, owner)
	case !whole && addr.Is4() && !address.Contains(addr.Next()):
		return c.at(path, "address %s of %s is the subnet's broadcast address", address, owner)
	}
	return nil
}

func (c checker) node(name string, faces map[end]bool, owners map[netip.Addr]string) error {
	path := []any{"nodes", name}
	if !plainName.MatchString(name) {
		return c.at(path, "node %q: %s", name, plainWords)
	}
	node := c.file.Nodes[name]
	for _, face := range sorted(node.Addresses) {
		if !faces[end{name, face}] && face != "lo" {
			return c.at(under(path, "addresses", face), "node %s has no interface %s: no link names it", name, face)
		}
		for i, address := range node.Addresses[face] {
			if err := c.address(under(path, "addresses", face, i), name+":"+face, address, owners); err != nil {
				return err
			}
		}
	}
	if err := c.macs(under(path, "macs"), node.MACs, name, faces); err != nil {
		return err
	}
	seen := map[netip.Prefix]bool{}
	for i, route := range node.Routes {
		if err := c.route(under(path, "routes", i), name, route, faces); err != nil {
			return err
		}
		if seen[route.to()] {
			return c.at(under(path, "routes", i), "node %s has two routes to %s", name, route.to())
		}
		seen[route.to()] = true
	}
	for _, key := range sorted(node.Sysctls) {
		if !strings.HasPrefix(key, "net.") || strings.Contains(key, "/..") {
			return c.at(under(path, "sysctls", key), "sysctl %s is not the node's own: only net.* belong to a network namespace", key)
		}
	}
	for i, command := range node.Start {
		if strings.TrimSpace(command) == "" {
			return c.at(under(path, "start", i), "an empty command")
		}
	}
	return nil
}

func (c checker) route(path []any, name string, route Route, faces map[end]bool) error {
	to := route.to()
	switch {
	case !route.To.Default && !route.To.IsValid():
		return c.at(path, "a route needs to: what it leads to, as 10.0.0.0/24 or default")
	case to != to.Masked():
		return c.at(under(path, "to"), "route to %s: that is an address in %s; want the subnet", to, to.Masked())
	case !route.Via.IsValid() && route.Dev == "":
		return c.at(path, "route to %s: want via, a gateway, or dev, an interface", to)
	case route.Via.IsValid() && route.Via.Is4() != to.Addr().Is4():
		return c.at(under(path, "via"), "route to %s: via must be an address of the same family", to)
	case route.Dev != "" && route.Dev != "lo" && !faces[end{name, route.Dev}]:
		return c.at(under(path, "dev"), "node %s has no interface %s: no link names it", name, route.Dev)
	}
	if _, ok := c.file.Nodes[name].faceTo(route); !ok {
		return c.at(under(path, "via"), "node %s: no interface has an address in one subnet with %s, the gateway to %s", name, route.Via, to)
	}
	return nil
}

// warnings names what can be built and will hurt, in the order of the file.
func (c checker) warnings() []string {
	found := append(c.loops(), c.bridgingLoops()...)
	found = append(found, c.twins()...)
	slices.SortStableFunc(found, func(a, b warning) int { return cmp.Compare(a.link, b.link) })
	var texts []string
	for _, w := range found {
		texts = append(texts, place(c.tree, "links", w.link)+w.text)
	}
	return texts
}

// warning is about a link, by its index.
type warning struct {
	link int
	text string
}

// loops warns of cycles of switches none of which runs the spanning tree: one
// broadcast would go round for ever. One that runs it is enough to cut a cycle,
// since the others pass its frames on like any other.
func (c checker) loops() []warning {
	var found []warning
	root := map[string]string{} // a forest of switches that are joined so far
	top := func(name string) string {
		for root[name] != "" {
			name = root[name]
		}
		return name
	}
	for i, link := range c.file.Links {
		a, b := link.end(0), link.end(1)
		if !c.file.isSwitch(a) || !c.file.isSwitch(b) || c.file.Switches[a.node].STP || c.file.Switches[b.node].STP {
			continue
		}
		if top(a.node) == top(b.node) {
			found = append(found, warning{i, fmt.Sprintf("link %s closes a cycle of switches without a spanning tree: one broadcast goes round for ever (set stp: true)", link)})
			continue
		}
		root[top(a.node)] = top(b.node)
	}
	return found
}

// bridgingLoops warns of nodes with several cables to a switch without a spanning
// tree. A node closes no loop unless it bridges, which the file cannot know.
func (c checker) bridgingLoops() []warning {
	var found []warning
	cables := map[[2]string]int{}
	for i, link := range c.file.Links {
		for j := range link.Ends {
			s, node := link.end(j), link.end(1-j)
			if !c.file.isSwitch(s) || c.file.isSwitch(node) || c.file.Switches[s.node].STP {
				continue
			}
			pair := [2]string{node.node, s.node}
			if cables[pair]++; cables[pair] == 2 {
				found = append(found, warning{i, fmt.Sprintf("node %s has two cables to switch %s, which runs no spanning tree: if the node bridges them, one broadcast goes round for ever (set stp: true)", node.node, s.node)})
			}
		}
	}
	return found
}

// twins warns of MACs that are given twice: a switch would see one station that
// jumps from port to port. An exercise may want just that.
func (c checker) twins() []warning {
	var found []warning
	owners := map[string]string{}
	for i, link := range c.file.Links {
		for j := range link.Ends {
			e := end{link.end(j).node, c.file.face(i, j)}
			mac := strings.ToLower(c.file.macOf(e))
			if holder, taken := owners[mac]; taken {
				found = append(found, warning{i, fmt.Sprintf("MAC %s of %s is that of %s already", mac, e, holder)})
			}
			owners[mac] = e.String()
		}
	}
	return found
}

func sorted[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}
