package export

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/ipam"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/plugin/wire"
	"github.com/linkspan/linkspan/store/cluster"
)

// requestShared gives a pool of a network that spans hosts: that of the network in
// the cluster or, if there is none of the name, one that it will be made with when
// the engine announces it.
func (x *Exporter) requestShared(ctx context.Context, q wire.RequestPoolRequest, name string) (wire.RequestPoolResponse, error) {
	var answer wire.RequestPoolResponse
	if x.Cluster == nil {
		return answer, linkspan.Errorf(linkspan.ErrUnavailable, "option %s: this plugin is in no cluster: start it with linkspan plugin serve --cluster-store etcd://HOST:2379", OptionShared)
	}
	if err := network.ValidateName(name); err != nil {
		return answer, fmt.Errorf("option %s: %w", OptionShared, err)
	}
	n, there, err := x.Cluster.Find(ctx, name)
	if err != nil {
		return answer, err
	}
	taken, err := x.taken()
	if err != nil {
		return answer, err
	}
	x.ipam.mu.Lock()
	stale, held, err := x.beside(name, q.V6)
	p := &leased{Shared: name, Taken: make(map[netip.Addr]string)}
	switch {
	case err != nil:
	case there:
		p.Network = n.ID
		if err = x.checkDriver(n); err == nil {
			p.Pool, err = sharedPool(n, q, append(held, taken...))
		}
	default:
		for _, other := range x.Cluster.Networks() {
			for _, pool := range other.Pools {
				held = append(held, pool.Holding("network "+other.Name+" of the cluster"))
			}
		}
		p.Pool, err = x.choose(q, ipam.ClusterBases(), held, taken)
	}
	id := ""
	if err == nil {
		id, err = x.addPool(p)
	}
	x.ipam.mu.Unlock()
	if err != nil {
		return answer, err
	}
	for _, old := range stale {
		if err := x.dropPool(ctx, old); err != nil {
			return answer, err
		}
	}
	answer = wire.RequestPoolResponse{PoolID: id, Pool: p.Pool.Subnet.String(), Data: map[string]string{}}
	if there && p.Pool.Gateway.IsValid() {
		answer.Data[wire.OptionGateway] = netip.PrefixFrom(p.Pool.Gateway, p.Pool.Subnet.Bits()).String()
	}
	return answer, nil
}

// beside returns what the pools here hold, and those that an engine asked for in
// the name of a network, and then made none. A network has one part on a host.
func (x *Exporter) beside(name string, ipv6 bool) (stale []string, held []ipam.Holding, err error) {
	for id, other := range x.ipam.pools {
		switch {
		case other.Shared == name && other.Of != "":
			return nil, nil, linkspan.Errorf(linkspan.ErrForbidden, "network %s of the cluster has a part on this host already: network %s of the engine (if the engine does not know it: curl --unix-socket SOCKET -d '{\"NetworkID\":\"%s\"}' http://plugin/NetworkDriver.DeleteNetwork)", name, linkspan.ID(other.Of).Short(), other.Of)
		case other.Shared == name && other.Pool.Subnet.Addr().Is6() == ipv6:
			stale = append(stale, id)
		default:
			held = append(held, other.Pool.Holding("pool "+id))
		}
	}
	return stale, held, nil
}

// sharedPool returns the pool of a network that is in the cluster, if it is what
// was asked for, and nothing on this host is in its way.
func sharedPool(n network.Network, q wire.RequestPoolRequest, held []ipam.Holding) (ipam.Pool, error) {
	pool, there := n.PoolOf(q.V6)
	if !there {
		family := map[bool]string{false: "IPv4", true: "IPv6"}[q.V6]
		return pool, linkspan.Errorf(linkspan.ErrConflict, "network %s is in the cluster without an %s subnet: create it here without one, too", n.Name, family)
	}
	asked, err := ipam.ParsePool(q.Pool, q.SubPool, "", nil)
	switch {
	case err != nil && q.Pool != "":
		return pool, err
	case q.Pool != "" && asked.Subnet != pool.Subnet:
		return pool, differs(n, "subnet", asked.Subnet, pool.Subnet)
	case q.SubPool != "" && asked.Range != pool.Range:
		return pool, differs(n, "ip-range", asked.Range, pool.Range)
	}
	alone := ipam.Pool{Subnet: pool.Subnet} // no two of these share a wire
	if err := alone.CheckOverlap(held...); err != nil {
		return pool, fmt.Errorf("network %s of the cluster cannot have a part on this host: %w", n.Name, err)
	}
	return pool, nil
}

