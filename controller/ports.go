package controller

import (
	"cmp"
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"strings"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/drivers"
	"github.com/linkspan/linkspan/firewall"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/sandbox"
	"github.com/linkspan/linkspan/store"
)

// portSpace is what the host has to give: facts that are read before the store
// is locked.
type portSpace struct {
	first, last uint16 // of what the engine may choose from
	reserved    func(uint16) bool
	ipv6        bool // programs can listen on it
	apart       apartBridge

	// busy are ports that turned out to be held by somebody else.
	busy map[busyPort]bool
}

type busyPort struct {
	protocol string
	at       netip.AddrPort
}

// portSpace reads what the host has to give to a container, if the wishes ask for
// anything.
func (c *Controller) portSpace(owner linkspan.ID, wishes []sandbox.Wish) (space portSpace, err error) {
	space.busy = make(map[busyPort]bool)
	if space.apart, err = c.apart(owner); err != nil || len(wishes) == 0 {
		return space, err
	}
	space.first, space.last, space.reserved, err = c.o.Host.PortRange()
	space.ipv6 = c.o.Host.ListensIPv6()
	return space, err
}

// way is how one address family reaches a container: by the endpoint that is
// its gateway in that family.
type way struct {
	to     netip.Addr // zero: none
	bridge string
	routed bool
	direct bool // what is published is open at the container's own address too
	// binding is the host address for wishes that name none; zero: any.
	binding  netip.Addr
	endpoint string // name and ID, for refusals
}

// ways finds how the two families reach a container. Only networks whose
// traffic passes our firewall can publish.
func (c *Controller) ways(picked store.Gateways, links []link) (four, six way, err error) {
	for _, l := range links {
		e := l.endpoint
		if e.ID != picked.IPv4 && e.ID != picked.IPv6 {
			continue
		}
		driver, err := c.driver(l.network.Driver)
		if err != nil {
			return four, six, err
		}
		filtered, ok := driver.(drivers.Filtered)
		if !ok {
			continue
		}
		rules, err := filtered.Rules(l.network)
		if err != nil {
			return four, six, err
		}
		w := way{bridge: rules.Bridge, binding: c.binding(l.network), endpoint: fmt.Sprintf("%s (%s)", e.Name, e.ID)}
		if e.ID == picked.IPv4 {
			four = w
			four.to, four.routed, four.direct = e.IPv4.Addr(), rules.Mode4 == firewall.Routed, rules.Opens(false)
		}
		if e.ID == picked.IPv6 {
			six = w
			six.to, six.routed, six.direct = e.IPv6.Addr(), rules.Mode6 == firewall.Routed, rules.Opens(true)
		}
	}
	return four, six, nil
}

// optionBinding is the address that ports of a network are published on unless
// the user names another (docker network create -o).
const optionBinding = "com.docker.network.bridge.host_binding_ipv4"

func (c *Controller) binding(n network.Network) netip.Addr {
	addr, err := netip.ParseAddr(n.Options[optionBinding])
	if err != nil || n.Name == "bridge" { // whose option is what --ip said when it was made
		addr = c.o.Defaults.PublishAddress
	}
	if addr == netip.IPv4Unspecified() {
		return netip.Addr{}
	}
	return addr
}

// chooser gives wishes their ports. It is pure.
type chooser struct {
	space     portSpace
	four, six way
	seed      string                              // the same container gets the same ports, if they are free
	others    func(store.HostPort) []sandbox.Port // what other containers have of a port
	given     []sandbox.Port                      // so far
	current   []sandbox.Port                      // what the container has: it keeps that if it can
}

// choosePorts gives a container's wishes ports of the host that nobody has. A
// refusal names who has them.
func (c *Controller) choosePorts(t store.Tables, cfg store.Config, s sandbox.Sandbox, picked store.Gateways, links []link, space portSpace) (store.Row[store.Ports], error) {
	row := store.Row[store.Ports]{Value: store.Ports{Ways: waysInto(t, cfg, s, space.apart)}}
	if len(cfg.Ports) == 0 {
		row.Plan = c.portsPlan(row.Value)
		return row, nil
	}
	four, six, err := c.ways(picked, links)
	if err != nil {
		return row, err
	}
	now, _ := t.Ports.Get(s.ID)
	x := chooser{space: space, four: four, six: six, seed: string(cfg.Owner), current: now.Value.Ports}
	x.others = func(port store.HostPort) (taken []sandbox.Port) {
		for id, other := range t.By.PortsByHost.All(port) {
			if id != s.ID {
				taken = append(taken, other.Value.Ports...)
			}
		}
		return taken
	}
	for _, w := range inOrder(cfg.Ports) {
		chosen, err := x.choose(w)
		if err != nil {
			return row, programming(cmp.Or(four.endpoint, six.endpoint), err)
		}
		x.given = append(x.given, chosen...)
	}
	row.Value.Ports, row.Value.Bridge4, row.Value.Bridge6 = sandbox.Merge(x.given), four.bridge, six.bridge
	row.Plan = c.portsPlan(row.Value)
	return row, nil
}

