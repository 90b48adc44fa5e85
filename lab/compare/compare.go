// Package compare sets a network that somebody built by hand beside the one that
// the engine would have made of it.
//
// By hand, a network is a bridge with an address, cables from it into namespaces,
// and a default route in each:
//
//	brctl addbr br0; ip addr add 10.77.0.1/24 dev br0; ip link set br0 up
//	ip link add p1 type veth peer name eth0 netns web
//	brctl addif br0 p1; ip link set p1 up
//	ip -n web addr add 10.77.0.2/24 dev eth0; ip -n web link set eth0 up
//	ip -n web route add default via 10.77.0.1
//
// The engine's drivers plan the same from records, and a plan can be checked
// against the kernel (op.Op.Check). So the comparison has no rules of its own: it
// fills records from what is there, has them planned, gives the plan the names of
// the links that are there, and asks each step what is missing.
package compare

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/drivers/bridge"
	"github.com/linkspan/linkspan/endpoint"
	"github.com/linkspan/linkspan/firewall"
	"github.com/linkspan/linkspan/ipam"
	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/lab/topology"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/sandbox"
)

// Finding is a step that the engine would have done, and what of it is not so.
type Finding struct {
	Object      string // "bridge br0", "cable p1", "rules"
	Command     string // the first line of what the engine would have done
	Differences []string
}

// Report is a comparison.
type Report struct {
	Findings []Finding

	// Adopting is what the engine would do to take the bridge as it is; the cables
	// it leaves to whoever made them.
	Adopting op.Plan
	Subnet   netip.Prefix
	Gateway  netip.Addr
}

// Bridge compares a bridge of a machine, its ports, and what is at their far ends
// in the named namespaces. It changes nothing.
func Bridge(ctx context.Context, host *kernel.Host, name string, namespaces []string, rules firewall.Backend) (Report, error) {
	known := topology.Known{Owners: map[string]topology.Owner{}}
	for _, ns := range namespaces {
		known.Owners[ns] = topology.Owner{}
	}
	picture, err := topology.Gather(host, known)
	if err != nil {
		return Report{}, err
	}
	made, err := readHandMade(picture, name)
	if err != nil {
		return Report{}, err
	}
	report := Report{Subnet: made.subnet, Gateway: made.gateway}
	n := made.network()
	plan, err := bridge.Driver{}.Network(n)
	if err != nil {
		return report, err
	}
	report.add(ctx, host, "bridge "+name, plan)
	for i, port := range made.ports {
		if plan, err = made.cable(n, i); err != nil {
			return report, err
		}
		report.add(ctx, host, fmt.Sprintf("cable %s into %s", port.near.Name, port.ns), plan)
	}
	wanted, err := bridge.Driver{}.Rules(n)
	if err != nil {
		return report, err
	}
	report.add(ctx, host, "rules", append(rules.Base(), rules.Network(wanted)...))
	if n.Adopted, err = (bridge.Driver{}).Adopt(ctx, host, n); err == nil && n.Adopted != nil {
		report.Adopting, err = bridge.Driver{}.Network(n)
	}
	return report, err
}

func (r *Report) add(ctx context.Context, host *kernel.Host, object string, plan op.Plan) {
	for _, step := range plan {
		command, more, _ := strings.Cut(step.Op.String(), "\n")
		if more != "" {
			command += " …"
		}
		finding := Finding{Object: object, Command: command}
		if err := step.Op.Check(ctx, host); err != nil {
			finding.Differences = strings.Split(strings.TrimSpace(err.Error()), "\n")
		}
		r.Findings = append(r.Findings, finding)
	}
}

// handMade is what was found.
type handMade struct {
	bridge  topology.Link
	subnet  netip.Prefix
	gateway netip.Addr
	ports   []port
}

// port is a port of the bridge and its far end.
type port struct {
	near topology.Link
	ns   string
	far  topology.Link
}

