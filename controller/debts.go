package controller

import (
	"context"
	"iter"
	"slices"
	"sync"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/endpoint"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/store"
)

// What could not be undone since a program was away is owed to it, and outlives
// the daemon and the machine's boots (see package store). For whoever asked for the
// removal it is done: nobody but the program can see what is left. It is paid before the
// program is asked for anything new: a program that was started again, too, may
// have forgotten an address, and given it to somebody else by the time that it
// is given back.
//
// An address must also not be given back twice, for the same reason: whoever
// undoes the plan of an endpoint is alone with it, and looks first whether it is
// there still.

// turns lets one at a time undo an endpoint's plan.
type turns struct {
	mu    sync.Mutex
	locks map[linkspan.ID]*turn
}

type turn struct {
	sync.Mutex
	users int
}

// take waits until nobody else is about this, and returns the function that lets
// the next one in.
func (t *turns) take(id linkspan.ID) (done func()) {
	t.mu.Lock()
	if t.locks == nil {
		t.locks = make(map[linkspan.ID]*turn)
	}
	mine := t.locks[id]
	if mine == nil {
		mine = &turn{}
		t.locks[id] = mine
	}
	mine.users++
	t.mu.Unlock()
	mine.Lock()
	return func() {
		mine.Unlock()
		t.mu.Lock()
		defer t.mu.Unlock()
		if mine.users--; mine.users == 0 {
			delete(t.locks, id)
		}
	}
}

// undoEndpoint undoes the plan of an endpoint. If programs have a part in it, the
// row goes with it.
func (c *Controller) undoEndpoint(ctx context.Context, row store.Row[endpoint.Endpoint]) error {
	id := row.Value.ID
	if len(op.Parties(row.Plan)) == 0 {
		return c.executor.Undo(ctx, row.Plan)
	}
	return c.undoOnce(ctx, id, row.Plan, func(t store.Tables) bool { _, there := t.Endpoints.Get(id); return there }, func(t store.Tables) { t.Endpoints.Delete(id) })
}

// undoNetwork is undoEndpoint for a network.
func (c *Controller) undoNetwork(ctx context.Context, row store.Row[network.Network]) error {
	id := row.Value.ID
	if len(op.Parties(row.Plan)) == 0 {
		return c.executor.Undo(ctx, row.Plan)
	}
	return c.undoOnce(ctx, id, row.Plan, func(t store.Tables) bool { _, there := t.Networks.Get(id); return there }, func(t store.Tables) { t.Networks.Delete(id) })
}

func (c *Controller) undoOnce(ctx context.Context, id linkspan.ID, plan op.Plan, isThere func(store.Tables) bool, remove func(store.Tables)) error {
	defer c.undoing.take(id)()
	there := false
	c.o.Store.View(func(t store.Tables) { there = isThere(t) })
	if !there {
		return nil // somebody else was faster
	}
	if err := c.executor.Undo(ctx, plan); err != nil {
		if op.OnlyOwed(err) {
			c.owe(id)
		}
		return err
	}
	c.mu.Lock()
	delete(c.owed, id)
	c.mu.Unlock()
	return c.o.Store.Defer(func(t store.Tables) error {
		remove(t)
		return nil
	})
}

// owe notes that nothing is left of a row's plan but what is owed to programs.
func (c *Controller) owe(id linkspan.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.owed[id] = true
}

// owes tells whether a row is only there for what is owed.
func (c *Controller) owes(id linkspan.ID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.owed[id]
}

// leave turns the failure of a removal that must wait for nothing but programs
// into success, and notes it.
func (c *Controller) leave(what string, err error) error {
	if !op.OnlyOwed(err) {
		return err
	}
	c.o.Logf("%s: done, but for what a plugin that is away must hear of it: %v", what, err)
	return nil
}

// noteDebts notes what an earlier daemon has left to be undone by programs.
func (c *Controller) noteDebts() {
	c.o.Store.View(func(t store.Tables) {
		for id := range unfinished(t) {
			c.owe(id)
		}
	})
}

// unfinished are the endpoints and networks that are to go and in whose plans
// programs have a part, with the names of those.
func unfinished(t store.Tables) iter.Seq2[linkspan.ID, []string] {
	return func(yield func(linkspan.ID, []string) bool) {
		for id, row := range t.Endpoints.All() {
			if parties := op.Parties(row.Plan); row.Phase == store.Deleting && len(parties) > 0 && !yield(id, parties) {
				return
			}
		}
		for id, row := range t.Networks.All() {
			if parties := op.Parties(row.Plan); row.Phase == store.Deleting && len(parties) > 0 && !yield(id, parties) {
				return
			}
		}
	}
}

// pay undoes what is owed to a program that answers.
func (c *Controller) pay(ctx context.Context, name string) {
	c.mu.Lock()
	none := len(c.owed) == 0
	c.mu.Unlock()
	if none {
		return
	}
	toPay := false
	c.o.Store.View(func(t store.Tables) {
		for id, parties := range unfinished(t) {
			toPay = toPay || c.owes(id) && slices.Contains(parties, name)
		}
	})
	if toPay {
		c.retryDeleting(ctx, func(plan op.Plan) bool { return slices.Contains(op.Parties(plan), name) })
	}
}
