package export

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/ipam"
	"github.com/linkspan/linkspan/plugin/sdk"
	"github.com/linkspan/linkspan/plugin/wire"
)

// leased is a pool that an engine has, and what is taken of it.
type leased struct {
	Pool  ipam.Pool
	Taken map[netip.Addr]string // holder, for refusals; of a network in the cluster: the owner there

	// Of a network that spans hosts: its name in the cluster, its ID once it is there,
	// and the ID of the engine's network that is this host's part of it.
	Shared  string      `json:",omitempty"`
	Network linkspan.ID `json:",omitempty"`
	Of      string      `json:",omitempty"`

	id string
}

// allocator keeps the pools. Each is a file of its own.
type allocator struct {
	mu    sync.Mutex
	pools map[string]*leased
}

func (x *Exporter) loadPools() error {
	x.ipam.pools = make(map[string]*leased)
	for _, id := range x.files.ids("pool") {
		r, _, err := get[leased](x.files, "pool", id)
		if err != nil {
			return err
		}
		r.Value.id = id
		x.ipam.pools[id] = &r.Value
	}
	return nil
}

// addPool, keepPool and pool are for those who hold the allocator's lock, but for
// the last, which takes it.
func (x *Exporter) addPool(p *leased) (id string, err error) {
	p.id = linkspan.NewID().Prefix(16)
	if err := x.keepPool(p); err != nil {
		return "", err
	}
	x.ipam.pools[p.id] = p
	return p.id, nil
}

func (x *Exporter) keepPool(p *leased) error {
	return put(x.files, "pool", p.id, record[leased]{Value: *p})
}

func (x *Exporter) pool(id string) *leased {
	x.ipam.mu.Lock()
	defer x.ipam.mu.Unlock()
	return x.ipam.pools[id]
}

func (x *Exporter) sdkIPAM() *sdk.IPAM {
	return &sdk.IPAM{
		// The MAC tells which addresses are one endpoint's.
		Capabilities:   wire.IpamCapabilities{RequiresMACAddress: true},
		Spaces:         wire.AddressSpaces{LocalDefaultAddressSpace: "LinkspanLocal", GlobalDefaultAddressSpace: "LinkspanGlobal"},
		RequestPool:    x.requestPool,
		ReleasePool:    x.releasePool,
		RequestAddress: x.requestAddress,
		ReleaseAddress: x.releaseAddress,
	}
}

func (x *Exporter) requestPool(ctx context.Context, q wire.RequestPoolRequest) (wire.RequestPoolResponse, error) {
	var answer wire.RequestPoolResponse
	if name := q.Options[OptionShared]; name != "" {
		return x.requestShared(ctx, q, name)
	}
	taken, err := x.taken()
	if err != nil {
		return answer, err
	}
	x.ipam.mu.Lock()
	defer x.ipam.mu.Unlock()
	var held []ipam.Holding
	for id, other := range x.ipam.pools {
		held = append(held, other.Pool.Holding("pool "+id))
	}
	p := &leased{Taken: make(map[netip.Addr]string)}
	if p.Pool, err = x.choose(q, x.Bases4, held, taken); err != nil {
		return answer, err
	}
	id, err := x.addPool(p)
	if err != nil {
		return answer, err
	}
	return wire.RequestPoolResponse{PoolID: id, Pool: p.Pool.Subnet.String(), Data: map[string]string{}}, nil
}

// choose returns the pool that is asked for, or any, beside those that are held.
func (x *Exporter) choose(q wire.RequestPoolRequest, bases []ipam.Base, held, taken []ipam.Holding) (ipam.Pool, error) {
	var pool ipam.Pool
	var err error
	switch {
	case q.Pool != "":
		if pool, err = ipam.ParsePool(q.Pool, q.SubPool, "", nil); err == nil {
			err = pool.CheckOverlap(held...)
		}
	case q.V6:
		pool.Subnet, err = ipam.Choose(x.Bases6, append(held, taken...))
	default:
		pool.Subnet, err = ipam.Choose(bases, append(held, taken...))
	}
	return pool, err
}

// taken are the prefixes that the host reaches already.
func (x *Exporter) taken() ([]ipam.Holding, error) {
	routes, err := x.Host.Routes()
	if err != nil {
		return nil, err
	}
	var all []ipam.Holding
	for _, route := range routes {
		all = append(all, ipam.Holding{Prefix: route.To, Holder: "a route of the host on " + route.Link + " (see: ip route)"})
	}
	slices.SortFunc(all, ipam.CompareHoldings)
	return all, nil
}

func (x *Exporter) releasePool(ctx context.Context, q wire.ReleasePoolRequest) error {
	if p := x.pool(q.PoolID); p != nil && p.Shared != "" {
		return x.dropPool(ctx, q.PoolID)
	}
	x.ipam.mu.Lock()
	defer x.ipam.mu.Unlock()
	if x.ipam.pools[q.PoolID] == nil {
		return nil
	}
	if err := x.files.drop("pool", q.PoolID); err != nil {
		return err
	}
	delete(x.ipam.pools, q.PoolID)
	return nil
}

func (x *Exporter) requestAddress(ctx context.Context, q wire.RequestAddressRequest) (wire.RequestAddressResponse, error) {
	var answer wire.RequestAddressResponse
	if p := x.pool(q.PoolID); p != nil && p.Network != "" {
		addr, err := x.leaseShared(ctx, q, p)
		if err != nil {
			return answer, err
		}
		return wire.RequestAddressResponse{Address: netip.PrefixFrom(addr, p.Pool.Subnet.Bits()).String()}, nil
	}
	x.ipam.mu.Lock()
	defer x.ipam.mu.Unlock()
	pool := x.ipam.pools[q.PoolID]
	if pool == nil {
		return answer, fmt.Errorf("pool %s is not known here", q.PoolID)
	}
	holder := q.Options[wire.OptionEndpoint]
	if holder == "" {
		holder = "the engine"
	}
	gateway := q.Options[wire.OptionAddressType] == wire.OptionGateway
	if gateway {
		holder = "the gateway"
	}
	held := ipam.Used(pool.Taken)
	var addr netip.Addr
	var err error
	switch {
	case q.Address != "":
		if addr, err = netip.ParseAddr(q.Address); err == nil {
			err = pool.Pool.Claim(addr, held)
		}
	case gateway:
		addr, err = pool.Pool.FirstGateway(held)
	default:
		addr, err = pool.Pool.Take(held)
	}
	if err != nil {
		return answer, err
	}
	pool.Taken[addr] = holder
	if err := x.keepPool(pool); err != nil {
		delete(pool.Taken, addr)
		return answer, err
	}
	return wire.RequestAddressResponse{Address: netip.PrefixFrom(addr, pool.Pool.Subnet.Bits()).String()}, nil
}

func (x *Exporter) releaseAddress(ctx context.Context, q wire.ReleaseAddressRequest) error {
	addr, err := netip.ParseAddr(q.Address)
	if err != nil {
		return fmt.Errorf("address %q: %w", q.Address, err)
	}
	if p := x.pool(q.PoolID); p != nil && p.Network != "" {
		return x.returnShared(ctx, q, p, addr)
	}
	x.ipam.mu.Lock()
	defer x.ipam.mu.Unlock()
	pool := x.ipam.pools[q.PoolID]
	if pool == nil {
		return nil
	}
	delete(pool.Taken, addr)
	return x.keepPool(pool)
}
