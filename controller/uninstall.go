package controller

import (
	"context"
	"errors"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/store"
)

// Uninstall takes away the predefined networks and what was done to the machine
// as a whole, so that it is as it was before the first daemon. It refuses, with
// their names, while users' networks or containers are there. A later Recover
// makes the predefined networks anew.
func (c *Controller) Uninstall(ctx context.Context) error {
	for _, n := range c.Networks() {
		if !network.Predefined(n.Name) && !n.Shared { // those are other hosts' too
			return linkspan.Errorf(linkspan.ErrForbidden, "network %s is there still: remove it first (see: linkspan network rm %s)", n.Name, n.Name)
		}
	}
	// Nobody puts back meanwhile what is taken away here.
	c.stop()
	c.stopped.Wait()
	var errs []error
	for _, n := range c.Networks() {
		var row store.Row[network.Network]
		err := c.o.Store.Update(func(t store.Tables) error {
			found, err := findNetwork(t, string(n.ID))
			if err == nil {
				row, err = found, c.refuseHeld(t, n)
			}
			if err == nil {
				t.Networks.SetPhase(n.ID, store.Deleting)
			}
			return err
		})
		if err == nil {
			err = c.finishNetwork(ctx, row)
		}
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if err := c.executor.Undo(ctx, c.HostCommands()); err != nil {
		return err
	}
	return errors.Join(c.o.Host.Reap(), c.o.Store.Defer(func(t store.Tables) error {
		t.Hosts.Delete(store.HostID)
		return nil
	}))
}
