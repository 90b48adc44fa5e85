package controller

import (
	"context"
	"fmt"
	"sort"
	"strings"

	"github.com/linkspan/linkspan/doctor"
	"github.com/linkspan/linkspan/drivers"
	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/sandbox"
	"github.com/linkspan/linkspan/store"
)

// Diagnose says what is wrong: with the host, and with what is ours on it. It
// changes nothing.
func (c *Controller) Diagnose(ctx context.Context) ([]doctor.Finding, error) {
	subjects, four, six := c.subjects()
	seen, err := doctor.Observe(c.o.Host, four, six)
	if err != nil {
		return nil, err
	}
	found := doctor.Examine(seen, subjects)
	found = append(found, c.unguardedNetworks()...)
	found = append(found, c.differences(ctx)...)
	entries, err := c.peerFindings()
	if err != nil {
		return nil, err
	}
	found = append(found, entries...)
	found = append(found, c.sharedFindings()...)
	orphans, err := c.orphans()
	for _, name := range orphans {
		found = append(found, doctor.Finding{
			Reason: doctor.ReasonOrphan, Severity: doctor.Note, Repairable: true,
			What:   fmt.Sprintf("link %s bears our mark (group %d) and belongs to nothing", name, kernel.Mark),
			So:     "it is of no use to anybody, and holds its name",
			Remedy: "linkspan doctor --repair",
		})
	}
	return found, err
}

// Repair does again what is missing of what was done, takes away what belongs
// to nothing, and tries again what could not be undone. It leaves alone what is
// not ours: that is for Diagnose to name.
func (c *Controller) Repair(ctx context.Context) {
	for _, row := range c.planned(c.survey(ctx)) {
		if !c.ready(row) {
			continue
		}
		c.note("repairing", c.repair(ctx, row.what, row.plan))
		if !c.ready(row) { // it went meanwhile: what was just done again is nobody's
			c.note("taking the repair of "+row.what+" back", c.executor.Undo(ctx, row.plan))
		}
	}
	c.peers.RepairAll(ctx)
	c.retryDeleting(ctx, func(op.Plan) bool { return true })
	_, err := c.removeOrphans()
	c.note("repairing", err)
}

// subjects returns the networks that packets should pass, and the bridges of
// those from which they should pass the host, by address family.
func (c *Controller) subjects() (subjects []doctor.Subject, four, six []string) {
	for _, n := range c.Networks() {
		driver, err := c.driver(n.Driver)
		if err != nil || n.ConfigOnly || len(n.Pools) == 0 || n.Shared && c.partlessHere(n.ID) {
			continue
		}
		subject := doctor.Subject{Name: n.Name, Pools: n.Pools, IPv4: n.IPv4, IPv6: n.IPv6}
		if filtered, ok := driver.(drivers.Filtered); ok && !n.Internal {
			subject.Routed = true
			rules, err := filtered.Rules(n)
			if err == nil && n.IPv4 {
				four = append(four, rules.Bridge)
			}
			if err == nil && n.IPv6 {
				six = append(six, rules.Bridge)
			}
		}
		subjects = append(subjects, subject)
	}
	return subjects, four, six
}

// plannedRow is something of ours and the plan that made it.
type plannedRow struct {
	what  string
	plan  op.Plan
	ready func(store.Tables) bool
}

func (c *Controller) ready(row plannedRow) (ready bool) {
	c.o.Store.View(func(t store.Tables) { ready = row.ready(t) })
	return ready
}

// planned returns all that is Ready, in an order that repairs may be made in, but
// for what has been seen to be in order.
func (c *Controller) planned(seen seen) []plannedRow {
	all := []plannedRow{{"the host", c.HostCommands(), func(store.Tables) bool { return true }}}
	var networks, containers []plannedRow
	c.o.Store.View(func(t store.Tables) {
		for id, row := range t.Networks.All() {
			if row.Phase == store.Ready && row.Was == nil {
				networks = append(networks, plannedRow{"network " + row.Value.Name, seen.rest(row.Plan), func(t store.Tables) bool {
					now, ok := t.Networks.Get(id)
					return ok && now.Phase == store.Ready && now.Was == nil
				}})
			}
		}
		for id, row := range t.Sandboxes.All() {
			if row.Phase != store.Ready {
				continue
			}
			if r, ok := liveOf(t, row.Value.Owner); ok {
				containers = append(containers, plannedRow{"container " + nameOf(t, row.Value), seen.restOf(r).plan(), func(t store.Tables) bool {
					now, ok := t.Sandboxes.Get(id)
					return ok && now.Phase == store.Ready
				}})
			}
		}
	})
	for _, rows := range [][]plannedRow{networks, containers} {
		sort.Slice(rows, func(i, j int) bool { return rows[i].what < rows[j].what })
		all = append(all, rows...)
	}
	return all
}

func nameOf(t store.Tables, s sandbox.Sandbox) string {
	if config, ok := t.Configs.Get(s.Owner); ok {
		return config.Value.Name
	}
	return s.Owner.Short()
}

// unguardedNetworks names those whose ports should be guarded and cannot be.
func (c *Controller) unguardedNetworks() []doctor.Finding {
	var names []string
	why := ""
	for _, n := range c.Networks() {
		if security, guardable := c.PortSecurity(n); guardable && !security.On && c.wantsGuard(n) {
			names, why = append(names, n.Name), security.Why
		}
	}
	if names == nil {
		return nil
	}
	return []doctor.Finding{{
		Reason: doctor.ReasonUnguarded, Severity: doctor.Warning,
		What:   fmt.Sprintf("the ports of %s are not guarded: %s", strings.Join(names, ", "), why),
		So:     "a container with CAP_NET_RAW can take the address of a neighbour, or of the gateway",
		Remedy: "a kernel with nftables for bridges (modprobe nf_tables; CONFIG_NF_TABLES_BRIDGE); or say that it need not be: linkspan network update -o " + OptionPortSecurity + "=false NETWORK; or take the capability away: run --cap-drop NET_RAW",
	}}
}

// differences compares the kernel with every stored plan.
func (c *Controller) differences(ctx context.Context) []doctor.Finding {
	var found []doctor.Finding
	for _, row := range c.planned(c.look()) {
		for _, step := range row.plan {
			if err := step.Op.Check(ctx, c.o.Host); err != nil {
				found = append(found, doctor.Finding{
					Reason: doctor.ReasonDiffers, Severity: doctor.Broken, Repairable: true,
					What:   fmt.Sprintf("%s: %v", row.what, err),
					So:     "somebody has changed it since: " + step.Why,
					Remedy: "linkspan doctor --repair",
				})
			}
		}
	}
	for _, n := range c.unfinished() {
		found = append(found, doctor.Finding{
			Reason: doctor.ReasonUnfinished, Severity: doctor.Warning, Repairable: true,
			What:   fmt.Sprintf("network %s could not be removed wholly", n.Name),
			So:     "its name and addresses are taken until it is; it is tried again from time to time",
			Remedy: "linkspan doctor --repair; the daemon's log says what was in the way",
		})
	}
	return found
}

func (c *Controller) unfinished() (all []network.Network) {
	c.o.Store.View(func(t store.Tables) {
		for _, row := range t.Networks.All() {
			if row.Phase == store.Deleting {
				all = append(all, row.Value)
			}
		}
	})
	return all
}
