package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"slices"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/firewall"
	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/sandbox"
	"github.com/linkspan/linkspan/store"
)

// Holder is whoever outlives the daemon and keeps, for a container, the sockets
// that hold its published ports, and those of its resolver: its shim.
type Holder interface {
	// Keep hands over, for a running container, what Attachment.Keep is for one
	// that starts. The files remain the caller's.
	Keep(owner linkspan.ID, files []*os.File) error
	// Holding returns what is held for a running container.
	Holding(owner linkspan.ID) ([]kernel.Hold, error)
	// Hold hands over sockets for the fresh ports, in order, and lets go of
	// those that are held and not wanted. The sockets remain the caller's.
	Hold(owner linkspan.ID, wanted []sandbox.Port, fresh []kernel.Hold, sockets kernel.Sockets) error
}

// holdsOf returns the sockets that published ports take, in the order in which
// they are handed over.
func holdsOf(ports []sandbox.Port) []kernel.Hold {
	var holds []kernel.Hold
	for _, p := range ports {
		if p.Routed {
			continue
		}
		for i := range p.Count {
			holds = append(holds, kernel.Hold{Protocol: p.Protocol, At: netip.AddrPortFrom(p.Host, p.First+i), Serve: p.Served()})
		}
	}
	return holds
}

// errPortHeld is the kind of a refusal of the chooser whose true cause the
// kernel knows.
var errPortHeld = errors.New("address already in use")

// reservePorts is the pure part of publishing.
func (c *Controller) reservePorts(t store.Tables, owner linkspan.ID, id linkspan.ID, space portSpace) (store.Row[store.Ports], error) {
	config, _ := t.Configs.Get(owner)
	live, _ := t.Sandboxes.Get(id)
	links := linksOf(t, id)
	picked, _ := c.gateways(live.Value, links)
	row, err := c.choosePorts(t, config.Value, live.Value, picked, links, space)
	if err == nil && !row.Value.Empty() {
		row.Phase = store.Creating
		t.Ports.Put(id, row)
	}
	return row, err
}

// hold opens the sockets of a reservation. A port that somebody else turns out
// to have is given up for the next one, where the wish leaves a choice. Those
// that are held already are left out.
func (c *Controller) hold(owner linkspan.ID, id linkspan.ID, row store.Row[store.Ports], space portSpace, held []kernel.Hold) (store.Row[store.Ports], []kernel.Hold, kernel.Sockets, error) {
	has := make(map[kernel.Hold]bool, len(held))
	for _, h := range held {
		has[h] = true
	}
	for {
		fresh := slices.DeleteFunc(holdsOf(row.Value.Ports), func(h kernel.Hold) bool {
			h.Serve = false // which the holder sees to
			return has[h]
		})
		sockets, err := c.o.Host.HoldPorts(fresh)
		if err == nil {
			return row, fresh, sockets, nil
		}
		var failed *kernel.PortError
		if !errors.As(err, &failed) || !failed.Taken {
			return row, nil, nil, programming(c.endpointName(id), err)
		}
		space.busy[busyPort{fresh[failed.Index].Protocol, fresh[failed.Index].At}] = true
		var refused error
		if deferred := c.o.Store.Defer(func(t store.Tables) error {
			row, refused = c.reservePorts(t, owner, id, space)
			return refused
		}); errors.Is(refused, errPortHeld) {
			return row, nil, nil, programming(c.endpointName(id), err) // which names the holder
		} else if deferred != nil {
			return row, nil, nil, deferred
		}
	}
}

func (c *Controller) endpointName(id linkspan.ID) (name string) {
	c.o.Store.View(func(t store.Tables) {
		for _, l := range linksOf(t, id) {
			name = fmt.Sprintf("%s (%s)", l.endpoint.Name, l.endpoint.ID)
			return
		}
	})
	return name
}

// portSpaceOf reads what the host has to give to a container, before the store
// is locked.
func (c *Controller) portSpaceOf(owner linkspan.ID) (portSpace, error) {
	var wishes []sandbox.Wish
	c.o.Store.View(func(t store.Tables) {
		config, _ := t.Configs.Get(owner)
		wishes = config.Value.Ports
	})
	return c.portSpace(owner, wishes)
}

// followPorts makes what is published of a live container follow its wishes and
// its gateways. If nothing has changed, it does nothing.
func (c *Controller) followPorts(ctx context.Context, owner linkspan.ID) error {
	space, err := c.portSpaceOf(owner)
	if err != nil {
		return err
	}
	var id linkspan.ID
	c.o.Store.View(func(t store.Tables) {
		live, _ := sandboxOf(t, owner)
		id = live.Value.ID
	})
	defer c.alone(id)()
	var old, fresh store.Row[store.Ports]
	changed := false
	err = c.o.Store.Defer(func(t store.Tables) error {
		var known bool
		if old, known = t.Ports.Get(id); !known {
			old = store.Row[store.Ports]{Phase: store.Ready}
		}
		if fresh, err = c.reservePorts(t, owner, id, space); err != nil {
			return err
		}
		changed = old.Phase != store.Ready || !reflect.DeepEqual(old.Value, fresh.Value)
		if known && !changed {
			t.Ports.Put(id, old)
		}
		return nil
	})
	if err != nil || !changed {
		return err
	}
	return c.switchPorts(ctx, owner, id, old, fresh, space)
}

