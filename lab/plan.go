package lab

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/op"
)

// Root returns the name of the namespace that stands for the machine of a lab:
// its switches are there, and no rule or sysctl of the real machine is.
func Root(lab string) string { return "lab-" + lab }

// Netns returns the name of a node's namespace, an argument for ip -n.
func Netns(lab, node string) string { return "lab-" + lab + "-" + node }

// rootPlan makes the lab's root namespace; it is done on the real machine.
func (f File) rootPlan() op.Plan {
	return op.Plan{
		{Why: "A lab is a machine of its own: what the real one filters or bridges does not reach in here.", Op: op.AddNetns{Name: Root(f.Name)}},
		{Why: "Programs expect to reach themselves by 127.0.0.1.", Op: op.SetUp{NS: Root(f.Name), Link: "lo"}},
	}
}

// plan makes switches, nodes and cables; it is done on the lab's machine. It is
// pure: the same file gives the same plan on kernels that have netem, and on those
// that have not.
func (f File) plan(netem bool) (op.Plan, error) {
	plan := f.switches()
	for _, name := range sorted(f.Nodes) {
		plan = append(plan, f.nodeStart(name)...)
	}
	for i, link := range f.Links {
		plan = append(plan, f.cable(i)...)
		worse, err := f.impair(i, link.Impairment, netem)
		if err != nil {
			return nil, err
		}
		plan = append(plan, worse...)
		plan = append(plan, f.ports(i)...)
	}
	for _, name := range sorted(f.Nodes) {
		plan = append(plan, f.nodeEnd(name)...)
	}
	return plan, nil
}

func (f File) switches() op.Plan {
	var plan op.Plan
	for _, name := range sorted(f.Switches) {
		s := f.Switches[name]
		plan = append(plan,
			op.Step{Why: "A switch.", Op: op.AddBridge{Name: name, MAC: f.switchMAC(name)}},
			quiet("", name),
			op.Step{
				Why: "The switch listens to no multicast groups: it would tell so on its ports.",
				Op:  op.SetBridge{Bridge: name, Setting: kernel.BridgeSnooping, Value: 0, Before: 1},
			})
		for _, word := range sorted(s.Settings) {
			known := bridgeSettings[word]
			plan = append(plan, op.Step{Why: "As the lab wants it.", Op: op.SetBridge{Bridge: name, Setting: known.setting, Value: s.Settings[word], Before: known.usual}})
		}
		if s.STP {
			plan = append(plan, stpOn(name))
		}
		for _, address := range s.Addresses {
			plan = append(plan, op.Step{Why: "The address of the machine behind the switch.", Op: op.AddAddress{Link: name, Address: address.Prefix}})
		}
		plan = append(plan, op.Step{Why: "Frames may pass.", Op: op.SetUp{Link: name}})
	}
	return plan
}

// quiet keeps a link from sending what no student caused: router
// solicitations, neighbour discovery, multicast reports.
func quiet(ns, link string) op.Step {
	return op.Step{
		Why: "The wire stays quiet: no frame is on it that nobody caused.",
		Op:  op.SetSysctl{NS: ns, Key: "net/ipv6/conf/" + strings.ReplaceAll(link, ".", "/") + "/disable_ipv6", Value: "1"},
	}
}

func (f File) nodeStart(name string) op.Plan {
	ns := Netns(f.Name, name)
	plan := op.Plan{
		{Why: "Node " + name + " is a network stack of its own.", Op: op.AddNetns{Name: ns}},
		{Why: "Programs expect to reach themselves by 127.0.0.1.", Op: op.SetUp{NS: ns, Link: "lo"}},
	}
	node := f.Nodes[name]
	for _, key := range sorted(node.Sysctls) {
		if f.faceOfSysctl(name, key) != "" {
			continue // once the interface is there
		}
		plan = append(plan, f.sysctl(name, key))
	}
	return plan
}

func (f File) sysctl(node, key string) op.Step {
	return op.Step{
		Why: "As the lab wants it.",
		Op:  op.SetSysctl{NS: Netns(f.Name, node), Key: slashed(key), Value: f.Nodes[node].Sysctls[key]},
	}
}

