// Package peering keeps the tables of tunnel devices as they should be: those
// entries and no others that lead to the endpoints on other hosts. What should be
// is computed from the endpoints, by a drivers.Spanning. By hand, for one of them:
//
//	bridge fdb replace 02:42:0a:4d:00:03 dev vx-lab dst 192.0.2.2 self permanent
//	bridge fdb replace 02:42:0a:4d:00:03 dev vx-lab master static
//	ip neigh replace 10.77.0.3 lladdr 02:42:0a:4d:00:03 dev vx-lab nud permanent
//
// When the endpoints change, the difference to before is done; now and then, and
// soon after the kernel reports a change that is not as it should be, the whole is
// compared with the kernel. What was wrong although the endpoints had not changed
// is a repair: it is counted and logged.
//
//	Set ──▶ difference to before ──▶ kernel
//	bridge fdb del ──report──▶ compare ──▶ repair
//	                clock ──────▲
package peering

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/drivers"
	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/store/cluster"
)

// Tables are those of all networks of a host that span hosts. They are safe for
// concurrent use.
type Tables struct {
	host *kernel.Host
	do   func(context.Context, op.Plan) error
	undo func(context.Context, op.Plan) error
	logf func(string, ...any)

	mu    sync.Mutex
	of    map[linkspan.ID]*table
	links map[int]*table // by index of the tunnel device
	dirty map[*table]bool
	wake  chan struct{} // holds a token while something is dirty
	begun chan struct{} // closed when there is a network to guard
}

// table is what one network has of other hosts.
type table struct {
	mu      sync.Mutex // held while the kernel is changed
	id      linkspan.ID
	name    string
	link    string // the tunnel device
	index   int    // its; 0: it was not there when it was looked for last
	bridge  int    // index of the bridge that it is a port of
	peers   map[string]drivers.Peer
	wanted  wanted
	settled bool // the kernel is as wanted, as far as is known
	repairs Repairs
}

// Repairs tells how often entries of a network were found wrong.
type Repairs struct {
	Network string // name
	Count   int    // entries since the daemon started
	Last    time.Time
	Entry   string // the last one, as a command
}

// New returns the tables of a host that knows of no peers yet: what the kernel has
// stays until it is told of some. An executor carries the changes out.
func New(h *kernel.Host, x *op.Executor, logf func(string, ...any)) *Tables {
	return &Tables{
		host: h, do: x.Do, undo: x.Undo, logf: logf,
		of: make(map[linkspan.ID]*table), links: make(map[int]*table), dirty: make(map[*table]bool), wake: make(chan struct{}, 1),
		begun: make(chan struct{}),
	}
}

// Set says which endpoints of a network are on other hosts, all of them, and makes
// the kernel follow: at once if this host has the network's tunnel device, else at
// the next call, or comparison, after it has. Its cost is that of the change. What
// fails is returned, and tried again.
func (t *Tables) Set(ctx context.Context, n network.Network, driver drivers.Spanning, peers []drivers.Peer) error {
	one, err := t.get(n, driver)
	if err != nil {
		return err
	}
	one.mu.Lock()
	defer one.mu.Unlock()
	sets, drops, err := one.turn(n, driver, peers)
	if err != nil {
		return err
	}
	if !one.settled {
		_, err = t.compare(ctx, one)
	} else if err = t.apply(ctx, one, sets, drops); err != nil {
		one.settled = false
	}
	if !one.settled && one.index != 0 {
		t.mark(one)
	}
	return err
}

func (t *Tables) get(n network.Network, driver drivers.Spanning) (*table, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if one := t.of[n.ID]; one != nil {
		return one, nil
	}
	plan, err := driver.Network(n)
	if err != nil {
		return nil, err
	}
	one := &table{id: n.ID, name: n.Name, peers: make(map[string]drivers.Peer), wanted: make(wanted)}
	for _, step := range plan {
		if tunnel, is := step.Op.(op.AddVXLAN); is {
			one.link = tunnel.Name
		}
	}
	if one.link == "" {
		return nil, fmt.Errorf("driver %s plans no tunnel device for network %s", n.Driver, n.Name)
	}
	t.of[n.ID] = one
	select {
	case <-t.begun:
	default:
		close(t.begun)
	}
	return one, nil
}