// poolsOf returns the pools of an announced network that are of one that spans
// hosts: all or none.
func (x *Exporter) poolsOf(q wire.CreateNetworkRequest) ([]*leased, error) {
	x.ipam.mu.Lock()
	defer x.ipam.mu.Unlock()
	var found []*leased
	announced := slices.Concat(q.IPv4Data, q.IPv6Data)
	for _, each := range announced {
		for _, p := range x.ipam.pools {
			if p.Shared != "" && p.Of == "" && p.Pool.Subnet.String() == each.Pool {
				found = append(found, p)
			}
		}
	}
	for _, p := range found {
		if len(found) != len(announced) || p.Shared != found[0].Shared {
			return nil, linkspan.Errorf(linkspan.ErrInvalid, "the pools of the network are not all of network %s of the cluster (--ipam-opt %s=%s)", found[0].Shared, OptionShared, found[0].Shared)
		}
	}
	return found, nil
}

// bind makes a pool that of a network of the engine's. What it asked for before
// the network was in the cluster is held there now.
func (x *Exporter) bind(ctx context.Context, p *leased, id string, n network.Network) error {
	x.ipam.mu.Lock()
	pool, _ := n.PoolOf(p.Pool.Subnet.Addr().Is6())
	reserved := pool.Reserved()
	inCluster := p.Network != ""
	p.Of, p.Network, p.Pool = id, n.ID, pool
	var ahead []netip.Addr
	for addr := range p.Taken {
		if _, inRecord := reserved.Holder(addr); inRecord {
			delete(p.Taken, addr)
		} else if !inCluster {
			p.Taken[addr] = string(linkspan.NewID())
			ahead = append(ahead, addr)
		}
	}
	err := x.keepPool(p)
	x.ipam.mu.Unlock()
	for _, addr := range ahead {
		err = errors.Join(err, x.Cluster.Hold(ctx, n, x.owned(p, addr)))
	}
	return err
}

// unbind gives back what the engine holds of a network, whose part here is gone.
func (x *Exporter) unbind(ctx context.Context, network linkspan.ID) error {
	owners := make(map[linkspan.ID]bool)
	var errs []error
	x.ipam.mu.Lock()
	for _, p := range x.ipam.pools {
		if p.Shared != "" && p.Network == network {
			for _, owner := range p.Taken {
				owners[linkspan.ID(owner)] = true
			}
			p.Of = ""
			clear(p.Taken)
			errs = append(errs, x.keepPool(p))
		}
	}
	x.ipam.mu.Unlock()
	for owner := range owners {
		errs = append(errs, x.Cluster.Release(ctx, network, owner))
	}
	return errors.Join(errs...)
}

