package cluster

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"

	"github.com/linkspan/linkspan"
)

// settleEvery is how often the settler looks without having been poked.
const settleEvery = 10 * time.Second

// abreast is how many steps the settler takes at a time.
const abreast = 8

// settle makes the store agree with what this host wants, whenever there is a
// difference: after a lease that ended, after verbs without an answer, after
// somebody deleted a key by hand.
func (c *Cluster) settle(ctx context.Context) {
	tick := time.NewTicker(settleEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.wake:
		case <-tick.C:
		}
		if err := c.settleOnce(ctx); err != nil && ctx.Err() == nil {
			c.o.Logf("telling cluster store %s what this host has: %v", c.o, err)
			if !pause(ctx, retryAfter) {
				return
			}
			c.poke()
		}
	}
}

// settleOnce goes through all differences once.
func (c *Cluster) settleOnce(ctx context.Context) error {
	c.mu.Lock()
	if c.link.away || !c.link.listed {
		c.mu.Unlock()
		return nil // reachable pokes again
	}
	groups, surplus := c.differences()
	c.mu.Unlock()

	errs := make(chan error, len(groups))
	turns := make(chan struct{}, abreast)
	var all sync.WaitGroup
	for of, keys := range groups {
		turns <- struct{}{}
		all.Go(func() {
			defer func() { <-turns }()
			errs <- c.reclaim(ctx, of.id, keys)
		})
	}
	all.Wait()
	close(errs)
	var failed []error
	for err := range errs {
		failed = append(failed, err)
	}
	if len(surplus) > 0 {
		failed = append(failed, c.agree(ctx, surplus))
	}
	c.mu.Lock()
	wishes := c.wishes()
	c.mu.Unlock()
	for _, w := range wishes {
		failed = append(failed, c.fulfil(ctx, w))
	}
	return errors.Join(failed...)
}

// group is what is settled in one step: the keys of an endpoint, or those that an
// owner reserves on a network.
type group struct{ network, id linkspan.ID }

// differences returns the keys that are not as they are wanted, by what they
// belong to, and blocks that are to go.
func (c *Cluster) differences() (groups map[group][]string, surplus []string) {
	groups = make(map[group][]string)
	for key, want := range c.own.wants {
		mine, there := c.mirror.mine[key]
		if there && mine.value == want.value || c.own.busy[want.endpoint]+c.own.busy[want.owner] > 0 {
			continue
		}
		if key == c.keys.member(c.o.Self.ID) {
			c.own.stolen = ""
			if there && c.own.announced {
				c.own.stolen = c.mirror.members[c.o.Self.ID].value.String()
				continue
			}
		}
		of := group{want.network, cmp.Or(want.endpoint, want.owner)}
		groups[of] = append(groups[of], key)
	}
	if !c.own.resumed {
		return groups, nil
	}
	for key := range c.mirror.mine {
		if _, wanted := c.own.wants[key]; wanted {
			continue
		}
		k, network, _ := c.keys.parse(key)
		if k == kindBlock {
			continue
		}
		if of := (group{network, c.belongs(network, key, k)}); c.own.busy[of.id] == 0 {
			groups[of] = append(groups[of], key)
		}
	}
	return groups, c.surplus()
}

// belongs returns the endpoint or owner that a key of this host's belongs to.
func (c *Cluster) belongs(network linkspan.ID, key string, k kind) linkspan.ID {
	_, _, rest := c.keys.parse(key)
	if k == kindEndpoint || k == kindKeeper {
		return linkspan.ID(rest)
	}
	if s := c.mirror.on[network]; s != nil {
		of := s.claims[fromDigits(rest)].value
		return cmp.Or(of.Endpoint, of.Owner)
	}
	return ""
}

// reclaim makes the keys of an endpoint or owner agree; if others have what it
// had, or its network is gone, it is lost.
func (c *Cluster) reclaim(ctx context.Context, id linkspan.ID, keys []string) error {
	err := c.agree(ctx, keys)
	var taken *conflict
	var gone *noNetwork
	if !errors.As(err, &taken) && !errors.As(err, &gone) {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.own.busy[id] > 0 {
		return nil // a verb is at it, and says so itself
	}
	if err = c.hindrance(keys); err == nil {
		c.poke() // it is as it should be, or may be so by now
		return nil
	}
	c.lose(id, keys, err)
	c.tell()
	return nil
}

// lose gives up an endpoint, or a reservation, and tells the followers.
func (c *Cluster) lose(id linkspan.ID, keys []string, why error) {
	if e, there := c.own.endpoints[id]; there {
		delete(c.own.endpoints, id)
		c.unwantHold(holder{e.Network, e.Owner})
		c.unwantEndpoint(e)
		c.lost(e, why)
	}
	for _, key := range keys {
		want, still := c.own.wants[key]
		if !still || want.network == "" {
			continue
		}
		c.own.unwant(key)
		h := holder{want.network, want.owner}
		if of, held := c.own.holds[h]; held {
			delete(c.own.holds, h)
			e := Endpoint{Network: h.network, Owner: h.owner, Name: of.name}
			for _, addr := range of.addrs {
				c.own.unwant(c.keys.claim(h.network, addr))
				if addr.Is4() {
					e.IPv4 = netip.PrefixFrom(addr, addr.BitLen())
				} else {
					e.IPv6 = netip.PrefixFrom(addr, addr.BitLen())
				}
			}
			c.lost(c.here(e), why)
		}
	}
}

func (c *Cluster) lost(e Endpoint, why error) {
	is := Lost{Endpoint: e, Reason: why.Error()}
	if e.ID != "" {
		c.own.lost[e.ID] = is
	}
	c.mirror.news.Lost = append(c.mirror.news.Lost, is)
	c.mirror.changed(e.Network)
	c.o.Logf("container %s lost its place on network %s: %s", e.Name, e.Network.Short(), is.Reason)
}
