package controller

import (
	"context"
	"errors"
	"slices"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/ipam"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/store"
)

// A network that hosts share is a row on each of them. A host's part of it, which
// is what its driver plans, is made when the first container here joins, and
// undone when the last one has left. A row without a plan has no part:
//
//	{known} ─▶ {plan, was known} ─▶ {plan} ─▶ {known, was plan} ─▶ {known}
//
// As with every change in place, all other verbs wait while Was is set, and what
// a crash leaves there is taken back.

// partless is the refusal of a network that this host has no part of yet.
type partless struct{ network network.Network }

func (p partless) Error() string {
	return "this host has no part of network " + p.network.Name + " yet"
}

// withParts reserves, and makes the parts of networks that this needs. If it is
// refused in the end, they go again.
func (c *Controller) withParts(ctx context.Context, reserve func() error) error {
	var made []linkspan.ID
	for {
		err := c.whenFree(ctx, reserve)
		var missing partless
		if errors.As(err, &missing) {
			made = append(made, missing.network.ID)
			if err = c.makePart(ctx, missing.network.ID); err == nil {
				continue
			}
		}
		if err != nil {
			c.retire(ctx, made...)
		}
		return err
	}
}

// makePart makes this host's part of a network, unless it is there.
func (c *Controller) makePart(ctx context.Context, id linkspan.ID) error {
	taken, err := c.hostHoldings()
	if err != nil {
		return err
	}
	var row store.Row[network.Network]
	begun := false
	err = c.whenFree(ctx, func() error {
		return c.o.Store.Defer(func(t store.Tables) (err error) {
			row, begun, err = c.reservePart(t, id, taken)
			if begun {
				t.Networks.Put(id, row)
			}
			return err
		})
	})
	if err != nil || !begun {
		return err
	}
	driver, err := c.driver(row.Value.Driver)
	if err == nil {
		err = driver.Check(ctx, c.o.Host, row.Value)
	}
	if err == nil {
		err = c.prepareHost(ctx, row.Value, driver)
	}
	if err != nil {
		return errors.Join(err, c.setPart(id, nil))
	}
	plan, err := c.executor.Ask(ctx, row.Plan)
	switch {
	case err == nil:
		err = c.setPart(id, plan)
		c.followPeers(id)
		return err
	case errors.Is(err, op.ErrLeft):
		return errors.Join(err, c.setPart(id, plan)) // to be retired, again and again
	}
	return errors.Join(err, c.setPart(id, nil))
}

// reservePart is the pure part of making one. It tells whether there is anything
// to make.
func (c *Controller) reservePart(t store.Tables, id linkspan.ID, taken []ipam.Holding) (row store.Row[network.Network], begun bool, err error) {
	row, known := t.Networks.Get(id)
	if !known || row.Phase != store.Ready {
		return row, false, nil // whoever wants it is refused in the words of a network that is gone
	}
	if err := checkFree(row); err != nil || row.Plan != nil {
		return row, false, err
	}
	if err := checkHere(t, row.Value, taken); err != nil {
		return row, false, err
	}
	plan, err := c.partPlan(row.Value)
	if err == nil {
		err = checkClaims(t, row.Value, plan)
	}
	row.Was = &store.Version[network.Network]{Value: row.Value}
	row.Plan = plan
	return row, err == nil, err
}

func (c *Controller) partPlan(n network.Network) (op.Plan, error) {
	driver, err := c.driver(n.Driver)
	if err != nil {
		return nil, err
	}
	return c.networkPlan(n, driver)
}

// checkHere refuses a network whose addresses this host has another way to: what
// hosts share was chosen on one of them, which knows nothing of the others' links.
func checkHere(t store.Tables, n network.Network, taken []ipam.Holding) error {
	taken = slices.Clone(taken)
	for _, row := range t.Networks.All() {
		if !row.Value.Shared && !row.Value.ConfigOnly {
			for _, pool := range row.Value.Pools {
				taken = append(taken, pool.Holding("network "+row.Value.Name))
			}
		}
	}
	for _, pool := range n.Pools {
		if holding, overlaps := ipam.Overlapping(pool.Subnet, taken...); overlaps {
			return linkspan.Errorf(linkspan.ErrForbidden, "network %s cannot be used on this host: its subnet %s overlaps %s; remove that, or make the network anew with another --subnet", n.Name, pool.Subnet, holding)
		}
	}
	return nil
}

// setPart ends a change of a network's part: plan is what there is of it now.
func (c *Controller) setPart(id linkspan.ID, plan op.Plan) error {
	return c.o.Store.Defer(func(t store.Tables) error {
		if row, known := t.Networks.Get(id); known {
			row.Plan, row.Was = plan, nil
			t.Networks.Put(id, row)
		}
		return nil
	})
}

// retire undoes this host's part of those networks that no endpoint here is on.
// What cannot be undone is tried again, from time to time and at the next start.
func (c *Controller) retire(ctx context.Context, ids ...linkspan.ID) {
	for _, id := range ids {
		var plan op.Plan
		err := c.o.Store.Defer(func(t store.Tables) error {
			row, known := t.Networks.Get(id)
			if !known || !row.Value.Shared || row.Phase != store.Ready || row.Plan == nil || row.Was != nil || t.By.EndpointsByNetwork.Len(id) > 0 {
				return nil
			}
			plan = row.Plan
			row.Was = &store.Version[network.Network]{Value: row.Value, Plan: plan}
			row.Plan = nil
			t.Networks.Put(id, row)
			return nil
		})
		c.note("retiring a network's part", err)
		if plan == nil {
			continue
		}
		left := plan
		if err := c.executor.Undo(ctx, plan); err == nil {
			left = nil
		} else {
			c.note("retiring a network's part", err)
		}
		c.note("retiring a network's part", c.setPart(id, left))
		c.followPeers(id)
	}
}

// partlessHere tells whether this host has no part of a shared network.
func (c *Controller) partlessHere(id linkspan.ID) (none bool) {
	c.o.Store.View(func(t store.Tables) {
		row, _ := t.Networks.Get(id)
		none = row.Plan == nil
	})
	return none
}

// unused returns the shared networks of which this host has a part that no
// endpoint is on.
func (c *Controller) unused() (ids []linkspan.ID) {
	c.o.Store.View(func(t store.Tables) {
		for id, row := range t.Networks.All() {
			if row.Value.Shared && row.Plan != nil && t.By.EndpointsByNetwork.Len(id) == 0 {
				ids = append(ids, id)
			}
		}
	})
	return ids
}

// takeBackPart undoes what an earlier daemon had begun of a network's part, or
// of its end.
func (c *Controller) takeBackPart(ctx context.Context, row store.Row[network.Network]) error {
	plan := slices.Concat(row.Was.Plan, row.Plan)
	if err := c.executor.Undo(ctx, plan); err != nil {
		return errors.Join(err, c.setPart(row.Value.ID, plan))
	}
	return c.setPart(row.Value.ID, nil)
}

// partsFor plans the parts that the reservation of a plan will need, for whoever
// explains: it puts them into rows that nobody keeps.
func (c *Controller) partsFor(t store.Tables, reserve func() error) (op.Plan, error) {
	var parts op.Plan
	for {
		err := reserve()
		var missing partless
		if !errors.As(err, &missing) {
			return parts, err
		}
		row, _ := t.Networks.Get(missing.network.ID)
		plan, err := c.partPlan(row.Value)
		if err != nil {
			return parts, err
		}
		row.Plan = plan
		t.Networks.Put(row.Value.ID, row)
		parts = append(parts, plan...)
	}
}