// slashed writes a sysctl with slashes, unless it is already.
func slashed(key string) string {
	if strings.Contains(key, "/") {
		return key
	}
	return strings.ReplaceAll(key, ".", "/")
}

// faceOfSysctl returns the interface whose own a node's sysctl is:
// net.ipv4.conf.eth0.rp_filter.
func (f File) faceOfSysctl(node, key string) string {
	parts := strings.Split(slashed(key), "/")
	if len(parts) == 5 && slices.Contains(f.faces(node), parts[3]) {
		return parts[3]
	}
	return ""
}

// isSwitch tells whether an end is at a switch.
func (f File) isSwitch(e end) bool {
	_, is := f.Switches[e.node]
	return is
}

// at returns where an end of the i-th link is: a namespace, "" for the lab's
// machine, and the link's name there.
func (f File) at(i, j int) (ns, name string) {
	e := f.Links[i].end(j)
	if f.isSwitch(e) {
		return "", f.face(i, j)
	}
	return Netns(f.Name, e.node), e.face
}

// face is the name of the interface or port at an end of the i-th link. A port
// without a name is called by the link's number.
func (f File) face(i, j int) string {
	e := f.Links[i].end(j)
	switch {
	case e.face != "" || !f.isSwitch(e):
		return e.face
	case j == 1 && f.isSwitch(f.Links[i].end(0)):
		return fmt.Sprintf("peer%d", i)
	}
	return fmt.Sprintf("port%d", i)
}

// cable is a link of the file: to a switch, between two of them, or between two nodes.
func (f File) cable(i int) op.Plan {
	l := f.Links[i]
	near, far := 0, 1
	if f.isSwitch(l.end(far)) {
		near, far = far, near // the switch's end
	}
	a, b := l.end(near), l.end(far)
	ns, name := f.at(i, near)
	peerNS, peer := f.at(i, far)
	mac, peerMAC := f.macOf(end{a.node, name}), f.macOf(end{b.node, peer})
	why := fmt.Sprintf("A cable from %s to %s.", f.called(i, far), f.called(i, near))
	if f.isSwitch(a) && !f.isSwitch(b) {
		return op.Plan{
			{Why: why, Op: op.AddVeth{Name: name, MAC: mac, Master: a.node, Peer: peer, PeerMAC: peerMAC, PeerNS: peerNS, MTU: l.MTU}},
			quiet("", name),
		}
	}
	plan := op.Plan{{Why: why, Op: op.AddCable{NS: ns, Name: name, MAC: mac, PeerNS: peerNS, Peer: peer, PeerMAC: peerMAC, MTU: l.MTU}}}
	if f.isSwitch(a) {
		plan = append(plan,
			quiet("", name), quiet("", peer),
			op.Step{Why: "One end is a port of switch " + a.node + ".", Op: op.PlugIn{Link: name, Bridge: a.node}},
			op.Step{Why: "The other is one of switch " + b.node + ".", Op: op.PlugIn{Link: peer, Bridge: b.node}})
	}
	return plan
}

func (f File) called(i, j int) string {
	e := f.Links[i].end(j)
	if f.isSwitch(e) {
		return fmt.Sprintf("switch %s", e.node)
	}
	return fmt.Sprintf("%s of node %s", e.face, e.node)
}

// ports brings the ends at switches up. They are the lab's own, with or without a
// mark: a trunk's ends have none.
func (f File) ports(i int) op.Plan {
	var plan op.Plan
	l := f.Links[i]
	for j := range l.Ends {
		if f.isSwitch(l.end(j)) && !l.isDown(j) {
			plan = append(plan, op.Step{Why: "The end at switch " + l.end(j).node + " is plugged in.", Op: op.SetUp{Link: f.face(i, j), Adopted: true}})
		}
	}
	return plan
}

func (l Link) isDown(j int) bool { return slices.Contains(l.Down, l.Ends[j]) }

