package controller

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/drivers"
	"github.com/linkspan/linkspan/ipam"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/store"
)

// NetworkSpec is what a user wants of a new network. Pools without a subnet
// get one from the default pools.
type NetworkSpec struct {
	Name, Driver    string
	Scope           string // empty: the driver's
	Options, Labels map[string]string
	IPv4, IPv6      bool
	Internal        bool
	Attachable      bool
	ConfigOnly      bool   // make no network, but settings for others
	ConfigFrom      string // name of the settings to use, instead of own ones
	IPAMDriver      string
	IPAMOptions     map[string]string
	Pools           []ipam.Pool
}

// DefaultOptions returns the options of a new network of a kind that says
// nothing else. The caller must not change them.
func (c *Controller) DefaultOptions(driver string) map[string]string {
	return c.o.Defaults.NetworkOptions[driver]
}

// CreateNetwork makes a network: the row is there, with name and pools taken,
// before the first kernel operation.
func (c *Controller) CreateNetwork(ctx context.Context, spec NetworkSpec) (network.Network, error) {
	if err := network.ValidateName(spec.Name); err != nil {
		return network.Network{}, err
	}
	return c.createNetwork(ctx, spec)
}

func (c *Controller) createNetwork(ctx context.Context, spec NetworkSpec) (network.Network, error) {
	n, driver, err := c.newNetwork(ctx, spec)
	if err != nil {
		return n, err
	}
	if n, err = c.adopt(ctx, n, driver); err != nil {
		return n, err
	}
	spans := spansHosts(n, driver)
	if spans && c.o.Cluster == nil {
		return n, noCluster(n)
	}
	if chooser, ok := driver.(drivers.GatewayChooser); ok && !n.ConfigOnly {
		if n.NoGateway4, n.NoGateway6, err = chooser.SkipGateways(ctx, n); err != nil {
			return n, err
		}
	}
	if spans {
		return c.createShared(ctx, n, driver)
	}
	taken, err := c.takenFor(n)
	if err != nil {
		return n, err
	}
	var plan op.Plan
	err = c.o.Store.Defer(func(t store.Tables) error {
		n, plan, err = c.reserveNetwork(t, n, driver, taken)
		if err == nil {
			t.Networks.Put(n.ID, store.Row[network.Network]{Value: n, Phase: store.Creating, Plan: plan})
		}
		return err
	})
	if err != nil {
		return n, err
	}
	n, done, err := c.makeNetwork(ctx, n, driver, plan)
	if err == nil {
		err = c.o.Store.Update(func(t store.Tables) error {
			t.Networks.Put(n.ID, store.Row[network.Network]{Value: n, Phase: store.Ready, Plan: done})
			return nil
		})
	}
	if err != nil {
		return n, c.abandonNetwork(ctx, n, done, err)
	}
	c.openZone(n)
	if !n.ConfigOnly {
		c.o.Events(Event{Action: "create", Network: n.ID, Name: n.Name, Driver: n.Driver})
	}
	return n, nil
}

// makeNetwork is the part of a creation that acts. It returns the network and
// what is there of its plan, also when it fails. A configuration is nothing but
// its row.
func (c *Controller) makeNetwork(ctx context.Context, n network.Network, driver drivers.Driver, plan op.Plan) (made network.Network, done op.Plan, err error) {
	if n.ConfigOnly {
		return n, op.Plan{}, nil
	}
	if c.addresses(n) != nil {
		if n, done, err = c.askPools(ctx, n, plan); err != nil {
			return n, done, err
		}
		if plan, err = c.planLeased(n, driver, done); err != nil {
			return n, done, err
		}
	}
	if err := driver.Check(ctx, c.o.Host, n); err != nil {
		return n, done, err
	}
	if err := c.prepareHost(ctx, n, driver); err != nil {
		return n, done, err
	}
	answered, err := c.executor.Ask(ctx, plan)
	if err == nil || errors.Is(err, op.ErrLeft) {
		done = slices.Concat(done, answered)
	}
	return n, done, err
}

// takenFor returns what of the host a new network must keep off, if anything is
// to be chosen for it.
func (c *Controller) takenFor(n network.Network) ([]ipam.Holding, error) {
	if n.ConfigOnly || (n.ConfigFrom == "" && !asksIPAM(n)) {
		return nil, nil
	}
	return c.hostHoldings()
}

// newNetwork turns a spec into a record, all but its pools and what it borrows
// of a configuration.
func (c *Controller) newNetwork(ctx context.Context, spec NetworkSpec) (network.Network, drivers.Driver, error) {
	spec.Driver = cmp.Or(spec.Driver, "bridge")
	if err := checkConfiguration(spec); err != nil {
		return network.Network{}, nil, err
	}
	if spec.ConfigOnly {
		spec.Driver = "null" // as Docker says of settings that no driver has seen
	}
	if err := c.find(ctx, spec); err != nil {
		return network.Network{}, nil, err
	}
	driver, err := c.driver(spec.Driver)
	if err != nil {
		return network.Network{}, nil, err
	}
	traits := driver.Traits()
	if !spec.IPv4 && !spec.IPv6 && traits.Gateway {
		return network.Network{}, nil, linkspan.Errorf(linkspan.ErrInvalid, "IPv4 or IPv6 must be enabled")
	}
	if spec.Scope == "local" && traits.Scope == "global" {
		return network.Network{}, nil, linkspan.Errorf(linkspan.ErrForbidden, "cannot downgrade network scope for %s networks", spec.Driver)
	}
	n := network.Network{
		ID: linkspan.NewID(), Name: spec.Name, Driver: spec.Driver, Scope: cmp.Or(spec.Scope, traits.Scope),
		Created: time.Now().UTC(), Options: spec.Options, Labels: spec.Labels,
		IPv4: spec.IPv4, IPv6: spec.IPv6, Internal: spec.Internal, Attachable: spec.Attachable,
		ConfigOnly: spec.ConfigOnly, ConfigFrom: spec.ConfigFrom,
		IPAMDriver: cmp.Or(spec.IPAMDriver, ipamDefault), IPAMOptions: spec.IPAMOptions, Pools: spec.Pools, MAC: network.RandomMAC(),
	}
	return n, driver, checkOptions(n)
}

