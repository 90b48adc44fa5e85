package controller

import (
	"context"
	"maps"
	"net/netip"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/ipam"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/store"
)

// ensureDefault makes the predefined networks that are missing: bridge, which
// containers join that name no other, and those of single-network drivers.
func (c *Controller) ensureDefault(ctx context.Context) error {
	spec, err := c.defaultSpec()
	if err != nil {
		return err
	}
	if err := c.dropOutdated(ctx, spec); err != nil {
		return err
	}
	if _, err := c.Network(spec.Name); err != nil && !c.o.Defaults.NoBridge {
		if _, err := c.createNetwork(ctx, spec); err != nil {
			return err
		}
	}
	for name, driver := range map[string]string{"host": "host", "none": "null"} {
		if c.o.Drivers[driver] == nil {
			continue
		}
		if _, err := c.Network(name); err == nil {
			continue
		}
		if _, err := c.createNetwork(ctx, NetworkSpec{Name: name, Driver: driver, IPv4: true}); err != nil {
			return err
		}
	}
	return nil
}

// dropOutdated removes the default network if the daemon's flags want another
// one than is there, so that it is made anew, or none. Containers that are attached to it
// keep it as it is, until a start at which there are none.
func (c *Controller) dropOutdated(ctx context.Context, spec NetworkSpec) error {
	row, err := c.networkRow(spec.Name)
	if err != nil || fits(row.Value, spec) && !c.o.Defaults.NoBridge {
		return nil //nolint:nilerr // there is none yet
	}
	err = c.o.Store.Update(func(t store.Tables) error {
		if err := c.refuseHeld(t, row.Value); err != nil {
			return err
		}
		t.Networks.SetPhase(row.Value.ID, store.Deleting)
		return nil
	})
	if err != nil {
		c.o.Logf("the daemon's new flags for network %s wait until no container is attached to it: %v", spec.Name, err)
		return nil
	}
	return c.finishNetwork(ctx, row)
}

// fits tells whether a network is what a spec asks for.
func fits(n network.Network, spec NetworkSpec) bool {
	if n.IPv4 != spec.IPv4 || n.IPv6 != spec.IPv6 || !maps.Equal(n.Options, spec.Options) {
		return false
	}
	for _, wanted := range spec.Pools {
		pool, there := n.PoolOf(wanted.Subnet.Addr().Is6())
		same := pool.Subnet == wanted.Subnet && pool.Range == wanted.Range && maps.Equal(pool.Aux, wanted.Aux)
		if !there || !same || (wanted.Gateway.IsValid() && pool.Gateway != wanted.Gateway) {
			return false
		}
	}
	return true
}

// defaultSpec is what the daemon's flags say about the network "bridge".
func (c *Controller) defaultSpec() (NetworkSpec, error) {
	d := c.o.Defaults
	spec := NetworkSpec{Name: "bridge", Driver: "bridge", IPv4: true, IPv6: d.IPv6, Options: d.Options}
	for _, family := range []struct {
		flag, address string
		fixed         netip.Prefix
		aux           string
		gateway       netip.Addr
	}{
		{"--bip", d.BridgeAddress, d.FixedCIDR4, network.AuxGateway4, d.Gateway4},
		{"--bip6", d.BridgeAddress6, d.FixedCIDR6, network.AuxGateway6, d.Gateway6},
	} {
		pool, given, err := defaultPool(family.flag, family.address, family.fixed)
		if err != nil {
			return spec, err
		}
		if !given {
			continue
		}
		if family.gateway.IsValid() {
			pool.Aux = map[string]netip.Addr{family.aux: family.gateway}
			if err := ipam.Validate(pool); err != nil {
				return spec, err
			}
		}
		spec.Pools = append(spec.Pools, pool)
	}
	return spec, nil
}

// defaultPool is the pool that a bridge address and the part of its subnet to
// lease from make. Without an address that part is the whole subnet.
func defaultPool(flag, text string, fixed netip.Prefix) (pool ipam.Pool, given bool, err error) {
	if text == "" {
		return ipam.Pool{Subnet: fixed}, fixed.IsValid(), nil
	}
	address, err := netip.ParsePrefix(text)
	if err != nil {
		return pool, false, linkspan.Errorf(linkspan.ErrInvalid, "invalid %s %q: %w", flag, text, err)
	}
	pool = ipam.Pool{Subnet: address.Masked(), Gateway: address.Addr()}
	if fixed.IsValid() && fixed != pool.Subnet {
		pool.Range = fixed
	}
	return pool, true, ipam.Validate(pool)
}