// programming words a refusal as Docker does.
func programming(endpoint string, err error) error {
	const text = "driver failed programming external connectivity on endpoint %s: %w"
	for _, kind := range []error{linkspan.ErrInvalid, linkspan.ErrUnsupported} {
		if errors.Is(err, kind) {
			return linkspan.Errorf(kind, text, endpoint, err)
		}
	}
	return linkspan.Errorf(errUnexpected, text, endpoint, err)
}

// inOrder puts wishes that name their ports before those that leave a choice.
func inOrder(wishes []sandbox.Wish) []sandbox.Wish {
	choice := func(w sandbox.Wish) int {
		switch {
		case fixed(w):
			return 0
		case w.First != 0:
			return 1
		}
		return 2
	}
	sorted := slices.Clone(wishes)
	slices.SortStableFunc(sorted, func(a, b sandbox.Wish) int {
		return cmp.Or(
			cmp.Compare(choice(a), choice(b)), cmp.Compare(a.Port, b.Port), strings.Compare(a.Protocol, b.Protocol),
			cmp.Compare(a.First, b.First), a.Host.Compare(b.Host),
		)
	})
	return sorted
}

// choose gives one wish its port: the same one on all addresses.
func (x *chooser) choose(w sandbox.Wish) ([]sandbox.Port, error) {
	ports := x.addresses(w)
	if len(ports) == 0 {
		return nil, nil // no way leads into the container: the wish waits for one
	}
	if !slices.ContainsFunc(ports, func(p sandbox.Port) bool { return !p.Routed }) {
		return ports, nil
	}
	if fixed(w) {
		chosen, blame := x.at(ports, w.First)
		return chosen, blame
	}
	first, last := w.First, w.Last
	if first == 0 {
		first, last = x.space.first, x.space.last
	}
	if first == 0 {
		return nil, errors.New("all ports are allocated")
	}
	count := int(last) - int(first) + 1
	start := 0
	if w.First == 0 {
		start = x.start(w, count)
	}
	if had, ok := x.had(ports[0]); ok && had >= first && had <= last {
		start = int(had - first)
	}
	var blame error
	for i := range count {
		port := first + uint16((start+i)%count)
		if w.First == 0 && x.space.reserved(port) {
			continue
		}
		var chosen []sandbox.Port
		if chosen, blame = x.at(ports, port); blame == nil {
			return chosen, nil
		}
	}
	if w.First == 0 {
		return nil, fmt.Errorf("all ports are allocated: none of %d-%d is free (see: linkspan port ls; sysctl net.ipv4.ip_local_port_range)", first, last)
	}
	return nil, fmt.Errorf("all ports are allocated: none of %d-%d is free: %w", first, last, blame)
}

// start is where the search for an ephemeral port begins: it depends on
// nothing but the container and the port.
func (x *chooser) start(w sandbox.Wish, count int) int {
	h := fnv.New32a()
	fmt.Fprintf(h, "%s %d/%s", x.seed, w.Port, w.Protocol)
	return int(h.Sum32() % uint32(count))
}

// had returns the host's port that the container has for a port now.
func (x *chooser) had(p sandbox.Port) (uint16, bool) {
	for _, q := range x.current {
		at := int(p.To.Port()) - int(q.To.Port())
		if q.Protocol == p.Protocol && q.Host == p.Host && at >= 0 && at < int(q.Count) && !q.Routed {
			return q.First + uint16(at), true
		}
	}
	return 0, false
}

