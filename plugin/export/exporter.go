package export

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/drivers"
	"github.com/linkspan/linkspan/endpoint"
	"github.com/linkspan/linkspan/firewall"
	"github.com/linkspan/linkspan/ipam"
	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/peering"
	"github.com/linkspan/linkspan/plugin/sdk"
	"github.com/linkspan/linkspan/sandbox"
	"github.com/linkspan/linkspan/store/cluster"
)

// Rules is the part of a firewall that networks need; firewall.Backend has it.
type Rules interface {
	Base() op.Plan
	Network(firewall.Network) op.Plan
	Ports(bridge string, ports []sandbox.Port) op.Plan
}

// Options are what is offered, and where. All fields but Cluster must be set.
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
	Cluster  *cluster.Cluster // of networks that span hosts; nil: there are none
	Logf     func(format string, args ...any)
}

// Exporter answers an engine's calls.
type Exporter struct {
	Options
	files    files
	executor op.Executor
	peers    *peering.Tables

	mu    sync.Mutex
	busy  map[string]*sync.Mutex          // by ID: calls about one thing take turns
	parts map[linkspan.ID]network.Network // this host's parts of networks that span hosts
	ipam  allocator

	sockets map[string]kernel.Sockets // that hold published ports, by endpoint; guarded by publishing

	publishing sync.Mutex  // held while a port is looked for among those of others
	leaving    sync.Mutex  // held while networks are left
	spread     sync.Mutex  // held while peers are read and handed on: the last to do so knows most
	listed     atomic.Bool // the store was read at least once
}

// New returns the plugin, after it has repaired what an earlier process made.
func New(ctx context.Context, o Options) (*Exporter, error) {
	x := &Exporter{
		Options: o, files: files{o.Dir, o.Codec}, executor: op.Executor{Host: o.Host},
		busy: make(map[string]*sync.Mutex), parts: make(map[linkspan.ID]network.Network), sockets: make(map[string]kernel.Sockets),
	}
	x.peers = peering.New(o.Host, &x.executor, o.Logf)
	if err := x.recover(ctx); err != nil {
		return nil, err
	}
	if err := x.loadPools(); err != nil {
		return nil, err
	}
	if x.Cluster != nil {
		x.resume()
	}
	return x, nil
}

// Plugin returns what answers the calls.
func (x *Exporter) Plugin() sdk.Plugin {
	return sdk.Plugin{
		Network: &sdk.Network{
			Scope: x.Scope, CreateNetwork: x.createNetwork, DeleteNetwork: x.deleteNetwork,
			CreateEndpoint: x.createEndpoint, DeleteEndpoint: x.deleteEndpoint, Join: x.join,
			Program: x.program, Revoke: x.revoke, Check: x.check,
		},
		IPAM: x.sdkIPAM(),
	}
}

// Serve listens on a socket, and keeps networks that span hosts in step with the
// cluster, until ctx ends. What was made stays.
func (x *Exporter) Serve(ctx context.Context, socket string) error {
	ctx, stop := context.WithCancel(ctx)
	var following sync.WaitGroup
	if x.Cluster != nil {
		following.Go(func() { x.peers.Guard(ctx) })
		following.Go(func() { x.follow(ctx) })
	}
	err := x.Plugin().Serve(ctx, socket)
	stop()
	following.Wait()
	x.publishing.Lock()
	defer x.publishing.Unlock()
	for id, sockets := range x.sockets {
		sockets.Close()
		delete(x.sockets, id)
	}
	return err
}

// recover brings the kernel to what the files say. Endpoints are left alone:
// their engine knows whether they still live.
func (x *Exporter) recover(ctx context.Context) error {
	if err := x.ensure(ctx, x.Firewall.Base()); err != nil {
		return fmt.Errorf("preparing the host: %w", err)
	}
	for _, id := range x.files.ids("network") {
		r, _, err := get[network.Network](x.files, "network", id)
		switch {
		case err != nil:
		case r.Value.Shared && x.Cluster == nil:
			return linkspan.Errorf(linkspan.ErrUnavailable, "network %s of the engine is a part of network %s, which spans hosts: start linkspan plugin serve with the --cluster-store that it had", linkspan.ID(id).Short(), r.Value.Name)
		case r.Value.Shared && r.Plan == nil:
			err = x.abandon(id, r.Value)
		default:
			if err = x.ensure(ctx, r.Plan); r.Value.Shared {
				x.parts[r.Value.ID] = r.Value
			}
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
		if err == nil {
			x.sockets[id], err = x.Host.HoldPorts(holdsOf(r.Value))
		}
		if err != nil {
			x.Logf("restoring the ports of endpoint %s: %v", id, err)
		}
	}
	return nil
}

// ensure does the steps of a plan that are not done.
func (x *Exporter) ensure(ctx context.Context, plan op.Plan) error {
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
func (x *Exporter) alone(id string) (done func()) {
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

// endpointsOn returns the endpoints of a network, by what the engine calls them.
func (x *Exporter) endpointsOn(id linkspan.ID) (map[string]endpoint.Endpoint, error) {
	all := make(map[string]endpoint.Endpoint)
	for _, name := range x.files.ids("endpoint") {
		r, known, err := get[endpoint.Endpoint](x.files, "endpoint", name)
		if err != nil {
			return nil, err
		}
		if known && r.Value.Network == id {
			all[name] = r.Value
		}
	}
	return all, nil
}
