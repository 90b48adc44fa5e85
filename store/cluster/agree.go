package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/linkspan/linkspan"
)

// conflict says that what is wanted is somebody else's.
type conflict struct {
	addr netip.Addr
	who  string // with the host
}

func (c *conflict) Error() string {
	return fmt.Sprintf("Address already in use: %s is held by %s", c.addr, c.who)
}

func (c *conflict) Unwrap() error { return linkspan.ErrConflict }

// noNetwork says that the network that something is wanted on is not there.
type noNetwork struct{ id linkspan.ID }

func (n *noNetwork) Error() string {
	return fmt.Sprintf("network %s is no more in the cluster store: it was removed (see: linkspan network ls)", n.id.Short())
}

func (n *noNetwork) Unwrap() error { return linkspan.ErrNotFound }

// attempts bounds how often a step is tried that others come before.
const attempts = 100

// agree makes some keys of the store what this host wants them to be, in one
// step that happens whole or not at all. A key that it wants and somebody else
// has is a *conflict. With extra, more is written in that step.
func (c *Cluster) agree(ctx context.Context, keys []string, extra ...clientv3.Op) error {
	for range attempts {
		if err := c.meet(ctx, keys); err != nil {
			return err
		}
		c.mu.Lock()
		step := c.step(keys)
		c.mu.Unlock()
		if len(step.then) == 0 {
			return nil
		}
		var answer *clientv3.TxnResponse
		err := c.ask(ctx, func(ctx context.Context, client *clientv3.Client) (err error) {
			answer, err = client.Txn(ctx).If(step.compare...).Then(append(step.then, extra...)...).Else(step.look...).Commit()
			return err
		})
		if errors.Is(err, rpctypes.ErrLeaseNotFound) {
			err = c.ask(ctx, c.renewBoth)
			if err == nil {
				continue
			}
		}
		if err != nil {
			return err
		}
		c.mu.Lock()
		if answer.Succeeded {
			for _, change := range step.changes {
				change(answer.Header.Revision)
			}
			c.tell()
			c.mu.Unlock()
			return nil
		}
		c.learn(step.look, answer)
		err = c.hindrance(keys)
		c.tell()
		c.mu.Unlock()
		if err != nil {
			return err
		}
	}
	return linkspan.Errorf(linkspan.ErrUnavailable, "cluster store %s: others were quicker %d times", c.o, attempts)
}

// meet asks for the networks of keys that the watch has not told of: where their
// blocks are must be known.
func (c *Cluster) meet(ctx context.Context, keys []string) error {
	c.mu.Lock()
	strange := make(map[linkspan.ID]bool)
	for _, key := range keys {
		if id := c.own.wants[key].network; id != "" {
			if _, known := c.mirror.networks[id]; !known {
				strange[id] = true
			}
		}
	}
	c.mu.Unlock()
	for id := range strange {
		var found *clientv3.GetResponse
		err := c.ask(ctx, func(ctx context.Context, client *clientv3.Client) (err error) {
			found, err = client.Get(ctx, c.keys.network(id))
			return err
		})
		if err != nil {
			return err
		}
		if len(found.Kvs) == 0 {
			return &noNetwork{id}
		}
		c.mu.Lock()
		c.mirror.put(string(found.Kvs[0].Key), string(found.Kvs[0].Value), found.Kvs[0].ModRevision)
		c.mu.Unlock()
	}
	return nil
}

// neighbours is how many claims are read from one that was in the way on.
const neighbours = 32

// step is a transaction.
type step struct {
	compare []clientv3.Cmp
	then    []clientv3.Op
	look    []clientv3.Op // what to read if the comparison fails
	changes []func(revision int64)

	network linkspan.ID // that was compared
}

