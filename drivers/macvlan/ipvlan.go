package macvlan

import (
	"context"
	"net/netip"
	"slices"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/drivers"
	"github.com/linkspan/linkspan/endpoint"
	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/sandbox"
)

// IPvlan plans ipvlan networks. The zero value is ready for use.
type IPvlan struct{}

var (
	_ drivers.Driver    = IPvlan{}
	_ drivers.Adapter   = IPvlan{}
	_ drivers.Neighbour = IPvlan{}
)

// Traits of an ipvlan: as of a macvlan, but for the MAC, which is the parent's.
func (IPvlan) Traits() drivers.Traits {
	return drivers.Traits{Scope: "local", Addresses: true, SharedMAC: true}
}

// ipvlanOptions are the options of an ipvlan as types.
type ipvlanOptions struct {
	parent     parent
	mode, flag string
	mtu        int // bytes; 0: the parent's
}

func parseIPvlan(n network.Network) (ipvlanOptions, error) {
	o := ipvlanOptions{mode: n.Options[OptionIPvlanMode], flag: n.Options[OptionIPvlanFlag]}
	if o.mode == "" {
		o.mode = "l2"
	}
	if o.flag == "" {
		o.flag = "bridge"
	}
	if !slices.Contains([]string{"l2", "l3", "l3s"}, o.mode) {
		return o, linkspan.Errorf(linkspan.ErrInvalid, "requested ipvlan mode '%s' is not valid, 'l2' mode is the ipvlan driver default", o.mode)
	}
	if !slices.Contains([]string{"bridge", "private", "vepa"}, o.flag) {
		return o, linkspan.Errorf(linkspan.ErrInvalid, "requested ipvlan flag '%s' is not valid, 'bridge' is the ipvlan driver default", o.flag)
	}
	if n.Options[OptionHostAccess] != "" {
		return o, linkspan.Errorf(linkspan.ErrInvalid, "%s is for networks of kind macvlan", OptionHostAccess)
	}
	var err error
	if o.mtu, err = mtu(n); err != nil {
		return o, err
	}
	o.parent, err = parseParent(n, "di-")
	return o, err
}

// Check refuses malformed options, a parent that is missing or cannot carry
// ipvlans, and a kernel that has none.
func (IPvlan) Check(_ context.Context, h *kernel.Host, n network.Network) error {
	o, err := parseIPvlan(n)
	if err != nil {
		return err
	}
	if err := checkPools(n); err != nil {
		return err
	}
	if err := checkKind(h, "ipvlan", "networks of kind ipvlan"); err != nil {
		return err
	}
	return o.parent.check(h, "ipvlan")
}

// Adapt makes a network without a parent internal, and takes the gateway away
// where the kernel sends everything straight out.
func (IPvlan) Adapt(n network.Network) (network.Network, error) {
	o, err := parseIPvlan(n)
	if err != nil {
		return n, err
	}
	n.Internal = n.Internal || o.parent.own
	if o.routed() {
		n.Pools = slices.Clone(n.Pools)
		for i := range n.Pools {
			n.Pools[i].Gateway = netip.Addr{}
		}
	}
	return n, nil
}

// routed tells whether there is no Ethernet between the containers.
func (o ipvlanOptions) routed() bool { return o.mode != "l2" }

// Beside refuses to share a parent: the kernel has one mode for all on it.
func (IPvlan) Beside(n, other network.Network) error {
	o, err := parseIPvlan(n)
	if err != nil {
		return err
	}
	if theirs, err := parseIPvlan(other); err == nil && theirs.parent.name == o.parent.name {
		return linkspan.Errorf(linkspan.ErrForbidden, "network %s is already using parent interface %s (see: linkspan network inspect %s)", other.ID, o.parent.name, other.Name)
	}
	return nil
}

// Network plans the parent, as far as it is ours.
func (IPvlan) Network(n network.Network) (op.Plan, error) {
	o, err := parseIPvlan(n)
	if err != nil {
		return nil, err
	}
	return o.parent.plan(n), nil
}

// Endpoint plans the container's link on the parent.
func (IPvlan) Endpoint(n network.Network, e endpoint.Endpoint, s sandbox.Sandbox) (op.Plan, error) {
	o, err := parseIPvlan(n)
	if err != nil {
		return nil, err
	}
	plan := op.Plan{{
		Why: "An endpoint is a second face of " + o.parent.name + " with its MAC: the kernel tells by address whom a packet is for.",
		Op:  op.AddIPvlan{NS: s.Netns(), Name: e.Interface, Parent: o.parent.name, Mode: o.mode, Flag: o.flag, MTU: o.mtu},
	}}
	plan = append(plan, e.Configure(s.Netns())...)
	if !o.routed() || n.Internal {
		return plan, nil
	}
	for _, to := range []struct {
		lease, all netip.Prefix
	}{{e.IPv4, netip.PrefixFrom(netip.IPv4Unspecified(), 0)}, {e.IPv6, netip.PrefixFrom(netip.IPv6Unspecified(), 0)}} {
		if to.lease.IsValid() {
			plan = append(plan, op.Step{
				Why: "In mode " + o.mode + " the parent's namespace routes: everything goes straight out.",
				Op:  op.AddRoute{NS: s.Netns(), To: to.all, Link: e.Interface},
			})
		}
	}
	return plan, nil
}
