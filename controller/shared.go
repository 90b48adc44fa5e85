package controller

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/drivers"
	"github.com/linkspan/linkspan/ipam"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/store"
	"github.com/linkspan/linkspan/store/cluster"
)

// anyVNI stands for the number that the cluster will choose.
const anyVNI = 4096

// createShared makes a network that hosts share: a record in the cluster, and a
// row here. Its parts follow when they are needed.
func (c *Controller) createShared(ctx context.Context, n network.Network, driver drivers.Driver) (network.Network, error) {
	would, choose, err := c.planShared(ctx, n, driver)
	if err != nil {
		return would, err
	}
	var allocation op.Plan
	var allocated map[string]string
	if allocator, allocates := driver.(drivers.Allocator); allocates {
		allocation, err = c.executor.Ask(ctx, allocator.Allocation(would))
		if errors.Is(err, op.ErrLeft) {
			c.free(ctx, would, allocation)
		}
		if err != nil {
			return would, err
		}
		allocated = allocator.Allocated(allocation)
	}
	made, err := c.o.Cluster.CreateNetwork(ctx, func(there []network.Network, vni uint32) (network.Network, error) {
		chosen, failed := choose(there, vni)
		chosen.Options = withAll(chosen.Options, allocated)
		return chosen, failed
	})
	if err != nil {
		c.free(ctx, would, allocation)
		return would, err
	}
	return made, c.know(made)
}

// free undoes what was allocated for a network that is gone, or was never made. A
// row keeps it until the plugin has heard of it.
func (c *Controller) free(ctx context.Context, n network.Network, allocation op.Plan) {
	if len(allocation) == 0 {
		return
	}
	row := store.Row[network.Network]{Value: n, Phase: store.Deleting}
	err := c.o.Store.Update(func(t store.Tables) error {
		left, there := t.Networks.Get(n.ID)
		if there && left.Phase != store.Deleting {
			return linkspan.Errorf(linkspan.ErrConflict, "network %s is in use again", n.Name)
		}
		row.Plan = slices.Concat(allocation, left.Plan) // its part here may wait for the plugin, too
		t.Networks.Put(n.ID, row)
		return nil
	})
	if err == nil {
		err = c.undoNetwork(ctx, row)
	} else {
		err = errors.Join(err, c.executor.Undo(ctx, allocation))
	}
	c.note("freeing what was allocated for network "+n.Name, err)
}

// withAll returns options with more of them.
func withAll(options, more map[string]string) map[string]string {
	if len(more) == 0 {
		return options
	}
	all := maps.Clone(options)
	if all == nil {
		all = make(map[string]string, len(more))
	}
	maps.Copy(all, more)
	return all
}

// spansHosts tells whether a new network is one that hosts share.
func spansHosts(n network.Network, driver drivers.Driver) bool {
	return !n.ConfigOnly && driver.Traits().Scope == "global"
}

// planShared returns how a shared network is chosen, and what it would be now.
// Whatever keeps this host from having a part of it is refused.
func (c *Controller) planShared(ctx context.Context, n network.Network, driver drivers.Driver) (network.Network, func([]network.Network, uint32) (network.Network, error), error) {
	if c.o.Cluster == nil {
		return n, nil, noCluster(n)
	}
	if c.addresses(n) != nil {
		return n, nil, linkspan.Errorf(linkspan.ErrNotImplemented, "network %s spans hosts, and its addresses are leased in the cluster's store: leave --ipam-driver %s out", n.Name, n.IPAMDriver)
	}
	n.Shared = true
	taken, err := c.takenFor(n)
	if err != nil {
		return n, nil, err
	}
	choose := func(there []network.Network, vni uint32) (network.Network, error) {
		n := n
		n.VNI = vni
		return c.chooseShared(n, driver, there, taken)
	}
	would, err := choose(c.o.Cluster.Networks(), anyVNI)
	if err == nil {
		err = driver.Check(ctx, c.o.Host, would)
	}
	return would, choose, err
}

// explainShared returns what a host would do for its part of a shared network,
// when the first container there joins. To make the network, nothing is done in
// the kernel. A host in no cluster explains with examples of what one would choose.
func (c *Controller) explainShared(ctx context.Context, n network.Network, driver drivers.Driver) (op.Plan, error) {
	var would network.Network
	var err error
	if c.o.Cluster != nil {
		would, _, err = c.planShared(ctx, n, driver)
	} else {
		var taken []ipam.Holding
		if taken, err = c.takenFor(n); err == nil {
			would, err = c.chooseShared(n, driver, nil, taken)
		}
	}
	if err != nil {
		return nil, err
	}
	plan, err := c.networkPlan(would, driver)
	if len(plan) > 0 {
		plan[0].Why = "The network itself is a record in the store that hosts share. What follows is done on each host when its first container joins.\n" + plan[0].Why
	}
	return plan, err
}

