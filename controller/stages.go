package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/drivers"
	"github.com/linkspan/linkspan/endpoint"
	"github.com/linkspan/linkspan/ipam"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/sandbox"
	"github.com/linkspan/linkspan/store"
)

// Where somebody else has a say, such as a plugin, a plan cannot be made whole
// before its first step: it grows. Each stage is stored before it is carried out,
// with the answers of those before it, so that what there is of the plan can
// always be undone:
//
//	plan a stage ─▶ store all so far ─▶ carry it out ─▶ answers ─▶ plan the next …

// addresses returns the IPAM driver of a network if that is a plugin, else nil.
func (c *Controller) addresses(n network.Network) drivers.Addresses {
	switch n.IPAMDriver {
	case "", ipamDefault, ipamNull:
		return nil
	}
	if c.o.Plugins == nil {
		return nil
	}
	return c.o.Plugins.Addresses(n.IPAMDriver)
}

// plugins returns what a network needs of plugins: names by kind.
func (c *Controller) plugins(n network.Network) map[string]string {
	needs := make(map[string]string)
	if c.o.Drivers[n.Driver] == nil {
		needs[drivers.KindNetwork] = n.Driver
	}
	if c.addresses(n) != nil {
		needs[drivers.KindIPAM] = n.IPAMDriver
	}
	return needs
}

// wake makes sure that the plugins of networks answer, before anything is
// reserved that needs them.
func (c *Controller) wake(ctx context.Context, networks ...network.Network) error {
	for _, n := range networks {
		for kind, name := range c.plugins(n) {
			if c.o.Plugins == nil {
				return linkspan.Errorf(linkspan.ErrNotFound, "plugin %q not found", name)
			}
			if err := c.o.Plugins.Watch(name); err != nil {
				return fmt.Errorf("network %s: %w", n.Name, err)
			}
			if err := c.o.Plugins.Wake(ctx, name, kind); err != nil {
				return fmt.Errorf("network %s: %w", n.Name, err)
			}
			c.pay(ctx, name)
		}
	}
	return nil
}

// wakeFor is wake for all networks that a container wants.
func (c *Controller) wakeFor(ctx context.Context, owner linkspan.ID) error {
	var networks []network.Network
	c.o.Store.View(func(t store.Tables) {
		config, _ := t.Configs.Get(owner)
		for _, want := range config.Value.Attachments {
			if row, err := findAttached(t, want); err == nil {
				networks = append(networks, row.Value)
			}
		}
	})
	return c.wake(ctx, networks...)
}

// askPools has a plugin choose the pools of a network. It returns the network
// with them, and what was carried out.
func (c *Controller) askPools(ctx context.Context, n network.Network, first op.Plan) (network.Network, op.Plan, error) {
	wanted := n
	var done op.Plan
	for more := first; ; {
		row := store.Row[network.Network]{Value: n, Phase: store.Creating, Plan: slices.Concat(done, more)}
		if err := c.putNetwork(row); err != nil {
			return n, done, err
		}
		answered, err := c.executor.Ask(ctx, more)
		if err != nil {
			if errors.Is(err, op.ErrLeft) {
				done = slices.Concat(done, answered)
			}
			return n, done, err
		}
		done = slices.Concat(done, answered)
		var next op.Plan
		n, next, err = c.addresses(wanted).Network(wanted, nil, done)
		if err != nil || len(next) == 0 {
			return n, done, err
		}
		more = next
	}
}

func (c *Controller) putNetwork(row store.Row[network.Network]) error {
	return c.o.Store.Defer(func(t store.Tables) error {
		t.Networks.Put(row.Value.ID, row)
		return nil
	})
}

// planLeased plans a network whose pools a plugin has chosen, and stores the
// plan.
func (c *Controller) planLeased(n network.Network, driver drivers.Driver, done op.Plan) (op.Plan, error) {
	plan, err := c.networkPlan(n, driver)
	if err != nil {
		return nil, err
	}
	return plan, c.o.Store.Defer(func(t store.Tables) error {
		if err := checkLeased(t, n, driver); err != nil {
			return err
		}
		t.Networks.Put(n.ID, store.Row[network.Network]{Value: n, Phase: store.Creating, Plan: slices.Concat(done, plan)})
		return checkClaims(t, n, plan)
	})
}

