package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sort"
	"strings"
	"time"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/dns"
	"github.com/linkspan/linkspan/drivers"
	"github.com/linkspan/linkspan/endpoint"
	"github.com/linkspan/linkspan/ipam"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/store"
)

// NetworkSpec is what a user wants of a new network. Pools without a subnet
// get one from the default pools.
type NetworkSpec struct {
	Name, Driver    string
	Options, Labels map[string]string
	IPv4, IPv6      bool
	Internal        bool
	Attachable      bool
	IPAMDriver      string
	IPAMOptions     map[string]string
	Pools           []ipam.Pool
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
	n, driver, err := c.newNetwork(spec)
	if err != nil {
		return n, err
	}
	var taken []ipam.Holding
	if asksIPAM(n) {
		if taken, err = c.hostHoldings(); err != nil {
			return n, err
		}
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
	if err = driver.Check(ctx, c.o.Host, n); err == nil {
		err = c.prepareHost(ctx, n, driver)
	}
	if err == nil {
		err = c.executor.Do(ctx, plan)
	}
	if err != nil {
		return n, errors.Join(err, c.o.Store.Defer(func(t store.Tables) error {
			t.Networks.Delete(n.ID)
			return nil
		}))
	}
	if err := c.o.Store.Update(func(t store.Tables) error {
		t.Networks.SetPhase(n.ID, store.Ready)
		return nil
	}); err != nil {
		return n, errors.Join(err, c.executor.Undo(ctx, plan))
	}
	c.openZone(n)
	c.o.Events(Event{Action: "create", Network: n.ID, Name: n.Name, Driver: n.Driver})
	return n, nil
}

// newNetwork turns a spec into a record, all but its pools.
func (c *Controller) newNetwork(spec NetworkSpec) (network.Network, drivers.Driver, error) {
	if spec.Driver == "" {
		spec.Driver = "bridge"
	}
	driver, err := c.driver(spec.Driver)
	if err != nil {
		return network.Network{}, nil, err
	}
	if spec.IPAMDriver != "" && spec.IPAMDriver != "default" && spec.IPAMDriver != ipamNull {
		return network.Network{}, nil, linkspan.Errorf(linkspan.ErrNotFound, "plugin %q not found", spec.IPAMDriver)
	}
	if !spec.IPv4 && !spec.IPv6 {
		return network.Network{}, nil, linkspan.Errorf(linkspan.ErrInvalid, "IPv4 or IPv6 must be enabled")
	}
	if _, err = dns.ParseRecords(spec.Options[network.OptionRecords]); err != nil {
		return network.Network{}, nil, linkspan.Errorf(linkspan.ErrInvalid, "option %s: %w", network.OptionRecords, err)
	}
	return network.Network{
		ID: linkspan.NewID(), Name: spec.Name, Driver: spec.Driver, Scope: driver.Traits().Scope,
		Created: time.Now().UTC(), Options: spec.Options, Labels: spec.Labels,
		IPv4: spec.IPv4, IPv6: spec.IPv6, Internal: spec.Internal, Attachable: spec.Attachable,
		IPAMDriver: cmp.Or(spec.IPAMDriver, "default"), IPAMOptions: spec.IPAMOptions, Pools: spec.Pools, MAC: network.RandomMAC(),
	}, driver, nil
}

// reserveNetwork is the pure part of a creation: it takes the name, the pools
// and what the plan claims of the kernel, or says who holds them.
func (c *Controller) reserveNetwork(t store.Tables, n network.Network, driver drivers.Driver, taken []ipam.Holding) (network.Network, op.Plan, error) {
	for _, row := range t.By.NetworksByName.All(n.Name) {
		if row.Phase != store.Deleting {
			return n, nil, linkspan.Errorf(linkspan.ErrConflict, "network with name %s already exists", n.Name)
		}
	}
	traits := driver.Traits()
	if traits.Single && t.By.NetworksByDriver.Len(n.Driver) > 0 {
		return n, nil, linkspan.Errorf(linkspan.ErrForbidden, "only one instance of %q network is allowed", n.Driver)
	}
	if traits.Addresses {
		pools, err := c.choosePools(t, n, traits, taken)
		if err != nil {
			return n, nil, err
		}
		n.Pools = pools
	}
	plan, err := c.networkPlan(n, driver)
	if err != nil {
		return n, nil, err
	}
	return n, plan, checkClaims(t, n, plan)
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
				return linkspan.Errorf(linkspan.ErrForbidden, "cannot create network %s (%s): conflicts with network %s (%s): networks have same bridge name (%s)",
					n.ID, n.Name, id, row.Value.Name, claim)
			}
		}
	}
	return nil
}

// RemoveNetwork undoes a network's stored plan. It refuses with the holders'
// names while endpoints are attached.
func (c *Controller) RemoveNetwork(ctx context.Context, ref string) error {
	var row store.Row[network.Network]
	err := c.o.Store.Update(func(t store.Tables) error {
		found, err := findNetwork(t, ref)
		if err != nil {
			return err
		}
		row = found
		n := row.Value
		if network.Predefined(n.Name) {
			return linkspan.Errorf(linkspan.ErrForbidden, "%s is a pre-defined network and cannot be removed", n.Name)
		}
		if err := refuseHeld(t, n); err != nil {
			return err
		}
		t.Networks.SetPhase(n.ID, store.Deleting)
		return nil
	})
	if err != nil {
		return err
	}
	return c.finishNetwork(ctx, row)
}

