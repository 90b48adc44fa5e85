package controller

import (
	"maps"
	"slices"
	"time"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/store"
)

// announcement is one endpoint telling its neighbours of its addresses.
//
//	readyToAnnounce ── startAnnouncing ──▶ 1, 2, 3 ──▶ over
//	       └────────────── hush ──────────────┘
type announcement struct {
	start chan struct{} // closed to begin
	stop  chan struct{} // closed to end it early
	quiet chan struct{} // closed when it will say no more
}

// readyToAnnounce prepares to tell the neighbours of a container's new
// endpoints which MAC has their addresses from now on: an address may have been
// somebody else's a moment ago. It comes before the commit, so that whoever
// takes the endpoint away afterwards finds somebody to hush.
func (c *Controller) readyToAnnounce(links []link) {
	for _, l := range links {
		count, every, err := l.network.Announcements()
		if err != nil || count == 0 || len(l.endpoint.Addrs()) == 0 || ofGateway(l.network) {
			continue // the options were checked when the network was made
		}
		a := announcement{make(chan struct{}), make(chan struct{}), make(chan struct{})}
		c.mu.Lock()
		c.announcing[l.endpoint.ID] = a
		c.mu.Unlock()
		c.speakers.Go(func() {
			select {
			case <-a.stop:
				close(a.quiet)
				return
			case <-a.start:
			}
			c.note("announcing the addresses of container "+l.endpoint.Name, c.announce(l, count, every, a))
			c.mu.Lock()
			delete(c.announcing, l.endpoint.ID)
			c.mu.Unlock()
		})
	}
}

// startAnnouncing begins. Nobody waits for it.
func (c *Controller) startAnnouncing(links []link) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range links {
		if a, ready := c.announcing[l.endpoint.ID]; ready {
			close(a.start)
		}
	}
}

// announce owns its sockets alone, from opening to closing: so none is used
// after it was closed, when its number may be another file's. Closing them waits
// for a grace period of the kernel, so it comes after the last word.
func (c *Controller) announce(l link, count int, every time.Duration, state announcement) error {
	a, err := c.announcer(l)
	if a == nil || err != nil {
		close(state.quiet)
		return err
	}
	defer a.Close() //nolint:errcheck // nothing was written that could be lost
	defer close(state.quiet)
	c.awaitPort(l.endpoint.HostLink(), state.stop)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for range count {
		select {
		case <-state.stop:
			return nil
		case <-timer.C:
		}
		if err := a.Announce(); err != nil {
			return err
		}
		timer.Reset(every)
	}
	return nil
}

// portPatience is how long a first announcement waits for the bridge.
const portPatience = 5 * time.Second

// awaitPort returns when the bridge passes on what comes in by a link, or when
// there is nothing to wait for.
func (c *Controller) awaitPort(link string, stop <-chan struct{}) {
	limit := time.NewTimer(portPatience)
	defer limit.Stop()
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		if passes, err := c.o.Host.Passes(link); passes || err != nil {
			return // without a link of the host's there is no bridge either
		}
		select {
		case <-stop:
			return
		case <-limit.C:
			return
		case <-time.After(pause):
		}
	}
}

// announcer returns nil for a link that is gone already.
func (c *Controller) announcer(l link) (*kernel.Announcer, error) {
	var ns string
	c.o.Store.View(func(t store.Tables) {
		row, _ := t.Sandboxes.Get(l.endpoint.Sandbox)
		ns = row.Value.Netns()
	})
	a, err := c.o.Host.Announcer(ns, l.endpoint.Interface, l.endpoint.Addrs())
	if kernel.IsGone(err) {
		return nil, nil //nolint:nilnil // there is nobody to speak
	}
	return a, err
}

// hush ends the announcements of an endpoint that goes, and waits for the last
// word: somebody else may get its addresses. Its sockets are closed a moment
// later, and the container's namespace, if it goes, lives until then.
func (c *Controller) hush(id linkspan.ID) {
	c.mu.Lock()
	a, speaks := c.announcing[id]
	delete(c.announcing, id)
	c.mu.Unlock()
	if speaks {
		close(a.stop)
		<-a.quiet
	}
}

// hushAll ends all announcements and waits until their sockets are closed.
func (c *Controller) hushAll() {
	c.mu.Lock()
	all := slices.Collect(maps.Keys(c.announcing))
	c.mu.Unlock()
	for _, id := range all {
		c.hush(id)
	}
	c.speakers.Wait()
}