// checkConfiguration refuses what makes no sense of a network that lends its
// settings, or that borrows them.
func checkConfiguration(spec NetworkSpec) error {
	owner := spec.Internal || spec.Attachable || spec.Scope != ""
	settings := len(spec.Labels) > 0 || len(spec.Pools) > 0 || len(spec.IPAMOptions) > 0 || spec.IPv6 || !spec.IPv4
	switch {
	case spec.ConfigOnly && owner:
		return linkspan.Errorf(linkspan.ErrForbidden, "configuration network can only contain network specific fields. Network operator fields like [ ingress | internal | attachable | scope ] are not supported.")
	case spec.ConfigOnly && spec.ConfigFrom != "":
		return linkspan.Errorf(linkspan.ErrForbidden, "a configuration network cannot depend on another configuration network")
	case spec.ConfigFrom != "" && settings:
		return linkspan.Errorf(linkspan.ErrForbidden, "user-specified configurations are not supported if the network depends on a configuration network")
	case spec.ConfigFrom != "" && len(spec.Options) > 0:
		return linkspan.Errorf(linkspan.ErrForbidden, "network driver options are not supported if the network depends on a configuration network")
	}
	return nil
}

// reserveNetwork is the pure part of a creation: it takes the name, the pools
// and what the plan claims of the kernel, or says who holds them.
func (c *Controller) reserveNetwork(t store.Tables, n network.Network, driver drivers.Driver, taken []ipam.Holding) (network.Network, op.Plan, error) {
	for _, row := range t.By.NetworksByName.All(n.Name) {
		if row.Phase != store.Deleting {
			return n, nil, linkspan.Errorf(linkspan.ErrConflict, "network with name %s already exists", n.Name)
		}
	}
	if n.ConfigOnly {
		return n, op.Plan{}, nil
	}
	n, err := borrow(t, n)
	if err != nil {
		return n, nil, err
	}
	traits := driver.Traits()
	if traits.Single && t.By.NetworksByDriver.Len(n.Driver) > 0 {
		return n, nil, linkspan.Errorf(linkspan.ErrForbidden, "only one instance of %q network is allowed", n.Driver)
	}
	if addresses := c.addresses(n); addresses != nil {
		n.Pools = completePools(n)
		return addresses.Network(n, prefixes(t, taken), nil)
	}
	if traits.Addresses {
		if n.Pools, err = c.choosePools(t, n, traits, taken); err != nil {
			return n, nil, err
		}
	}
	if adapter, ok := driver.(drivers.Adapter); ok {
		if n, err = adapter.Adapt(n); err != nil {
			return n, nil, err
		}
	}
	if err = checkBeside(t, n, driver); err != nil {
		return n, nil, err
	}
	plan, err := c.networkPlan(n, driver)
	if err != nil {
		return n, nil, err
	}
	return n, plan, checkClaims(t, n, plan)
}

// checkBeside refuses a network that is in the way of another one of its kind.
func checkBeside(t store.Tables, n network.Network, driver drivers.Driver) error {
	neighbour, ok := driver.(drivers.Neighbour)
	if !ok {
		return nil
	}
	for _, row := range t.By.NetworksByDriver.All(n.Driver) {
		if row.Value.ConfigOnly || row.Value.ID == n.ID {
			continue
		}
		if err := neighbour.Beside(n, row.Value); err != nil {
			return err
		}
	}
	return nil
}

// borrow copies the settings of the configuration that a network is made from.
func borrow(t store.Tables, n network.Network) (network.Network, error) {
	if n.ConfigFrom == "" {
		return n, nil
	}
	for _, row := range named(t, n.ConfigFrom) {
		if from := row.Value; from.ConfigOnly {
			n.Options, n.Labels, n.IPv4, n.IPv6 = from.Options, from.Labels, from.IPv4, from.IPv6
			n.IPAMDriver, n.IPAMOptions, n.Pools = from.IPAMDriver, from.IPAMOptions, from.Pools
			return n, nil
		}
	}
	return n, linkspan.Errorf(linkspan.ErrNotFound, "configuration network %q does not exist", n.ConfigFrom)
}

// networkPlan puts the firewall's rules before the driver's links.
func (c *Controller) networkPlan(n network.Network, driver drivers.Driver) (op.Plan, error) {
	plan, err := driver.Network(n)
	if err != nil {
		return nil, err
	}
	filtered, ok := driver.(drivers.Filtered)
	if !ok {
		return plan, nil
	}
	rules, err := filtered.Rules(n)
	if err != nil {
		return nil, err
	}
	return append(c.o.Firewall.Network(rules), plan...), nil
}

// checkClaims refuses a plan that wants a kernel object of another's plan.
func checkClaims(t store.Tables, n network.Network, plan op.Plan) error {
	for _, claim := range op.Claims(plan) {
		for id, row := range t.By.NetworksByClaim.All(claim) {
			if id != n.ID {
				link := strings.TrimPrefix(claim, "link ")
				return linkspan.Errorf(linkspan.ErrForbidden, "cannot create network %s (%s): conflicts with network %s (%s): networks have same bridge name (see: docker network inspect %s)",
					n.ID, link, id, link, row.Value.Name)
			}
		}
	}
	return nil
}