func readHandMade(p topology.Picture, name string) (handMade, error) {
	made := handMade{}
	for _, l := range p.Namespaces[0].Links {
		switch {
		case l.Name == name:
			made.bridge = l
		case l.Master == name, l.Master == "" && l.Kind == "veth": // it may be meant to be a port
			for _, c := range p.Cables {
				if c.From == (topology.End{Link: l.Name}) && c.To.Namespace != "" {
					made.ports = append(made.ports, port{near: l, ns: c.To.Namespace, far: linkAt(p, c.To)})
				}
			}
		}
	}
	if made.bridge.Kind != "bridge" {
		return made, linkspan.Errorf(linkspan.ErrNotFound, "there is no bridge %s (see: linkspan brctl show)", name)
	}
	for _, address := range made.bridge.Addresses {
		if address.Addr().Is4() && !made.subnet.IsValid() {
			made.subnet, made.gateway = address.Masked(), address.Addr()
		}
	}
	var taken []netip.Addr
	for _, port := range made.ports {
		if lease := port.lease(); lease.IsValid() {
			taken = append(taken, lease.Addr())
			if !made.subnet.IsValid() {
				made.subnet = lease.Masked()
			}
		}
	}
	if !made.subnet.IsValid() {
		return made, linkspan.Errorf(linkspan.ErrInvalid, "neither bridge %s nor anything plugged into it has an IPv4 address: there is no network to compare (see: ip addr)", name)
	}
	if !made.gateway.IsValid() { // the engine's choice: the first that is free
		for made.gateway = made.subnet.Addr().Next(); slices.Contains(taken, made.gateway); {
			made.gateway = made.gateway.Next()
		}
	}
	return made, nil
}

func linkAt(p topology.Picture, end topology.End) topology.Link {
	for _, ns := range p.Namespaces {
		for _, l := range ns.Links {
			if ns.Name == end.Namespace && l.Name == end.Link {
				return l
			}
		}
	}
	return topology.Link{Name: end.Link}
}

// lease is the address that the engine's IPAM would have leased.
func (p port) lease() netip.Prefix {
	for _, address := range p.far.Addresses {
		if address.Addr().Is4() {
			return address
		}
	}
	return netip.Prefix{}
}

func (m handMade) network() network.Network {
	return network.Network{
		ID: idOf(m.bridge.Name), Name: m.bridge.Name, Driver: "bridge", Scope: "local", IPv4: true, MAC: m.bridge.MAC,
		Options: map[string]string{bridge.OptionName: m.bridge.Name, network.OptionMTU: "1500"}, Pools: []ipam.Pool{{Subnet: m.subnet, Gateway: m.gateway}},
	}
}

// cable plans a namespace and the cable into it, with the names that they have.
func (m handMade) cable(n network.Network, i int) (op.Plan, error) {
	p := m.ports[i]
	s := sandbox.Sandbox{ID: idOf(p.ns)}
	e := endpoint.Endpoint{
		ID: idOf(p.ns + "/" + p.near.Name), Network: n.ID, Sandbox: s.ID, IPv4: p.lease(), Gateway4: m.gateway,
		MAC: p.far.MAC, HostMAC: p.near.MAC, Interface: p.far.Name,
	}
	plan := s.Plan(sandbox.Files{})
	plan = slices.DeleteFunc(plan, func(step op.Step) bool { _, file := step.Op.(op.WriteFile); return file })
	own, err := bridge.Driver{}.Endpoint(n, e, s)
	if err != nil {
		return nil, err
	}
	plan = append(append(plan, own...), op.Step{
		Why: "What is not on the network is reached by way of the gateway.",
		Op:  op.AddRoute{NS: s.Netns(), To: netip.PrefixFrom(netip.IPv4Unspecified(), 0), Via: m.gateway, Link: p.far.Name},
	})
	return renamed(plan, e.HostLink(), p.near.Name, s.Netns(), p.ns)
}

// renamed puts other names into a plan. The old ones are made of IDs and stand for
// nothing else.
func renamed(plan op.Plan, oldAndNew ...string) (op.Plan, error) {
	codec := op.NewCodec()
	text, err := codec.Marshal(plan)
	if err != nil {
		return nil, err
	}
	for i := 0; i < len(oldAndNew); i += 2 {
		text = bytes.ReplaceAll(text, []byte(oldAndNew[i]), []byte(oldAndNew[i+1]))
	}
	return codec.Unmarshal(text)
}

func idOf(name string) linkspan.ID {
	sum := sha256.Sum256([]byte(name))
	return linkspan.ID(hex.EncodeToString(sum[:]))
}

// Same tells whether nothing differs.
func (r Report) Same() bool {
	return !slices.ContainsFunc(r.Findings, func(f Finding) bool { return len(f.Differences) > 0 })
}

// String is the report as text: each object, what is as the engine would have made
// it, and under what is not the difference.
func (r Report) String() string {
	var out strings.Builder
	object := ""
	for _, f := range r.Findings {
		if f.Object != object {
			object = f.Object
			fmt.Fprintln(&out, object)
		}
		word := "same"
		if len(f.Differences) > 0 {
			word = "differs"
		}
		fmt.Fprintf(&out, "  %-8s %s\n", word, f.Command)
		for _, difference := range f.Differences {
			fmt.Fprintf(&out, "           - %s\n", difference)
		}
	}
	return out.String()
}
