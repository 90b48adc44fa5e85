package remote

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/drivers"
	"github.com/linkspan/linkspan/endpoint"
	"github.com/linkspan/linkspan/ipam"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/plugin/wire"
)

// Addresses asks one plugin for pools and addresses.
type Addresses struct {
	Name    string
	Plugins *Plugins
}

var _ drivers.Addresses = Addresses{}

func (a Addresses) party() party {
	return party{Plugin: a.Name, URL: a.Plugins.Socket(a.Name), plugins: a.Plugins}
}

// Network asks for the pools first, then for the gateways and other addresses
// that are reserved in them.
func (a Addresses) Network(n network.Network, avoid []string, answered op.Plan) (network.Network, op.Plan, error) {
	wanted := n.Pools
	if len(answered) == 0 {
		return n, a.askPools(n, wanted, avoid), nil
	}
	n.Pools, n.PoolIDs = make([]ipam.Pool, 0, len(wanted)), nil
	var gateways []netip.Addr // that the plugin gave of its own accord
	for i, pool := range wanted {
		asked, ok := answered[i].Op.(RequestPool)
		if !ok || asked.Answer == nil {
			return n, nil, fmt.Errorf("%w: pool %d was not answered", errUnparsable, i+1)
		}
		n.AddressSpace = asked.Answer.AddressSpace
		n.PoolIDs = append(n.PoolIDs, asked.Answer.PoolID)
		subnet, err := netip.ParsePrefix(asked.Answer.Pool)
		if err != nil {
			return n, nil, err
		}
		offered := netip.Addr{}
		if prefix, err := netip.ParsePrefix(asked.Answer.Data[wire.OptionGateway]); err == nil {
			offered = prefix.Addr()
		}
		gateways = append(gateways, offered)
		pool.Subnet = subnet
		n.Pools = append(n.Pools, pool)
	}
	reserved := answered[len(wanted):]
	if len(reserved) == 0 {
		plan, err := a.askReserved(n, gateways)
		if err != nil || len(plan) > 0 {
			return n, plan, err
		}
	}
	for i := range n.Pools {
		if !n.Pools[i].Gateway.IsValid() {
			n.Pools[i].Gateway = gateways[i]
		}
	}
	return withGateways(n, reserved), nil, nil
}

func (a Addresses) askPools(n network.Network, wanted []ipam.Pool, avoid []string) op.Plan {
	var plan op.Plan
	for _, pool := range wanted {
		o := RequestPool{party: a.party(), Global: n.Scope == "global", Request: wire.RequestPoolRequest{
			Options: maps.Clone(n.IPAMOptions), V6: pool.Subnet.Addr().Is6(),
		}}
		if o.Request.Options == nil {
			o.Request.Options = map[string]string{}
		}
		why := "Addresses are the business of plugin " + a.Name + ": it is asked for the pool that the user named."
		if pool.Subnet.Bits() > 0 {
			o.Request.Pool = pool.Subnet.String()
		} else {
			why = "Addresses are the business of plugin " + a.Name + ": it is asked for a pool."
			if n.Scope != "global" { // another host's routes are not known here
				o.Avoid = avoid
			}
		}
		if pool.Range.IsValid() {
			o.Request.SubPool = pool.Range.String()
		}
		plan = append(plan, op.Step{Why: why, Op: o})
	}
	return plan
}

// askReserved asks for the gateways that the user named or that nobody has, and
// for auxiliary addresses.
func (a Addresses) askReserved(n network.Network, gateways []netip.Addr) (op.Plan, error) {
	var plan op.Plan
	for i, pool := range n.Pools {
		if pool.Subnet.Bits() == 0 {
			continue // a pool in name only: the driver has its own addresses
		}
		request := wire.RequestAddressRequest{PoolID: n.PoolIDs[i], Options: map[string]string{wire.OptionAddressType: wire.OptionGateway}}
		if pool.Gateway.IsValid() {
			request.Address = pool.Gateway.String()
		}
		if pool.Gateway.IsValid() || !gateways[i].IsValid() && !n.Ungated(pool) {
			plan = append(plan, op.Step{
				Why: "The gateway's address must not be given to anybody else.",
				Op:  RequestAddress{party: a.party(), Request: request},
			})
		}
		for _, name := range slices.Sorted(maps.Keys(pool.Aux)) {
			addr := pool.Aux[name]
			if !pool.Subnet.Contains(addr) {
				return nil, linkspan.Errorf(linkspan.ErrForbidden, "auxiliary address: (%s:%s) must belong to the master pool: %s", name, addr, pool.Subnet)
			}
			plan = append(plan, op.Step{
				Why: "The user keeps this address for " + name + ".",
				Op:  RequestAddress{party: a.party(), Request: wire.RequestAddressRequest{PoolID: n.PoolIDs[i], Address: addr.String(), Options: map[string]string{}}},
			})
		}
	}
	return plan, nil
}