// leaseShared holds an address of a network that is in the cluster, for the engine.
// The MAC says which requests are about one endpoint: those for its two addresses,
// and one that is repeated since its answer got lost.
func (x *Exporter) leaseShared(ctx context.Context, q wire.RequestAddressRequest, p *leased) (netip.Addr, error) {
	defer x.alone("pool " + q.PoolID)()
	var asked netip.Addr
	var err error
	if q.Address != "" {
		if asked, err = netip.ParseAddr(q.Address); err != nil {
			return asked, fmt.Errorf("address %q: %w", q.Address, err)
		}
	}
	n, there := x.shared(p.Network)
	if !there {
		return asked, linkspan.Errorf(linkspan.ErrNotFound, "network %s is no more in the cluster: remove it here, too", p.Shared)
	}
	if gateway := p.Pool.Gateway; q.Options[wire.OptionAddressType] == wire.OptionGateway && gateway.IsValid() {
		if asked.IsValid() && asked != gateway {
			return asked, differs(n, "gateway", asked, gateway)
		}
		return gateway, nil
	}
	owner := linkspan.NewID()
	if mac := q.Options[wire.OptionMAC]; mac != "" {
		if err := x.checkMAC(n, mac, ""); err != nil {
			return asked, err
		}
		owner = ownerOfMAC(mac)
	}
	e := x.holding(n.ID, owner)
	has := &e.IPv4
	ipv6 := p.Pool.Subnet.Addr().Is6()
	if ipv6 {
		has = &e.IPv6
	}
	switch {
	case has.IsValid() && (!asked.IsValid() || asked == has.Addr()):
		return has.Addr(), nil
	case has.IsValid():
		return asked, linkspan.Errorf(linkspan.ErrConflict, "%s is held for MAC address %s already, and %s is asked for", has.Addr(), q.Options[wire.OptionMAC], asked)
	case asked.IsValid():
		*has = netip.PrefixFrom(asked, p.Pool.Subnet.Bits())
		err = x.Cluster.Hold(ctx, n, e)
	default:
		e, err = x.Cluster.HoldFree(ctx, n, e, ipv6)
		for _, addr := range e.Addresses() {
			if addr.Is6() == ipv6 {
				asked = addr
			}
		}
	}
	if err != nil {
		return asked, err
	}
	x.ipam.mu.Lock()
	defer x.ipam.mu.Unlock()
	p.Taken[asked] = string(owner)
	return asked, x.keepPool(p)
}

// returnShared gives an address back. An endpoint that still has it is one that
// the engine could not, or did not need to, take down, and has forgotten.
func (x *Exporter) returnShared(ctx context.Context, q wire.ReleaseAddressRequest, p *leased, addr netip.Addr) error {
	defer x.alone("pool " + q.PoolID)()
	x.ipam.mu.Lock()
	owner, held := p.Taken[addr]
	x.ipam.mu.Unlock()
	if !held {
		return nil
	}
	on, err := x.endpointsOn(p.Network)
	if err != nil {
		return err
	}
	for id, e := range on {
		if slices.Contains(e.Addrs(), addr) {
			if err := x.deleteEndpoint(ctx, wire.EndpointRequest{NetworkID: p.Of, EndpointID: id}); err != nil {
				return err
			}
		}
	}
	x.ipam.mu.Lock()
	delete(p.Taken, addr)
	err = x.keepPool(p)
	x.ipam.mu.Unlock()
	if err != nil {
		return err
	}
	rest := x.holding(p.Network, linkspan.ID(owner))
	if n, there := x.shared(p.Network); there && len(rest.Addresses()) > 0 {
		return x.Cluster.Hold(ctx, n, rest)
	}
	return x.Cluster.Release(ctx, p.Network, linkspan.ID(owner))
}

// dropPool gives a pool of a network that spans hosts back, and all that is held
// of it. That of a network which is there is of one that the engine has forgotten.
func (x *Exporter) dropPool(ctx context.Context, id string) error {
	defer x.alone("pool " + id)()
	p := x.pool(id)
	if p == nil {
		return nil
	}
	x.ipam.mu.Lock()
	of := p.Of
	x.ipam.mu.Unlock()
	if of != "" {
		if err := x.deleteNetwork(ctx, wire.NetworkRequest{NetworkID: of}); err != nil {
			return err
		}
	}
	x.ipam.mu.Lock()
	err := x.files.drop("pool", id)
	if err == nil {
		delete(x.ipam.pools, id)
	}
	x.ipam.mu.Unlock()
	if err != nil {
		return err
	}
	var errs []error
	for _, owner := range p.Taken {
		if rest := x.holding(p.Network, linkspan.ID(owner)); len(rest.Addresses()) == 0 && p.Network != "" {
			errs = append(errs, x.Cluster.Release(ctx, p.Network, linkspan.ID(owner)))
		}
	}
	return errors.Join(errs...)
}

// shared returns a network of the cluster, whether this host has its part or not.
func (x *Exporter) shared(id linkspan.ID) (network.Network, bool) {
	if n, there := x.part(id); there {
		return n, true
	}
	for _, n := range x.Cluster.Networks() {
		if n.ID == id {
			return n, true
		}
	}
	return network.Network{}, false
}

