package bridge

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/op"
)

// Adopt looks at the bridge that a user named (OptionName). It is adopted if it
// is there and a stranger's.
func (Driver) Adopt(_ context.Context, h *kernel.Host, n network.Network) (*network.Adopted, error) {
	o, err := parse(n)
	if err != nil || n.Options[OptionName] == "" {
		return nil, err
	}
	b, err := h.Standing(o.name)
	switch {
	case errors.Is(err, linkspan.ErrNotFound):
		return nil, nil
	case err != nil:
		return nil, err
	case b.Ours:
		return nil, nil // Check refuses it
	case b.Kind != "bridge":
		return nil, fmt.Errorf("existing interface %s is not a bridge but of kind %s (see: ip -d link show %s)", o.name, b.Kind, o.name)
	}
	found := &network.Adopted{MAC: b.MAC, Ports: b.Ports, Up: b.Up, Addresses: b.Addresses}
	for key, value := range map[string]*string{key6(o, "disable_ipv6"): &found.DisableIPv6, keyLocalnet(o): &found.RouteLocalnet} {
		if *value, err = h.ReadSysctl("", key); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// adoption plans what a bridge lacks that was there before. What it has, it
// keeps; its own switches of IPv6 and router advertisements are its owner's,
// unless the network needs IPv6.
func adoption(n network.Network, o options) op.Plan {
	was := n.Adopted
	adopt := op.AdoptBridge{Name: o.name}
	if was.Ports == 0 {
		adopt.MAC = was.MAC
	}
	plan := op.Plan{{Why: "The network is on a bridge that is there already. It stays when the network goes.", Op: adopt}}
	set := func(why, key, value, was string) {
		if was != value {
			plan = append(plan, op.Step{Why: why, Op: op.SetSysctl{Key: key, Value: value, Was: was}})
		}
	}
	if localnet(n, o) {
		set(whyLocalnet, keyLocalnet(o), "1", was.RouteLocalnet)
	}
	if n.IPv6 && o.mode6 != isolated {
		set("This network has IPv6, which was switched off on the bridge.", key6(o, "disable_ipv6"), "0", was.DisableIPv6)
	}
	for _, gateway := range gateways(n, o) {
		if !slices.Contains(was.Addresses, gateway) {
			plan = append(plan, op.Step{Why: whyGateway, Op: op.AddAddress{Link: o.name, Address: gateway, Adopted: true}})
		}
	}
	if !was.Up {
		keep := slices.DeleteFunc(slices.Clone(was.Addresses), func(p netip.Prefix) bool { return p.Addr().Is4() })
		plan = append(plan, op.Step{Why: "The bridge was down.", Op: op.Raise{Link: o.name, Keep: keep}})
	}
	return plan
}
