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
	Taken map[netip.Addr]string // holder, for refusals
}

// allocator keeps the pools. Each is a file of its own.
type allocator struct {
	mu    sync.Mutex
	pools map[string]*leased
}

func (x *exporter) loadPools() error {
	x.ipam.pools = make(map[string]*leased)
	for _, id := range x.files.ids("pool") {
		r, _, err := get[leased](x.files, "pool", id)
		if err != nil {
			return err
		}
		x.ipam.pools[id] = &r.Value
	}
	return nil
}

func (x *exporter) keep(id string) error {
	return put(x.files, "pool", id, record[leased]{Value: *x.ipam.pools[id]})
}

func (x *exporter) sdkIPAM() *sdk.IPAM {
	return &sdk.IPAM{
		Spaces:         wire.AddressSpaces{LocalDefaultAddressSpace: "LinkspanLocal", GlobalDefaultAddressSpace: "LinkspanGlobal"},
		RequestPool:    x.requestPool,
		ReleasePool:    x.releasePool,
		RequestAddress: x.requestAddress,
		ReleaseAddress: x.releaseAddress,
	}
}

func (x *exporter) requestPool(_ context.Context, q wire.RequestPoolRequest) (wire.RequestPoolResponse, error) {
	var answer wire.RequestPoolResponse
	var pool ipam.Pool
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
	switch {
	case q.Pool != "":
		if pool, err = ipam.ParsePool(q.Pool, q.SubPool, "", nil); err == nil {
			err = pool.CheckOverlap(held...)
		}
	case q.V6:
		pool.Subnet, err = ipam.Choose(x.Bases6, append(held, taken...))
	default:
		pool.Subnet, err = ipam.Choose(x.Bases4, append(held, taken...))
	}
	if err != nil {
		return answer, err
	}
	id := string(linkspan.NewID().Prefix(16))
	x.ipam.pools[id] = &leased{Pool: pool, Taken: make(map[netip.Addr]string)}
	if err := x.keep(id); err != nil {
		delete(x.ipam.pools, id)
		return answer, err
	}
	return wire.RequestPoolResponse{PoolID: id, Pool: pool.Subnet.String(), Data: map[string]string{}}, nil
}

// taken are the prefixes that the host reaches already.
func (x *exporter) taken() ([]ipam.Holding, error) {
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

func (x *exporter) releasePool(_ context.Context, q wire.ReleasePoolRequest) error {
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

func (x *exporter) requestAddress(_ context.Context, q wire.RequestAddressRequest) (wire.RequestAddressResponse, error) {
	var answer wire.RequestAddressResponse
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
	if err := x.keep(q.PoolID); err != nil {
		delete(pool.Taken, addr)
		return answer, err
	}
	return wire.RequestAddressResponse{Address: netip.PrefixFrom(addr, pool.Pool.Subnet.Bits()).String()}, nil
}

func (x *exporter) releaseAddress(_ context.Context, q wire.ReleaseAddressRequest) error {
	addr, err := netip.ParseAddr(q.Address)
	if err != nil {
		return fmt.Errorf("address %q: %w", q.Address, err)
	}
	x.ipam.mu.Lock()
	defer x.ipam.mu.Unlock()
	pool := x.ipam.pools[q.PoolID]
	if pool == nil {
		return nil
	}
	delete(pool.Taken, addr)
	return x.keep(q.PoolID)
}
