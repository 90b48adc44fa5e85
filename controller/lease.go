package controller

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/drivers"
	"github.com/linkspan/linkspan/endpoint"
	"github.com/linkspan/linkspan/ipam"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/store"
)

// hostHoldings returns the prefixes that the host itself reaches over a link:
// a network on one of them would cut the host off from somebody.
func (c *Controller) hostHoldings() ([]ipam.Holding, error) {
	routes, err := c.o.Host.Routes()
	if err != nil {
		return nil, err
	}
	var taken []ipam.Holding
	for _, route := range routes {
		if route.Marked || route.To.Bits() == 0 {
			continue // our own networks are known by their rows
		}
		taken = append(taken, ipam.Holding{Prefix: route.To, Holder: "a route of the host on " + route.Link + " (see: ip route)"})
	}
	return taken, nil
}

// choosePools gives each pool of a new network its subnet and gateway, and
// refuses those that overlap another network, with its name.
func (c *Controller) choosePools(t store.Tables, n network.Network, traits drivers.Traits, taken []ipam.Holding) ([]ipam.Pool, error) {
	var networks []ipam.Holding
	for _, row := range t.Networks.All() {
		for _, pool := range row.Value.Pools {
			networks = append(networks, pool.Holding("network "+row.Value.Name))
		}
	}
	asked := n.Pools
	for _, family := range []struct {
		wanted, ipv6 bool
	}{{n.IPv4, false}, {n.IPv6, true}} {
		if _, given := poolOf(asked, family.ipv6); family.wanted && !given {
			asked = append(asked, ipam.Pool{Subnet: anySubnet(family.ipv6)})
		}
	}
	var pools []ipam.Pool
	for _, wanted := range asked {
		if ipv6 := wanted.Subnet.Addr().Is6(); (ipv6 && !n.IPv6) || (!ipv6 && !n.IPv4) {
			continue // given for a family that is off: not used
		}
		pool, err := c.choosePool(wanted, networks, taken)
		if err != nil {
			return nil, err
		}
		if traits.Gateway && !pool.Gateway.IsValid() {
			if pool.Gateway, err = pool.FirstGateway(nil); err != nil {
				return nil, err
			}
		}
		if err = pool.CheckReserved(nil); err != nil {
			return nil, err
		}
		networks = append(networks, pool.Holding("network "+n.Name))
		pools = append(pools, pool)
	}
	return pools, nil
}

// anySubnet is the subnet of a pool that asks for one of the default size.
func anySubnet(ipv6 bool) netip.Prefix {
	if ipv6 {
		return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
}

func (c *Controller) choosePool(pool ipam.Pool, networks, taken []ipam.Holding) (ipam.Pool, error) {
	subnet := pool.Subnet
	if !ipam.AnySize(subnet) && subnet.Bits() != 0 {
		// What the user chose may lie on a route of the host's; that is theirs to know.
		return pool, pool.CheckOverlap(networks...)
	}
	bases := c.o.Defaults.Bases4
	if subnet.Addr().Is6() {
		bases = c.o.Defaults.Bases6
	}
	all := append(append([]ipam.Holding(nil), networks...), taken...)
	var err error
	if subnet.Bits() == 0 {
		pool.Subnet, err = ipam.Choose(bases, all)
	} else {
		pool.Subnet, err = ipam.ChooseSize(bases, subnet, all)
	}
	return pool, err
}

func poolOf(pools []ipam.Pool, ipv6 bool) (ipam.Pool, bool) {
	return network.Network{Pools: pools}.PoolOf(ipv6)
}

// used returns who has which address of a network: live endpoints, and
// containers that want a static one for as long as they exist. The oldest of
// those that want the same has it. The asking container itself does not count.
func used(t store.Tables, n network.Network, asking linkspan.ID) ipam.Used {
	held := make(ipam.Used)
	since := make(map[netip.Addr]time.Time)
	for _, row := range t.Configs.All() {
		cfg := row.Value
		if cfg.Owner == asking {
			continue
		}
		for _, want := range cfg.Attachments {
			if !isNetwork(want, n) {
				continue
			}
			for _, addr := range []netip.Addr{want.IPv4, want.IPv6} {
				if old, ok := since[addr]; addr.IsValid() && (!ok || cfg.Created.Before(old)) {
					since[addr] = cfg.Created
					held[addr] = holder("container "+cfg.Name, n)
				}
			}
		}
	}
	for _, row := range t.Endpoints.All() {
		if e := row.Value; e.Network == n.ID {
			for _, addr := range e.Addrs() {
				held[addr] = holder("container "+e.Name, n)
			}
		}
	}
	return held
}

func holder(who string, n network.Network) string { return who + " on network " + n.Name }

// isNetwork tells whether an attachment means a network.
func isNetwork(want endpoint.Config, n network.Network) bool {
	if want.NetworkID != "" {
		return want.NetworkID == n.ID
	}
	return want.Network == n.Name || want.Network == string(n.ID)
}

// lease gives an endpoint an address of each of its network's families.
func lease(t store.Tables, n network.Network, e endpoint.Endpoint, cfg store.Config) (endpoint.Endpoint, error) {
	held := used(t, n, cfg.Owner)
	for _, family := range []struct {
		on, ipv6 bool
		want     netip.Addr
		lease    *netip.Prefix
		gateway  *netip.Addr
	}{
		{n.IPv4, false, e.Config.IPv4, &e.IPv4, &e.Gateway4},
		{n.IPv6, true, e.Config.IPv6, &e.IPv6, &e.Gateway6},
	} {
		if !family.on {
			if family.want.IsValid() {
				return e, linkspan.Errorf(linkspan.ErrInvalid, "invalid endpoint settings:\nno configured subnet contains IP address %s", family.want)
			}
			continue
		}
		pool, addr, err := leaseFrom(n, family.ipv6, family.want, held)
		if err != nil {
			return e, err
		}
		*family.lease = netip.PrefixFrom(addr, pool.Subnet.Bits())
		if !n.Internal {
			*family.gateway = pool.Gateway
		}
	}
	return e, nil
}

func leaseFrom(n network.Network, ipv6 bool, want netip.Addr, held ipam.Used) (ipam.Pool, netip.Addr, error) {
	if want.IsValid() {
		pool, err := ipam.Containing(want, n.Pools...)
		if err != nil {
			return pool, want, linkspan.Errorf(linkspan.ErrInvalid, "invalid endpoint settings:\nno configured subnet contains IP address %s: network %s has %s (see: linkspan network inspect %s)", want, n.Name, subnets(n), n.Name)
		}
		return pool, want, pool.Claim(want, held)
	}
	family := "IPv4"
	if ipv6 {
		family = "IPv6"
	}
	for _, pool := range n.Pools {
		if pool.Subnet.Addr().Is6() != ipv6 {
			continue
		}
		addr, err := pool.Take(held)
		if err == nil || !errors.Is(err, ipam.ErrExhausted) {
			return pool, addr, err
		}
	}
	return ipam.Pool{}, netip.Addr{}, linkspan.Errorf(linkspan.ErrUnavailable, "no available %s addresses on this network's address pools: %s (%s), %d in use (see: linkspan network inspect %s)", family, n.Name, n.ID, len(held), n.Name)
}

func subnets(n network.Network) string {
	text := ""
	for i, pool := range n.Pools {
		if i > 0 {
			text += ", "
		}
		text += fmt.Sprint(pool.Subnet)
	}
	return text
}
