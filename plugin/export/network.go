package export

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/drivers"
	"github.com/linkspan/linkspan/ipam"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/plugin/wire"
)

// OptionDriver chooses among the drivers that are offered (docker network create
// -o linkspan.driver=bridge).
const OptionDriver = "linkspan.driver"

func (x *Exporter) createNetwork(ctx context.Context, q wire.CreateNetworkRequest) error {
	defer x.alone(q.NetworkID)()
	if _, known, err := get[network.Network](x.files, "network", q.NetworkID); known || err != nil {
		return err // an engine that asks again gets what it has
	}
	n, err := networkOf(q)
	if err != nil {
		return err
	}
	n.Scope, n.Driver = x.Scope, n.Options[OptionDriver]
	pools, err := x.poolsOf(q)
	if err != nil {
		return err
	}
	if len(pools) > 0 {
		return x.takePart(ctx, q, n, pools)
	}
	if n.Driver == "" {
		n.Driver = x.Default
	}
	if err := x.offered(n); err != nil {
		return err
	}
	plan, err := x.plan(ctx, n)
	if err != nil {
		return err
	}
	if err := put(x.files, "network", q.NetworkID, record[network.Network]{n, plan}); err != nil {
		return err
	}
	if err := x.executor.Do(ctx, plan); err != nil {
		return errors.Join(err, x.files.drop("network", q.NetworkID))
	}
	return nil
}

// offered refuses a driver that is not there, or whose networks are made in
// another way.
func (x *Exporter) offered(n network.Network) error {
	driver := x.Drivers[n.Driver]
	if driver == nil {
		return fmt.Errorf("option %s: there is no driver %q here", OptionDriver, n.Driver)
	}
	if _, spans := driver.(drivers.Spanning); spans {
		return fmt.Errorf("a network of driver %s spans hosts, so its addresses are from the cluster: docker network create -d linkspan --ipam-driver linkspan --ipam-opt %s=NAME …, with the same NAME on each host", n.Driver, OptionShared)
	}
	return nil
}

// plan returns what a network is on this host, unless it cannot be.
func (x *Exporter) plan(ctx context.Context, n network.Network) (op.Plan, error) {
	driver := x.Drivers[n.Driver]
	if err := driver.Check(ctx, x.Host, n); err != nil {
		return nil, err
	}
	plan, err := driver.Network(n)
	if err != nil {
		return nil, err
	}
	if filtered, ok := driver.(drivers.Filtered); ok {
		rules, err := filtered.Rules(n)
		if err != nil {
			return nil, err
		}
		plan = slices.Concat(x.Firewall.Network(rules), plan)
	}
	return plan, nil
}

// networkOf reads an announcement.
func networkOf(q wire.CreateNetworkRequest) (network.Network, error) {
	n := network.Network{
		ID: linkspan.ID(q.NetworkID), Name: linkspan.ID(q.NetworkID).Short(), Options: make(map[string]string),
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
	for _, announced := range slices.Concat(q.IPv4Data, q.IPv6Data) {
		pool, err := poolOf(announced)
		if err != nil {
			return n, err
		}
		n.Pools = append(n.Pools, pool)
	}
	return n, nil
}

func poolOf(announced wire.Pool) (ipam.Pool, error) {
	subnet, err := netip.ParsePrefix(announced.Pool)
	if err != nil {
		return ipam.Pool{}, fmt.Errorf("pool %q: %w", announced.Pool, err)
	}
	pool := ipam.Pool{Subnet: subnet.Masked()}
	if announced.Gateway != "" {
		gateway, err := netip.ParsePrefix(announced.Gateway)
		if err != nil {
			return pool, fmt.Errorf("gateway %q: %w", announced.Gateway, err)
		}
		pool.Gateway = gateway.Addr()
	}
	return pool, nil
}

func (x *Exporter) deleteNetwork(ctx context.Context, q wire.NetworkRequest) error {
	defer x.alone(q.NetworkID)()
	r, known, err := get[network.Network](x.files, "network", q.NetworkID)
	if !known || err != nil {
		return err
	}
	// An engine goes on when it could not take an endpoint down.
	left, err := x.endpointsOn(r.Value.ID)
	if err != nil {
		return err
	}
	for id := range left {
		if err := x.deleteEndpoint(ctx, wire.EndpointRequest{NetworkID: q.NetworkID, EndpointID: id}); err != nil {
			return err
		}
	}
	if err := x.executor.Undo(ctx, r.Plan); err != nil {
		return err
	}
	if r.Value.Shared {
		return x.leave(ctx, q.NetworkID, r.Value)
	}
	return x.files.drop("network", q.NetworkID)
}
