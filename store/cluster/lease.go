package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// lease is one of this host's two leases. Its fields are guarded by the
// Cluster's lock.
type lease struct {
	id     clientv3.LeaseID
	wanted time.Duration // how long it is to last without a word

	asked time.Duration // when the last renewal that succeeded was asked for, by boottime; 0: none did
	ttl   time.Duration // what the store made of it
}

// stands tells whether the lease is sure to last at a time. The store counts from
// when it got the question, which is not before it was asked; a tenth is left for
// clocks that do not go alike.
func (l *lease) stands(now time.Duration) bool {
	return l.asked != 0 && now-l.asked < l.ttl-l.ttl/10
}

// keep renews a lease until ctx ends, four times in its duration, and makes it
// again when it has ended.
func (c *Cluster) keep(ctx context.Context, l *lease) {
	for {
		began := time.Now()
		fresh, err := c.renew(ctx, l)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			c.unreachable(err)
		default:
			c.reachable()
		}
		if fresh {
			c.poke()
		}
		wait := l.wanted / 4
		if err != nil {
			wait = min(retryAfter, wait)
		} else if !c.listed() {
			wait = retryAfter
		}
		if !pause(ctx, wait-min(time.Since(began), wait/2)) {
			return
		}
	}
}

// renewBoth makes sure that both leases are there.
func (c *Cluster) renewBoth(ctx context.Context, _ *clientv3.Client) error {
	for _, l := range []*lease{c.life, c.claim} {
		if _, err := c.renew(ctx, l); err != nil {
			return err
		}
	}
	c.poke()
	return nil
}

func (c *Cluster) listed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.link.listed
}

// renew asks for a lease to go on, or makes it if it is not there, and tells
// whether it had to.
func (c *Cluster) renew(ctx context.Context, l *lease) (fresh bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, min(c.o.Timeout, l.wanted/3))
	defer cancel()
	asked := boottime()
	ttl, err := c.keepAlive(ctx, l.id)
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		asked, fresh = boottime(), true
		ttl, err = c.grant(ctx, l)
		if errors.Is(err, rpctypes.ErrLeaseExist) {
			ttl, err = c.keepAlive(ctx, l.id)
		}
	}
	if err != nil {
		return false, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if fresh && l == c.claim {
		// What hung on the old one is gone, whether the watch has told so or not.
		for key := range c.mirror.mine {
			c.mirror.doubtful[key] = true
		}
	}
	l.asked, l.ttl = asked, ttl
	return fresh, nil
}

func (c *Cluster) grant(ctx context.Context, l *lease) (time.Duration, error) {
	seconds := int64((l.wanted + time.Second - 1) / time.Second)
	// The client's own Grant leaves the choice of the ID to the store.
	answer, err := pb.NewLeaseClient(c.client.ActiveConnection()).LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: seconds, ID: int64(l.id)})
	if err != nil {
		return 0, fmt.Errorf("asking for a lease: %w", rpctypes.Error(err))
	}
	return time.Duration(answer.TTL) * time.Second, nil
}

// keepAlive renews a lease once. The client's KeepAliveOnce would ask again
// without a pause for as long as the store is away.
func (c *Cluster) keepAlive(ctx context.Context, id clientv3.LeaseID) (time.Duration, error) {
	stream, err := pb.NewLeaseClient(c.client.ActiveConnection()).LeaseKeepAlive(ctx)
	if err != nil {
		return 0, fmt.Errorf("renewing a lease: %w", rpctypes.Error(err))
	}
	if err = stream.Send(&pb.LeaseKeepAliveRequest{ID: int64(id)}); err != nil {
		return 0, fmt.Errorf("renewing a lease: %w", rpctypes.Error(err))
	}
	answer, err := stream.Recv()
	if err != nil {
		return 0, fmt.Errorf("renewing a lease: %w", rpctypes.Error(err))
	}
	if answer.TTL <= 0 {
		return 0, rpctypes.ErrLeaseNotFound
	}
	return time.Duration(answer.TTL) * time.Second, nil
}
