package lab

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"

	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/lab/topology"
)

// Save writes the file of a lab as it is now, whoever made it so. What a lab file
// cannot say is left out and named, a line each, in the file's comment too.
func (e *Engine) Save(name string) (text []byte, lost []string, err error) {
	unlock, err := e.lock(name)
	if err != nil {
		return nil, nil, err
	}
	defer unlock()
	s, err := e.known(name)
	if err != nil {
		return nil, nil, err
	}
	old, _, err := Parse([]byte(s.Text))
	if err != nil {
		return nil, nil, err
	}
	root, err := e.open(name)
	if err != nil {
		return nil, nil, err
	}
	defer root.Close()
	saver := &saver{old: old, root: root, file: File{Name: name, Switches: map[string]Switch{}, Nodes: map[string]Node{}}}
	if err = saver.save(); err != nil {
		return nil, nil, fmt.Errorf("saving lab %s: %w", name, err)
	}
	body, err := yaml.MarshalWithOptions(saver.file, yaml.IndentSequence(true))
	if err != nil {
		return nil, nil, fmt.Errorf("saving lab %s: %w", name, err)
	}
	if _, _, err = Parse(body); err != nil {
		return nil, nil, fmt.Errorf("saving lab %s: it is in a state that no file may ask for: %w", name, err)
	}
	var file strings.Builder
	for _, what := range saver.lost {
		fmt.Fprintf(&file, "# Not saved: %s\n", what)
	}
	file.Write(body)
	return []byte(file.String()), saver.lost, nil
}

// saver makes a file of what is there.
type saver struct {
	old     File
	root    *kernel.Host
	file    File
	lost    []string
	fresh   map[string]string // sysctls
	views   map[string]*view
	picture topology.Picture
	nodes   map[string]string // by namespace
	owners  map[netip.Addr]string
	cabled  map[topology.End]bool // ends that are in the file
}

func (s *saver) lose(format string, args ...any) {
	s.lost = append(s.lost, fmt.Sprintf(format, args...))
}

func (s *saver) save() (err error) {
	known := topology.Known{Owners: map[string]topology.Owner{}}
	s.nodes, s.owners, s.cabled = map[string]string{}, map[netip.Addr]string{}, map[topology.End]bool{}
	for name := range s.old.Nodes {
		s.nodes[Netns(s.old.Name, name)] = name
		known.Owners[Netns(s.old.Name, name)] = topology.Owner{Container: name}
	}
	if s.views, err = s.old.look(s.root); err != nil {
		return err
	}
	if s.picture, err = topology.Gather(s.root, known); err != nil {
		return err
	}
	if s.fresh, err = kernel.FreshSysctls(); err != nil {
		return err
	}
	for _, name := range sorted(s.old.Nodes) {
		if s.views[Netns(s.old.Name, name)] == nil {
			s.lose("node %s: its namespace is gone", name)
			continue
		}
		s.file.Nodes[name] = Node{Addresses: map[string][]Prefix{}, MACs: map[string]string{}, Run: s.old.Nodes[name].Run}
		for _, command := range s.old.Nodes[name].Start {
			s.lose("start command %q of node %s: what it made is saved instead, as far as a file can say it", command, name)
		}
	}
	if err = s.switches(); err != nil {
		return err
	}
	s.links()
	for _, ns := range s.picture.Namespaces {
		if err = s.namespace(ns); err != nil {
			return err
		}
	}
	return nil
}

// switches saves the bridges of the lab's machine.
func (s *saver) switches() error {
	bridges, err := s.root.Bridges("")
	if err != nil {
		return err
	}
	for _, bridge := range bridges {
		link := s.views[""].links[bridge.Name]
		if !plainName.MatchString(bridge.Name) {
			s.lose("switch %s: a file cannot name it so", bridge.Name)
			continue
		}
		if !link.Up {
			s.lose("switch %s is down: a lab's switches are up", bridge.Name)
		}
		if bridge.Snooping {
			s.lose("switch %s follows multicast groups: a lab's switches do not", bridge.Name)
		}
		saved := Switch{STP: bridge.STP, MACs: map[string]string{}, Settings: map[string]uint32{}}
		if link.MAC != mac(s.old.Name, bridge.Name) {
			saved.MAC = link.MAC
		}
		for _, word := range sorted(bridgeSettings) {
			known := bridgeSettings[word]
			value := bridge.Setting(known.setting)
			if bridge.STP && known.setting == kernel.BridgeAgeingTime && value == 2*bridge.Setting(kernel.BridgeForwardDelay) {
				continue // while the tree changes stations are forgotten sooner
			}
			if value != known.usual {
				saved.Settings[word] = value
			}
		}
		saved.Addresses = s.addresses(bridge.Name, link)
		s.file.Switches[bridge.Name] = saved
	}
	return nil
}

