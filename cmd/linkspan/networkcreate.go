package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"

	"github.com/moby/moby/api/types/network"
	"github.com/spf13/cobra"
)

// networkOptions are the flags of network create, as typed.
type networkOptions struct {
	driver, scope, configFrom, ipamDriver             string
	options, labels, ipamOptions, auxiliary           []string
	subnets, ranges, gateways                         []string
	internal, attachable, ingress, configOnly, v4, v6 bool
	v4Given, v6Given                                  bool
}

func networkCreateVerb() verb {
	var o networkOptions
	cmd := &cobra.Command{
		Use:   "create [OPTIONS] NETWORK",
		Short: "Create a network",
		Args:  cobra.ExactArgs(1),
	}
	flags := cmd.Flags()
	flags.StringVarP(&o.driver, "driver", "d", "bridge", "driver to manage the network")
	flags.StringArrayVarP(&o.options, "opt", "o", nil, "set driver specific options (`key=value`)")
	flags.StringArrayVar(&o.labels, "label", nil, "set metadata on a network (`key=value`)")
	flags.StringArrayVar(&o.subnets, "subnet", nil, "subnet in CIDR format that represents a network segment")
	flags.StringArrayVar(&o.ranges, "ip-range", nil, "allocate container addresses from a sub-range")
	flags.StringArrayVar(&o.gateways, "gateway", nil, "IPv4 or IPv6 gateway for the subnet")
	flags.StringArrayVar(&o.auxiliary, "aux-address", nil, "auxiliary IPv4 or IPv6 addresses used by network driver (`name=address`)")
	flags.StringVar(&o.ipamDriver, "ipam-driver", "default", "IP address management driver")
	flags.StringArrayVar(&o.ipamOptions, "ipam-opt", nil, "set IPAM driver specific options (`key=value`)")
	flags.BoolVar(&o.internal, "internal", false, "restrict external access to the network")
	flags.BoolVar(&o.attachable, "attachable", false, "enable manual container attachment")
	flags.BoolVar(&o.ingress, "ingress", false, "create swarm routing-mesh network")
	flags.StringVar(&o.scope, "scope", "", "control the network's scope")
	flags.BoolVar(&o.configOnly, "config-only", false, "create a configuration only network")
	flags.StringVar(&o.configFrom, "config-from", "", "the network from which to copy the configuration")
	flags.BoolVar(&o.v4, "ipv4", true, "enable or disable IPv4 address assignment")
	flags.BoolVar(&o.v6, "ipv6", false, "enable or disable IPv6 address assignment")
	return verb{cmd, func(cmd *cobra.Command, args []string) ([]call, error) {
		o.v4Given, o.v6Given = cmd.Flags().Changed("ipv4"), cmd.Flags().Changed("ipv6")
		request, err := o.request(args[0])
		if err != nil {
			return nil, err
		}
		return []call{{http.MethodPost, "/networks/create", request}}, nil
	}}
}

// request returns the body of POST /networks/create.
func (o networkOptions) request(name string) (network.CreateRequest, error) {
	options, err := keyValues("opt", o.options)
	if err != nil {
		return network.CreateRequest{}, err
	}
	labels, err := labelValues(o.labels)
	if err != nil {
		return network.CreateRequest{}, err
	}
	ipamOptions, err := keyValues("ipam-opt", o.ipamOptions)
	if err != nil {
		return network.CreateRequest{}, err
	}
	pools, err := o.pools()
	if err != nil {
		return network.CreateRequest{}, err
	}
	request := network.CreateRequest{
		Name:       name,
		Driver:     o.driver,
		Scope:      o.scope,
		IPAM:       &network.IPAM{Driver: o.ipamDriver, Options: ipamOptions, Config: pools},
		Internal:   o.internal,
		Attachable: o.attachable,
		Ingress:    o.ingress,
		ConfigOnly: o.configOnly,
		Options:    options,
		Labels:     labels,
	}
	if o.configFrom != "" {
		request.ConfigFrom = &network.ConfigReference{Network: o.configFrom}
	}
	if o.v4Given {
		request.EnableIPv4 = &o.v4
	}
	if o.v6Given {
		request.EnableIPv6 = &o.v6
	}
	return request, nil
}

