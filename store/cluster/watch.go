package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// pageSize is how many keys one answer of a list has at most.
const pageSize = 2000

// watch keeps the mirror up to date until ctx ends: a list, then all changes
// from its revision on. A list is read again only when the store has forgotten
// the changes in between (compaction).
func (c *Cluster) watch(ctx context.Context) {
	list, said := true, ""
	for {
		var err error
		if list {
			err = c.list(ctx)
		}
		if err == nil {
			c.mu.Lock()
			c.link.listed = true
			c.mu.Unlock()
			err = c.changes(ctx)
			list = errors.Is(err, rpctypes.ErrCompacted) || errors.Is(err, errReplaced)
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil && err.Error() != said {
			said = err.Error()
			c.o.Logf("following cluster store %s: %v", c.o, err)
		}
		if err != nil && !c.listed() && !errors.Is(err, context.DeadlineExceeded) { // others know why
			c.unreachable(err)
		}
		if !pause(ctx, retryAfter) {
			return
		}
	}
}

// errReplaced says that the store's history is not the one that was followed: it
// was restored from a backup, or made anew.
var errReplaced = errors.New("the store is at an earlier revision than it was: it has been restored or made anew")

// list reads all keys as they were at one revision.
func (c *Cluster) list(ctx context.Context) error {
	c.mu.Lock()
	c.mirror.round++
	c.mu.Unlock()
	from, end := c.keys.root, clientv3.GetPrefixRangeEnd(c.keys.root)
	var revision int64
	for {
		options := []clientv3.OpOption{clientv3.WithRange(end), clientv3.WithLimit(pageSize), clientv3.WithRev(revision)}
		var page *clientv3.GetResponse
		err := c.within(ctx, func(ctx context.Context) (err error) {
			page, err = c.client.Get(ctx, from, options...)
			return err
		})
		if err != nil {
			return fmt.Errorf("listing %s: %w", c.keys.root, err)
		}
		if revision == 0 {
			revision = page.Header.Revision
			c.began(revision)
		}
		c.mu.Lock()
		for _, kv := range page.Kvs {
			c.mirror.put(string(kv.Key), string(kv.Value), kv.ModRevision)
		}
		if !page.More {
			c.mirror.sweep(revision)
		}
		c.tell()
		c.mu.Unlock()
		if !page.More {
			c.poke()
			return nil
		}
		from = string(page.Kvs[len(page.Kvs)-1].Key) + "\x00"
	}
}

// began looks at the revision of a list: one that is lower than what was seen is
// another history, in which nothing that is known counts.
func (c *Cluster) began(revision int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if revision >= c.mirror.revision {
		return
	}
	c.o.Logf("cluster store %s: %v", c.o, errReplaced)
	old := c.mirror
	c.mirror = newMirror(c.keys, c.o.Self.ID)
	c.mirror.news = old.news
	c.mirror.news.Networks, c.mirror.news.Members = true, true
	for id := range old.on {
		c.mirror.changed(id)
	}
}

// changes takes what the watch tells until it ends.
func (c *Cluster) changes(ctx context.Context) error {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	c.mu.Lock()
	from := c.mirror.revision + 1
	c.mu.Unlock()
	told := c.client.Watch(ctx, c.keys.root, clientv3.WithPrefix(), clientv3.WithRev(from), clientv3.WithProgressNotify(), clientv3.WithCreatedNotify())

	// A connection that went silent looks like a store where nothing changes, so
	// the watch is asked for a sign of life. (The revision in the answer is of no
	// use: before etcd 3.4.25 and 3.5.8 it may be ahead of the changes.)
	tick := time.NewTicker(max(c.o.Life/4, time.Second/2))
	defer tick.Stop()
	heard := time.Now()
	for {
		select {
		case answer, open := <-told:
			switch {
			case !open:
				return errors.New("the watch has ended")
			case answer.Err() != nil:
				return answer.Err()
			case answer.Header.Revision < from-1 && c.replaced(ctx, from-1):
				return errReplaced
			}
			heard = time.Now()
			c.take(answer)
		case <-tick.C:
			if quiet := time.Since(heard); quiet > c.o.Timeout+c.o.Life/4 {
				return fmt.Errorf("the watch has said nothing for %s", quiet.Round(time.Second))
			}
			if err := c.client.RequestProgress(ctx); err != nil {
				return fmt.Errorf("asking the watch for a sign of life: %w", err)
			}
		}
	}
}

// replaced tells whether the store as a whole is at a lower revision than this.
// A member of etcd alone may just be late.
func (c *Cluster) replaced(ctx context.Context, revision int64) bool {
	var answer *clientv3.GetResponse
	err := c.within(ctx, func(ctx context.Context) (err error) {
		answer, err = c.client.Get(ctx, c.keys.guard(), clientv3.WithCountOnly())
		return err
	})
	return err == nil && answer.Header.Revision < revision
}

// take puts the events of an answer into the mirror. An answer has all changes of
// each revision that it tells of.
func (c *Cluster) take(answer clientv3.WatchResponse) {
	if len(answer.Events) == 0 {
		return
	}
	c.mu.Lock()
	mine := false
	for _, event := range answer.Events {
		key := string(event.Kv.Key)
		_, before := c.mirror.mine[key]
		if event.Type == mvccpb.DELETE {
			c.mirror.remove(key, event.Kv.ModRevision)
		} else {
			c.mirror.put(key, string(event.Kv.Value), event.Kv.ModRevision)
		}
		_, after := c.mirror.mine[key]
		mine = mine || before || after
	}
	c.mirror.passed(answer.Events[len(answer.Events)-1].Kv.ModRevision)
	c.tell()
	c.mu.Unlock()
	if mine {
		c.poke()
	}
}

// within gives one question to the store its time.
func (c *Cluster) within(ctx context.Context, ask func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, c.o.Timeout)
	defer cancel()
	return ask(ctx)
}
