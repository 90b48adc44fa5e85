package remote

import (
	"context"
	"encoding/base64"
	"net"
	"net/netip"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/drivers"
	"github.com/linkspan/linkspan/endpoint"
	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/plugin"
	"github.com/linkspan/linkspan/plugin/wire"
	"github.com/linkspan/linkspan/sandbox"
)

// Driver plans networks of one plugin.
type Driver struct {
	Name    string
	Plugins *Plugins
}

var _ drivers.Asker = Driver{}

func (d Driver) party() party {
	return party{Plugin: d.Name, URL: d.Plugins.Socket(d.Name), plugins: d.Plugins}
}

// Traits of a plugin's networks, as it said when it was last asked.
func (d Driver) Traits() drivers.Traits {
	traits := drivers.Traits{Scope: "local", Addresses: true, Gateway: true}
	if about, known := d.Plugins.Line(d.Name).Known(); known && about.Network.Scope != "" {
		traits.Scope = about.Network.Scope
	}
	return traits
}

// Check makes sure that the plugin is there.
func (d Driver) Check(ctx context.Context, _ *kernel.Host, _ network.Network) error {
	return d.Plugins.Wake(ctx, d.Name, wire.NetworkDriver)
}

// SkipGateways asks a plugin that wants to be asked.
func (d Driver) SkipGateways(ctx context.Context, n network.Network) (skip4, skip6 bool, err error) {
	line := d.Plugins.Line(d.Name)
	if about, known := line.Known(); !known || !about.Network.GwAllocChecker {
		return false, false, nil
	}
	var answer wire.GwAllocCheckResponse
	err = line.Call(ctx, "NetworkDriver.GwAllocCheck", wire.GwAllocCheckRequest{Options: announcement(n).Options}, &answer)
	return answer.SkipIPv4, answer.SkipIPv6, err
}

// Network plans the announcement of a network.
func (d Driver) Network(n network.Network) (op.Plan, error) {
	return op.Plan{{
		Why: "The network is the business of plugin " + d.Name + ": it is told of its name, options and pools.",
		Op:  CreateNetwork{party: d.party(), Request: announcement(n)},
	}}, nil
}

func announcement(n network.Network) wire.CreateNetworkRequest {
	generic := make(map[string]any, len(n.Options))
	for key, value := range n.Options {
		generic[key] = value
	}
	options := map[string]any{
		wire.OptionGeneric: generic, wire.OptionIPv4: n.IPv4, wire.OptionIPv6: n.IPv6,
		wire.OptionNetworkName: n.Name,
	}
	if n.Internal {
		options[wire.OptionInternal] = true
	}
	if len(n.Labels) > 0 {
		options[wire.OptionNetworkLabels] = n.Labels
	}
	request := wire.CreateNetworkRequest{NetworkID: string(n.ID), Options: options, IPv4Data: []wire.Pool{}, IPv6Data: []wire.Pool{}}
	space := spaceOf(n)
	for _, pool := range n.Pools {
		p := wire.Pool{AddressSpace: space, Pool: pool.Subnet.String()}
		bits := pool.Subnet.Bits()
		if pool.Gateway.IsValid() {
			p.Gateway = netip.PrefixFrom(pool.Gateway, bits).String()
		}
		for name, addr := range pool.Aux {
			if p.AuxAddresses == nil {
				p.AuxAddresses = make(map[string]string, len(pool.Aux))
			}
			p.AuxAddresses[name] = netip.PrefixFrom(addr, bits).String()
		}
		if pool.Subnet.Addr().Is4() {
			request.IPv4Data = append(request.IPv4Data, p)
		} else {
			request.IPv6Data = append(request.IPv6Data, p)
		}
	}
	return request
}

// spaceOf names the address space of a network as drivers know it: some insist on
// that of the IPAM driver null, since they find addresses themselves.
func spaceOf(n network.Network) string {
	switch {
	case n.AddressSpace != "":
		return n.AddressSpace
	case n.IPAMDriver == "null":
		return "null"
	case n.Scope == "global":
		return "GlobalDefault"
	}
	return "LocalDefault"
}

