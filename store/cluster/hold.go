package cluster

import (
	"context"
	"errors"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/network"
)

// Hold reserves a static address for a container that does not run; Release is
// the reverse. A Join of the same owner may use it, and Leave keeps it.
func (c *Cluster) Hold(ctx context.Context, n network.Network, e Endpoint) error {
	e.Network = n.ID
	h := holder{n.ID, e.Owner}
	c.mu.Lock()
	c.own.begin(e.Owner)
	before := c.own.holds[h]
	sure := c.claim.stands(boottime())
	var err error
	for _, addr := range e.Addresses() {
		if _, refused := c.claimable(n, e, addr); refused != nil {
			err = errors.Join(err, refused)
		}
		_, wanted := c.own.wants[c.keys.claim(n.ID, addr)]
		sure = sure && (wanted || c.sure(n.ID, addr))
	}
	var keys []string
	if err == nil {
		keys = c.unwantHold(h)
		c.wantHold(h, hold{e.Name, e.Addresses()})
	}
	c.mu.Unlock()
	if err == nil {
		for _, addr := range e.Addresses() {
			keys = append(keys, c.keys.claim(n.ID, addr))
		}
		err = c.agree(ctx, keys)
		if isUnanswered(err) && sure && ctx.Err() == nil {
			err = nil
		}
		if err != nil {
			c.mu.Lock()
			c.unwantHold(h)
			if len(before.addrs) > 0 {
				c.wantHold(h, before)
			}
			c.mu.Unlock()
		}
	}
	c.mu.Lock()
	c.own.end(e.Owner)
	c.mu.Unlock()
	c.poke()
	return err
}

// Release gives back what Hold reserved for an owner on a network. While the
// store cannot be reached it is kept, and done later.
func (c *Cluster) Release(ctx context.Context, network, owner linkspan.ID) error {
	c.mu.Lock()
	keys := c.unwantHold(holder{network, owner})
	away := c.link.away
	c.own.begin(owner)
	c.mu.Unlock()
	var err error
	if !away {
		err = c.agree(ctx, keys)
	}
	c.mu.Lock()
	c.own.end(owner)
	c.mu.Unlock()
	c.poke()
	if isUnanswered(err) {
		return nil
	}
	return err
}

// HoldFree is Hold with an address more, of one family, that nobody has. e comes
// back with it. While the store cannot be reached it is from this host's block.
func (c *Cluster) HoldFree(ctx context.Context, n network.Network, e Endpoint, ipv6 bool) (Endpoint, error) {
	fresh := false   // the addresses of the network were read since it looked full
	var silent error // of the store, when it gave no answer
	for tries := 0; tries < attempts; tries++ {
		chosen := e
		f := family{"IPv4", false, &chosen.IPv4}
		if ipv6 {
			f = family{"IPv6", true, &chosen.IPv6}
		}
		err := c.pickOne(n, f, tries, silent)
		switch {
		case err == nil:
			err = c.Hold(ctx, n, chosen)
		case errors.Is(err, linkspan.ErrUnavailable) && !fresh && silent == nil:
			fresh = true
			if err = c.reread(ctx, n.ID); err == nil {
				continue
			}
		}
		var taken *conflict
		switch {
		case err == nil:
			return chosen, nil
		case isUnanswered(err) && ctx.Err() == nil && silent == nil:
			silent = err
		case !errors.As(err, &taken):
			return e, err
		}
	}
	return e, linkspan.Errorf(linkspan.ErrUnavailable, "an address of network %s: others were quicker %d times", n.Name, attempts)
}

// pickOne gives a family an address that nobody has, as far as is known. If the
// store is silent it is one that is this host's for certain.
func (c *Cluster) pickOne(n network.Network, f family, tries int, silent error) (err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if silent == nil {
		*f.lease, err = c.pick(n, f, tries)
		return err
	}
	lease, there := c.pickAlone(n, f)
	if !there || !c.claim.stands(boottime()) {
		return linkspan.Errorf(linkspan.ErrUnavailable, "an %s address of network %s needs the cluster store: this host has none in reserve (%s): %w", f.name, n.Name, c.reserves(n.ID), silent)
	}
	*f.lease = lease
	return nil
}