// Drop forgets a network whose tunnel device has gone, and its entries with it.
func (t *Tables) Drop(id linkspan.ID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if one := t.of[id]; one != nil {
		delete(t.of, id)
		delete(t.dirty, one)
		for index, other := range t.links {
			if other == one {
				delete(t.links, index)
			}
		}
	}
}

// Peers returns those of a network's endpoints that are not on this host, as a
// driver wants them.
func Peers(endpoints []cluster.Endpoint, self cluster.Member) []drivers.Peer {
	var peers []drivers.Peer
	for _, e := range endpoints {
		if e.Member != self.ID {
			peers = append(peers, drivers.Peer{Addresses: e.Addresses(), MAC: e.MAC, VTEP: e.VTEP})
		}
	}
	return peers
}

// changes returns the peers that are new and those that are no more.
func (one *table) changes(now map[string]drivers.Peer) (come, gone []drivers.Peer) {
	for key, peer := range now {
		if _, known := one.peers[key]; !known {
			come = append(come, peer)
		}
	}
	for key, peer := range one.peers {
		if _, still := now[key]; !still {
			gone = append(gone, peer)
		}
	}
	return come, gone
}

func keyOf(peer drivers.Peer) string {
	var key strings.Builder
	key.WriteString(peer.MAC)
	for _, addr := range append([]netip.Addr{peer.VTEP}, peer.Addresses...) {
		key.WriteByte(' ')
		key.WriteString(addr.String())
	}
	return key.String()
}

// turn brings what is wanted up to date and returns what the kernel must do
// first, and what it must undo then.
func (one *table) turn(n network.Network, driver drivers.Spanning, peers []drivers.Peer) (sets, drops op.Plan, err error) {
	now := make(map[string]drivers.Peer, len(peers))
	for _, peer := range peers {
		now[keyOf(peer)] = peer
	}
	come, gone := one.changes(now)
	arrivals, err := driver.Peers(n, come)
	if err != nil {
		return nil, nil, err
	}
	departures, err := driver.Peers(n, gone)
	if err != nil {
		return nil, nil, err
	}
	one.peers = now
	before := make(wanted)
	for _, step := range slices.Concat(arrivals, departures) {
		if thing := thingOf(step.Op); before[thing] == nil {
			before[thing] = slices.Clone(one.wanted[thing])
		}
	}
	for _, step := range departures {
		one.wanted.remove(step)
	}
	for _, step := range arrivals {
		one.wanted.add(step)
	}
	for thing := range before {
		was, had := before.step(thing)
		is, has := one.wanted.step(thing)
		switch {
		case has && (!had || was.Op != is.Op):
			sets = append(sets, is)
		case had && !has:
			drops = append(drops, was)
		}
	}
	return sets, drops, nil
}

// wanted are the entries that should be there, by op.Thing. If several peers
// want the same, as while an address moves, the one that came last has it, and
// the others wait.
type wanted map[string][]op.Step

func (w wanted) add(step op.Step) {
	thing := thingOf(step.Op)
	w[thing] = append(w[thing], step)
}

func (w wanted) remove(step op.Step) {
	thing := thingOf(step.Op)
	steps := w[thing]
	for i := range steps {
		if steps[i].Op == step.Op {
			steps = slices.Delete(slices.Clone(steps), i, i+1)
			break
		}
	}
	if w[thing] = steps; len(steps) == 0 {
		delete(w, thing)
	}
}

func (w wanted) step(thing string) (op.Step, bool) {
	steps := w[thing]
	if len(steps) == 0 {
		return op.Step{}, false
	}
	return steps[len(steps)-1], true
}

func thingOf(o op.Op) string {
	if named, is := o.(interface{ Thing() string }); is {
		return named.Thing()
	}
	return o.String()
}

