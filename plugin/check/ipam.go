package check

import (
	"context"
	"net/netip"

	"github.com/linkspan/linkspan/plugin"
	"github.com/linkspan/linkspan/plugin/wire"
)

// ipam tries an address allocator.
func (r *run) ipam(ctx context.Context, capabilities wire.IpamCapabilities) {
	r.say(OK, "IpamDriver.GetCapabilities", "wants MAC addresses: %v, wants requests repeated: %v", capabilities.RequiresMACAddress, capabilities.RequiresRequestReplay)
	var spaces wire.AddressSpaces
	if !r.must(ctx, "IpamDriver.GetDefaultAddressSpaces", nil, &spaces) {
		return
	}
	if spaces.LocalDefaultAddressSpace == "" {
		r.say(Broken, "IpamDriver.GetDefaultAddressSpaces", "LocalDefaultAddressSpace is empty")
	}
	r.pool(ctx, wire.RequestPoolRequest{AddressSpace: spaces.LocalDefaultAddressSpace, Pool: "198.18.78.0/24", Options: map[string]string{}})
	r.pool(ctx, wire.RequestPoolRequest{AddressSpace: spaces.LocalDefaultAddressSpace, Options: map[string]string{}})
	r.answers(ctx, "IpamDriver.RequestAddress", "a pool that never was", wire.RequestAddressRequest{PoolID: "no such pool"})
	r.answers(ctx, "IpamDriver.ReleasePool", "a pool that never was", wire.ReleasePoolRequest{PoolID: "no such pool"})
}

// pool tries the life of one pool.
func (r *run) pool(ctx context.Context, request wire.RequestPoolRequest) {
	const call = "IpamDriver.RequestPool"
	var pool wire.RequestPoolResponse
	if request.Pool == "" {
		if err := r.line.Call(ctx, call, request, &pool); plugin.Refused(err) {
			r.say(Note, call, "any pool: refused: %v", err)
			return
		}
	} else if !r.must(ctx, call, request, &pool) {
		return
	}
	defer r.must(ctx, "IpamDriver.ReleasePool", wire.ReleasePoolRequest{PoolID: pool.PoolID}, nil)
	subnet, err := netip.ParsePrefix(pool.Pool)
	switch {
	case pool.PoolID == "":
		r.say(Broken, call, "PoolID is empty")
		return
	case err != nil || subnet != subnet.Masked():
		r.say(Broken, call, "Pool %q: want a prefix without host bits", pool.Pool)
		return
	case request.Pool != "" && request.Pool != pool.Pool:
		r.say(Broken, call, "Pool %s where %s was asked for", pool.Pool, request.Pool)
	}
	first, ok := r.address(ctx, pool.PoolID, "", subnet)
	if !ok {
		return
	}
	if second, ok := r.address(ctx, pool.PoolID, "", subnet); ok {
		if first == second {
			r.say(Broken, "IpamDriver.RequestAddress", "%s was given twice", first)
		}
		r.must(ctx, "IpamDriver.ReleaseAddress", wire.ReleaseAddressRequest{PoolID: pool.PoolID, Address: second.String()}, nil)
	}
	if err := r.line.Call(ctx, "IpamDriver.RequestAddress", r.asking(pool.PoolID, first.String()), nil); err == nil {
		r.say(Broken, "IpamDriver.RequestAddress", "%s was given though it is taken", first)
	}
	r.must(ctx, "IpamDriver.ReleaseAddress", wire.ReleaseAddressRequest{PoolID: pool.PoolID, Address: first.String()}, nil)
	if again, ok := r.address(ctx, pool.PoolID, first.String(), subnet); ok {
		r.must(ctx, "IpamDriver.ReleaseAddress", wire.ReleaseAddressRequest{PoolID: pool.PoolID, Address: again.String()}, nil)
	}
}

func (r *run) asking(pool, address string) wire.RequestAddressRequest {
	return wire.RequestAddressRequest{PoolID: pool, Address: address, Options: map[string]string{
		wire.OptionEndpoint: "check", wire.OptionMAC: "02:42:c6:12:4e:02",
	}}
}

func (r *run) address(ctx context.Context, pool, wanted string, subnet netip.Prefix) (netip.Addr, bool) {
	const call = "IpamDriver.RequestAddress"
	var answer wire.RequestAddressResponse
	if !r.must(ctx, call, r.asking(pool, wanted), &answer) {
		return netip.Addr{}, false
	}
	prefix, err := netip.ParsePrefix(answer.Address)
	switch {
	case err != nil:
		r.say(Broken, call, "Address %q: want an address with a prefix length", answer.Address)
		return netip.Addr{}, false
	case !subnet.Contains(prefix.Addr()):
		r.say(Broken, call, "Address %s is not in pool %s", prefix, subnet)
	case wanted != "" && prefix.Addr().String() != wanted:
		r.say(Broken, call, "Address %s where %s was asked for", prefix, wanted)
	}
	return prefix.Addr(), true
}
