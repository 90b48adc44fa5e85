package controller

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
)

// peerings keep the tables of tunnel devices as they should be: those entries and
// no others that lead to the endpoints on other hosts. What should be is computed
// from the endpoints. When they change, the difference to before is done; now and
// then, and soon after the kernel reports a change that is not as it should be,
// the whole is compared with the kernel. What was wrong although the endpoints
// had not changed is a repair: it is counted and logged.
//
//	set ──▶ difference to before ──▶ kernel
//	bridge fdb del ──report──▶ compare ──▶ repair
//	                clock ──────▲
type peerings struct {
	host *kernel.Host
	do   func(context.Context, op.Plan) error
	undo func(context.Context, op.Plan) error
	logf func(string, ...any)

	mu    sync.Mutex
	of    map[linkspan.ID]*peering
	links map[int]*peering // by index of the tunnel device
	dirty map[*peering]bool
	wake  chan struct{} // holds a token while something is dirty
	begun chan struct{} // closed when there is a network to guard
}

// peering is what one network has of other hosts.
type peering struct {
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

func newPeerings(h *kernel.Host, x *op.Executor, logf func(string, ...any)) *peerings {
	return &peerings{
		host: h, do: x.Do, undo: x.Undo, logf: logf,
		of: make(map[linkspan.ID]*peering), links: make(map[int]*peering), dirty: make(map[*peering]bool), wake: make(chan struct{}, 1),
		begun: make(chan struct{}),
	}
}

// setPeers says which endpoints of a network are on other hosts, all of them.
// Ready or not, the kernel follows: at once if this host has the network's tunnel
// device, else at the next call after it has. Errors are logged, and tried again.
func (c *Controller) setPeers(n network.Network, peers []drivers.Peer) {
	driver, err := c.driver(n.Driver)
	spanning, spans := driver.(drivers.Spanning)
	if err == nil && spans {
		err = c.peers.set(c.life, n, spanning, peers)
	}
	c.note("telling network "+n.Name+" of other hosts", err)
}

// dropPeers forgets a network whose tunnel device has gone, and its entries with
// it.
func (c *Controller) dropPeers(id linkspan.ID) { c.peers.drop(id) }

// set makes the kernel follow a change of the peers. Its cost is that of the
// change.
func (p *peerings) set(ctx context.Context, n network.Network, driver drivers.Spanning, peers []drivers.Peer) error {
	one, err := p.get(n, driver)
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
		_, err = p.compare(ctx, one)
	} else if err = p.apply(ctx, one, sets, drops); err != nil {
		one.settled = false
	}
	if !one.settled && one.index != 0 {
		p.mark(one)
	}
	return err
}

func (p *peerings) get(n network.Network, driver drivers.Spanning) (*peering, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if one := p.of[n.ID]; one != nil {
		return one, nil
	}
	plan, err := driver.Network(n)
	if err != nil {
		return nil, err
	}
	one := &peering{id: n.ID, name: n.Name, peers: make(map[string]drivers.Peer), wanted: make(wanted)}
	for _, step := range plan {
		if tunnel, is := step.Op.(op.AddVXLAN); is {
			one.link = tunnel.Name
		}
	}
	if one.link == "" {
		return nil, fmt.Errorf("driver %s plans no tunnel device for network %s", n.Driver, n.Name)
	}
	p.of[n.ID] = one
	select {
	case <-p.begun:
	default:
		close(p.begun)
	}
	return one, nil
}

func (p *peerings) drop(id linkspan.ID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if one := p.of[id]; one != nil {
		delete(p.of, id)
		delete(p.dirty, one)
		for index, other := range p.links {
			if other == one {
				delete(p.links, index)
			}
		}
	}
}

// changes returns the peers that are new and those that are no more.
func (one *peering) changes(now map[string]drivers.Peer) (come, gone []drivers.Peer) {
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
func (one *peering) turn(n network.Network, driver drivers.Spanning, peers []drivers.Peer) (sets, drops op.Plan, err error) {
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
func (p *peerings) apply(ctx context.Context, one *peering, sets, drops op.Plan) error {
	var errs []error
	var proclaimed []kernel.Station
	for i, step := range sets {
		err := p.do(ctx, sets[i:i+1])
		if neighbour, is := step.Op.(op.SetNeighbour); is && err == nil {
			proclaimed = append(proclaimed, kernel.Station{Addr: neighbour.Address, MAC: neighbour.MAC})
		}
		errs = append(errs, err)
	}
	if one.bridge != 0 {
		errs = append(errs, p.host.Proclaim(one.bridge, proclaimed))
	}
	for i := range drops {
		errs = append(errs, p.undo(ctx, drops[i:i+1]))
	}
	return errors.Join(errs...)
}

// mostComparisons bounds how often a network is compared in a row: an odd
// entry may hide another.
const mostComparisons = 3

// compare makes the kernel as wanted, with one look at the tables of the network.
// It returns what was wrong. The caller holds one.mu.
func (p *peerings) compare(ctx context.Context, one *peering) (wrong op.Plan, err error) {
	for range mostComparisons {
		clears, sets, drops, err := p.look(one)
		if err != nil || one.index == 0 {
			one.settled = false
			return wrong, err
		}
		if len(clears)+len(sets)+len(drops) == 0 {
			one.settled = true
			return wrong, nil
		}
		wrong = slices.Concat(wrong, clears, sets, drops)
		if err := errors.Join(p.apply(ctx, one, nil, clears), p.apply(ctx, one, sets, drops)); err != nil {
			one.settled = false
			return wrong, err
		}
	}
	one.settled = false
	return wrong, fmt.Errorf("somebody else changes the entries of %s at the same time (see: bridge monitor fdb)", one.link)
}

// look finds the tunnel device and what is wrong with its tables.
func (p *peerings) look(one *peering) (clears, sets, drops op.Plan, err error) {
	links, err := p.host.Links("")
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
	p.moved(one, index)
	if index == 0 {
		return nil, nil, nil, nil
	}
	stations, err := p.host.Stations(index)
	if err != nil {
		return nil, nil, nil, err
	}
	clears, sets, drops = one.wanted.difference(one.link, stations)
	return clears, sets, drops, nil
}

// moved notes the index of a tunnel device.
func (p *peerings) moved(one *peering, index int) {
	if one.index == index {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.links, one.index)
	one.index = index
	if index != 0 && p.of[one.id] == one {
		p.links[index] = one
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
