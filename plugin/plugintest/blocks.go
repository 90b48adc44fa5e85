package plugintest

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
)

// Blocks stands for a small allocator that cuts pools of 16 addresses from one
// block and takes no wishes. It knows no global address space, and breaks down
// over what it does not expect: a call ends without an answer, the plugin goes on.
type Blocks struct {
	double
	state sync.Mutex
	next  netip.Addr
	pools map[string]map[netip.Addr]bool // taken addresses by ID
}

// NewBlocks returns an allocator with nothing taken.
func NewBlocks() *Blocks {
	return &Blocks{next: netip.MustParseAddr("10.202.0.0"), pools: make(map[string]map[netip.Addr]bool)}
}

// Handler returns what serves the driver.
func (b *Blocks) Handler() Handler {
	return b.noted(Answers{
		"Plugin.Activate":                    fixed(map[string]any{"Implements": []string{"IpamDriver"}}),
		"IpamDriver.GetCapabilities":         fixed(map[string]any{"RequiresMACAddress": false}),
		"IpamDriver.GetDefaultAddressSpaces": fixed(map[string]any{"LocalDefaultAddressSpace": "minilocal", "GlobalDefaultAddressSpace": "null"}),
		"IpamDriver.RequestPool":             b.requestPool,
		"IpamDriver.ReleasePool":             b.releasePool,
		"IpamDriver.RequestAddress":          b.requestAddress,
		"IpamDriver.ReleaseAddress":          b.releaseAddress,
	})
}

// Left lists what is taken.
func (b *Blocks) Left() []string {
	b.state.Lock()
	defer b.state.Unlock()
	var left []string
	for id, taken := range b.pools {
		left = append(left, "pool "+id)
		for addr := range taken {
			left = append(left, "address "+addr.String())
		}
	}
	slices.Sort(left)
	return left
}

// Lose drops a pool, as a restart does.
func (b *Blocks) Lose(id string) {
	b.state.Lock()
	defer b.state.Unlock()
	delete(b.pools, id)
}

func (b *Blocks) requestPool(q Request) (any, error) {
	b.state.Lock()
	defer b.state.Unlock()
	switch {
	case q.Text("AddressSpace") != "minilocal":
		return nil, errors.New("cannot make requests to the nil address space")
	case q.Text("Pool") != "" || q.Text("SubPool") != "":
		return nil, errors.New("it does not support specific pool requests")
	case q["V6"] == true:
		return nil, errors.New("it does not handle IPv6")
	}
	pool := netip.PrefixFrom(b.next, 28)
	for range 16 {
		b.next = b.next.Next()
	}
	id := "minilocal:" + pool.String()
	b.pools[id] = make(map[netip.Addr]bool)
	return map[string]any{"PoolID": id, "Pool": pool.String(), "Data": nil}, nil
}

func (b *Blocks) releasePool(q Request) (any, error) {
	b.state.Lock()
	defer b.state.Unlock()
	if b.pools[q.Text("PoolID")] == nil {
		panic(http.ErrAbortHandler) // as a nil pointer would, but the server does not write home about it
	}
	delete(b.pools, q.Text("PoolID"))
	return struct{}{}, nil
}

func (b *Blocks) requestAddress(q Request) (any, error) {
	b.state.Lock()
	defer b.state.Unlock()
	taken := b.pools[q.Text("PoolID")]
	if taken == nil {
		return nil, fmt.Errorf("unable to parse pool ID: %s", q.Text("PoolID"))
	}
	pool := netip.MustParsePrefix(strings.TrimPrefix(q.Text("PoolID"), "minilocal:"))
	addr := pool.Addr().Next()
	if wanted, err := netip.ParseAddr(q.Text("Address")); err == nil {
		addr = wanted
	}
	for taken[addr] {
		addr = addr.Next()
	}
	taken[addr] = true
	return map[string]any{"Address": netip.PrefixFrom(addr, 28).String(), "Data": nil}, nil
}

func (b *Blocks) releaseAddress(q Request) (any, error) {
	b.state.Lock()
	defer b.state.Unlock()
	addr := netip.MustParseAddr(q.Text("Address"))
	for _, taken := range b.pools {
		if taken[addr] {
			delete(taken, addr)
			return struct{}{}, nil
		}
	}
	return nil, fmt.Errorf("release failed: %s is not taken", addr)
}