// addresses are a link's, without that which the kernel made of its MAC, and
// without those that another link of the lab has too.
func (s *saver) addresses(owner string, link kernel.Link) []Prefix {
	var kept []Prefix
	for _, address := range link.Addresses {
		addr := address.Addr()
		if addr.IsLinkLocalUnicast() && addr.Is6() || link.Name == "lo" && addr.IsLoopback() {
			continue
		}
		if holder, taken := s.owners[addr]; taken {
			s.lose("address %s of %s: %s has it too", address, owner, holder)
			continue
		}
		s.owners[addr] = owner
		kept = append(kept, Prefix{address})
	}
	return kept
}

// links saves cables: those that the file had in their order, then the others.
func (s *saver) links() {
	cables := slices.Clone(s.picture.Cables)
	for i := range s.old.Links {
		var at [2]topology.End
		for j := range at {
			at[j].Namespace, at[j].Link = s.old.at(i, j)
		}
		for k, c := range cables {
			if c.From == at[0] && c.To == at[1] || c.From == at[1] && c.To == at[0] {
				s.cable(at[0], at[1])
				cables = slices.Delete(cables, k, k+1)
				break
			}
		}
	}
	for _, c := range cables {
		from, to := c.From, c.To
		if from.Namespace == "" {
			from, to = to, from // the node's end comes first
		}
		s.cable(from, to)
	}
}

// cable adds a cable to the file.
func (s *saver) cable(a, b topology.End) {
	i := len(s.file.Links)
	s.file.Links = append(s.file.Links, Link{})
	link := &s.file.Links[i]
	at := [2]topology.End{a, b}
	var words [2]Impairment
	var sizes [2]int
	for j, where := range at {
		l := s.views[where.Namespace].links[where.Link]
		if l.Kind != "veth" {
			s.file.Links = s.file.Links[:i]
			return // told of with its namespace
		}
		node := s.nodes[where.Namespace]
		if where.Namespace == "" {
			if node = l.Master; s.file.Switches[node].MACs == nil {
				s.lose("cable %s - %s: %s is a port of no switch of the lab", s.called(a), s.called(b), where.Link)
				s.file.Links = s.file.Links[:i]
				return
			}
		} else if l.Master != "" {
			s.lose("%s is a port of %s: a lab's switches are on its machine", s.called(where), l.Master)
		}
		link.Ends[j] = node + ":" + where.Link
		words[j] = s.views[where.Namespace].impairment(where.Link)
		sizes[j] = l.MTU
	}
	s.ends(i, at)
	if sizes[0] != sizes[1] {
		s.lose("cable %s: its ends have MTUs of their own, %d and %d", link, sizes[0], sizes[1])
	} else if sizes[0] != 1500 {
		link.MTU = sizes[0]
	}
	if words[0] != words[1] {
		s.lose("cable %s: its ends are impaired each in its way: %q and %q", link, words[0], words[1])
	} else {
		link.Impairment = words[0]
	}
}

// ends saves what the ends of the i-th link are like. Names and MACs that they
// would have anyway are left out.
func (s *saver) ends(i int, at [2]topology.End) {
	link := &s.file.Links[i]
	for j := range at {
		e := link.end(j)
		if s.file.isSwitch(e) {
			link.Ends[j] = e.node
			if s.file.face(i, j) != e.face {
				link.Ends[j] = e.String()
			}
		}
	}
	for j, where := range at {
		e := end{link.end(j).node, where.Link}
		l := s.views[where.Namespace].links[where.Link]
		s.cabled[where] = true
		if l.MAC != s.file.macOf(e) {
			if s.file.isSwitch(e) {
				s.file.Switches[e.node].MACs[e.face] = l.MAC
			} else {
				s.file.Nodes[e.node].MACs[e.face] = l.MAC
			}
		}
		if !l.Up {
			link.Down = append(link.Down, link.Ends[j])
		}
		queue := s.views[where.Namespace].queues[where.Link]
		if queue.Kind != "" && queue.Rate == 0 && queue.Loss == 0 && queue.Delay == 0 {
			s.lose("queueing discipline %s of %s", queue.Kind, s.called(where))
		}
	}
}

func (s *saver) called(where topology.End) string {
	if where.Namespace == "" {
		return where.Link
	}
	return s.nodes[where.Namespace] + ":" + where.Link
}