// addresses returns what a wish becomes but for the host's port: an entry for
// each of its addresses that has a way into the container.
func (x *chooser) addresses(w sandbox.Wish) []sandbox.Port {
	var ports []sandbox.Port
	add := func(host netip.Addr, by way) {
		if !by.to.IsValid() {
			return
		}
		p := sandbox.Port{
			Protocol: w.Protocol, Host: host, Count: w.Count, To: netip.AddrPortFrom(by.to, w.Port),
			Sources: w.Sources, Routed: by.routed && by.to.Is4() == host.Is4(),
			// Who wants a port at the loopback alone wants it nowhere else.
			Direct: by.direct && by.to.Is4() == host.Is4() && !host.IsLoopback(),
		}
		if p.Routed {
			p.Host = unspecified(host.Is6())
		}
		ports = append(ports, p)
	}
	sixth := x.six
	if !sixth.to.IsValid() && !x.four.routed {
		sixth = x.four // the shim passes it on
	}
	host := w.Host
	if !host.IsValid() {
		host = cmp.Or(x.four.binding, x.six.binding)
	}
	switch {
	case host.Is4():
		add(host, x.four)
	case host.Is6():
		add(host, sixth)
	default:
		add(netip.IPv4Unspecified(), x.four)
		if x.space.ipv6 {
			add(netip.IPv6Unspecified(), sixth)
		}
	}
	return ports
}

func unspecified(ipv6 bool) netip.Addr {
	if ipv6 {
		return netip.IPv6Unspecified()
	}
	return netip.IPv4Unspecified()
}

// holder returns what is in the way of a port.
func (x *chooser) holder(p sandbox.Port) (sandbox.Port, bool) {
	if i := slices.IndexFunc(x.given, p.Overlaps); i >= 0 {
		return x.given[i], true
	}
	for i := range p.Count {
		others := x.others(store.HostPort{Protocol: p.Protocol, Port: p.First + i})
		if i := slices.IndexFunc(others, p.Overlaps); i >= 0 {
			return others[i], true
		}
	}
	return sandbox.Port{}, false
}

// at puts the ports at one port of the host, or says what is in the way.
func (x *chooser) at(ports []sandbox.Port, first uint16) ([]sandbox.Port, error) {
	chosen := slices.Clone(ports)
	for i := range chosen {
		p := &chosen[i]
		if p.Routed {
			continue
		}
		p.First = first
		if other, taken := x.holder(*p); taken {
			clash := max(p.First, other.First)
			return nil, fmt.Errorf("Bind for %s:%d failed: port is already allocated", p.Host, clash) //nolint:staticcheck // Docker's words
		}
		for j := range p.Count { // whichever of a range it is: the same range would fail again
			if held := netip.AddrPortFrom(p.Host, first+j); x.space.busy[busyPort{p.Protocol, held}] {
				return nil, fmt.Errorf("failed to bind host port %s/%s: %w", held, p.Protocol, errPortHeld)
			}
		}
	}
	return chosen, nil
}

// portsPlan makes the firewall lead the ports to the container, connection
// tracking follow, and links reach it.
func (c *Controller) portsPlan(v store.Ports) op.Plan {
	var four, six []sandbox.Port
	for _, p := range v.Ports {
		if p.To.Addr().Is4() {
			four = append(four, p)
		} else {
			six = append(six, p)
		}
	}
	var plan op.Plan
	if v.Bridge4 == v.Bridge6 {
		plan = c.rulesFor(v.Bridge4, v.Ports)
	} else {
		plan = append(c.rulesFor(v.Bridge4, four), c.rulesFor(v.Bridge6, six)...)
	}
	drop, fresh := flowSteps(v)
	return slices.Concat(drop, plan, fresh, c.waysPlan(v.Ways))
}

// flowSteps are what connection tracking needs before the rules, and after: not
// for TCP, where a conversation that the rules do not know ends by itself.
func flowSteps(v store.Ports) (drop, fresh op.Plan) {
	var flows []op.Published
	for _, p := range v.Ports {
		if p.Protocol != sandbox.TCP && !p.Routed && !p.Relayed() {
			flows = append(flows, op.Published{Protocol: p.Protocol, Host: p.Host, First: p.First, Count: p.Count, To: p.To})
		}
	}
	if len(flows) == 0 {
		return nil, nil
	}
	drop = op.Plan{{Why: "Conversations end with what is published: an entry that stays would lead to whoever gets the address next.", Op: op.DropFlows{Ports: flows}}}
	fresh = op.Plan{{Why: "Conversations that are older than the rules must be seen by them too.", Op: op.ClearFlows{Ports: flows}}}
	return drop, fresh
}

func (c *Controller) rulesFor(bridge string, ports []sandbox.Port) op.Plan {
	if len(ports) == 0 || bridge == "" {
		return nil
	}
	return c.o.Firewall.Ports(bridge, ports)
}
