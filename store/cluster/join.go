package cluster

import (
	"context"
	"errors"
	"net/netip"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/ipam"
	"github.com/linkspan/linkspan/network"
)

// Join leases the addresses of an endpoint and makes it known, in one step.
// e.IPv4 and e.IPv6 are what is asked for, or zero: any that is free. The
// endpoint comes back with what it got. A taken address is kind ErrConflict,
// and the message names its holder and the holder's host. While the store
// cannot be reached, addresses are from this host's block.
func (c *Cluster) Join(ctx context.Context, n network.Network, e Endpoint) (Endpoint, error) {
	e.Network = n.ID
	e = c.here(e)
	c.mu.Lock()
	c.own.begin(e.ID, e.Owner)
	c.mu.Unlock()
	joined, err := c.join(ctx, n, e)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.own.end(e.ID, e.Owner)
	c.poke() // a block to take, or what a failure left
	if err != nil {
		return e, err
	}
	c.own.endpoints[joined.ID] = joined
	c.mirror.changed(n.ID)
	c.tell()
	return joined, nil
}

func (c *Cluster) join(ctx context.Context, n network.Network, asked Endpoint) (Endpoint, error) {
	fresh := false // the addresses of the network were read since it looked full
	for tries := 0; tries < attempts; tries++ {
		c.mu.Lock()
		e, err := c.choose(n, asked, tries)
		if err == nil {
			c.wantEndpoint(e)
		}
		c.mu.Unlock()
		if err != nil {
			if fresh || !errors.Is(err, linkspan.ErrUnavailable) {
				return e, err
			}
			fresh = true
			if err := c.reread(ctx, n.ID); isUnanswered(err) {
				return c.joinAlone(n, asked, err)
			} else if err != nil {
				return e, err
			}
			continue
		}
		err = c.agree(ctx, c.keysOf(e), c.advance(n, asked, e)...)
		if err == nil {
			return e, nil
		}
		c.mu.Lock()
		c.unwantEndpoint(e)
		c.mu.Unlock()
		var taken *conflict
		switch {
		case isUnanswered(err) && ctx.Err() == nil:
			return c.joinAlone(n, asked, err)
		case !errors.As(err, &taken), taken.addr == asked.IPv4.Addr(), taken.addr == asked.IPv6.Addr():
			return e, err
		}
	}
	return asked, linkspan.Errorf(linkspan.ErrUnavailable, "joining network %s: others were quicker %d times", n.Name, attempts)
}

// choose gives an endpoint an address of each family: what it asks for, what it
// has already, or one that is free.
func (c *Cluster) choose(n network.Network, e Endpoint, tries int) (Endpoint, error) {
	for _, f := range families(n, &e) {
		lease, err := *f.lease, error(nil)
		if lease.IsValid() {
			lease, err = c.claimable(n, e, lease.Addr())
		} else {
			lease, err = c.pick(n, f, tries)
		}
		if err != nil {
			return e, err
		}
		*f.lease = lease
	}
	return e, nil
}

