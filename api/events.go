package api

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/moby/moby/api/types/events"

	"github.com/linkspan/linkspan/controller"
	"github.com/linkspan/linkspan/runtime"
	"github.com/linkspan/linkspan/runtime/image"
	"github.com/linkspan/linkspan/runtime/volume"
)

// Events is what happened lately to networks, containers, images and the daemon.
//
// Safe for concurrent use.
type Events struct {
	*ring[events.Message]
	now      func() time.Time
	watchers atomic.Int64
}

// NewEvents returns Events without any. Its methods Network and Container are
// the hooks that the controller and the launcher report to.
func NewEvents() *Events { return &Events{ring: newRing[events.Message](), now: time.Now} }

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

// Volume reports a change of a volume.
func (e *Events) Volume(ev volume.Event) {
	attributes := map[string]string{"driver": volume.Driver}
	maps.Copy(attributes, ev.Attributes)
	if ev.Action == "prune" {
		attributes = map[string]string{"reclaimed": strconv.FormatUint(ev.Reclaimed, 10)}
	}
	e.publish(events.VolumeEventType, ev.Action, ev.Name, attributes, ev.Time)
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
	e.add(message)
}

// watch is what one client wants to see.
type watch struct {
	filters      filters
	since, until time.Time // zero: from the start, without end; both zero: from now on
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
	return e.ring.follow(ctx, at, func(batch []events.Message) error {
		var wanted []events.Message
		for _, message := range batch {
			if w.wants(message) {
				wanted = append(wanted, message)
			}
		}
		if len(wanted) == 0 {
			return nil
		}
		return send(wanted)
	})
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

// image matches containers by the image they run, and images by ID and name, with
// and without the tag.
func (f filters) image(m events.Message) bool {
	names := []string{m.Actor.Attributes["image"]}
	if m.Type == events.ImageEventType {
		names = []string{m.Actor.ID, m.Actor.Attributes["name"]}
	}
	return slices.ContainsFunc(names, func(name string) bool {
		bare, _, _ := strings.Cut(name, ":")
		return f.exact("image", name) || f.exact("image", bare)
	})
}
