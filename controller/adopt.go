package controller

import (
	"context"
	"net/netip"
	"slices"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/drivers"
	"github.com/linkspan/linkspan/ipam"
	"github.com/linkspan/linkspan/network"
)

// adopt looks whether the link that a network wants is there already, as a link
// of the user's own. Addresses that it has then say which subnet the network is,
// unless the user did.
func (c *Controller) adopt(ctx context.Context, n network.Network, driver drivers.Driver) (network.Network, error) {
	adopter, ok := driver.(drivers.Adopter)
	if !ok || n.ConfigOnly {
		return n, nil
	}
	found, err := adopter.Adopt(ctx, c.o.Host, n)
	if err != nil || found == nil {
		return n, err
	}
	n.Adopted = found
	for _, family := range []struct{ on, ipv6 bool }{{n.IPv4, false}, {n.IPv6, true}} {
		if _, given := n.PoolOf(family.ipv6); given || !family.on {
			continue
		}
		i := slices.IndexFunc(found.Addresses, func(p netip.Prefix) bool { return p.Addr().Is6() == family.ipv6 })
		if i >= 0 {
			n.Pools = append(slices.Clone(n.Pools), ipam.Pool{Subnet: found.Addresses[i].Masked(), Gateway: found.Addresses[i].Addr()})
		}
	}
	return n, nil
}

// adoptAgain looks at an adopted link anew: after a boot it may be another one.
func (c *Controller) adoptAgain(ctx context.Context, n network.Network, driver drivers.Driver) (network.Network, error) {
	if n.Adopted == nil {
		return n, nil
	}
	fresh := n
	fresh.Adopted = nil
	fresh, err := c.adopt(ctx, fresh, driver)
	if err == nil && fresh.Adopted == nil {
		err = linkspan.Errorf(linkspan.ErrNotFound, "the bridge that network %s was made on is missing: make it again, then restart the daemon", n.Name)
	}
	return fresh, err
}
