package cluster

import (
	"context"
	"slices"
)

// awayAtOnce is how many keys are rewritten in one step; etcd allows 128
// operations in a transaction.
const awayAtOnce = 50

// Away tells the cluster that this host's daemon stops on purpose while its
// endpoints go on: what would end with the host's life stays for as long as its
// addresses do (Options.Claim). Call it before Close. Whoever opens the cluster
// again with this ID and tells of the endpoints (Resume) is back. A host without
// endpoints has nothing to keep: its life ends as usual.
func (c *Cluster) Away(ctx context.Context) error {
	c.mu.Lock()
	keys := c.wantAway()
	c.mu.Unlock()
	if len(keys) == 0 {
		return nil
	}
	if _, err := c.renew(ctx, c.claim); err != nil {
		return err
	}
	for some := range slices.Chunk(keys, awayAtOnce) {
		if err := c.agree(ctx, some); err != nil {
			return err
		}
	}
	return nil
}

// wantAway changes what is wanted, and returns the keys.
func (c *Cluster) wantAway() (keys []string) {
	if len(c.own.endpoints) == 0 || !c.link.listed || c.link.away {
		return nil
	}
	self := c.o.Self
	self.Away = true
	values := map[string]string{c.keys.member(self.ID): encode(self)}
	for _, e := range c.own.endpoints {
		e.Away = true
		values[c.keys.endpoint(e.Network, e.ID)] = encode(e)
	}
	for key, value := range values {
		if w, wanted := c.own.wants[key]; wanted {
			w.value, w.life = value, false
			c.own.wants[key] = w
			keys = append(keys, key)
		}
	}
	return keys
}
