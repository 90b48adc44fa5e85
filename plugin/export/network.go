package export

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/drivers"
	"github.com/linkspan/linkspan/endpoint"
	"github.com/linkspan/linkspan/firewall"
	"github.com/linkspan/linkspan/ipam"
	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/plugin/sdk"
	"github.com/linkspan/linkspan/plugin/wire"
	"github.com/linkspan/linkspan/sandbox"
)

// OptionDriver chooses among the drivers that are offered (docker network create
// -o linkspan.driver=bridge).
const OptionDriver = "linkspan.driver"

// Rules is the part of a firewall that networks need; firewall.Backend has it.
type Rules interface {
	Base() op.Plan
	Network(firewall.Network) op.Plan
	Ports(bridge string, ports []sandbox.Port) op.Plan
}

// Options are what is offered, and where. All fields must be set.
type Options struct {
	Host     *kernel.Host
	Drivers  map[string]drivers.Driver
	Default  string // the driver of networks that do not choose
	Firewall Rules
	Codec    *op.Codec
	Dir      string // of what must outlive this process
	Scope    string // "local" or "global"
	Bases4   []ipam.Base
	Bases6   []ipam.Base
	Logf     func(format string, args ...any)
}

// exporter answers an engine's calls.
type exporter struct {
	Options
	files    files
	executor op.Executor

	mu   sync.Mutex
	busy map[string]*sync.Mutex // by ID: calls about one thing take turns
	ipam allocator

	publishing sync.Mutex // held while a port is looked for among those of others
}

// New returns the plugin, after it has repaired what an earlier process made.
func New(ctx context.Context, o Options) (sdk.Plugin, error) {
	x := &exporter{Options: o, files: files{o.Dir, o.Codec}, executor: op.Executor{Host: o.Host}, busy: make(map[string]*sync.Mutex)}
	if err := x.recover(ctx); err != nil {
		return sdk.Plugin{}, err
	}
	if err := x.loadPools(); err != nil {
		return sdk.Plugin{}, err
	}
	return sdk.Plugin{
		Network: &sdk.Network{
			Scope: o.Scope, CreateNetwork: x.createNetwork, DeleteNetwork: x.deleteNetwork,
			CreateEndpoint: x.createEndpoint, DeleteEndpoint: x.deleteEndpoint, Join: x.join,
			Program: x.program, Revoke: x.revoke, Check: x.check,
		},
		IPAM: x.sdkIPAM(),
	}, nil
}

// recover brings the kernel to what the files say. Endpoints are left alone:
// their engine knows whether they still live.
func (x *exporter) recover(ctx context.Context) error {
	if err := x.ensure(ctx, x.Firewall.Base()); err != nil {
		return fmt.Errorf("preparing the host: %w", err)
	}
	for _, id := range x.files.ids("network") {
		r, _, err := get[network.Network](x.files, "network", id)
		if err == nil {
			err = x.ensure(ctx, r.Plan)
		}
		if err != nil {
			x.Logf("restoring network %s: %v", id, err)
		}
	}
	for _, id := range x.files.ids("ports") {
		r, _, err := get[[]sandbox.Port](x.files, "ports", id)
		if err == nil {
			err = x.ensure(ctx, r.Plan)
		}
		if err != nil {
			x.Logf("restoring the ports of endpoint %s: %v", id, err)
		}
	}
	return nil
}

// ensure does the steps of a plan that are not done.
func (x *exporter) ensure(ctx context.Context, plan op.Plan) error {
	for _, step := range plan {
		if step.Op.Check(ctx, x.Host) == nil {
			continue
		}
		if err := x.executor.Do(ctx, op.Plan{step}); err != nil {
			return err
		}
	}
	return nil
}

// alone makes calls about one thing take turns.
func (x *exporter) alone(id string) (done func()) {
	x.mu.Lock()
	turn := x.busy[id]
	if turn == nil {
		turn = &sync.Mutex{}
		x.busy[id] = turn
	}
	x.mu.Unlock()
	turn.Lock()
	return turn.Unlock
}