// pools brings subnets, ranges, gateways and auxiliary addresses together.
// What the user typed in several flags belongs together by containment.
func (o networkOptions) pools() ([]network.IPAMConfig, error) {
	if len(o.subnets) < len(o.ranges) || len(o.subnets) < len(o.gateways) {
		return nil, errors.New("every ip-range or gateway must have a corresponding subnet")
	}
	pools := []network.IPAMConfig{}
	for _, text := range o.subnets {
		subnet, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("invalid subnet %q: want an address and a prefix length, such as 10.77.0.0/24", text)
		}
		for _, other := range pools {
			if other.Subnet.Overlaps(subnet) {
				return nil, fmt.Errorf("multiple overlapping subnet configuration is not supported: %s and %s", other.Subnet, subnet)
			}
		}
		pools = append(pools, network.IPAMConfig{Subnet: subnet})
	}
	for _, text := range o.ranges {
		if err := placeRange(pools, text); err != nil {
			return nil, err
		}
	}
	for _, text := range o.gateways {
		if err := placeGateway(pools, text); err != nil {
			return nil, err
		}
	}
	for _, text := range o.auxiliary {
		if err := placeAuxiliary(pools, text); err != nil {
			return nil, err
		}
	}
	return pools, nil
}

func poolOf(pools []network.IPAMConfig, addr netip.Addr) *network.IPAMConfig {
	for i := range pools {
		if pools[i].Subnet.Contains(addr) {
			return &pools[i]
		}
	}
	return nil
}

func placeRange(pools []network.IPAMConfig, text string) error {
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		return fmt.Errorf("invalid ip-range %q: want an address and a prefix length, such as 10.77.0.128/25", text)
	}
	pool := poolOf(pools, prefix.Addr())
	if pool == nil {
		return fmt.Errorf("no matching subnet for range %s", text)
	}
	if pool.IPRange.IsValid() {
		return fmt.Errorf("cannot configure multiple ranges (%s, %s) on the same subnet (%s)", text, pool.IPRange, pool.Subnet)
	}
	pool.IPRange = prefix
	return nil
}

func placeGateway(pools []network.IPAMConfig, text string) error {
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return fmt.Errorf("invalid gateway %q: want an IP address", text)
	}
	pool := poolOf(pools, addr)
	if pool == nil {
		return fmt.Errorf("no matching subnet for gateway %s", text)
	}
	if pool.Gateway.IsValid() {
		return fmt.Errorf("cannot configure multiple gateways (%s, %s) for the same subnet (%s)", text, pool.Gateway, pool.Subnet)
	}
	pool.Gateway = addr
	return nil
}

func placeAuxiliary(pools []network.IPAMConfig, text string) error {
	key, value, ok := strings.Cut(text, "=")
	if !ok || key == "" {
		return fmt.Errorf("invalid aux-address %q: want name=address", text)
	}
	addr, err := netip.ParseAddr(value)
	if err != nil {
		return fmt.Errorf("invalid aux-address %q: want an IP address after the =", text)
	}
	pool := poolOf(pools, addr)
	if pool == nil {
		return fmt.Errorf("no matching subnet for aux-address %s", value)
	}
	if pool.AuxAddress == nil {
		pool.AuxAddress = map[string]netip.Addr{}
	}
	pool.AuxAddress[key] = addr
	return nil
}

// keyValues reads values of a flag that takes key=value; a key alone has an
// empty value, as with Docker.
func keyValues(flag string, values []string) (map[string]string, error) {
	pairs := make(map[string]string, len(values))
	for _, text := range values {
		key, value, _ := strings.Cut(text, "=")
		if strings.TrimSpace(key) == "" {
			return nil, fmt.Errorf("invalid --%s %q: want key=value", flag, text)
		}
		pairs[key] = value
	}
	return pairs, nil
}

func labelValues(values []string) (map[string]string, error) { return keyValues("label", values) }