// nodeEnd gives addresses and routes, once the cables are there.
func (f File) nodeEnd(name string) op.Plan {
	ns, node := Netns(f.Name, name), f.Nodes[name]
	var plan op.Plan
	for _, l := range f.Links {
		for j := range l.Ends {
			if e := l.end(j); e.node == name {
				plan = append(plan, f.plugged(e, l.isDown(j))...)
			}
		}
	}
	for _, address := range node.Addresses["lo"] {
		plan = append(plan, op.Step{Why: "An address that hangs on no wire.", Op: op.AddAddress{NS: ns, Link: "lo", Address: address.Prefix}})
	}
	for _, route := range node.Routes {
		face, _ := node.faceTo(route) // there is one: see Parse
		plan = append(plan, op.Step{Why: "The way to what is on no wire of node " + name + ".", Op: op.AddRoute{NS: ns, To: route.to(), Via: route.Via.Addr, Link: face}})
	}
	return plan
}

// plugged gives a node's end of a cable what it needs.
func (f File) plugged(e end, down bool) op.Plan {
	ns, node := Netns(f.Name, e.node), f.Nodes[e.node]
	var plan op.Plan
	addresses := node.Addresses[e.face]
	if hasIPv6(addresses) {
		plan = append(plan, hushed(ns, e.face)...)
	} else {
		plan = append(plan, quiet(ns, e.face))
	}
	for _, key := range sorted(node.Sysctls) {
		if f.faceOfSysctl(e.node, key) == e.face {
			plan = append(plan, f.sysctl(e.node, key))
		}
	}
	for _, address := range addresses {
		plan = append(plan, op.Step{Why: "The address of node " + e.node + " on this wire.", Op: op.AddAddress{NS: ns, Link: e.face, Address: address.Prefix}})
	}
	if !down {
		plan = append(plan, op.Step{Why: "The node's end is plugged in.", Op: op.SetUp{NS: ns, Link: e.face}})
	}
	return plan
}

// hushed keeps a link with IPv6 addresses from looking for routers and for others
// with its addresses. What it says once is which groups it listens to (RFC 3810).
func hushed(ns, link string) op.Plan {
	var plan op.Plan
	for _, setting := range []struct{ key, why string }{
		{"accept_ra", "No router is asked for: there is none that nobody set up."},
		{"accept_dad", "Addresses are as the lab says: nobody is asked whether he has them."},
	} {
		plan = append(plan, op.Step{Why: setting.why, Op: op.SetSysctl{NS: ns, Key: "net/ipv6/conf/" + link + "/" + setting.key, Value: "0"}})
	}
	return plan
}

// faces are the interfaces that links give to a node, in order of the file.
func (f File) faces(node string) []string {
	var faces []string
	for _, l := range f.Links {
		for i := range l.Ends {
			if e := l.end(i); e.node == node && e.face != "" {
				faces = append(faces, e.face)
			}
		}
	}
	return faces
}

// faceTo returns the interface that a route leaves by.
func (n Node) faceTo(route Route) (string, bool) {
	if route.Dev != "" {
		return route.Dev, true
	}
	for _, face := range sorted(n.Addresses) {
		for _, address := range n.Addresses[face] {
			if address.Masked().Contains(route.Via.Addr) {
				return face, true
			}
		}
	}
	return "", false
}

func hasIPv6(addresses []Prefix) bool {
	for _, address := range addresses {
		if address.Addr().Is6() {
			return true
		}
	}
	return false
}

func (f File) switchMAC(name string) string {
	return cmp.Or(f.Switches[name].MAC, mac(f.Name, name))
}

// macOf is the MAC of an end whose interface or port is named.
func (f File) macOf(e end) string {
	if f.isSwitch(e) {
		return cmp.Or(f.Switches[e.node].MACs[e.face], mac(f.Name, e.face))
	}
	return cmp.Or(f.Nodes[e.node].MACs[e.face], mac(f.Name, e.node, e.face))
}

// mac makes a locally administered MAC of names, so that a lab looks the same
// each time it is built.
func mac(words ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(words, "/")))
	return net.HardwareAddr{0x02, sum[0], sum[1], sum[2], sum[3], sum[4]}.String()
}

func stpOn(name string) op.Step {
	return op.Step{Why: "The switch takes part in the spanning tree.", Op: op.SetBridge{Bridge: name, Setting: kernel.BridgeSTP, Value: 1}}
}