// Endpoint plans the two questions for a link: of the endpoint, and of the
// sandbox that it is for.
func (d Driver) Endpoint(n network.Network, e endpoint.Endpoint, s sandbox.Sandbox) (op.Plan, error) {
	before, err := d.introduction(n, e, s)
	if err != nil {
		return nil, err
	}
	return op.Plan{
		{
			Why: "Plugin " + d.Name + " is told of an endpoint and its addresses, and may add those that are open.",
			Op:  CreateEndpoint{party: d.party(), Network: before.Network, Request: before.Endpoint},
		},
		{
			Why: "It makes a link for the sandbox, and says what that is called, and where packets go.",
			Op: Join{party: d.party(), Told: before, Request: wire.JoinRequest{
				NetworkID: string(n.ID), EndpointID: string(e.ID), SandboxKey: kernel.Pin(s.Netns()), Options: about(e, s),
			}},
		},
	}, nil
}

// introduction is what a plugin is told of a network and an endpoint.
func (d Driver) introduction(n network.Network, e endpoint.Endpoint, s sandbox.Sandbox) (told, error) {
	options := about(e, s)
	own := make(map[string]any, len(options)+len(e.Config.Options)+1)
	for key, value := range options {
		own[key] = value
	}
	for key, value := range e.Config.Options {
		own[key] = value
	}
	if e.Config.MAC != "" {
		mac, err := net.ParseMAC(e.Config.MAC)
		if err != nil {
			return told{}, linkspan.Errorf(linkspan.ErrInvalid, "invalid MAC address: %w", err)
		}
		own[wire.OptionMAC] = base64.StdEncoding.EncodeToString(mac)
	}
	if len(s.Container.Servers) > 0 {
		own[wire.OptionDNSServers] = s.Container.Servers
	}
	iface := &wire.Interface{MacAddress: e.MAC}
	if e.IPv4.IsValid() {
		iface.Address = e.IPv4.String()
	}
	if e.IPv6.IsValid() {
		iface.AddressIPv6 = e.IPv6.String()
	}
	return told{announcement(n), wire.CreateEndpointRequest{
		NetworkID: string(n.ID), EndpointID: string(e.ID), Interface: iface, Options: own,
	}}, nil
}

// Answered plans what the engine does with the link: move, address and route it.
func (d Driver) Answered(n network.Network, e endpoint.Endpoint, s sandbox.Sandbox, asked op.Plan, free func(string) string) (endpoint.Endpoint, op.Plan, error) {
	w := wiring{inward: true}
	for _, step := range asked {
		switch o := step.Op.(type) {
		case CreateEndpoint:
			e = supplied(e, o.Answer)
		case Join:
			if o.Answer == nil {
				continue
			}
			var err error
			if w, err = readJoin(o.Answer); err != nil {
				return e, nil, err
			}
		}
	}
	e.Gateway4, e.Gateway6 = w.gateway4, w.gateway6
	e.Inward = w.inward && !n.Internal
	if w.source == "" {
		e.Interface = ""
		return e, nil, nil
	}
	if _, wanted := e.Config.Options[endpoint.OptionInterface]; !wanted {
		e.Interface = free(w.prefix)
	}
	return e, d.wire(e, s, w), nil
}

// supplied adds what the plugin chose. It was checked when the answer came.
func supplied(e endpoint.Endpoint, answer *wire.CreateEndpointResponse) endpoint.Endpoint {
	if answer == nil || answer.Interface == nil {
		return e
	}
	i := answer.Interface
	if mac, err := net.ParseMAC(i.MacAddress); err == nil {
		e.MAC = mac.String()
	}
	if prefix, err := netip.ParsePrefix(i.Address); err == nil {
		e.IPv4 = prefix
	}
	if prefix, err := netip.ParsePrefix(i.AddressIPv6); err == nil {
		e.IPv6 = prefix
	}
	return e
}