func (x *exporter) createNetwork(ctx context.Context, q wire.CreateNetworkRequest) error {
	defer x.alone(q.NetworkID)()
	if _, known, err := get[network.Network](x.files, "network", q.NetworkID); known || err != nil {
		return err // an engine that asks again gets what it has
	}
	n, err := x.networkOf(q)
	if err != nil {
		return err
	}
	driver := x.Drivers[n.Driver]
	if err := driver.Check(ctx, x.Host, n); err != nil {
		return err
	}
	plan, err := driver.Network(n)
	if err != nil {
		return err
	}
	if filtered, ok := driver.(drivers.Filtered); ok {
		rules, err := filtered.Rules(n)
		if err != nil {
			return err
		}
		plan = slices.Concat(x.Firewall.Network(rules), plan)
	}
	if err := put(x.files, "network", q.NetworkID, record[network.Network]{n, plan}); err != nil {
		return err
	}
	if err := x.executor.Do(ctx, plan); err != nil {
		return errors.Join(err, x.files.drop("network", q.NetworkID))
	}
	return nil
}

// networkOf reads an announcement.
func (x *exporter) networkOf(q wire.CreateNetworkRequest) (network.Network, error) {
	n := network.Network{
		ID: linkspan.ID(q.NetworkID), Name: linkspan.ID(q.NetworkID).Short(), Scope: x.Scope, Options: make(map[string]string),
		IPv4: len(q.IPv4Data) > 0, IPv6: len(q.IPv6Data) > 0, MAC: macOf(q.NetworkID),
	}
	n.Internal, _ = q.Options[wire.OptionInternal].(bool)
	if name, ok := q.Options[wire.OptionNetworkName].(string); ok {
		n.Name = name
	}
	generic, _ := q.Options[wire.OptionGeneric].(map[string]any)
	for key, value := range generic {
		n.Options[key] = fmt.Sprint(value)
	}
	n.Driver = x.Default
	if chosen := n.Options[OptionDriver]; chosen != "" {
		n.Driver = chosen
	}
	if x.Drivers[n.Driver] == nil {
		return n, fmt.Errorf("option %s: there is no driver %q here", OptionDriver, n.Driver)
	}
	for _, pool := range slices.Concat(q.IPv4Data, q.IPv6Data) {
		subnet, err := netip.ParsePrefix(pool.Pool)
		if err != nil {
			return n, fmt.Errorf("pool %q: %w", pool.Pool, err)
		}
		p := ipam.Pool{Subnet: subnet.Masked()}
		if pool.Gateway != "" {
			gateway, err := netip.ParsePrefix(pool.Gateway)
			if err != nil {
				return n, fmt.Errorf("gateway %q: %w", pool.Gateway, err)
			}
			p.Gateway = gateway.Addr()
		}
		n.Pools = append(n.Pools, p)
	}
	return n, nil
}

func (x *exporter) deleteNetwork(ctx context.Context, q wire.NetworkRequest) error {
	defer x.alone(q.NetworkID)()
	r, known, err := get[network.Network](x.files, "network", q.NetworkID)
	if !known || err != nil {
		return err
	}
	if err := x.executor.Undo(ctx, r.Plan); err != nil {
		return err
	}
	return x.files.drop("network", q.NetworkID)
}

func (x *exporter) createEndpoint(_ context.Context, q wire.CreateEndpointRequest) (wire.CreateEndpointResponse, error) {
	defer x.alone(q.EndpointID)()
	var answer wire.CreateEndpointResponse
	_, known, err := get[network.Network](x.files, "network", q.NetworkID)
	if err != nil {
		return answer, err
	}
	if !known {
		return answer, fmt.Errorf("network %s is not known here", q.NetworkID)
	}
	e := endpoint.Endpoint{
		ID: linkspan.ID(q.EndpointID), Network: linkspan.ID(q.NetworkID), Sandbox: linkspan.ID(q.EndpointID),
		Interface: "eth0", MAC: macOf(q.EndpointID), HostMAC: macOf("h" + q.EndpointID),
	}
	given := q.Interface
	if given == nil {
		given = &wire.Interface{}
	}
	if given.MacAddress == "" {
		answer.Interface = &wire.Interface{MacAddress: e.MAC}
	} else if e.MAC, err = endpoint.ParseMAC(given.MacAddress); err != nil {
		return answer, err
	}
	for text, lease := range map[string]*netip.Prefix{given.Address: &e.IPv4, given.AddressIPv6: &e.IPv6} {
		if text == "" {
			continue
		}
		if *lease, err = netip.ParsePrefix(text); err != nil {
			return answer, fmt.Errorf("address %q: %w", text, err)
		}
	}
	return answer, put(x.files, "endpoint", q.EndpointID, record[endpoint.Endpoint]{Value: e})
}