// checkLeased refuses pools that another network on a link of the host's has.
// On a wire of their own networks may share one.
func checkLeased(t store.Tables, n network.Network, driver drivers.Driver) error {
	if _, filtered := driver.(drivers.Filtered); !filtered {
		return nil
	}
	for _, pool := range n.Pools {
		for id, row := range t.Networks.All() {
			for _, other := range row.Value.Pools {
				if id != n.ID && pool.Subnet.Bits() > 0 && other.Subnet.Bits() > 0 && other.Subnet.Overlaps(pool.Subnet) {
					return linkspan.Errorf(linkspan.ErrForbidden, "invalid pool request: Pool overlaps with other one on this address space: %s, which plugin %s gave, overlaps %s of network %s", pool.Subnet, n.IPAMDriver, other.Subnet, row.Value.Name)
				}
			}
		}
	}
	return nil
}

// find asks for the plugins that a new network needs.
func (c *Controller) find(ctx context.Context, spec NetworkSpec) error {
	if spec.ConfigOnly {
		return nil
	}
	for kind, name := range c.plugins(network.Network{Driver: spec.Driver, IPAMDriver: spec.IPAMDriver}) {
		if c.o.Plugins == nil {
			return linkspan.Errorf(linkspan.ErrNotFound, "plugin %q not found", name)
		}
		if err := c.o.Plugins.Wake(ctx, name, kind); err != nil {
			return err
		}
		c.pay(ctx, name)
	}
	return nil
}

// abandonNetwork takes back what was made of a network whose creation failed. If
// not all of it can be, the row stays, and it is tried again.
func (c *Controller) abandonNetwork(ctx context.Context, n network.Network, done op.Plan, err error) error {
	undoErr := c.executor.Undo(ctx, done)
	if undoErr != nil || errors.Is(err, op.ErrLeft) {
		return errors.Join(err, undoErr, c.putNetwork(store.Row[network.Network]{Value: n, Phase: store.Deleting, Plan: done}))
	}
	return errors.Join(err, c.o.Store.Defer(func(t store.Tables) error {
		t.Networks.Delete(n.ID)
		return nil
	}))
}

// prefixes are what a pool of a plugin's own choice must keep off.
func prefixes(t store.Tables, taken []ipam.Holding) []string {
	var all []string
	for _, holding := range slices.Concat(taken, t.By.Holdings.All()) {
		all = append(all, holding.Prefix.String())
	}
	return all
}

// staged tells whether the plan of an endpoint on a network grows.
func (c *Controller) staged(n network.Network) bool {
	driver, err := c.driver(n.Driver)
	_, asks := driver.(drivers.Asker)
	return err == nil && asks || c.lessor(n) != nil
}

func (c *Controller) anyStaged(r reservation) bool {
	for _, row := range r.endpoints {
		if n, err := c.Network(string(row.Value.Network)); err == nil && c.staged(n) {
			return true
		}
	}
	return false
}

// completeAll carries on the plans of all endpoints of a start.
func (c *Controller) completeAll(ctx context.Context, r *reservation) (err error) {
	if !c.anyStaged(*r) {
		return nil
	}
	for i := range r.endpoints {
		if r.endpoints[i], err = c.complete(ctx, r.sandbox.Value, r.endpoints[i]); err != nil {
			return err
		}
	}
	relink := func() { c.o.Store.View(func(t store.Tables) { r.links = linksOf(t, r.sandbox.Value.ID) }) }
	relink()
	err = c.startGateway(ctx, r)
	relink()
	return err
}

// publishAnswered publishes the ports of a container whose endpoints have got
// their addresses by answers. It does not run yet: the sockets are for whoever
// starts it.
func (c *Controller) publishAnswered(ctx context.Context, r *reservation, a *Attachment, space portSpace) error {
	if !c.anyStaged(*r) {
		return nil
	}
	owner, id := r.config.Owner, r.sandbox.Value.ID
	var fresh store.Row[store.Ports]
	err := c.o.Store.Defer(func(t store.Tables) (err error) {
		fresh, err = c.reservePorts(t, owner, id, space)
		return err
	})
	if err != nil || fresh.Value.Empty() {
		return err
	}
	if fresh, _, a.Holds, err = c.hold(owner, id, fresh, space, nil); err != nil {
		return err
	}
	a.Ports = fresh.Value.Ports
	if err := c.executor.Do(ctx, fresh.Plan); err != nil {
		return err
	}
	r.ports = fresh
	return nil
}