// wire plans the sandbox's end. Connected routes come first: a gateway may be
// reached by one.
func (d Driver) wire(e endpoint.Endpoint, s sandbox.Sandbox, w wiring) op.Plan {
	ns := s.Netns()
	plan := op.Plan{{
		Why: "The link that plugin " + d.Name + " named goes into the sandbox, where it is " + e.Interface + "; it goes back under its own name.",
		Op:  op.MoveLink{Link: w.source, NS: ns, As: e.Interface},
	}}
	if e.MAC != "" {
		plan = append(plan, op.Step{
			Why: "The MAC address that was agreed upon.",
			Op:  op.SetMAC{NS: ns, Link: e.Interface, MAC: e.MAC},
		})
	}
	if !e.IPv6.IsValid() {
		plan = append(plan, op.Step{
			Why: "Without an IPv6 lease there is no IPv6 on the interface, not even link-local.",
			Op:  op.SetSysctl{NS: ns, Key: "net/ipv6/conf/" + e.Interface + "/disable_ipv6", Value: "1", Optional: true},
		})
	}
	for _, lease := range []netip.Prefix{e.IPv4, e.IPv6} {
		if lease.IsValid() {
			plan = append(plan, op.Step{
				Why: "The address that was leased to this endpoint.",
				Op:  op.AddAddress{NS: ns, Link: e.Interface, Address: lease},
			})
		}
	}
	plan = append(plan, op.Step{Why: "The container's end is ready.", Op: op.SetUp{NS: ns, Link: e.Interface}})
	for _, to := range w.connected {
		if to == e.IPv4.Masked() || to == e.IPv6.Masked() {
			continue // the kernel made it with the address
		}
		plan = append(plan, op.Step{
			Why: "The plugin says that these addresses are on the link.",
			Op:  op.AddRoute{NS: ns, To: to, Link: e.Interface},
		})
	}
	for _, r := range w.routes {
		plan = append(plan, op.Step{
			Why: "The plugin says that these addresses are behind a neighbour.",
			Op:  op.AddRoute{NS: ns, To: r.to, Via: r.via, Link: e.Interface},
		})
	}
	return plan
}

// Outward plans the news that the sandbox's way out is by this endpoint.
func (d Driver) Outward(n network.Network, e endpoint.Endpoint, s sandbox.Sandbox) op.Plan {
	before, err := d.introduction(n, e, s)
	if err != nil {
		before = told{} // it was refused before; there is nothing to repeat
	}
	return op.Plan{{
		Why: "Plugin " + d.Name + " learns that the container's way out, and in by published ports, is by its network.",
		Op: ProgramExternal{party: d.party(), Told: before, Request: wire.ConnectivityRequest{
			NetworkID: string(n.ID), EndpointID: string(e.ID), Options: about(e, s),
		}},
	}}
}

// Describe asks the plugin for what Docker calls the operational data of an
// endpoint. Many know nothing of it, which is no failure.
func (d Driver) Describe(ctx context.Context, e endpoint.Endpoint) (map[string]any, error) {
	var answer wire.OperInfoResponse
	err := d.Plugins.Line(d.Name).Brief(ctx, "NetworkDriver.EndpointOperInfo", wire.EndpointRequest{NetworkID: string(e.Network), EndpointID: string(e.ID)}, &answer)
	if plugin.Unsupported(err) {
		return nil, nil
	}
	return answer.Value, err
}

// about is what a driver may know of the container. The ports are as Docker
// sends them, the rest is ours.
func about(e endpoint.Endpoint, s sandbox.Sandbox) map[string]any {
	exposed, published := []wire.TransportPort{}, []wire.PortBinding{}
	for _, text := range s.Container.Exposed {
		if wish, err := sandbox.ParseWish(text); err == nil {
			for i := range max(wish.Count, 1) {
				exposed = append(exposed, wire.TransportPort{Proto: protocol(wish.Protocol), Port: wish.Port + i})
			}
		}
	}
	for _, wish := range s.Container.Publish {
		published = append(published, bindings(wish)...)
	}
	options := map[string]any{
		wire.OptionExposedPorts: exposed, wire.OptionPortMap: published,
		wire.OptionContainerID: string(e.Owner), wire.OptionContainerName: e.Name,
	}
	if len(s.Container.Labels) > 0 {
		options[wire.OptionLabels] = s.Container.Labels
	}
	if name := e.Config.Options[endpoint.OptionInterface]; name != "" {
		options[wire.OptionInterface] = name
	}
	return options
}

func bindings(w sandbox.Wish) []wire.PortBinding {
	host := ""
	if w.Host.IsValid() {
		host = w.Host.String()
	}
	var all []wire.PortBinding
	for i := range max(w.Count, 1) {
		b := wire.PortBinding{Proto: protocol(w.Protocol), Port: w.Port + i, HostIP: host, HostPort: w.First, HostPortEnd: w.Last}
		if w.Count > 1 {
			b.HostPort, b.HostPortEnd = w.First+i, w.First+i
		}
		all = append(all, b)
	}
	return all
}

// protocol returns the number of a protocol (IANA, Assigned Internet Protocol
// Numbers).
func protocol(name string) int {
	switch name {
	case sandbox.UDP:
		return 17
	case sandbox.SCTP:
		return 132
	}
	return 6
}
