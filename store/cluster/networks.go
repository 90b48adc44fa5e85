package cluster

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/ipam"
	"github.com/linkspan/linkspan/network"
)

// The numbers that CreateNetwork offers. Lower ones are for users to name.
const (
	firstVNI = 4096
	lastVNI  = 1<<24 - 1
)

// CreateNetwork makes a network known to all hosts. choose is given the
// networks that there are and a number that is free, and returns the record;
// it is pure, and is called again when another host was quicker. Numbers are
// given in turn: a host that was cut off may still have the bridge of a network
// that is gone, whose number must not be another's so soon.
//
// A name that is taken is of kind ErrConflict, a number or a pool of kind
// ErrForbidden.
func (c *Cluster) CreateNetwork(ctx context.Context, choose func(there []network.Network, vni uint32) (network.Network, error)) (network.Network, error) {
	for range attempts {
		c.mu.Lock()
		there, at := c.mirror.list(), c.mirror.guard
		c.mu.Unlock()
		vni, err := nextVNI(there, at.value.VNI)
		if err != nil {
			return network.Network{}, err
		}
		n, err := choose(there, vni)
		if err != nil {
			return n, err
		}
		if i := slices.IndexFunc(there, func(x network.Network) bool { return x.ID == n.ID }); i >= 0 {
			return there[i], nil // an attempt without an answer did it
		}
		if err = fits(n, there); err != nil {
			// Those that there are may be a little old, and the name free again.
			if fresh, err2 := c.look(ctx, at.mod); err2 != nil {
				return n, err2
			} else if fresh {
				continue
			}
			return n, err
		}
		if n.VNI == vni {
			at.value.VNI = vni
		}
		done, err := c.create(ctx, n, at)
		if err != nil {
			return n, fmt.Errorf("creating network %s: %w", n.Name, err)
		}
		if done {
			return n, nil
		}
	}
	return network.Network{}, linkspan.Errorf(linkspan.ErrUnavailable, "cluster store %s: others made networks quicker %d times", c.o, attempts)
}

// Find returns the network that has a name, as the store has it now. While that
// cannot be reached, what was seen last counts.
func (c *Cluster) Find(ctx context.Context, name string) (n network.Network, there bool, err error) {
	c.mu.Lock()
	at := c.mirror.guard.mod
	c.mu.Unlock()
	_, err = c.look(ctx, at)
	for _, n := range c.Networks() {
		if n.Name == name && (err == nil || isUnanswered(err)) {
			return n, true, nil
		}
	}
	return n, false, err
}

// nextVNI returns the first free number behind the one that was given last.
func nextVNI(there []network.Network, last uint32) (uint32, error) {
	taken := make(map[uint32]bool, len(there))
	for _, n := range there {
		taken[n.VNI] = true
	}
	vni := max(last, firstVNI-1)
	for range len(there) + 1 {
		if vni++; vni > lastVNI {
			vni = firstVNI
		}
		if !taken[vni] {
			return vni, nil
		}
	}
	return 0, linkspan.Errorf(linkspan.ErrUnavailable, "no VXLAN network identifier is free: %d networks have them", len(there))
}

// fits tells what keeps a network from being beside others.
func fits(n network.Network, there []network.Network) error {
	var holdings []ipam.Holding
	for _, other := range there {
		switch {
		case other.Name == n.Name:
			return linkspan.Errorf(linkspan.ErrConflict, "network with name %s already exists", n.Name)
		case other.VNI == n.VNI && n.VNI != 0:
			return linkspan.Errorf(linkspan.ErrForbidden, "could not assign vxlan id %d to network %s: network %s (%s) has it", n.VNI, n.Name, other.Name, other.ID.Short())
		}
		for _, pool := range other.Pools {
			holdings = append(holdings, pool.Holding("network "+other.Name))
		}
	}
	for _, pool := range n.Pools {
		pool.Range = netip.Prefix{} // no two of these share a wire
		if err := pool.CheckOverlap(holdings...); err != nil {
			return err
		}
	}
	return nil
}

