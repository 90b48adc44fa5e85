package controller

import (
	"context"
	"errors"

	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/store"
)

// Uninstall takes away all networks, predefined ones included, and what was
// done to the machine as a whole. It refuses, with the holders' names, while
// containers are attached. A later Recover makes the predefined ones anew.
func (c *Controller) Uninstall(ctx context.Context) error {
	var errs []error
	for _, n := range c.Networks() {
		var row store.Row[network.Network]
		err := c.o.Store.Update(func(t store.Tables) error {
			found, err := findNetwork(t, string(n.ID))
			if err == nil {
				row, err = found, refuseHeld(t, n)
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
