package cluster

import "context"

// follower is somebody who wants to know of changes.
type follower struct {
	news Change        // not told yet
	any  bool          // there is some
	bell chan struct{} // rings when there is
}

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
			changed(news)
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