// step returns the transaction that makes keys agree, as far as is known.
func (c *Cluster) step(keys []string) step {
	var s step
	for _, key := range keys {
		want, is := c.own.wants[key]
		mine, there := c.mirror.mine[key]
		switch {
		case is && there && mine.value == want.value, !is && !there:
			continue
		case is:
			s.put(c, key, want)
			if there {
				s.compare = append(s.compare, clientv3.Compare(clientv3.ModRevision(key), "=", mine.mod))
			} else {
				s.compare = append(s.compare, clientv3.Compare(clientv3.CreateRevision(key), "=", 0))
				s.ground(c, want)
			}
		default:
			c.mirror.doubtful[key] = true
			s.compare = append(s.compare, clientv3.Compare(clientv3.ModRevision(key), "=", mine.mod))
			s.then = append(s.then, clientv3.OpDelete(key))
			s.changes = append(s.changes, func(revision int64) { c.mirror.remove(key, revision) })
		}
		s.look = append(s.look, clientv3.OpGet(key))
	}
	return s
}

func (s *step) put(c *Cluster, key string, want wanted) {
	lease := c.claim.id
	if want.life {
		lease = c.life.id
	}
	s.then = append(s.then, clientv3.OpPut(key, want.value, clientv3.WithLease(lease)))
	s.changes = append(s.changes, func(revision int64) {
		c.mirror.put(key, want.value, revision)
		if key == c.keys.member(c.o.Self.ID) {
			c.own.announced = true
		}
	})
}

// ground compares what a new key stands on: its network is there, and its address
// in no block of another host.
func (s *step) ground(c *Cluster, want wanted) {
	if want.network == "" {
		return
	}
	if s.network != want.network {
		s.network = want.network
		key := c.keys.network(want.network)
		s.compare = append(s.compare, clientv3.Compare(clientv3.CreateRevision(key), ">", 0))
		s.look = append(s.look, clientv3.OpGet(key))
	}
	if !want.addr.IsValid() {
		return
	}
	// Where one address is taken there are others that this host has not heard of.
	around, end := c.keys.claim(want.network, want.addr), clientv3.GetPrefixRangeEnd(c.keys.claims(want.network))
	s.look = append(s.look, clientv3.OpGet(around, clientv3.WithRange(end), clientv3.WithLimit(neighbours)))
	if block := c.blockOf(want.network, want.addr); block.IsValid() {
		key := c.keys.block(want.network, block)
		if mine, ours := c.mirror.mine[key]; ours {
			s.compare = append(s.compare, clientv3.Compare(clientv3.ModRevision(key), "=", mine.mod))
		} else {
			s.compare = append(s.compare, clientv3.Compare(clientv3.CreateRevision(key), "=", 0))
		}
		s.look = append(s.look, clientv3.OpGet(key))
	}
}

// learn takes the answers to gets into the mirror.
func (c *Cluster) learn(look []clientv3.Op, answer *clientv3.TxnResponse) {
	for i, op := range look {
		c.learnRange(string(op.KeyBytes()), len(op.RangeBytes()) == 0, answer.Responses[i].GetResponseRange(), answer.Header.Revision)
	}
}

func (c *Cluster) learnRange(key string, single bool, found *pb.RangeResponse, revision int64) {
	if single && len(found.Kvs) == 0 {
		c.mirror.remove(key, revision)
	}
	for _, kv := range found.Kvs {
		c.mirror.put(string(kv.Key), string(kv.Value), kv.ModRevision)
	}
}

// hindrance says what is known to keep keys from being as they are wanted.
func (c *Cluster) hindrance(keys []string) error {
	for _, key := range keys {
		want, is := c.own.wants[key]
		if _, there := c.mirror.mine[key]; !is || there || want.network == "" {
			continue
		}
		if _, known := c.mirror.networks[want.network]; !known {
			return &noNetwork{want.network}
		}
		if !want.addr.IsValid() {
			continue
		}
		s := c.mirror.on[want.network]
		if s == nil {
			continue
		}
		if other, taken := s.claims[want.addr]; taken {
			return &conflict{want.addr, other.value.String()}
		}
		if block, taken := s.blocks[c.blockOf(want.network, want.addr)]; taken && block.value.Member != c.o.Self.ID {
			return &conflict{want.addr, "host " + block.value.Host + ", which keeps the addresses around it in reserve"}
		}
	}
	return nil
}
