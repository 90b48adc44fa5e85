package api

import (
	"context"
	"maps"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/moby/moby/api/types/events"

	"github.com/linkspan/linkspan/controller"
	"github.com/linkspan/linkspan/runtime"
	"github.com/linkspan/linkspan/runtime/image"
)

// kept is how many events are remembered: for clients that ask for the past,
// and for watchers that are slow.
const kept = 1024

// Events is what happened lately. Whoever reports an event appends it to a
// ring and goes on; watchers read the ring each at their own pace, so that
// neither their number nor their slowness costs a verb anything. A watcher
// that falls behind by more than the ring holds is dropped.
//
// Safe for concurrent use.
type Events struct {
	now      func() time.Time
	watchers atomic.Int64

	mu      sync.Mutex // guards what follows; held for moments only
	ring    [kept]events.Message
	next    uint64        // number of the event to come; ring index modulo kept
	changed chan struct{} // closed and replaced at each event
}

// NewEvents returns a ring without events. Its methods Network and Container
// are the hooks that the controller and the launcher report to.
func NewEvents() *Events { return &Events{now: time.Now, changed: make(chan struct{})} }

// Network reports a change of a network.
func (e *Events) Network(ev controller.Event) {
	attributes := map[string]string{}
	if ev.Action == "prune" {
		attributes["reclaimed"] = "0"
	} else {
		attributes["name"], attributes["type"] = ev.Name, ev.Driver
	}
	if ev.Container != "" {
		attributes["container"] = string(ev.Container)
	}
	e.publish(events.NetworkEventType, ev.Action, string(ev.Network), attributes, e.now())
}

// Container reports a change of a container.
func (e *Events) Container(ev runtime.Event) {
	e.publish(events.ContainerEventType, ev.Action, string(ev.ID), ev.Attributes, ev.Time)
}

// Image reports a change of an image.
func (e *Events) Image(ev image.Event) {
	attributes := maps.Clone(ev.Labels)
	if attributes == nil {
		attributes = map[string]string{}
	}
	if ev.Name != "" {
		attributes["name"] = ev.Name
	}
	if ev.Action == "prune" {
		attributes["reclaimed"] = strconv.FormatUint(ev.Reclaimed, 10)
	}
	e.publish(events.ImageEventType, ev.Action, ev.ID, attributes, ev.Time)
}

// Daemon reports a change of the daemon itself, such as "reload".
func (e *Events) Daemon(action, id string, attributes map[string]string) {
	e.publish(events.DaemonEventType, action, id, attributes, e.now())
}

func (e *Events) publish(kind events.Type, action, id string, attributes map[string]string, at time.Time) {
	if at.IsZero() {
		at = e.now()
	}
	message := events.Message{
		Type: kind, Action: events.Action(action), Actor: events.Actor{ID: id, Attributes: attributes},
		Scope: "local", Time: at.Unix(), TimeNano: at.UnixNano(),
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ring[e.next%kept] = message
	e.next++
	close(e.changed)
	e.changed = make(chan struct{})
}

// position returns the number of the event to come.
func (e *Events) position() uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.next
}

// oldest returns the number of the oldest event that is remembered.
func (e *Events) oldest() uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return max(e.next, kept) - kept
}

// from returns the events from a number on, and a channel that is closed when
// there are more. It is not ok if some of them are forgotten already.
func (e *Events) from(at uint64) (batch []events.Message, changed <-chan struct{}, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if at+kept < e.next {
		return nil, nil, false
	}
	for ; at < e.next; at++ {
		batch = append(batch, e.ring[at%kept])
	}
	return batch, e.changed, true
}

// watch is what one client wants to see.
type watch struct {
	filters      filters
	since, until time.Time // zero: from now on, without end
}

// follow calls send with each event that the client wants, until the context
// or the watch ends, send fails, or the client is too slow.
func (e *Events) follow(ctx context.Context, at uint64, w watch, send func([]events.Message) error) error {
	e.watchers.Add(1)
	defer e.watchers.Add(-1)
	if !w.until.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, w.until)
		defer cancel()
	}
	for {
		batch, changed, ok := e.from(at)
		if !ok {
			return nil
		}
		at += uint64(len(batch))
		var wanted []events.Message
		for _, message := range batch {
			if w.wants(message) {
				wanted = append(wanted, message)
			}
		}
		if len(wanted) > 0 {
			if err := send(wanted); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

func (w watch) wants(m events.Message) bool {
	at := time.Unix(0, m.TimeNano)
	if (!w.since.IsZero() && at.Before(w.since)) || (!w.until.IsZero() && at.After(w.until)) {
		return false
	}
	f := w.filters
	return f.exact("type", string(m.Type)) && f.exact("scope", m.Scope) && f.labels(m.Actor.Attributes) &&
		f.action(string(m.Action)) && f.image(m) &&
		f.actor(m, events.ContainerEventType, "container") && f.actor(m, events.NetworkEventType, "network") &&
		f.actor(m, events.VolumeEventType, "volume") && f.actor(m, events.DaemonEventType, "daemon") &&
		f.actor(m, events.PluginEventType, "plugin")
}

// action matches "exec_start: sh" by "exec_start" as well as in full.
func (f filters) action(action string) bool {
	short, _, _ := strings.Cut(action, ":")
	return f.exact("event", action) || f.exact("event", short)
}

// actor tells whether an event is of a thing that is named in full, or by the
// beginning of its ID.
func (f filters) actor(m events.Message, kind events.Type, field string) bool {
	if len(f[field]) == 0 {
		return true
	}
	if m.Type != kind {
		return false
	}
	for _, want := range f[field] {
		if want == m.Actor.Attributes["name"] || (want != "" && strings.HasPrefix(m.Actor.ID, want)) {
			return true
		}
	}
	return false
}

// image matches containers by the image they run, with and without its tag.
func (f filters) image(m events.Message) bool {
	name := m.Actor.Attributes["image"]
	if m.Type == events.ImageEventType {
		name = m.Actor.ID
	}
	bare, _, _ := strings.Cut(name, ":")
	return f.exact("image", name) || f.exact("image", bare)
}