// apply does entries, then undoes others: no station is without an entry
// meanwhile. It goes on past errors, since each entry stands for itself. Who has
// an address now is proclaimed: a container here may remember the one that had it
// before, for seconds, and the new one's own announcement ends on its host.
func (t *Tables) apply(ctx context.Context, one *table, sets, drops op.Plan) error {
	var errs []error
	var proclaimed []kernel.Station
	for i, step := range sets {
		err := t.do(ctx, sets[i:i+1])
		if neighbour, is := step.Op.(op.SetNeighbour); is && err == nil {
			proclaimed = append(proclaimed, kernel.Station{Addr: neighbour.Address, MAC: neighbour.MAC})
		}
		errs = append(errs, err)
	}
	if one.bridge != 0 {
		errs = append(errs, t.host.Proclaim(one.bridge, proclaimed))
	}
	for i := range drops {
		errs = append(errs, t.undo(ctx, drops[i:i+1]))
	}
	return errors.Join(errs...)
}

// mostComparisons bounds how often a network is compared in a row: an odd
// entry may hide another.
const mostComparisons = 3

// compare makes the kernel as wanted, with one look at the tables of the network.
// It returns what was wrong. The caller holds one.mu.
func (t *Tables) compare(ctx context.Context, one *table) (wrong op.Plan, err error) {
	for range mostComparisons {
		clears, sets, drops, err := t.look(one)
		if err != nil || one.index == 0 {
			one.settled = false
			return wrong, err
		}
		if len(clears)+len(sets)+len(drops) == 0 {
			one.settled = true
			return wrong, nil
		}
		wrong = slices.Concat(wrong, clears, sets, drops)
		if err := errors.Join(t.apply(ctx, one, nil, clears), t.apply(ctx, one, sets, drops)); err != nil {
			one.settled = false
			return wrong, err
		}
	}
	one.settled = false
	return wrong, fmt.Errorf("somebody else changes the entries of %s at the same time (see: bridge monitor fdb)", one.link)
}

// look finds the tunnel device and what is wrong with its tables.
func (t *Tables) look(one *table) (clears, sets, drops op.Plan, err error) {
	links, err := t.host.Links("")
	if err != nil {
		return nil, nil, nil, err
	}
	index := 0
	link, err := links.LinkByName(one.link)
	if err == nil && link.Attrs().Group == kernel.Mark {
		index, one.bridge = link.Attrs().Index, link.Attrs().MasterIndex
	}
	if err != nil && !kernel.IsGone(err) {
		return nil, nil, nil, fmt.Errorf("looking up link %s: %w", one.link, err)
	}
	t.moved(one, index)
	if index == 0 {
		return nil, nil, nil, nil
	}
	stations, err := t.host.Stations(index)
	if err != nil {
		return nil, nil, nil, err
	}
	clears, sets, drops = one.wanted.difference(one.link, stations)
	return clears, sets, drops, nil
}

// moved notes the index of a tunnel device.
func (t *Tables) moved(one *table, index int) {
	if one.index == index {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.links, one.index)
	one.index = index
	if index != 0 && t.of[one.id] == one {
		t.links[index] = one
	}
}

// difference returns what must be undone before the rest because it is odd, what
// is missing, and what should not be there. Everything on our own device that
// is not wanted is in the wrong place. Pure.
func (w wanted) difference(link string, stations []kernel.Station) (clears, sets, drops op.Plan) {
	right, cleared := make(map[string]bool), make(map[string]bool)
	others := make(map[op.Op]string) // what is there and not wanted, by its thing; a bridge with VLANs tells of an entry once for each
	for _, station := range stations {
		found := op.StationOp(link, station)
		thing := thingOf(found)
		want, _ := w.step(thing)
		tunnel, isTunnel := found.(op.SetTunnel)
		switch {
		case station.Odd && isTunnel:
			tunnel.To = netip.Addr{} // all that lead anywhere: the kernel finds such a one by no other name
			clears = append(clears, op.Step{Why: "It is not one of ours.", Op: tunnel})
			cleared[thing] = true
		case !station.Odd && want.Op == found:
			right[thing] = true
		default:
			others[found] = thing
		}
	}
	for found, thing := range others {
		if _, has := w.step(thing); !has || right[thing] && !cleared[thing] {
			drops = append(drops, op.Step{Why: "No endpoint on another host is there.", Op: found})
		} // else the right one takes its place
	}
	for thing := range w {
		if !right[thing] || cleared[thing] {
			step, _ := w.step(thing)
			sets = append(sets, step)
		}
	}
	return clears, sets, drops
}
