package controller

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/linkspan/linkspan/doctor"
	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/op"
)

// guard compares networks with the kernel until ctx ends, once there is one.
func (p *peerings) guard(ctx context.Context) {
	select {
	case <-ctx.Done():
		return
	case <-p.begun:
	}
	var following sync.WaitGroup
	defer following.Wait()
	following.Go(func() {
		if err := p.host.FollowStations(ctx, p.reported); err != nil {
			p.logf("following changes of the tables of tunnel devices: %v", err)
		}
	})
	clock := time.NewTicker(compareEvery)
	defer clock.Stop()
	pause := time.NewTimer(calm)
	defer pause.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.wake:
			pause.Reset(calm)
		case <-clock.C:
			p.repairAll(ctx)
		case <-pause.C:
			if !p.repairDirty(ctx) {
				pause.Reset(compareAgain)
			}
		}
	}
}

// reported looks whether a change is as it should be, whoever made it.
func (p *peerings) reported(r kernel.StationReport) {
	p.mu.Lock()
	one := p.links[r.Link]
	if r.Lost {
		for _, each := range p.of {
			p.dirty[each] = true
		}
	}
	p.mu.Unlock()
	if r.Lost {
		p.poke()
	}
	if one == nil {
		return
	}
	one.mu.Lock()
	found := op.StationOp(one.link, r.Station)
	want, has := one.wanted.step(thingOf(found))
	one.mu.Unlock()
	right := !r.Gone && has && !r.Odd && want.Op == found || r.Gone && !has
	if !right {
		p.mark(one)
	}
}

func (p *peerings) mark(one *peering) {
	p.mu.Lock()
	p.dirty[one] = true
	p.mu.Unlock()
	p.poke()
}

func (p *peerings) poke() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// repairDirty compares the networks of which something was reported, and tells
// whether all went well.
func (p *peerings) repairDirty(ctx context.Context) bool {
	p.mu.Lock()
	dirty := p.dirty
	p.dirty = make(map[*peering]bool)
	p.mu.Unlock()
	well := true
	for one := range dirty {
		well = p.repair(ctx, one) && well
	}
	return well
}

func (p *peerings) repairAll(ctx context.Context) {
	for _, one := range p.all() {
		p.repair(ctx, one)
	}
}

// all returns the networks in the order of their names.
func (p *peerings) all() []*peering {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []*peering
	for _, one := range p.of {
		all = append(all, one)
	}
	slices.SortFunc(all, func(a, b *peering) int { return strings.Compare(a.name+string(a.id), b.name+string(b.id)) })
	return all
}

// repair compares one network. What it finds wrong counts if all was right before.
func (p *peerings) repair(ctx context.Context, one *peering) (well bool) {
	one.mu.Lock()
	defer one.mu.Unlock()
	settled := one.settled
	wrong, err := p.compare(ctx, one)
	if err != nil {
		p.logf("repairing the tables of network %s: %v", one.name, err)
		p.mu.Lock()
		if p.of[one.id] == one {
			p.dirty[one] = true
		}
		p.mu.Unlock()
	}
	for _, step := range wrong {
		if settled {
			p.logf("repairing the tables of network %s, which were not as they had been left: %s", one.name, step.Op)
			one.repairs.Count++
			one.repairs.Last, one.repairs.Entry = time.Now(), step.Op.String()
		}
	}
	return err == nil
}

// peerFindings says which entries are wrong now, and how many were.
func (c *Controller) peerFindings() ([]doctor.Finding, error) {
	now, before, err := c.peers.wrong()
	var found []doctor.Finding
	for _, name := range slices.Sorted(maps.Keys(now)) {
		for _, what := range now[name] {
			found = append(found, doctor.Finding{
				Reason: doctor.ReasonDiffers, Severity: doctor.Broken, Repairable: true,
				What:   fmt.Sprintf("network %s, entries for other hosts: %s", name, what),
				So:     "containers do not reach a container on another host, or not the right one; it is put right within seconds by itself",
				Remedy: "linkspan doctor --repair",
			})
		}
	}
	for _, r := range before {
		found = append(found, doctor.Finding{
			Reason: doctor.ReasonEntries, Severity: doctor.Note,
			What:   fmt.Sprintf("network %s: %d entries for other hosts were wrong since the daemon started and were put right, the last at %s: %s", r.Network, r.Count, r.Last.Format(time.RFC3339), r.Entry),
			So:     "somebody else changes the tables of its tunnel device, and meanwhile packets went astray",
			Remedy: "bridge monitor fdb; ip monitor neigh; the daemon's log has each of them",
		})
	}
	return found, err
}

// wrong returns what is wrong now with each network, and what was.
func (p *peerings) wrong() (now map[string][]string, before []Repairs, err error) {
	now = make(map[string][]string)
	for _, one := range p.all() {
		one.mu.Lock()
		clears, sets, drops, failed := p.look(one)
		repairs := one.repairs
		one.mu.Unlock()
		err = errors.Join(err, failed)
		for _, step := range sets {
			now[one.name] = append(now[one.name], "missing: "+step.Op.String())
		}
		for _, step := range slices.Concat(clears, drops) {
			now[one.name] = append(now[one.name], "should not be there: "+step.Op.String())
		}
		if repairs.Count > 0 {
			repairs.Network = one.name
			before = append(before, repairs)
		}
	}
	return now, before, err
}
