package cluster

import (
	"context"

	"github.com/linkspan/linkspan"
)

// Keep says that this host needs a network, whether an endpoint of its own is on
// it or not: until Forgo, or until the host's claim ends, nobody removes it. why
// stands in the refusal. While the store cannot be reached it is told later; then
// it returns no error.
func (c *Cluster) Keep(ctx context.Context, network linkspan.ID, why string) error {
	c.Kept(network, why)
	err := c.settled(ctx, network)
	if err != nil {
		c.mu.Lock()
		c.own.unwant(c.keys.keeper(network, c.o.Self.ID))
		c.mu.Unlock()
	}
	return err
}

// Kept tells of a network that this host keeps since before Open. Call it before
// Resume; it does not wait for the store.
func (c *Cluster) Kept(network linkspan.ID, why string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	value := encode(keeper{c.o.Self.ID, c.o.Self.Name, why})
	c.own.want(c.keys.keeper(network, c.o.Self.ID), wanted{value: value, network: network, owner: c.o.Self.ID})
}

// Forgo is the reverse of Keep. While the store cannot be reached it is kept in
// mind, and done later; then it returns no error.
func (c *Cluster) Forgo(ctx context.Context, network linkspan.ID) error {
	c.mu.Lock()
	c.own.unwant(c.keys.keeper(network, c.o.Self.ID))
	c.mu.Unlock()
	return c.settled(ctx, network)
}

// settled tells the store whether this host keeps a network.
func (c *Cluster) settled(ctx context.Context, network linkspan.ID) error {
	err := c.agree(ctx, []string{c.keys.keeper(network, c.o.Self.ID)})
	if isUnanswered(err) {
		c.poke()
		return nil
	}
	return err
}