// Held returns the questions as they were answered when the network was made.
func (a Addresses) Held(n network.Network) op.Plan {
	var plan op.Plan
	for i, pool := range n.Pools {
		if i >= len(n.PoolIDs) {
			break
		}
		asked := a.askPools(n, []ipam.Pool{pool}, nil)[0]
		o := asked.Op.(RequestPool) //nolint:forcetypeassert // askPools makes no other
		o.Answer = &LeasedPool{AddressSpace: n.AddressSpace, RequestPoolResponse: wire.RequestPoolResponse{PoolID: n.PoolIDs[i], Pool: pool.Subnet.String()}}
		plan = append(plan, op.Step{Why: asked.Why, Op: o})
	}
	reserved, err := a.askReserved(n, make([]netip.Addr, len(n.Pools)))
	if err != nil {
		return plan // it was accepted once
	}
	for _, step := range reserved {
		o := step.Op.(RequestAddress) //nolint:forcetypeassert // askReserved makes no other
		if addr, err := netip.ParseAddr(o.Request.Address); err == nil {
			pool, _ := n.Pool(addr)
			o.Answer = &wire.RequestAddressResponse{Address: netip.PrefixFrom(addr, pool.Subnet.Bits()).String()}
		}
		plan = append(plan, op.Step{Why: step.Why, Op: o})
	}
	return plan
}

// withGateways fills in the gateways that were asked for.
func withGateways(n network.Network, reserved op.Plan) network.Network {
	for _, step := range reserved {
		asked, ok := step.Op.(RequestAddress)
		if !ok || asked.Answer == nil || asked.Request.Options[wire.OptionAddressType] != wire.OptionGateway {
			continue
		}
		prefix, err := netip.ParsePrefix(asked.Answer.Address)
		if i := slices.Index(n.PoolIDs, asked.Request.PoolID); err == nil && i >= 0 {
			n.Pools[i].Gateway = prefix.Addr()
		}
	}
	return n
}

// Endpoint asks for an address of each family that the network has.
func (a Addresses) Endpoint(n network.Network, e endpoint.Endpoint, answered op.Plan) (endpoint.Endpoint, op.Plan, error) {
	about, _ := a.Plugins.Line(a.Name).Known()
	if about.IPAM.RequiresMACAddress && e.MAC == "" {
		e.MAC = macOf(e.ID)
	}
	if len(answered) == 0 {
		plan, err := a.askLeases(n, e, about.IPAM.RequiresMACAddress)
		return e, plan, err
	}
	for _, step := range answered {
		asked, ok := step.Op.(RequestAddress)
		if !ok || asked.Answer == nil {
			continue
		}
		lease, err := netip.ParsePrefix(asked.Answer.Address)
		if err != nil {
			return e, nil, err
		}
		i := slices.Index(n.PoolIDs, asked.Request.PoolID)
		if i < 0 || !n.Pools[i].Subnet.Contains(lease.Addr()) {
			return e, nil, fmt.Errorf("%w: RequestAddress: %s is not in pool %s of plugin %s", errUnparsable, lease, asked.Request.PoolID, a.Name)
		}
		if lease.Addr().Is4() {
			e.IPv4, e.Gateway4 = lease, n.Pools[i].Gateway
		} else {
			e.IPv6, e.Gateway6 = lease, n.Pools[i].Gateway
		}
	}
	if n.Internal {
		e.Gateway4, e.Gateway6 = netip.Addr{}, netip.Addr{}
	}
	return e, nil, nil
}

func (a Addresses) askLeases(n network.Network, e endpoint.Endpoint, withMAC bool) (op.Plan, error) {
	options := map[string]string{wire.OptionEndpoint: e.Name}
	if withMAC {
		options[wire.OptionMAC] = e.MAC
	}
	var plan op.Plan
	for _, family := range []struct {
		on, ipv6 bool
		static   netip.Addr
	}{{n.IPv4, false, e.Config.IPv4}, {n.IPv6, true, e.Config.IPv6}} {
		if !family.on && !family.static.IsValid() {
			continue
		}
		o := RequestAddress{party: a.party(), Request: wire.RequestAddressRequest{Options: options}}
		for i, pool := range n.Pools {
			switch {
			case pool.Subnet.Addr().Is6() != family.ipv6, family.static.IsValid() && !pool.Subnet.Contains(family.static), i >= len(n.PoolIDs):
			case o.Request.PoolID == "":
				o.Request.PoolID = n.PoolIDs[i]
			default:
				o.Others = append(o.Others, n.PoolIDs[i])
			}
		}
		if family.static.IsValid() {
			o.Request.Address = family.static.String()
		}
		if o.Request.PoolID == "" && family.static.IsValid() {
			return nil, linkspan.Errorf(linkspan.ErrInvalid, "invalid endpoint settings:\nno configured subnet contains IP address %s", family.static)
		}
		plan = append(plan, op.Step{Why: "Plugin " + a.Name + " leases an address to the endpoint.", Op: o})
	}
	return plan, nil
}

// macOf returns a MAC address that follows from an endpoint's ID: a plugin that
// leases by MAC must be told the same one each time.
func macOf(id linkspan.ID) string {
	text := "02"
	for i := 0; i+1 < 10 && i+1 < len(id); i += 2 {
		text += ":" + string(id[i:i+2])
	}
	return text
}