// finishNetwork takes a Deleting network away. What cannot be undone stays a
// row, and is tried again.
func (c *Controller) finishNetwork(ctx context.Context, row store.Row[network.Network]) error {
	n := row.Value
	if err := c.executor.Undo(ctx, row.Plan); err != nil {
		return fmt.Errorf("removing network %s: %w", n.Name, err)
	}
	c.closeZone(n.ID)
	err := c.o.Store.Defer(func(t store.Tables) error {
		t.Networks.Delete(n.ID)
		return nil
	})
	c.o.Events(Event{Action: "destroy", Network: n.ID, Name: n.Name, Driver: n.Driver})
	return err
}

func refuseHeld(t store.Tables, n network.Network) error {
	if holders := endpointsOf(t, n.ID); len(holders) > 0 {
		return linkspan.Errorf(linkspan.ErrForbidden, "error while removing network: network %s has active endpoints (%s)", n.Name, describe(holders))
	}
	return nil
}

// describe lists the holders of a network, one container and short ID each.
func describe(holders []endpoint.Endpoint) string {
	words := make([]string, len(holders))
	for i, e := range holders {
		words[i] = fmt.Sprintf("name:%q id:%q", e.Name, e.ID.Short())
	}
	return strings.Join(words, ", ")
}

// Network returns the network that ref names: a full ID, else a name, else a
// unique prefix of an ID.
func (c *Controller) Network(ref string) (network.Network, error) {
	row, err := c.networkRow(ref)
	return row.Value, err
}

func (c *Controller) networkRow(ref string) (row store.Row[network.Network], err error) {
	c.o.Store.View(func(t store.Tables) { row, err = findNetwork(t, ref) })
	return row, err
}

func findNetwork(t store.Tables, ref string) (store.Row[network.Network], error) {
	if row, ok := t.Networks.Get(linkspan.ID(ref)); ok && row.Phase != store.Creating {
		return row, nil
	}
	found, how := named(t, ref), "name"
	if len(found) == 0 && ref != "" {
		how = "ID prefix"
		for id, row := range t.Networks.All() {
			if row.Phase == store.Ready && strings.HasPrefix(string(id), ref) {
				found = append(found, row)
			}
		}
	}
	switch len(found) {
	case 0:
		return store.Row[network.Network]{}, linkspan.Errorf(linkspan.ErrNotFound, "network %s not found", ref)
	case 1:
		return found[0], nil
	}
	return store.Row[network.Network]{}, linkspan.Errorf(linkspan.ErrInvalid, "network %s is ambiguous (%d matches found based on %s)", ref, len(found), how)
}

// named returns the networks of a name that are ready: one, or none.
func named(t store.Tables, name string) (found []store.Row[network.Network]) {
	for _, row := range t.By.NetworksByName.All(name) {
		if row.Phase == store.Ready {
			found = append(found, row)
		}
	}
	return found
}

// Networks returns all networks, oldest first.
func (c *Controller) Networks() []network.Network {
	var all []network.Network
	c.o.Store.View(func(t store.Tables) {
		for _, row := range t.Networks.All() {
			if row.Phase != store.Creating {
				all = append(all, row.Value)
			}
		}
	})
	sort.Slice(all, func(i, j int) bool { return all[i].Created.Before(all[j].Created) })
	return all
}

// Endpoints returns the live endpoints of a network, by container name.
func (c *Controller) Endpoints(id linkspan.ID) (found []endpoint.Endpoint) {
	c.o.Store.View(func(t store.Tables) { found = endpointsOf(t, id) })
	return found
}

func endpointsOf(t store.Tables, id linkspan.ID) []endpoint.Endpoint {
	var found []endpoint.Endpoint
	for _, row := range t.By.EndpointsByNetwork.All(id) {
		found = append(found, row.Value)
	}
	sort.Slice(found, func(i, j int) bool { return found[i].Name < found[j].Name })
	return found
}

// Prune removes the networks that no endpoint is attached to and that match, and
// returns their names. It goes on past one that it cannot remove.
func (c *Controller) Prune(ctx context.Context, match func(network.Network) bool) ([]string, error) {
	var unused []network.Network
	c.o.Store.View(func(t store.Tables) {
		for id, row := range t.Networks.All() {
			if row.Phase == store.Ready && !network.Predefined(row.Value.Name) && t.By.EndpointsByNetwork.Len(id) == 0 {
				unused = append(unused, row.Value)
			}
		}
	})
	sort.Slice(unused, func(i, j int) bool { return unused[i].Name < unused[j].Name })
	var removed []string
	var errs []error
	for _, n := range unused {
		if !match(n) {
			continue
		}
		err := c.RemoveNetwork(ctx, string(n.ID))
		switch {
		case err == nil:
			removed = append(removed, n.Name)
		case !errors.Is(err, linkspan.ErrForbidden) && !errors.Is(err, linkspan.ErrNotFound):
			errs = append(errs, err) // refused or gone: somebody was faster
		}
	}
	c.o.Events(Event{Action: "prune"})
	return removed, errors.Join(errs...)
}