// namespace saves what is in a namespace beside the ends of cables.
func (s *saver) namespace(ns topology.Namespace) error {
	stack, err := s.root.Stack(ns.Name)
	if err != nil {
		return err
	}
	where := "the lab's machine"
	if ns.Name != "" {
		where = "node " + ns.Container
	}
	for _, l := range ns.Links {
		link := s.views[ns.Name].links[l.Name]
		_, isSwitch := s.file.Switches[l.Name]
		switch {
		case s.cabled[topology.End{Namespace: ns.Name, Link: l.Name}], l.Name == "lo", isSwitch && ns.Name == "":
		default:
			s.lose("link %s of %s, of kind %s", l.Name, where, l.Kind)
			continue
		}
		kept := isSwitch
		if ns.Name != "" {
			kept = true
			if addresses := s.addresses(ns.Container+":"+l.Name, link); len(addresses) > 0 {
				s.file.Nodes[ns.Container].Addresses[l.Name] = addresses
			}
		}
		if l.Name == "lo" && !l.Up {
			s.lose("lo of %s is down", where)
		}
		for _, address := range link.Addresses {
			if !kept && !address.Addr().IsLoopback() && !address.Addr().IsLinkLocalUnicast() {
				s.lose("address %s of %s of %s", address, l.Name, where)
			}
		}
	}
	node := s.file.Nodes[ns.Container]
	for _, route := range stack.Routes {
		if ns.Name == "" || !route.Simple || !s.cabled[topology.End{Namespace: ns.Name, Link: route.Link}] {
			s.lose("route of %s: %s", where, route.Text)
			continue
		}
		node.Routes = append(node.Routes, node.saved(route))
	}
	if node.Sysctls, err = s.sysctls(ns.Name, where); err != nil {
		return err
	}
	if ns.Name != "" {
		s.file.Nodes[ns.Container] = node
	}
	for _, what := range stack.Rules {
		s.lose("routing rule of %s: %s", where, what)
	}
	for _, what := range stack.Fixed {
		s.lose("neighbour of %s that was set by hand: %s", where, what)
	}
	for _, what := range stack.Tables {
		s.lose("nftables' table %s of %s", what, where)
	}
	return nil
}

// saved is a route as the file's words have it.
func (n Node) saved(route kernel.StackRoute) Route {
	r := Route{To: Target{Prefix: route.To}, Via: Addr{route.Via}}
	if route.To.Bits() == 0 && (route.Via.IsValid() || route.To.Addr().Is4()) {
		r.To = Target{Default: true}
	}
	if face, ok := n.faceTo(r); !ok || face != route.Link {
		r.Dev = route.Link
	}
	return r
}

// sysctls are those of a namespace that are not what they would be anyway.
func (s *saver) sysctls(ns, where string) (map[string]string, error) {
	all, err := s.root.Sysctls(ns)
	if err != nil {
		return nil, err
	}
	kept := map[string]string{}
	for key, value := range all {
		usual, known := s.fresh[key]
		parts := strings.Split(key, "/")
		perLink := len(parts) == 5 && parts[2] != "neigh" && parts[3] != "all" && parts[3] != "default" && parts[3] != "lo"
		if perLink {
			usual, known = all[strings.Join([]string{parts[0], parts[1], parts[2], "default", parts[4]}, "/")], true
		}
		if !known || value == usual || perLink && s.implied(ns, parts, value) || followsForwarding(all, parts, value) {
			continue
		}
		if ns == "" {
			s.lose("sysctl %s=%s of %s", key, value, where)
			continue
		}
		if !strings.Contains(key, ".") {
			key = strings.ReplaceAll(key, "/", ".")
		}
		kept[key] = value
	}
	slices.Sort(s.lost[len(s.lost)-countLost(s.lost, "sysctl "):])
	return kept, nil
}

// countLost counts the last lines that begin with a word.
func countLost(lost []string, word string) int {
	n := 0
	for n < len(lost) && strings.HasPrefix(lost[len(lost)-1-n], word) {
		n++
	}
	return n
}

// implied tells whether the plan of the lab sets a link's sysctl so, or its MTU.
func (s *saver) implied(ns string, parts []string, value string) bool {
	if parts[4] == "mtu" {
		return true
	}
	if parts[1] != "ipv6" {
		return false
	}
	v6 := false
	for _, address := range s.views[ns].links[parts[3]].Addresses {
		v6 = v6 || address.Addr().Is6() && !address.Addr().IsLinkLocalUnicast()
	}
	if v6 {
		return (parts[4] == "accept_ra" || parts[4] == "accept_dad") && value == "0"
	}
	return parts[4] == "disable_ipv6" && value == "1"
}

// followsForwarding tells whether a sysctl is what it is because the namespace
// forwards (Documentation/networking/ip-sysctl.rst).
func followsForwarding(all map[string]string, parts []string, value string) bool {
	if len(parts) != 5 || parts[2] != "conf" {
		return false
	}
	switch {
	case parts[1] == "ipv4" && parts[4] == "forwarding":
		return value == all["net/ipv4/ip_forward"]
	case parts[1] == "ipv4" && parts[4] == "accept_redirects" && parts[3] == "all":
		return value == "0" && all["net/ipv4/ip_forward"] == "1"
	case parts[1] == "ipv6" && parts[4] == "forwarding" && parts[3] != "all":
		return value == all["net/ipv6/conf/all/forwarding"]
	}
	return false
}