// switchPorts replaces what is published, and touches only what differs. While
// it does, the row holds both plans and is not Ready: whoever comes next after a
// crash undoes both and starts from nothing.
func (c *Controller) switchPorts(ctx context.Context, owner, id linkspan.ID, old, fresh store.Row[store.Ports], space portSpace) error {
	held, err := c.o.Holder.Holding(owner)
	if err != nil {
		return errors.Join(fmt.Errorf("asking what is held of container %s: %w", owner.Short(), err), c.putPorts(id, old))
	}
	fresh, holds, sockets, err := c.hold(owner, id, fresh, space, held)
	defer sockets.Close() // the shim has its own
	if err != nil {
		return errors.Join(err, c.putPorts(id, old))
	}
	both := fresh
	both.Phase, both.Plan = store.Creating, slices.Concat(old.Plan, fresh.Plan)
	if err := c.putPorts(id, both); err != nil {
		return err
	}
	// Add before delete: for a moment the shim holds both.
	wanted := slices.Concat(fresh.Value.Ports, notIn(old.Value.Ports, fresh.Value.Ports))
	if err := c.o.Holder.Hold(owner, wanted, holds, sockets); err != nil {
		return errors.Join(fmt.Errorf("handing ports of container %s over: %w", owner.Short(), err), c.putPorts(id, old))
	}
	if err := c.switchRules(ctx, old, fresh); err != nil {
		return fmt.Errorf("publishing ports of container %s: %w", owner.Short(), err)
	}
	if err := c.o.Holder.Hold(owner, fresh.Value.Ports, nil, nil); err != nil {
		return fmt.Errorf("letting go of ports of container %s: %w", owner.Short(), err)
	}
	fresh.Phase = store.Ready
	return c.putPorts(id, fresh)
}

// switchRules makes the firewall follow: in one transaction if it can.
func (c *Controller) switchRules(ctx context.Context, old, fresh store.Row[store.Ports]) error {
	change := c.rulesChange(old, fresh)
	err := errors.Join(c.executor.Undo(ctx, change.first), c.executor.Do(ctx, change.then))
	if err != nil {
		return err
	}
	return c.executor.Undo(ctx, change.last)
}

// portsChange is how the firewall follows a change of what is published: first is
// undone, then is done, last is undone.
type portsChange struct{ first, then, last op.Plan }

func (c *Controller) rulesChange(old, fresh store.Row[store.Ports]) portsChange {
	sameBridges := old.Value.Bridge4 == fresh.Value.Bridge4 && old.Value.Bridge6 == fresh.Value.Bridge6
	if old.Phase != store.Ready || !sameBridges {
		return portsChange{first: old.Plan, then: fresh.Plan}
	}
	gone, added := old.Value, fresh.Value
	gone.Ports, added.Ports = notIn(old.Value.Ports, fresh.Value.Ports), notIn(fresh.Value.Ports, old.Value.Ports)
	gone.Ways, added.Ways = notIn(old.Value.Ways, fresh.Value.Ways), notIn(fresh.Value.Ways, old.Value.Ways)
	switcher, can := c.o.Firewall.(firewall.Switcher)
	if !can || gone.Bridge4 != gone.Bridge6 && gone.Bridge4 != "" && gone.Bridge6 != "" {
		return portsChange{first: c.portsPlan(gone), then: c.portsPlan(added)}
	}
	drop, _ := flowSteps(gone)
	_, clear := flowSteps(added)
	change := switcher.Switch(cmp.Or(added.Bridge4, added.Bridge6), gone.Ports, added.Ports)
	return portsChange{then: slices.Concat(change, clear, c.waysPlan(added.Ways)), last: slices.Concat(drop, c.waysPlan(gone.Ways))}
}

// notIn returns those of a that are not in b.
func notIn[T any](a, b []T) []T {
	return slices.DeleteFunc(slices.Clone(a), func(p T) bool {
		return slices.ContainsFunc(b, func(q T) bool { return reflect.DeepEqual(p, q) })
	})
}

func (c *Controller) putPorts(id linkspan.ID, row store.Row[store.Ports]) error {
	return c.o.Store.Defer(func(t store.Tables) error {
		if _, alive := t.Sandboxes.Get(id); !alive || row.Value.Empty() && len(row.Plan) == 0 {
			t.Ports.Delete(id)
			return nil
		}
		t.Ports.Put(id, row)
		return nil
	})
}
