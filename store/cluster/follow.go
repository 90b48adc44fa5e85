package cluster

import (
	"context"
	"time"
)

// follower is somebody who wants to know of changes.
type follower struct {
	news Change        // not told yet
	any  bool          // there is some
	bell chan struct{} // rings when there is
}

// calm is the least time between the beginnings of two calls of a follower. Its
// work grows with the networks that changed, not with the changes, so in a storm
// of them it is done for many at once.
const calm = 10 * time.Millisecond

// Follow calls changed from one goroutine at a time until ctx ends, first for
// all that there is.
func (c *Cluster) Follow(ctx context.Context, changed func(Change)) {
	f := &follower{bell: make(chan struct{}, 1)}
	c.mu.Lock()
	c.followers[f] = struct{}{}
	first := Change{Networks: true, Members: true, Store: true}
	for id := range c.mirror.networks {
		first.Endpoints = append(first.Endpoints, id)
	}
	for _, lost := range c.own.lost {
		first.Lost = append(first.Lost, lost)
	}
	f.add(first)
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.followers, f)
		c.mu.Unlock()
	}()
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.bell:
		}
		c.mu.Lock()
		news, any := f.news, f.any
		f.news, f.any = Change{}, false
		c.mu.Unlock()
		if any && ctx.Err() == nil {
			began := time.Now()
			changed(news)
			pause(ctx, calm-time.Since(began))
		}
	}
}

func (f *follower) add(news Change) {
	f.news.Networks = f.news.Networks || news.Networks
	f.news.Members = f.news.Members || news.Members
	f.news.Store = f.news.Store || news.Store
	f.news.Lost = append(f.news.Lost, news.Lost...)
	known := make(map[string]bool, len(f.news.Endpoints))
	for _, id := range f.news.Endpoints {
		known[string(id)] = true
	}
	for _, id := range news.Endpoints {
		if !known[string(id)] {
			f.news.Endpoints = append(f.news.Endpoints, id)
		}
	}
	f.any = true
	select {
	case f.bell <- struct{}{}:
	default:
	}
}

// tell passes the mirror's news on to all followers. It is called with the lock
// held.
func (c *Cluster) tell() {
	news := c.mirror.news
	if !news.Networks && !news.Members && !news.Store && len(news.Endpoints)+len(news.Lost) == 0 {
		return
	}
	c.mirror.news = Change{}
	for f := range c.followers {
		f.add(news)
	}
}
