package controller

import (
	"net/netip"
	"slices"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/dns/resolvconf"
	"github.com/linkspan/linkspan/drivers"
	"github.com/linkspan/linkspan/ipam"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/store"
)

// The IPAM drivers that are not plugins.
const (
	ipamDefault = "default"
	ipamNull    = "null" // the addresses are nobody's business
)

// hostHoldings returns what a network chosen for the user must keep off: the
// prefixes that the host reaches over a link, or the network would cut it off
// from somebody, and its name servers.
func (c *Controller) hostHoldings() ([]ipam.Holding, error) {
	routes, err := c.o.Host.Routes()
	if err != nil {
		return nil, err
	}
	var taken []ipam.Holding
	for _, route := range routes {
		taken = append(taken, ipam.Holding{Prefix: route.To, Holder: "a route of the host on " + route.Link + " (see: ip route)"})
	}
	host, err := c.readServers()
	if err != nil {
		return nil, err
	}
	for _, server := range resolvconf.Parse(host.text).Nameservers {
		taken = append(taken, ipam.Host(server, "a name server of the host (see: cat /etc/resolv.conf)"))
	}
	return taken, nil
}

// asksIPAM tells whether a network needs a subnet that is chosen for it.
func asksIPAM(n network.Network) bool {
	if n.IPAMDriver == ipamNull {
		return false
	}
	for _, pool := range completePools(n) {
		if !pool.Subnet.IsValid() || pool.Subnet.Addr().IsUnspecified() {
			return true
		}
	}
	return false
}

// completePools returns the pools that a network wants: those that were given
// for a family that is on, and one of any subnet for each family without.
func completePools(n network.Network) []ipam.Pool {
	var pools []ipam.Pool
	for _, family := range []struct {
		on, ipv6 bool
	}{{n.IPv4, false}, {n.IPv6, true}} {
		if !family.on {
			continue // what was given for it is not used
		}
		given := false
		for _, pool := range n.Pools {
			if pool.Subnet.Addr().Is6() == family.ipv6 {
				pools, given = append(pools, pool), true
			}
		}
		if !given {
			pools = append(pools, ipam.Pool{Subnet: anySubnet(family.ipv6)})
		}
	}
	return pools
}

// anySubnet is the subnet of a pool that asks for one of the default size.
func anySubnet(ipv6 bool) netip.Prefix {
	if ipv6 {
		return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
}

// choosePools gives each pool of a new network its subnet and gateway, and
// refuses those that overlap another network, with its name. The pools come
// back with those of IPv4 first.
func (c *Controller) choosePools(t store.Tables, n network.Network, traits drivers.Traits, taken []ipam.Holding) ([]ipam.Pool, error) {
	if n.IPAMDriver == ipamNull {
		return nullPools(n)
	}
	networks := t.By.Holdings.All()
	var pools []ipam.Pool
	for _, wanted := range completePools(n) {
		pool, err := c.choosePool(n, wanted, networks, taken)
		if err != nil {
			return nil, err
		}
		if err = checkWire(t, n, traits, pool); err != nil {
			return nil, err
		}
		held := leases{tables: t, network: network.Network{Name: n.Name, Pools: []ipam.Pool{pool}}}
		held.findNeighbours()
		if traits.Gateway && !pool.Gateway.IsValid() && !n.Ungated(pool) {
			if pool.Gateway, err = pool.FirstGateway(held); err != nil {
				return nil, err
			}
		}
		if err = pool.CheckReserved(held); err != nil {
			return nil, err
		}
		networks = append(slices.Clip(networks), pool.Holding("network "+n.Name))
		pools = append(pools, pool)
	}
	return pools, nil
}

// nullPools are the pools of a network without IPAM: all addresses and none.
func nullPools(n network.Network) ([]ipam.Pool, error) {
	var pools []ipam.Pool
	for _, pool := range completePools(n) {
		switch {
		case pool.Subnet.Bits() != 0:
			return nil, linkspan.Errorf(linkspan.ErrInvalid, "null ipam driver does not handle specific address pool requests: leave --subnet %s out, or --ipam-driver null", pool.Subnet)
		case pool.Range.IsValid():
			return nil, linkspan.Errorf(linkspan.ErrInvalid, "null ipam driver does not handle specific address subpool requests: leave --ip-range %s out, or --ipam-driver null", pool.Range)
		}
		pools = append(pools, ipam.Pool{Subnet: pool.Subnet})
	}
	return pools, nil
}

func (c *Controller) choosePool(n network.Network, pool ipam.Pool, networks, taken []ipam.Holding) (ipam.Pool, error) {
	subnet := pool.Subnet
	if !subnet.Addr().IsUnspecified() {
		// What the user chose may lie on a route of the host's; that is theirs to know.
		return pool, pool.CheckOverlap(networks...)
	}
	bases := c.o.Defaults.Bases4
	if subnet.Addr().Is6() {
		bases = c.o.Defaults.Bases6
	}
	if n.Shared && subnet.Addr().Is4() {
		bases = ipam.ClusterBases()
	}
	all := slices.Clone(networks)
	for _, holding := range taken {
		at, _ := slices.BinarySearchFunc(all, holding, ipam.CompareHoldings)
		all = slices.Insert(all, at, holding)
	}
	var err error
	if subnet.Bits() == 0 {
		pool.Subnet, err = ipam.Choose(bases, all)
	} else {
		pool.Subnet, err = ipam.ChooseSize(bases, subnet, all)
	}
	return pool, err
}

// checkWire refuses a subnet that overlaps another network's where both have
// their gateway on a link of the host's: it would have two routes for one
// prefix. An ip-range lets networks share a subnet only on a wire of their own.
func checkWire(t store.Tables, n network.Network, traits drivers.Traits, pool ipam.Pool) error {
	if !traits.Gateway || !pool.Range.IsValid() {
		return nil // CheckOverlap has looked already
	}
	other, overlaps := ipam.Overlapping(pool.Subnet, t.By.Holdings.All()...)
	if !overlaps {
		return nil
	}
	family := "IPv4"
	if pool.Subnet.Addr().Is6() {
		family = "IPv6"
	}
	return linkspan.Errorf(linkspan.ErrForbidden, "cannot create network %s (%s): conflicts with %s: networks have overlapping %s: %s and %s; give another subnet",
		n.ID, n.Name, other.Holder, family, pool.Subnet, other.Prefix)
}
