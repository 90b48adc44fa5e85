package controller

import (
	"context"
	"net/netip"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/ipam"
)

// ensureDefault makes the predefined networks that are missing: bridge, which
// containers join that name no other, and those of single-network drivers.
func (c *Controller) ensureDefault(ctx context.Context) error {
	if _, err := c.Network("bridge"); err != nil {
		spec, err := c.defaultSpec()
		if err != nil {
			return err
		}
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

// defaultSpec is what the daemon's flags say about the network "bridge".
func (c *Controller) defaultSpec() (NetworkSpec, error) {
	d := c.o.Defaults
	spec := NetworkSpec{Name: "bridge", Driver: "bridge", IPv4: true, Options: d.Options}
	if d.BridgeAddress != "" {
		address, err := netip.ParsePrefix(d.BridgeAddress)
		if err != nil {
			return spec, linkspan.Errorf(linkspan.ErrInvalid, "invalid --bip %q: %w", d.BridgeAddress, err)
		}
		spec.Pools = []ipam.Pool{{Subnet: address.Masked(), Gateway: address.Addr()}}
	}
	return spec, nil
}