// chooseShared is the pure part of a creation: its pools are free in the cluster
// and on this host.
func (c *Controller) chooseShared(n network.Network, driver drivers.Driver, there []network.Network, taken []ipam.Holding) (network.Network, error) {
	var held []ipam.Holding
	for _, other := range there {
		if other.Name == n.Name {
			return n, linkspan.Errorf(linkspan.ErrConflict, "network with name %s already exists", n.Name)
		}
		for _, pool := range other.Pools {
			held = append(held, pool.Holding("network "+other.Name))
		}
	}
	var err error
	c.o.Store.View(func(t store.Tables) {
		n, _, err = c.reserveNetwork(t, n, driver, slices.Concat(taken, held))
	})
	if err != nil {
		return n, err
	}
	for _, pool := range n.Pools { // those that the user named, too
		if err := pool.CheckOverlap(held...); err != nil {
			return n, err
		}
	}
	return n, nil
}

// know gives a network that hosts share its row on this one.
func (c *Controller) know(n network.Network) error {
	fresh := false
	err := c.o.Store.Update(func(t store.Tables) error {
		_, known := t.Networks.Get(n.ID)
		there := slices.ContainsFunc(c.o.Cluster.Networks(), func(other network.Network) bool { return other.ID == n.ID })
		if !known && there { // it may be gone again: whoever removes it drops the row after that
			fresh = true
			t.Networks.Put(n.ID, store.Row[network.Network]{Value: n, Phase: store.Ready})
		}
		return nil
	})
	if err != nil || !fresh {
		return err
	}
	c.openZone(n)
	c.o.Events(Event{Action: "create", Network: n.ID, Name: n.Name, Driver: n.Driver})
	return nil
}

// removeShared takes a network out of the cluster, unless somebody is on it.
func (c *Controller) removeShared(ctx context.Context, n network.Network) error {
	if c.o.Cluster == nil {
		return noCluster(n)
	}
	var err error
	c.o.Store.View(func(t store.Tables) { err = c.refuseHeld(t, n) })
	if err == nil {
		err = c.o.Cluster.RemoveNetwork(ctx, n.ID)
	}
	if err != nil {
		return err
	}
	err = c.unknow(ctx, n.ID)
	if driver, driverErr := c.driver(n.Driver); driverErr == nil {
		if allocator, allocates := driver.(drivers.Allocator); allocates {
			c.free(ctx, n, allocator.Allocation(n))
		}
	}
	return err
}

// unknow drops the row of a network that is no longer in the cluster, and this
// host's part of it.
func (c *Controller) unknow(ctx context.Context, id linkspan.ID) error {
	var row store.Row[network.Network]
	known := false
	err := c.whenFree(ctx, func() error {
		return c.o.Store.Update(func(t store.Tables) error {
			if row, known = t.Networks.Get(id); !known || row.Phase != store.Ready {
				known = false // somebody else is at it
				return nil
			}
			if err := checkFree(row); err != nil {
				return err
			}
			if err := c.refuseHeld(t, row.Value); err != nil {
				return err
			}
			t.Networks.SetPhase(id, store.Deleting)
			return nil
		})
	})
	if err != nil || !known {
		return err
	}
	return c.finishNetwork(ctx, row)
}

// followNetworks makes the rows of shared networks follow what the cluster has.
// While the store is away that says nothing about what is missing.
func (c *Controller) followNetworks(ctx context.Context) {
	rows := c.Networks() // before those of the cluster, which has them earlier
	there := make(map[linkspan.ID]bool)
	for _, n := range c.o.Cluster.Networks() {
		there[n.ID] = true
		c.note("learning of network "+n.Name, c.know(n))
	}
	if c.o.Cluster.Err() != nil {
		return
	}
	for _, n := range rows {
		if n.Shared && !there[n.ID] {
			c.note("network "+n.Name+" was removed on another host", c.lose(ctx, n))
		}
	}
}

// lose takes the containers here off a network that was removed while this host
// was cut off, and drops it.
func (c *Controller) lose(ctx context.Context, n network.Network) error {
	for _, e := range c.local(n.ID) {
		c.evict(ctx, e, "network "+n.Name+" was removed on another host")
	}
	return c.unknow(ctx, n.ID)
}

// elsewhere returns the endpoints of a network that are on other hosts.
func (c *Controller) elsewhere(n network.Network) []cluster.Endpoint {
	if !n.Shared || c.o.Cluster == nil {
		return nil
	}
	self := c.o.Cluster.Self().ID
	return slices.DeleteFunc(slices.Clone(c.o.Cluster.Endpoints(n.ID)), func(e cluster.Endpoint) bool { return e.Member == self })
}

// Peers returns the hosts that containers on a network run on, by name.
func (c *Controller) Peers(n network.Network) []cluster.Member {
	if !n.Shared || c.o.Cluster == nil {
		return nil
	}
	on := make(map[linkspan.ID]bool)
	for _, e := range c.o.Cluster.Endpoints(n.ID) {
		on[e.Member] = true
	}
	peers := slices.DeleteFunc(slices.Clone(c.o.Cluster.Members()), func(m cluster.Member) bool { return !on[m.ID] })
	slices.SortFunc(peers, func(a, b cluster.Member) int { return strings.Compare(a.Name+string(a.ID), b.Name+string(b.ID)) })
	return peers
}

// hostOf names the host that an endpoint is on.
func (c *Controller) hostOf(e cluster.Endpoint) string {
	for _, m := range c.o.Cluster.Members() {
		if m.ID == e.Member {
			return m.Name
		}
	}
	return e.Member.Short()
}
