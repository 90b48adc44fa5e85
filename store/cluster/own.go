package cluster

import (
	"net/netip"
	"slices"

	"github.com/linkspan/linkspan"
)

// own is what this host wants to have in the store. The rest of the package is
// about making the two agree; whatever got lost on the way, in either direction,
// is a difference that is seen again.
type own struct {
	resumed   bool // what there is was told: all else of this host's can go
	endpoints map[linkspan.ID]Endpoint
	holds     map[holder]hold
	wants     map[string]wanted
	addrs     map[linkspan.ID]map[netip.Addr]bool // of wants, by network
	lost      map[linkspan.ID]Lost

	// busy are endpoints and owners that a verb is at work on.
	busy map[linkspan.ID]int

	announced bool   // the member was written by this process
	stolen    string // who else writes it
}

// wanted is a key as it should be.
type wanted struct {
	value    string
	life     bool        // on the lease of the host's life, not on that of its claims
	network  linkspan.ID // or none
	addr     netip.Addr  // of a claim
	endpoint linkspan.ID // or none
	owner    linkspan.ID
	name     string // the owner's
}

// holder is who reserves addresses of a network while it does not run.
type holder struct{ network, owner linkspan.ID }

type hold struct {
	name  string
	addrs []netip.Addr
}

func newOwn() own {
	return own{
		endpoints: make(map[linkspan.ID]Endpoint),
		holds:     make(map[holder]hold),
		wants:     make(map[string]wanted),
		addrs:     make(map[linkspan.ID]map[netip.Addr]bool),
		lost:      make(map[linkspan.ID]Lost),
		busy:      make(map[linkspan.ID]int),
	}
}

func (o *own) want(key string, w wanted) {
	o.wants[key] = w
	if w.addr.IsValid() {
		if o.addrs[w.network] == nil {
			o.addrs[w.network] = make(map[netip.Addr]bool)
		}
		o.addrs[w.network][w.addr] = true
	}
}

func (o *own) unwant(key string) {
	w, ok := o.wants[key]
	delete(o.wants, key)
	if ok && w.addr.IsValid() {
		if delete(o.addrs[w.network], w.addr); len(o.addrs[w.network]) == 0 {
			delete(o.addrs, w.network)
		}
	}
}

// on tells whether this host has anything on a network.
func (o *own) on(network linkspan.ID) bool { return len(o.addrs[network]) > 0 }

func (o *own) held(network, owner linkspan.ID, addr netip.Addr) bool {
	return slices.Contains(o.holds[holder{network, owner}].addrs, addr)
}

// keysOf returns the keys of an endpoint.
func (c *Cluster) keysOf(e Endpoint) []string {
	keys := []string{c.keys.endpoint(e.Network, e.ID)}
	for _, addr := range e.Addresses() {
		keys = append(keys, c.keys.claim(e.Network, addr))
	}
	return keys
}

// wantEndpoint makes an endpoint part of what is wanted.
func (c *Cluster) wantEndpoint(e Endpoint) {
	c.own.want(c.keys.endpoint(e.Network, e.ID), wanted{value: encode(e), life: true, network: e.Network, endpoint: e.ID, owner: e.Owner, name: e.Name})
	for _, addr := range e.Addresses() {
		c.wantClaim(e.Network, addr, claim{Owner: e.Owner, Endpoint: e.ID, Name: e.Name, Held: c.own.held(e.Network, e.Owner, addr)})
	}
}

// unwantEndpoint is the reverse; what is reserved stays wanted.
func (c *Cluster) unwantEndpoint(e Endpoint) {
	c.own.unwant(c.keys.endpoint(e.Network, e.ID))
	for _, addr := range e.Addresses() {
		key := c.keys.claim(e.Network, addr)
		if w, ok := c.own.wants[key]; !ok || w.endpoint != e.ID {
			continue
		}
		if c.own.held(e.Network, e.Owner, addr) {
			c.wantClaim(e.Network, addr, claim{Owner: e.Owner, Name: c.own.holds[holder{e.Network, e.Owner}].name, Held: true})
		} else {
			c.own.unwant(key)
		}
	}
}

func (c *Cluster) wantClaim(network linkspan.ID, addr netip.Addr, of claim) {
	of.Member, of.Host = c.o.Self.ID, c.o.Self.Name
	c.own.want(c.keys.claim(network, addr), wanted{
		value: encode(of), network: network, addr: addr, endpoint: of.Endpoint, owner: of.Owner, name: of.Name,
	})
}

// wantHold makes a reservation part of what is wanted.
func (c *Cluster) wantHold(h holder, of hold) {
	c.own.holds[h] = of
	running, runs := c.running(h)
	for _, addr := range of.addrs {
		is := claim{Owner: h.owner, Name: of.name, Held: true}
		if runs && slices.Contains(running.Addresses(), addr) {
			is.Endpoint = running.ID
		}
		c.wantClaim(h.network, addr, is)
	}
}

// unwantHold is the reverse; what an endpoint has stays wanted. It returns the
// keys that it touched.
func (c *Cluster) unwantHold(h holder) []string {
	var keys []string
	of := c.own.holds[h]
	delete(c.own.holds, h)
	running, runs := c.running(h)
	for _, addr := range of.addrs {
		key := c.keys.claim(h.network, addr)
		keys = append(keys, key)
		switch {
		case runs && slices.Contains(running.Addresses(), addr):
			c.wantClaim(h.network, addr, claim{Owner: h.owner, Endpoint: running.ID, Name: running.Name})
		case c.own.wants[key].owner == h.owner && c.own.wants[key].endpoint == "":
			c.own.unwant(key)
		}
	}
	return keys
}

// running returns the endpoint that an owner has on a network.
func (c *Cluster) running(h holder) (Endpoint, bool) {
	for _, e := range c.own.endpoints {
		if e.Network == h.network && e.Owner == h.owner {
			return e, true
		}
	}
	return Endpoint{}, false
}

// begin keeps the settler off some endpoints and owners; end lets it.
func (o *own) begin(ids ...linkspan.ID) {
	for _, id := range ids {
		o.busy[id]++
	}
}

func (o *own) end(ids ...linkspan.ID) {
	for _, id := range ids {
		if o.busy[id]--; o.busy[id] == 0 {
			delete(o.busy, id)
		}
	}
}

// Resume tells what this host has on networks of the cluster since before Open:
// endpoints that live, and static addresses that are reserved for owners that do
// not run. What else the store has of this host is then given back. Call it once,
// before the first Join; it does not wait for the store.
func (c *Cluster) Resume(living, held []Endpoint) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range held {
		h := holder{e.Network, e.Owner}
		c.wantHold(h, hold{e.Name, e.Addresses()})
	}
	for _, e := range living {
		e = c.here(e)
		c.own.endpoints[e.ID] = e
		c.wantEndpoint(e)
		c.mirror.changed(e.Network)
	}
	c.own.resumed = true
	c.tell()
	c.poke()
}

// here returns an endpoint as one of this host's.
func (c *Cluster) here(e Endpoint) Endpoint {
	e.Member, e.VTEP = c.o.Self.ID, c.o.Self.VTEP
	return e
}