// complete carries on the plan of an endpoint whose first stage is done. What
// fails is undone as far as its own stage goes; the row keeps the rest.
func (c *Controller) complete(ctx context.Context, s sandbox.Sandbox, row store.Row[endpoint.Endpoint]) (store.Row[endpoint.Endpoint], error) {
	n, err := c.Network(string(row.Value.Network))
	if err != nil || !c.staged(n) {
		return row, err
	}
	for _, stage := range c.stagesOf(n, s) {
		for again := true; again; {
			if again, err = c.advance(ctx, &row, stage); err != nil {
				return row, err
			}
		}
	}
	if e := &row.Value; e.MAC == "" && e.Interface != "" {
		e.MAC, err = c.o.Host.MAC(s.Netns(), e.Interface)
	}
	return row, err
}

// advance plans, stores and carries out a stage of an endpoint. It tells whether
// the stage goes on.
func (c *Controller) advance(ctx context.Context, row *store.Row[endpoint.Endpoint], stage stage) (again bool, err error) {
	more, err := c.grow(row, stage)
	if err != nil || len(more) == 0 {
		return false, err
	}
	done := row.Plan[:len(row.Plan)-len(more)]
	answered, err := c.executor.Ask(ctx, more)
	if err == nil || errors.Is(err, op.ErrLeft) {
		done = slices.Concat(done, answered)
	}
	row.Plan = done
	return !stage.once, err
}

// stage plans the next steps of an endpoint, given those that are done. It is
// pure. Unless it is to be called once, it is called until it plans nothing.
type stage struct {
	once bool
	plan func(e endpoint.Endpoint, done op.Plan, free func(string) string) (endpoint.Endpoint, op.Plan, error)
}

func (c *Controller) stagesOf(n network.Network, s sandbox.Sandbox) []stage {
	driver, err := c.driver(n.Driver)
	if err != nil {
		return nil
	}
	var stages []stage
	if lessor := c.lessor(n); lessor != nil {
		stages = append(stages,
			stage{plan: func(e endpoint.Endpoint, done op.Plan, _ func(string) string) (endpoint.Endpoint, op.Plan, error) {
				return lessor.Endpoint(n, e, done)
			}},
			stage{once: true, plan: func(e endpoint.Endpoint, _ op.Plan, _ func(string) string) (endpoint.Endpoint, op.Plan, error) {
				plan, err := driver.Endpoint(n, e, s)
				return e, c.guarded(driver, n, e, plan), err
			}})
	}
	if asker, asks := driver.(drivers.Asker); asks {
		stages = append(stages, stage{once: true, plan: func(e endpoint.Endpoint, done op.Plan, free func(string) string) (endpoint.Endpoint, op.Plan, error) {
			return asker.Answered(n, e, s, done, free)
		}})
	}
	return stages
}

// grow plans a stage of an endpoint, and stores it with all before it.
func (c *Controller) grow(row *store.Row[endpoint.Endpoint], next stage) (more op.Plan, err error) {
	err = c.o.Store.Defer(func(t store.Tables) error {
		now, there := t.Endpoints.Get(row.Value.ID)
		if !there || now.Phase != store.Creating {
			return linkspan.Errorf(linkspan.ErrConflict, "container %s stopped while it was being connected", row.Value.Name)
		}
		free := func(prefix string) string {
			taken := make(map[string]bool)
			for id, other := range t.By.EndpointsBySandbox.All(row.Value.Sandbox) {
				if id != row.Value.ID {
					taken[other.Value.Interface] = true
				}
			}
			return endpoint.FreeInterface(prefix, taken)
		}
		grown := *row
		grown.Value, more, err = next.plan(row.Value, row.Plan, free)
		if err != nil {
			return err
		}
		grown.Value.Name, grown.Value.DNSNames = now.Value.Name, now.Value.DNSNames // it may have been renamed
		grown.Plan = slices.Concat(row.Plan, more)
		t.Endpoints.Put(row.Value.ID, grown)
		*row = grown
		return nil
	})
	return more, err
}