// create is one attempt: it fails if a network came or went since the guard was
// seen, and then has learned of it.
func (c *Cluster) create(ctx context.Context, n network.Network, at seen[guard]) (done bool, err error) {
	record, id := encode(n), string(n.ID)
	then := []clientv3.Op{
		clientv3.OpPut(c.keys.network(n.ID), record), clientv3.OpPut(c.keys.name(n.Name), id), clientv3.OpPut(c.keys.guard(), encode(at.value)),
	}
	compare := []clientv3.Cmp{
		clientv3.Compare(clientv3.ModRevision(c.keys.guard()), "=", at.mod),
		clientv3.Compare(clientv3.CreateRevision(c.keys.network(n.ID)), "=", 0),
		clientv3.Compare(clientv3.CreateRevision(c.keys.name(n.Name)), "=", 0),
	}
	if n.VNI != 0 {
		then = append(then, clientv3.OpPut(c.keys.vni(n.VNI), id))
		compare = append(compare, clientv3.Compare(clientv3.CreateRevision(c.keys.vni(n.VNI)), "=", 0))
	}
	var answer *clientv3.TxnResponse
	err = c.ask(ctx, func(ctx context.Context, client *clientv3.Client) (err error) {
		answer, err = client.Txn(ctx).If(compare...).Then(then...).Else(c.readNetworks()...).Commit()
		return err
	})
	if err != nil {
		return false, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if answer.Succeeded {
		c.mirror.put(c.keys.network(n.ID), record, answer.Header.Revision)
		c.mirror.put(c.keys.guard(), encode(at.value), answer.Header.Revision)
	} else {
		c.learnNetworks(answer)
	}
	c.tell()
	return answer.Succeeded, nil
}

func (c *Cluster) readNetworks() []clientv3.Op {
	return []clientv3.Op{clientv3.OpGet(c.keys.guard()), clientv3.OpGet(c.keys.networks(), clientv3.WithPrefix())}
}

// learnNetworks takes the answer to readNetworks into the mirror.
func (c *Cluster) learnNetworks(answer *clientv3.TxnResponse) {
	c.learn(c.readNetworks(), answer)
	there := make(map[linkspan.ID]bool)
	for _, kv := range answer.Responses[1].GetResponseRange().Kvs {
		_, id, _ := c.keys.parse(string(kv.Key))
		there[id] = true
	}
	for id := range c.mirror.networks {
		if !there[id] {
			c.mirror.remove(c.keys.network(id), answer.Header.Revision)
		}
	}
}

// look reads the networks, and tells whether the guard is another than was seen.
func (c *Cluster) look(ctx context.Context, mod int64) (fresh bool, err error) {
	var answer *clientv3.TxnResponse
	err = c.ask(ctx, func(ctx context.Context, client *clientv3.Client) (err error) {
		answer, err = client.Txn(ctx).Then(c.readNetworks()...).Commit()
		return err
	})
	if err != nil {
		return false, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.learnNetworks(answer)
	c.tell()
	return c.mirror.guard.mod != mod, nil
}

// RemoveNetwork refuses while endpoints are on it, or hosts keep it, with kind
// ErrForbidden and their names.
func (c *Cluster) RemoveNetwork(ctx context.Context, id linkspan.ID) error {
	// What this host gave up but the store was not told of must not count.
	if err := c.clear(ctx, id); err != nil {
		return err
	}
	for range attempts {
		c.mu.Lock()
		n, at := c.mirror.networks[id], c.mirror.guard
		c.mu.Unlock()
		if n.mod == 0 {
			if fresh, err := c.look(ctx, at.mod); err != nil {
				return err
			} else if fresh {
				continue
			}
			return linkspan.Errorf(linkspan.ErrNotFound, "network %s not found in cluster store %s", id.Short(), c.o)
		}
		done, err := c.remove(ctx, n.value, at)
		if done || err != nil {
			return err
		}
	}
	return linkspan.Errorf(linkspan.ErrUnavailable, "cluster store %s: others changed networks quicker %d times", c.o, attempts)
}

// clear gives back what this host has on a network without wanting it.
func (c *Cluster) clear(ctx context.Context, id linkspan.ID) error {
	c.mu.Lock()
	var keys []string
	if !c.own.on(id) {
		for key := range c.mirror.mine {
			if _, network, _ := c.keys.parse(key); network == id {
				keys = append(keys, key)
			}
		}
	}
	c.mu.Unlock()
	return c.agree(ctx, keys)
}

// remove is one attempt: it fails if the network is not as it was seen, and then
// has learned what it is.
func (c *Cluster) remove(ctx context.Context, n network.Network, at seen[guard]) (done bool, err error) {
	then := []clientv3.Op{
		clientv3.OpDelete(c.keys.network(n.ID)), clientv3.OpDelete(c.keys.name(n.Name)),
		clientv3.OpDelete(c.keys.cursor(n.ID)), clientv3.OpPut(c.keys.guard(), encode(at.value)),
	}
	if n.VNI != 0 {
		then = append(then, clientv3.OpDelete(c.keys.vni(n.VNI)))
	}
	places := []string{c.keys.endpoints(n.ID), c.keys.claims(n.ID), c.keys.blocks(n.ID), c.keys.keepers(n.ID)}
	compare := []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(c.keys.guard()), "=", at.mod)}
	look := c.readNetworks()
	for _, place := range places {
		// No key of a range fails a comparison only if there is none.
		compare = append(compare, clientv3.Compare(clientv3.CreateRevision(place).WithPrefix(), "=", 0))
		look = append(look, clientv3.OpGet(place, clientv3.WithPrefix()))
	}
	var answer *clientv3.TxnResponse
	err = c.ask(ctx, func(ctx context.Context, client *clientv3.Client) (err error) {
		answer, err = client.Txn(ctx).If(compare...).Then(then...).Else(look...).Commit()
		return err
	})
	if err != nil {
		return false, fmt.Errorf("removing network %s: %w", n.Name, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.tell()
	if answer.Succeeded {
		c.mirror.remove(c.keys.network(n.ID), answer.Header.Revision)
		c.mirror.put(c.keys.guard(), encode(at.value), answer.Header.Revision)
		return true, nil
	}
	c.learnNetworks(answer)
	var there int64
	for i := range places {
		found := answer.Responses[2+i].GetResponseRange()
		c.learnRange(places[i], false, found, answer.Header.Revision)
		there += found.Count
	}
	if there > 0 {
		return false, linkspan.Errorf(linkspan.ErrForbidden, "error while removing network: network %s has active endpoints (%s)", n.Name, c.holders(n.ID))
	}
	return false, nil
}

// holders names who is on a network.
func (c *Cluster) holders(id linkspan.ID) string {
	s := c.mirror.segment(id)
	var lines []string
	known := make(map[linkspan.ID]bool)
	for _, e := range s.endpoints {
		known[e.value.ID] = true
		host := c.mirror.members[e.value.Member].value.Name
		lines = append(lines, fmt.Sprintf("name:%q id:%q host:%q", e.value.Name, e.value.ID.Short(), host))
	}
	for addr, of := range s.claims {
		if !known[of.value.Endpoint] {
			lines = append(lines, fmt.Sprintf("%s has %s", of.value, addr))
		}
	}
	for _, k := range s.keepers {
		lines = append(lines, fmt.Sprintf("host %s needs it: %s", k.value.Host, k.value.Why))
	}
	if len(lines) == 0 {
		for prefix, b := range s.blocks {
			lines = append(lines, fmt.Sprintf("host %s keeps %s in reserve", b.value.Host, prefix))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, ", ")
}
