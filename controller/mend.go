package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/linkspan/linkspan/firewall"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/store"
)

const (
	compareEvery = 30 * time.Second       // if the kernel reports changes of rules
	compareOften = time.Second            // if it does not
	compareAgain = 500 * time.Millisecond // after rows were in the making
	calm         = 20 * time.Millisecond  // one flush is many changes
	mostRounds   = 5
)

// guardRules puts back what others take away of the firewall's rules: soon
// after the kernel reports a change, and from time to time without one.
//
//	nft flush ruleset ──report──▶ compare ──missing──▶ put back ──▶ compare
//	                       clock ────▲
func (c *Controller) guardRules(ctx context.Context) {
	mender, can := c.o.Firewall.(firewall.Mender)
	if !can {
		return
	}
	pause := compareOften
	var changes <-chan struct{}
	if tables := mender.Tables(); tables != nil {
		if c.o.Guard != nil {
			tables = slices.Concat(tables, c.o.Guard.GuardTables())
		}
		var err error
		if changes, err = c.o.Host.FollowRules(ctx, tables); err == nil {
			pause = compareEvery
		}
		c.note("following changes of the firewall's rules", err)
	}
	timer := time.NewTimer(calm) // what happened before the kernel was asked to report
	defer timer.Stop()
	for {
		next := pause
		select {
		case <-ctx.Done():
			return
		case _, open := <-changes:
			next = calm
			if !open { // the kernel reports no more
				changes, pause, next = nil, compareOften, compareOften
			}
		case <-timer.C:
			_, busy, err := c.mend(ctx)
			err = errors.Join(err, c.mendGuard(ctx))
			c.note("restoring the firewall's rules", err)
			if busy || err != nil {
				next = compareAgain
			}
		}
		timer.Reset(next)
	}
}

// Reapply puts back what is missing of the firewall's rules, and returns the
// steps that were needed.
func (c *Controller) Reapply(ctx context.Context) (op.Plan, error) {
	done, _, err := c.mend(ctx)
	return done, err
}

// mend compares the rows that are Ready with the kernel and does what is
// missing. It takes no lock that a verb would wait for, so a row may change
// meanwhile: what was put back for a row as it is no more is taken back again,
// and the comparison made anew. busy tells that rows were in the making.
func (c *Controller) mend(ctx context.Context) (done op.Plan, busy bool, err error) {
	mender, can := c.o.Firewall.(firewall.Mender)
	if !can {
		return nil, false, nil
	}
	c.mending.Lock()
	defer c.mending.Unlock()
	for range mostRounds {
		var wanted []firewall.Op
		wanted, busy = c.rules()
		if len(wanted) == 0 {
			return done, busy, nil // the host is not prepared yet
		}
		plan, err := mender.Mend(c.o.Host, wanted)
		if err != nil || len(plan) == 0 {
			return done, busy, err
		}
		for _, step := range plan {
			c.o.Logf("restoring the firewall's rules: %s", step.Why)
		}
		if err := c.executor.Do(ctx, plan); err != nil {
			return done, busy, err
		}
		done = append(done, plan...)
		if err := c.unmend(ctx, wanted); err != nil {
			return done, busy, err
		}
		c.clearFlows(ctx)
	}
	return done, busy, fmt.Errorf("somebody else changes the firewall's rules at the same time: after %d rounds some are missing still (see: linkspan doctor)", mostRounds)
}

// rules returns the ops of rows that are Ready, those first that the others rest
// on, and whether there are rows that are not.
func (c *Controller) rules() (ops []firewall.Op, busy bool) {
	collect := func(plan op.Plan, phase store.Phase, changing bool) {
		busy = busy || phase == store.Creating || changing
		if phase != store.Ready || changing {
			return
		}
		for _, step := range plan {
			if rule, is := step.Op.(firewall.Op); is {
				ops = append(ops, rule)
			}
		}
	}
	c.o.Store.View(func(t store.Tables) {
		for _, row := range t.Hosts.All() {
			collect(row.Plan, row.Phase, row.Was != nil)
		}
		for _, row := range t.Networks.All() {
			collect(row.Plan, row.Phase, row.Was != nil)
		}
		for _, row := range t.Ports.All() {
			collect(row.Plan, row.Phase, row.Was != nil)
		}
	})
	return ops, busy
}

// unmend undoes ops that no row wants any more. Whoever took them out of a
// row undoes them after that: had it been done before they were put back, they
// would stay for ever.
func (c *Controller) unmend(ctx context.Context, before []firewall.Op) error {
	now, _ := c.rules()
	wanted := make(map[string]bool, len(now))
	for _, rule := range now {
		wanted[rule.String()] = true
	}
	var stale op.Plan
	for _, rule := range before {
		if !wanted[rule.String()] {
			stale = append(stale, op.Step{Why: "Nobody wants it any more.", Op: rule})
		}
	}
	return c.executor.Undo(ctx, stale)
}

// clearFlows has the kernel look again at conversations that began while no
// rules translated them.
func (c *Controller) clearFlows(ctx context.Context) {
	var plan op.Plan
	c.o.Store.View(func(t store.Tables) {
		for _, row := range t.Ports.All() {
			for _, step := range row.Plan {
				if _, is := step.Op.(op.ClearFlows); is && row.Phase == store.Ready {
					plan = append(plan, step)
				}
			}
		}
	})
	c.note("clearing conversations that are older than the rules", c.executor.Do(ctx, plan))
}
