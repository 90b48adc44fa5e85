package plugintest

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"github.com/docker/go-plugins-helpers/ipam"
)

// IPAM is an allocator that hands out the lowest free address of pools that are
// cut from 10.200.0.0/16. Make one with NewIPAM.
type IPAM struct {
	// Hook is as in Network.
	Hook func(call string) error
	// RequiresMAC and, with it, nothing else: the library knows no replay.
	RequiresMAC bool

	mu    sync.Mutex
	calls []string
	next  int
	pools map[string]*ipamPool
	macs  map[string]string // by address
}

type ipamPool struct {
	prefix netip.Prefix
	taken  map[netip.Addr]bool
}

// NewIPAM returns an empty allocator.
func NewIPAM() *IPAM {
	return &IPAM{pools: make(map[string]*ipamPool), macs: make(map[string]string)}
}

// Handler returns what serves the driver.
func (i *IPAM) Handler() Handler { return ipam.NewHandler(i) }

// Calls returns the calls so far, in order.
func (i *IPAM) Calls() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Clone(i.calls)
}

// Left lists the pools and addresses that are taken.
func (i *IPAM) Left() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	var left []string
	for id, pool := range i.pools {
		left = append(left, "pool "+id)
		for addr := range pool.taken {
			left = append(left, "address "+addr.String())
		}
	}
	slices.Sort(left)
	return left
}

// Take reserves an address as if somebody else had asked for it; Drop frees it.
func (i *IPAM) Take(pool, addr string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.pools[pool].taken[netip.MustParseAddr(addr)] = true
}

// Drop is the reverse of Take.
func (i *IPAM) Drop(pool, addr string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.pools[pool].taken, netip.MustParseAddr(addr))
}

// MAC returns the MAC that an address was requested for.
func (i *IPAM) MAC(addr string) string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.macs[addr]
}

func (i *IPAM) called(name string) error {
	i.mu.Lock()
	i.calls = append(i.calls, name)
	hook := i.Hook
	i.mu.Unlock()
	if hook == nil {
		return nil
	}
	return hook(name)
}

// GetCapabilities answers whether MACs are wanted.
func (i *IPAM) GetCapabilities() (*ipam.CapabilitiesResponse, error) {
	return &ipam.CapabilitiesResponse{RequiresMACAddress: i.RequiresMAC}, i.called("GetCapabilities")
}

// GetDefaultAddressSpaces answers names of the driver's own.
func (i *IPAM) GetDefaultAddressSpaces() (*ipam.AddressSpacesResponse, error) {
	return &ipam.AddressSpacesResponse{LocalDefaultAddressSpace: "here", GlobalDefaultAddressSpace: "there"}, i.called("GetDefaultAddressSpaces")
}

// RequestPool takes the wanted pool, or the next one.
func (i *IPAM) RequestPool(r *ipam.RequestPoolRequest) (*ipam.RequestPoolResponse, error) {
	if err := i.called("RequestPool"); err != nil {
		return nil, err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if r.AddressSpace != "here" && r.AddressSpace != "there" {
		return nil, fmt.Errorf("no such address space: %s", r.AddressSpace)
	}
	text := r.Pool
	if text == "" {
		text = fmt.Sprintf("10.200.%d.0/24", i.next)
		if r.V6 {
			text = fmt.Sprintf("fd00:200:%x::/64", i.next)
		}
		i.next++
	}
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		return nil, err
	}
	id := r.AddressSpace + "/" + text
	if i.pools[id] != nil {
		return nil, fmt.Errorf("pool %s is taken", id)
	}
	i.pools[id] = &ipamPool{prefix: prefix, taken: make(map[netip.Addr]bool)}
	return &ipam.RequestPoolResponse{PoolID: id, Pool: text}, nil
}

// ReleasePool gives a pool back.
func (i *IPAM) ReleasePool(r *ipam.ReleasePoolRequest) error {
	if err := i.called("ReleasePool"); err != nil {
		return err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.pools[r.PoolID] == nil {
		return fmt.Errorf("no such pool: %s", r.PoolID)
	}
	delete(i.pools, r.PoolID)
	return nil
}

// RequestAddress takes the wanted address, or the lowest free one.
func (i *IPAM) RequestAddress(r *ipam.RequestAddressRequest) (*ipam.RequestAddressResponse, error) {
	if err := i.called("RequestAddress"); err != nil {
		return nil, err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	pool := i.pools[r.PoolID]
	if pool == nil {
		return nil, fmt.Errorf("no such pool: %s", r.PoolID)
	}
	addr := pool.prefix.Addr().Next()
	if r.Address != "" {
		var err error
		if addr, err = netip.ParseAddr(r.Address); err != nil {
			return nil, err
		}
		if pool.taken[addr] {
			return nil, fmt.Errorf("address %s is taken", addr)
		}
	}
	for pool.taken[addr] {
		addr = addr.Next()
	}
	pool.taken[addr] = true
	i.macs[addr.String()] = r.Options["com.docker.network.endpoint.macaddress"]
	return &ipam.RequestAddressResponse{Address: netip.PrefixFrom(addr, pool.prefix.Bits()).String()}, nil
}

// ReleaseAddress gives an address back.
func (i *IPAM) ReleaseAddress(r *ipam.ReleaseAddressRequest) error {
	if err := i.called("ReleaseAddress"); err != nil {
		return err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	pool := i.pools[r.PoolID]
	addr, err := netip.ParseAddr(r.Address)
	if pool == nil || err != nil || !pool.taken[addr] {
		return fmt.Errorf("address %s of pool %s is not taken", r.Address, r.PoolID)
	}
	delete(pool.taken, addr)
	return nil
}
