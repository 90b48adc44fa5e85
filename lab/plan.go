package lab

import (
	"crypto/sha256"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/linkspan/linkspan"
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
// pure: the same file gives the same plan.
func (f File) plan() (op.Plan, error) {
	plan := f.switches()
	for _, name := range sorted(f.Nodes) {
		plan = append(plan, f.nodeStart(name)...)
	}
	for i := range f.Links {
		plan = append(plan, f.cable(i)...)
	}
	for _, name := range sorted(f.Nodes) {
		steps, err := f.nodeEnd(name)
		if err != nil {
			return nil, err
		}
		plan = append(plan, steps...)
	}
	return plan, nil
}

func (f File) switches() op.Plan {
	var plan op.Plan
	for _, name := range sorted(f.Switches) {
		s := f.Switches[name]
		plan = append(plan,
			op.Step{Why: "A switch.", Op: op.AddBridge{Name: name, MAC: mac(f.Name, name)}},
			quiet("", name))
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
		plan = append(plan, op.Step{
			Why: "As the lab wants it.",
			Op:  op.SetSysctl{NS: ns, Key: strings.ReplaceAll(key, ".", "/"), Value: node.Sysctls[key]},
		})
	}
	return plan
}

// cable is a link of the file: to a switch, or between two nodes.
func (f File) cable(i int) op.Plan {
	l := f.Links[i]
	a, b := l.end(0), l.end(1)
	if _, isSwitch := f.Switches[l[0]]; isSwitch {
		a, b = b, a
	}
	near := Netns(f.Name, a.node)
	if _, isSwitch := f.Switches[b.node]; isSwitch {
		port := portName(i)
		return op.Plan{
			{Why: fmt.Sprintf("A cable from %s of node %s to switch %s.", a.face, a.node, b.node), Op: op.AddVeth{
				Name: port, MAC: mac(f.Name, port), Master: b.node, Peer: a.face, PeerMAC: f.macOf(a), PeerNS: near,
			}},
			quiet("", port),
			{Why: "The switch's end is plugged in.", Op: op.SetUp{Link: port}},
		}
	}
	return op.Plan{{Why: fmt.Sprintf("A cable from %s of node %s to %s of node %s.", a.face, a.node, b.face, b.node), Op: op.AddCable{
		NS: near, Name: a.face, MAC: f.macOf(a), PeerNS: Netns(f.Name, b.node), Peer: b.face, PeerMAC: f.macOf(b),
	}}}
}

// portName is the switch's end of the i-th link.
func portName(i int) string { return fmt.Sprintf("port%d", i) }

// nodeEnd gives addresses and routes, once the cables are there.
func (f File) nodeEnd(name string) (op.Plan, error) {
	ns, node := Netns(f.Name, name), f.Nodes[name]
	var plan op.Plan
	for _, face := range f.faces(name) {
		addresses := node.Addresses[face]
		if !hasIPv6(addresses) {
			plan = append(plan, quiet(ns, face))
		}
		for _, address := range addresses {
			plan = append(plan, op.Step{Why: "The address of node " + name + " on this wire.", Op: op.AddAddress{NS: ns, Link: face, Address: address.Prefix}})
		}
		plan = append(plan, op.Step{Why: "The node's end is plugged in.", Op: op.SetUp{NS: ns, Link: face}})
	}
	for _, address := range node.Addresses["lo"] {
		plan = append(plan, op.Step{Why: "An address that hangs on no wire.", Op: op.AddAddress{NS: ns, Link: "lo", Address: address.Prefix}})
	}
	for _, route := range node.Routes {
		face, ok := node.faceTo(route.Via.Addr)
		if !ok {
			return nil, linkspan.Errorf(linkspan.ErrInvalid, "lab file: node %s: no interface has an address in one subnet with %s, the gateway to %s", name, route.Via, route.To)
		}
		plan = append(plan, op.Step{Why: "The way to what is on no wire of node " + name + ".", Op: op.AddRoute{NS: ns, To: route.To.Prefix, Via: route.Via.Addr, Link: face}})
	}
	return plan, nil
}

// faces are the interfaces that links give to a node, in order of the file.
func (f File) faces(node string) []string {
	var faces []string
	for _, l := range f.Links {
		for i := range l {
			if e := l.end(i); e.node == node && e.face != "" {
				faces = append(faces, e.face)
			}
		}
	}
	return faces
}

func (n Node) faceTo(via netip.Addr) (string, bool) {
	for _, face := range sorted(n.Addresses) {
		for _, address := range n.Addresses[face] {
			if address.Masked().Contains(via) {
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

func (f File) macOf(e end) string {
	if given := f.Nodes[e.node].MACs[e.face]; given != "" {
		return given
	}
	return mac(f.Name, e.node, e.face)
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