// advance moves the cursor of a network in the serial order.
func (c *Cluster) advance(n network.Network, asked, e Endpoint) []clientv3.Op {
	if !serial(n) {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	at := c.mirror.cursors[n.ID].value
	was := at
	if !asked.IPv4.IsValid() && e.IPv4.IsValid() {
		at.IPv4 = e.IPv4.Addr()
	}
	if !asked.IPv6.IsValid() && e.IPv6.IsValid() {
		at.IPv6 = e.IPv6.Addr()
	}
	if at == was {
		return nil
	}
	return []clientv3.Op{clientv3.OpPut(c.keys.cursor(n.ID), encode(at))}
}

// reread reads who has the addresses of a network.
func (c *Cluster) reread(ctx context.Context, id linkspan.ID) error {
	var found *clientv3.GetResponse
	err := c.ask(ctx, func(ctx context.Context, client *clientv3.Client) (err error) {
		found, err = client.Get(ctx, c.keys.claims(id), clientv3.WithPrefix())
		return err
	})
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	there := make(map[netip.Addr]bool, len(found.Kvs))
	for _, kv := range found.Kvs {
		c.mirror.put(string(kv.Key), string(kv.Value), kv.ModRevision)
		_, _, rest := c.keys.parse(string(kv.Key))
		there[fromDigits(rest)] = true
	}
	if s := c.mirror.on[id]; s != nil {
		for addr := range s.claims {
			if !there[addr] {
				c.mirror.remove(c.keys.claim(id, addr), found.Header.Revision)
			}
		}
	}
	return nil
}

// joinAlone is Join without the store: with addresses that are this host's as
// long as its claim lasts. The settler tells the store later.
func (c *Cluster) joinAlone(n network.Network, e Endpoint, why error) (Endpoint, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, known := c.mirror.networks[n.ID]; !known {
		return e, linkspan.Errorf(linkspan.ErrUnavailable, "joining network %s needs the cluster store: it was not seen there: %w", n.Name, why)
	}
	if !c.claim.stands(boottime()) {
		return e, linkspan.Errorf(linkspan.ErrUnavailable, "joining network %s needs the cluster store: this host's claim on its addresses may have ended: %w", n.Name, why)
	}
	for _, f := range families(n, &e) {
		if f.lease.IsValid() {
			lease, err := c.claimable(n, e, f.lease.Addr())
			if err != nil {
				return e, err
			}
			if !c.sure(n.ID, lease.Addr()) {
				return e, linkspan.Errorf(linkspan.ErrUnavailable, "joining network %s with address %s needs the cluster store: the address is not among those that this host keeps in reserve (%s): %w", n.Name, lease.Addr(), c.reserves(n.ID), why)
			}
			*f.lease = lease
			continue
		}
		lease, ok := c.pickAlone(n, f)
		if !ok {
			return e, linkspan.Errorf(linkspan.ErrUnavailable, "joining network %s needs the cluster store: this host has no free %s address of the network in reserve (%s): %w", n.Name, f.name, c.reserves(n.ID), why)
		}
		*f.lease = lease
	}
	c.wantEndpoint(e)
	return e, nil
}

// sure tells whether an address is this host's to give while its claim lasts, and
// nothing of the host wants it, but for a reservation.
func (c *Cluster) sure(network linkspan.ID, addr netip.Addr) bool {
	key := c.keys.claim(network, addr)
	if w, wanted := c.own.wants[key]; wanted && w.endpoint != "" {
		return false
	}
	if _, mine := c.mirror.mine[key]; mine {
		return !c.mirror.doubtful[key]
	}
	if s := c.mirror.on[network]; s != nil {
		if _, taken := s.claims[addr]; taken {
			return false
		}
	}
	for _, prefix := range c.ownBlocks(network) {
		if prefix.Contains(addr) {
			return true
		}
	}
	return false
}

// pickAlone returns an address of this host's reserve.
func (c *Cluster) pickAlone(n network.Network, f family) (netip.Prefix, bool) {
	for _, prefix := range c.ownBlocks(n.ID) {
		pool, ok := n.Pool(prefix.Addr())
		if !ok || prefix.Addr().Is6() != f.ipv6 {
			continue
		}
		pool.Range = prefix
		unsure := make(ipam.Used)
		for i := range 1 << (prefix.Addr().BitLen() - prefix.Bits()) {
			addr := offset(prefix.Addr(), i)
			if _, wanted := c.own.wants[c.keys.claim(n.ID, addr)]; wanted || !c.sure(n.ID, addr) {
				unsure[addr] = "somebody"
			}
		}
		if addr, err := pool.Take(unsure); err == nil {
			return netip.PrefixFrom(addr, pool.Subnet.Bits()), true
		}
	}
	return netip.Prefix{}, false
}

// reserves names this host's blocks.
func (c *Cluster) reserves(network linkspan.ID) string {
	text := ""
	for _, prefix := range c.ownBlocks(network) {
		if text != "" {
			text += ", "
		}
		text += prefix.String()
	}
	if text == "" {
		return "it has no block there"
	}
	return "its block is " + text
}

// Leave is the reverse. While the store cannot be reached it is kept, and done
// later; then it returns no error.
func (c *Cluster) Leave(ctx context.Context, e Endpoint) error {
	c.mu.Lock()
	if known, ok := c.own.endpoints[e.ID]; ok {
		e = known
	}
	delete(c.own.endpoints, e.ID)
	delete(c.own.lost, e.ID)
	c.unwantEndpoint(e)
	keys := c.keysOf(e)
	if !c.own.on(e.Network) {
		for _, prefix := range c.ownBlocks(e.Network) {
			keys = append(keys, c.keys.block(e.Network, prefix))
		}
	}
	c.mirror.changed(e.Network)
	c.tell()
	away := c.link.away
	c.own.begin(e.ID, e.Owner)
	c.mu.Unlock()
	var err error
	if !away {
		err = c.agree(ctx, keys)
	}
	c.mu.Lock()
	c.own.end(e.ID, e.Owner)
	c.mu.Unlock()
	c.poke()
	if isUnanswered(err) {
		return nil // the settler goes on with it
	}
	return err
}