// holding returns what is held of a network for an owner.
func (x *Exporter) holding(network, owner linkspan.ID) cluster.Endpoint {
	for _, e := range x.held() {
		if e.Network == network && e.Owner == owner {
			return e
		}
	}
	return cluster.Endpoint{Network: network, Owner: owner, Name: nameOf(owner)}
}

// held returns all that is held of networks that span hosts.
func (x *Exporter) held() []cluster.Endpoint {
	type holder struct{ network, owner linkspan.ID }
	all := make(map[holder]cluster.Endpoint)
	x.ipam.mu.Lock()
	defer x.ipam.mu.Unlock()
	for _, p := range x.ipam.pools {
		if p.Network == "" {
			continue
		}
		for addr := range p.Taken {
			e := x.owned(p, addr)
			h := holder{e.Network, e.Owner}
			other := all[h]
			if addr.Is4() {
				e.IPv6 = other.IPv6
			} else {
				e.IPv4 = other.IPv4
			}
			all[h] = e
		}
	}
	return slices.Collect(maps.Values(all))
}

// owned is an address of a pool with its owner.
func (x *Exporter) owned(p *leased, addr netip.Addr) cluster.Endpoint {
	owner := linkspan.ID(p.Taken[addr])
	e := cluster.Endpoint{Network: p.Network, Owner: owner, Name: nameOf(owner)}
	prefix := netip.PrefixFrom(addr, p.Pool.Subnet.Bits())
	if addr.Is4() {
		e.IPv4 = prefix
	} else {
		e.IPv6 = prefix
	}
	return e
}

// ownerOf returns whom addresses of a network are held for.
func (x *Exporter) ownerOf(network linkspan.ID, addrs []netip.Addr) (linkspan.ID, error) {
	var owner linkspan.ID
	for _, e := range x.held() {
		for _, addr := range addrs {
			if e.Network != network || !slices.Contains(e.Addresses(), addr) {
				continue
			}
			if owner != "" && owner != e.Owner {
				return "", linkspan.Errorf(linkspan.ErrConflict, "%v were asked for without saying that they are one endpoint's: the engine must name the MAC address with them", addrs)
			}
			owner = e.Owner
		}
	}
	if owner == "" {
		return "", linkspan.Errorf(linkspan.ErrConflict, "none of %v is held for the engine: it must ask for addresses first (--ipam-driver linkspan)", addrs)
	}
	return owner, nil
}

// checkMAC refuses one that an endpoint of the network has.
func (x *Exporter) checkMAC(n network.Network, mac string, self linkspan.ID) error {
	for _, other := range x.Cluster.Endpoints(n.ID) {
		if other.MAC == mac && other.ID != self {
			return linkspan.Errorf(linkspan.ErrForbidden, "MAC address %s is in use on network %s: it is held by container %s on %s", mac, n.Name, other.Name, x.hostOf(other))
		}
	}
	return nil
}

// forget drops what was held and is somebody else's now.
func (x *Exporter) forget(lost cluster.Endpoint) {
	x.ipam.mu.Lock()
	defer x.ipam.mu.Unlock()
	for _, p := range x.ipam.pools {
		if p.Network == lost.Network {
			for _, addr := range lost.Addresses() {
				delete(p.Taken, addr)
			}
			if err := x.keepPool(p); err != nil {
				x.Logf("keeping a pool of network %s: %v", p.Shared, err)
			}
		}
	}
}

// ownerOfMAC returns the owner that stands for an endpoint before the engine has
// named it.
func ownerOfMAC(mac string) linkspan.ID { return linkspan.ID(strings.ReplaceAll(mac, ":", "")) }

// nameOf is what an owner is called by other hosts.
func nameOf(owner linkspan.ID) string {
	if len(owner) != 12 {
		return "of an engine"
	}
	var pairs []string
	for pair := range slices.Chunk([]byte(owner), 2) {
		pairs = append(pairs, string(pair))
	}
	return strings.Join(pairs, ":")
}
