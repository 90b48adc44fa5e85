package main

import (
	"fmt"
	"net/http"
	"strconv"

	"github.com/moby/moby/api/types/network"
	"github.com/spf13/cobra"

	"github.com/linkspan/linkspan/api"
	record "github.com/linkspan/linkspan/network"
)

// updateOptions are the flags of network update, as typed.
type updateOptions struct {
	mtu                                      int
	options, withoutOptions, labels, without []string
	internal, attachable, v4, v6             bool
	pools                                    networkOptions
	mtuGiven, internalGiven, attachableGiven bool
	v4Given, v6Given                         bool
}

func networkUpdateVerb() verb {
	var o updateOptions
	cmd := &cobra.Command{
		Use:   "update [OPTIONS] NETWORK",
		Short: "Change a network in place, without disconnecting anybody",
		Long: "Change a network in place, without disconnecting anybody.\n\n" +
			"What is not named stays. A subnet is added to those that there are; IPv6, once on, stays on.\n" +
			"A failure, or a crash at any step, leaves the network as it was.",
		Args: cobra.ExactArgs(1),
	}
	flags := cmd.Flags()
	flags.IntVar(&o.mtu, "mtu", 0, "largest packet, in `bytes`, of the network's link and of all containers; 0 for the kernel's default")
	flags.StringArrayVarP(&o.options, "opt", "o", nil, "set a driver specific option (`key=value`)")
	flags.StringArrayVar(&o.withoutOptions, "opt-rm", nil, "take a driver specific option away (`key`)")
	flags.StringArrayVar(&o.labels, "label", nil, "set metadata (`key=value`)")
	flags.StringArrayVar(&o.without, "label-rm", nil, "take metadata away (`key`)")
	flags.StringArrayVar(&o.pools.subnets, "subnet", nil, "add a subnet in CIDR format")
	flags.StringArrayVar(&o.pools.ranges, "ip-range", nil, "allocate container addresses from a sub-range of the new subnet")
	flags.StringArrayVar(&o.pools.gateways, "gateway", nil, "IPv4 or IPv6 gateway for the new subnet")
	flags.StringArrayVar(&o.pools.auxiliary, "aux-address", nil, "auxiliary addresses in the new subnet (`name=address`)")
	flags.BoolVar(&o.internal, "internal", false, "restrict external access to the network, or =false no longer")
	flags.BoolVar(&o.attachable, "attachable", false, "enable manual container attachment, or =false no longer")
	flags.BoolVar(&o.v4, "ipv4", false, "switch IPv4 on")
	flags.BoolVar(&o.v6, "ipv6", false, "switch IPv6 on")
	return verb{cmd, func(cmd *cobra.Command, args []string) ([]call, error) {
		given := cmd.Flags().Changed
		o.mtuGiven, o.internalGiven, o.attachableGiven = given("mtu"), given("internal"), given("attachable")
		o.v4Given, o.v6Given = given("ipv4"), given("ipv6")
		request, err := o.request()
		if err != nil {
			return nil, err
		}
		target, err := path("/linkspan/v1/networks/", args[0], "", nil)
		if err != nil {
			return nil, err
		}
		return []call{{http.MethodPatch, target, request}}, nil
	}}
}

// request returns the body of PATCH /linkspan/v1/networks/{id}.
func (o updateOptions) request() (api.NetworkUpdate, error) {
	var q api.NetworkUpdate
	var err error
	if q.Options, err = changes("opt", o.options, o.withoutOptions); err != nil {
		return q, err
	}
	if o.mtuGiven {
		if q.Options == nil {
			q.Options = make(map[string]*string)
		}
		q.Options[record.OptionMTU] = nil
		if o.mtu != 0 {
			text := strconv.Itoa(o.mtu)
			q.Options[record.OptionMTU] = &text
		}
	}
	if q.Labels, err = changes("label", o.labels, o.without); err != nil {
		return q, err
	}
	if q.Pools, err = o.pools.pools(); err != nil {
		return q, err
	}
	for _, flag := range []struct {
		given  bool
		value  bool
		target **bool
	}{
		{o.internalGiven, o.internal, &q.Internal},
		{o.attachableGiven, o.attachable, &q.Attachable},
		{o.v4Given, o.v4, &q.EnableIPv4},
		{o.v6Given, o.v6, &q.EnableIPv6},
	} {
		if flag.given {
			*flag.target = &flag.value
		}
	}
	return q, nil
}

// changes brings what is set and what is taken away together.
func changes(flag string, set, without []string) (map[string]*string, error) {
	values, err := keyValues(flag, set)
	if err != nil || len(set)+len(without) == 0 {
		return nil, err
	}
	all := make(map[string]*string, len(set)+len(without))
	for key, value := range values {
		all[key] = &value
	}
	for _, key := range without {
		if _, both := all[key]; both {
			return nil, fmt.Errorf("conflicting options: --%s %s and --%s-rm %s", flag, key, flag, key)
		}
		all[key] = nil
	}
	return all, nil
}

func newNetworkUpdate(a *app) *cobra.Command {
	return a.doing(networkUpdateVerb(), func(cmd *cobra.Command, args []string, daemon *engine, calls []call) error {
		var now network.Inspect
		if err := daemon.do(cmd.Context(), calls[0], &now); err != nil {
			return err
		}
		fmt.Fprintln(a.out, args[0])
		return nil
	})
}
