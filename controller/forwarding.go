package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/linkspan/linkspan/drivers"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/store"
)

const forwardIPv6 = "net/ipv6/conf/all/forwarding"

// prepareHost does to the machine what a network needs of it and no earlier one
// did: to pass IPv6 packets on. The steps join those of the host, which are
// shown, checked at each start, and undone by Uninstall.
func (c *Controller) prepareHost(ctx context.Context, n network.Network, driver drivers.Driver) error {
	if _, routed := driver.(drivers.Filtered); !routed || !n.IPv6 {
		return nil
	}
	steps, err := c.forwardingSteps()
	if err != nil || len(steps) == 0 {
		return err
	}
	change := func(phase store.Phase, change func(op.Plan) op.Plan) error {
		return c.o.Store.Defer(func(t store.Tables) error {
			row, _ := t.Hosts.Get(store.HostID)
			row.Phase, row.Plan = phase, change(row.Plan)
			t.Hosts.Put(store.HostID, row)
			return nil
		})
	}
	// Two at once may both add them: a step done twice changes nothing.
	if err := change(store.Creating, func(plan op.Plan) op.Plan { return slices.Concat(plan, steps) }); err != nil {
		return err
	}
	if err := c.executor.Do(ctx, steps); err != nil {
		without := func(plan op.Plan) op.Plan {
			return slices.DeleteFunc(slices.Clone(plan), func(s op.Step) bool { return slices.Contains(steps, s) })
		}
		return errors.Join(fmt.Errorf("preparing the host for IPv6: %w", err), change(store.Ready, without))
	}
	return change(store.Ready, func(plan op.Plan) op.Plan { return plan })
}

// forwardingSteps are the steps to IPv6 forwarding that are not done yet.
func (c *Controller) forwardingSteps() (op.Plan, error) {
	was, err := c.o.Host.ReadSysctl("", forwardIPv6)
	if err != nil || was == "1" {
		return nil, err
	}
	routers, err := c.o.Host.RouterLinks()
	if err != nil {
		return nil, err
	}
	var plan op.Plan
	for _, link := range routers {
		key := "net/ipv6/conf/" + link + "/accept_ra"
		accepts, err := c.o.Host.ReadSysctl("", key)
		if err != nil {
			return nil, err
		}
		if accepts == "1" {
			plan = append(plan, op.Step{
				Why: "The host has its default route from a router on " + link + "; it would forget it on becoming a router itself.",
				Op:  op.SetSysctl{Key: key, Value: "2", Was: accepts},
			})
		}
	}
	return append(plan, op.Step{
		Why: "IPv6 containers reach the world by way of the host, which must pass packets on for them.",
		Op:  op.SetSysctl{Key: forwardIPv6, Value: "1", Was: was},
	}), nil
}
