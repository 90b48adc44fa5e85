package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/endpoint"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/store"
)

// RemoveNetwork undoes a network's stored plan. It refuses with the holders'
// names while endpoints are attached.
func (c *Controller) RemoveNetwork(ctx context.Context, ref string) error {
	if n, err := c.Network(ref); err == nil && n.Shared {
		return c.removeShared(ctx, n)
	}
	var row store.Row[network.Network]
	err := c.whenFree(ctx, func() error {
		return c.o.Store.Update(func(t store.Tables) (err error) {
			row, err = c.reserveRemoval(t, ref)
			return err
		})
	})
	if err != nil {
		return err
	}
	return c.finishNetwork(ctx, row)
}

// reserveRemoval is the pure part of a removal.
func (c *Controller) reserveRemoval(t store.Tables, ref string) (store.Row[network.Network], error) {
	row, err := findNetwork(t, ref)
	if err != nil {
		return row, err
	}
	n := row.Value
	if network.Predefined(n.Name) {
		return row, linkspan.Errorf(linkspan.ErrForbidden, "%s is a pre-defined network and cannot be removed", n.Name)
	}
	for _, refuse := range []func() error{
		func() error { return checkFree(row) },
		func() error { return refuseLent(t, n) },
		func() error { return c.refuseHeld(t, n) },
	} {
		if err := refuse(); err != nil {
			return row, err
		}
	}
	t.Networks.SetPhase(n.ID, store.Deleting)
	return row, nil
}

// finishNetwork takes a Deleting network away. What cannot be undone stays a
// row, and is tried again.
func (c *Controller) finishNetwork(ctx context.Context, row store.Row[network.Network]) error {
	n := row.Value
	gone := c.owes(n.ID) // for all but its plugin, since an earlier time
	undoErr := c.undoNetwork(ctx, row)
	if err := c.leave("removing network "+n.Name, undoErr); err != nil {
		return fmt.Errorf("removing network %s: %w", n.Name, err)
	}
	c.closeZone(n.ID)
	var err error
	if undoErr == nil {
		err = c.o.Store.Defer(func(t store.Tables) error {
			t.Networks.Delete(n.ID)
			return nil
		})
	}
	if !n.ConfigOnly && !gone {
		c.o.Events(Event{Action: "destroy", Network: n.ID, Name: n.Name, Driver: n.Driver})
	}
	return err
}

// refuseLent refuses to remove a configuration that networks were made from.
func refuseLent(t store.Tables, n network.Network) error {
	if !n.ConfigOnly {
		return nil
	}
	var names []string
	for _, row := range t.By.NetworksByConfig.All(n.Name) {
		names = append(names, row.Value.Name)
	}
	if len(names) == 0 {
		return nil
	}
	slices.Sort(names)
	return linkspan.Errorf(linkspan.ErrForbidden, "error while removing network: configuration network %q is in use by %s", n.Name, strings.Join(names, ", "))
}

func (c *Controller) refuseHeld(t store.Tables, n network.Network) error {
	if holders := c.endpointsOf(t, n.ID); len(holders) > 0 {
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
// unique prefix of an ID. One that is being made is found by its full ID alone:
// that nobody knows but its driver, which may want to read about it.
func (c *Controller) Network(ref string) (network.Network, error) {
	row, err := c.networkRow(ref)
	if err != nil {
		c.o.Store.View(func(t store.Tables) {
			if making, ok := t.Networks.Get(linkspan.ID(ref)); ok {
				row, err = making, nil
			}
		})
	}
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
// Of one here and one that was made on another host, it is the one here.
func named(t store.Tables, name string) (found []store.Row[network.Network]) {
	var shared []store.Row[network.Network]
	for _, row := range t.By.NetworksByName.All(name) {
		switch {
		case row.Phase != store.Ready:
		case row.Value.Shared:
			shared = append(shared, row)
		default:
			found = append(found, row)
		}
	}
	if len(found) == 0 {
		return shared
	}
	return found
}

// Networks returns all networks, oldest first. What is only owed to a plugin is
// none.
func (c *Controller) Networks() []network.Network {
	var all []network.Network
	c.o.Store.View(func(t store.Tables) {
		for id, row := range t.Networks.All() {
			if row.Phase != store.Creating && (row.Phase != store.Deleting || !c.owes(id)) {
				all = append(all, row.Value)
			}
		}
	})
	sort.Slice(all, func(i, j int) bool { return all[i].Created.Before(all[j].Created) })
	return all
}

// Endpoints returns the live endpoints of a network, by container name, wherever
// they are. Those on other hosts have no sandbox.
func (c *Controller) Endpoints(id linkspan.ID) (found []endpoint.Endpoint) {
	var row store.Row[network.Network]
	c.o.Store.View(func(t store.Tables) {
		row, _ = t.Networks.Get(id)
		found = append(c.endpointsOf(t, id), c.impliedOn(t, row.Value)...)
	})
	for _, e := range c.elsewhere(row.Value) {
		found = append(found, endpoint.Endpoint{
			ID: e.ID, Network: e.Network, Owner: e.Owner, Name: e.Name, IPv4: e.IPv4, IPv6: e.IPv6, MAC: e.MAC, DNSNames: e.DNSNames,
		})
	}
	sort.Slice(found, func(i, j int) bool { return found[i].Name < found[j].Name })
	return found
}

func (c *Controller) endpointsOf(t store.Tables, id linkspan.ID) []endpoint.Endpoint {
	var found []endpoint.Endpoint
	for own, row := range t.By.EndpointsByNetwork.All(id) {
		if row.Phase != store.Deleting || !c.owes(own) {
			found = append(found, row.Value)
		}
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
			if row.Phase == store.Ready && !network.Predefined(row.Value.Name) && !row.Value.ConfigOnly && t.By.EndpointsByNetwork.Len(id) == 0 {
				unused = append(unused, row.Value)
			}
		}
	})
	sort.Slice(unused, func(i, j int) bool { return unused[i].Name < unused[j].Name })
	var removed []string
	var errs []error
	for _, n := range unused {
		if !match(n) || len(c.elsewhere(n)) > 0 {
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
