package controller

import (
	"context"
	"slices"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/store"
)

// takeOver takes away what a daemon with another data root has left. One daemon
// alone looks after a network namespace at a time, so that one is dead, or
// stopped. Its containers may go on all the same: then nothing is touched, and
// this daemon does not start.
func (c *Controller) takeOver(ctx context.Context) error {
	removed, err := c.removeOrphans()
	if err != nil {
		return err
	}
	c.note("removing the rules of a daemon with another data root", c.dropForeignRules(ctx, removed > 0))
	return nil
}

// removeOrphans removes links that bear our mark and that no row claims, and
// what an earlier daemon had doomed. It refuses if somebody lives at the far end
// of one.
func (c *Controller) removeOrphans() (removed int, err error) {
	names, err := c.orphans()
	if err != nil {
		return 0, err
	}
	living, err := c.o.Host.Inhabitants(names)
	if err != nil {
		return 0, err
	}
	if len(living) > 0 {
		return 0, linkspan.Errorf(linkspan.ErrConflict, "links here belong to containers that this daemon knows nothing of: %s. Start the daemon that made them with its own --data-root and --exec-root and remove them, or end the processes", living[0])
	}
	for _, name := range names {
		c.o.Logf("removing link %s: it bears our mark (group %d), belongs to nothing in this data root, and nobody lives at its far end", name, kernel.Mark)
		if err := c.o.Host.Doom(name, ""); err != nil {
			return 0, err
		}
	}
	return len(names), c.o.Host.Reap()
}

// dropForeignRules takes the rules away that all networks share, with whatever a
// daemon that is dead had put into them: they are made anew. If containers of our
// own live, the rules are theirs and stay.
func (c *Controller) dropForeignRules(ctx context.Context, foreign bool) error {
	known, alive := false, false
	c.o.Store.View(func(t store.Tables) {
		_, known = t.Hosts.Get(store.HostID)
		for range t.Sandboxes.All() {
			alive = true
		}
	})
	if known && !foreign || alive {
		return nil
	}
	shared := c.o.Firewall.Base()
	if c.o.Guard != nil {
		shared = slices.Concat(shared, c.o.Guard.GuardBase())
	}
	return c.executor.Undo(ctx, shared)
}

// orphans returns the links that bear our mark and that no row claims. The
// links are listed first: a row is there before its link is.
func (c *Controller) orphans() ([]string, error) {
	marked, err := c.o.Host.MarkedLinks()
	if err != nil {
		return nil, err
	}
	claimed := make(map[string]bool)
	c.o.Store.View(func(t store.Tables) {
		for _, row := range t.Networks.All() {
			claimLinks(claimed, row.Plan)
		}
		for _, row := range t.Endpoints.All() {
			claimLinks(claimed, row.Plan)
		}
	})
	return slices.DeleteFunc(marked, func(name string) bool { return claimed[name] }), nil
}

func claimLinks(claimed map[string]bool, plan op.Plan) {
	for _, step := range plan {
		switch o := step.Op.(type) {
		case op.AddBridge:
			claimed[o.Name] = true
		case op.AddVeth:
			claimed[o.Name] = true
		case op.AddMacvlan:
			claimed[o.Name] = claimed[o.Name] || o.NS == ""
		case op.ShareVLAN:
			claimed[o.Name] = true
		case op.AddVXLAN:
			claimed[o.Name] = true
		}
	}
}
