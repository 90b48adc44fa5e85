package peering

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/op"
)

const (
	compareEvery = 30 * time.Second       // if the kernel reports nothing
	compareAgain = 500 * time.Millisecond // after something could not be repaired
	calm         = 20 * time.Millisecond  // one flush is many changes
)

// Guard compares networks with the kernel until ctx ends, once there is one.
func (t *Tables) Guard(ctx context.Context) {
	select {
	case <-ctx.Done():
		return
	case <-t.begun:
	}
	var following sync.WaitGroup
	defer following.Wait()
	following.Go(func() {
		if err := t.host.FollowStations(ctx, t.reported); err != nil {
			t.logf("following changes of the tables of tunnel devices: %v", err)
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
		case <-t.wake:
			pause.Reset(calm)
		case <-clock.C:
			t.RepairAll(ctx)
		case <-pause.C:
			if !t.repairDirty(ctx) {
				pause.Reset(compareAgain)
			}
		}
	}
}

// reported looks whether a change is as it should be, whoever made it.
func (t *Tables) reported(r kernel.StationReport) {
	t.mu.Lock()
	one := t.links[r.Link]
	if r.Lost {
		for _, each := range t.of {
			t.dirty[each] = true
		}
	}
	t.mu.Unlock()
	if r.Lost {
		t.poke()
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
		t.mark(one)
	}
}

func (t *Tables) mark(one *table) {
	t.mu.Lock()
	t.dirty[one] = true
	t.mu.Unlock()
	t.poke()
}

func (t *Tables) poke() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// repairDirty compares the networks of which something was reported, and tells
// whether all went well.
func (t *Tables) repairDirty(ctx context.Context) bool {
	t.mu.Lock()
	dirty := t.dirty
	t.dirty = make(map[*table]bool)
	t.mu.Unlock()
	well := true
	for one := range dirty {
		well = t.repair(ctx, one) && well
	}
	return well
}

// RepairAll compares all networks with the kernel now, and puts right what is wrong.
func (t *Tables) RepairAll(ctx context.Context) {
	for _, one := range t.all() {
		t.repair(ctx, one)
	}
}

// all returns the networks in the order of their names.
func (t *Tables) all() []*table {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []*table
	for _, one := range t.of {
		all = append(all, one)
	}
	slices.SortFunc(all, func(a, b *table) int { return strings.Compare(a.name+string(a.id), b.name+string(b.id)) })
	return all
}

// repair compares one network. What it finds wrong counts if all was right before.
func (t *Tables) repair(ctx context.Context, one *table) (well bool) {
	one.mu.Lock()
	defer one.mu.Unlock()
	settled := one.settled
	wrong, err := t.compare(ctx, one)
	if err != nil {
		t.logf("repairing the tables of network %s: %v", one.name, err)
		t.mu.Lock()
		if t.of[one.id] == one {
			t.dirty[one] = true
		}
		t.mu.Unlock()
	}
	for _, step := range wrong {
		if settled {
			t.logf("repairing the tables of network %s, which were not as they had been left: %s", one.name, step.Op)
			one.repairs.Count++
			one.repairs.Last, one.repairs.Entry = time.Now(), step.Op.String()
		}
	}
	return err == nil
}

// Wrong returns what is wrong now with each network, and what was.
func (t *Tables) Wrong() (now map[string][]string, before []Repairs, err error) {
	now = make(map[string][]string)
	for _, one := range t.all() {
		one.mu.Lock()
		clears, sets, drops, failed := t.look(one)
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