// join makes the link in a namespace that waits for nobody, and brings it out.
func (x *exporter) join(ctx context.Context, q wire.JoinRequest) (wire.JoinResponse, error) {
	defer x.alone(q.EndpointID)()
	var answer wire.JoinResponse
	r, known, err := get[endpoint.Endpoint](x.files, "endpoint", q.EndpointID)
	if err != nil {
		return answer, err
	}
	n, networkKnown, err := get[network.Network](x.files, "network", q.NetworkID)
	if err != nil {
		return answer, err
	}
	if !known || !networkKnown {
		return answer, fmt.Errorf("endpoint %s of network %s is not known here", q.EndpointID, q.NetworkID)
	}
	e := r.Value
	waiting := sandbox.Sandbox{ID: e.ID}
	if r.Plan, err = x.Drivers[n.Value.Driver].Endpoint(n.Value, e, waiting); err != nil {
		return answer, err
	}
	if err := put(x.files, "endpoint", q.EndpointID, r); err != nil {
		return answer, err
	}
	place := op.AddNetns{Name: waiting.Netns()}
	if err := place.Do(ctx, x.Host); err != nil {
		return answer, err
	}
	defer place.Undo(context.WithoutCancel(ctx), x.Host) //nolint:errcheck // an empty namespace harms nobody, and DeleteEndpoint removes it
	if err := x.executor.Do(ctx, r.Plan); err != nil {
		return answer, err
	}
	out := op.MoveLink{Link: outside(e), NS: waiting.Netns(), As: e.Interface}
	if err := out.Undo(ctx, x.Host); err != nil {
		return answer, errors.Join(err, x.executor.Undo(ctx, r.Plan))
	}
	answer.InterfaceName = &wire.InterfaceName{SrcName: out.Link, DstPrefix: "eth"}
	answer.Gateway, answer.GatewayIPv6 = gateways(n.Value)
	answer.DisableGatewayService = true
	return answer, nil
}

// outside is what the link of an endpoint is called while it waits for its engine.
func outside(e endpoint.Endpoint) string { return "lks" + e.ID.Prefix(7) }

func gateways(n network.Network) (four, six string) {
	for _, pool := range n.Pools {
		switch {
		case !pool.Gateway.IsValid() || n.Internal:
		case pool.Gateway.Is4():
			four = pool.Gateway.String()
		default:
			six = pool.Gateway.String()
		}
	}
	return four, six
}

func (x *exporter) deleteEndpoint(ctx context.Context, q wire.EndpointRequest) error {
	defer x.alone(q.EndpointID)()
	r, known, err := get[endpoint.Endpoint](x.files, "endpoint", q.EndpointID)
	if !known || err != nil {
		return err
	}
	if err := x.revokeAlone(ctx, q.EndpointID); err != nil {
		return err
	}
	// The link came back to the host. A driver may look for it where it was made.
	place := op.AddNetns{Name: sandbox.Sandbox{ID: r.Value.ID}.Netns()}
	back := op.MoveLink{Link: outside(r.Value), NS: place.Name, As: r.Value.Interface}
	if _, err := x.Host.MAC("", back.Link); err == nil {
		if err := errors.Join(place.Undo(ctx, x.Host), place.Do(ctx, x.Host), back.Do(ctx, x.Host)); err != nil {
			return err
		}
	}
	if err := errors.Join(x.executor.Undo(ctx, r.Plan), place.Undo(ctx, x.Host)); err != nil {
		return err
	}
	return x.files.drop("endpoint", q.EndpointID)
}

// check finds the host's part of an endpoint: the rest is in the engine's
// sandbox, where only the engine can look.
func (x *exporter) check(ctx context.Context, q wire.EndpointRequest) (wire.CheckResponse, error) {
	answer := wire.CheckResponse{Problems: []string{}}
	n, known, err := get[network.Network](x.files, "network", q.NetworkID)
	if err != nil {
		return answer, err
	}
	if !known {
		answer.Problems = append(answer.Problems, "the network is not known here")
		return answer, nil
	}
	if err := x.executor.Check(ctx, n.Plan); err != nil {
		answer.Problems = append(answer.Problems, err.Error())
	}
	return answer, nil
}

// macOf returns a MAC address that follows from an ID.
func macOf(id string) string {
	sum := [5]byte{}
	for i := range len(id) {
		sum[i%5] = sum[i%5]*31 + id[i]
	}
	return fmt.Sprintf("02:%02x:%02x:%02x:%02x:%02x", sum[0], sum[1], sum[2], sum[3], sum[4])
}
