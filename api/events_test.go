package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/events"

	"github.com/linkspan/linkspan/controller"
	"github.com/linkspan/linkspan/runtime"
)

// threeEvents are a network's creation, a connection to it and a container's
// start, a second apart.
func threeEvents(e *Events) {
	at := moment.Add(-3 * time.Second)
	e.now = func() time.Time { at = at.Add(time.Second); return at }
	e.Network(controller.Event{Action: "create", Network: netID, Name: "lab", Driver: "bridge"})
	e.Network(controller.Event{Action: "connect", Network: netID, Name: "lab", Driver: "bridge", Container: ctrID})
	e.Container(runtime.Event{Action: "start", ID: ctrID, Attributes: map[string]string{"name": "web", "image": "bb:1", "a": "b"}, Time: moment})
}

func TestEventsOfThePast(t *testing.T) {
	s := newTestServer(t, &fakeNetworking{}, &fakeContainers{})
	threeEvents(s.events)
	const all = "create connect start"
	for query, want := range map[string]string{
		`since=2000-01-01`: all,
		``:                 all, // up to the end that is added below
		fmt.Sprintf(`since=%d.000000089`, moment.Unix()):              "start",
		fmt.Sprintf(`since=%d`, moment.Unix()-1):                      "connect start",
		`since=0&filters={"type":["network"]}`:                        "create connect",
		`since=0&filters={"event":["start","create"]}`:                "create start",
		`since=0&filters={"container":["web"]}`:                       "start",
		`since=0&filters={"container":["cccc"]}`:                      "start",
		`since=0&filters={"network":["lab"]}`:                         "create connect",
		`since=0&filters={"label":["a=b"]}`:                           "start",
		`since=0&filters={"image":["bb"]}`:                            "start",
		`since=0&filters={"scope":["swarm"]}`:                         "",
		`since=0&filters={"nosuch":["x"]}`:                            all,
		`since=0&filters={bad`:                                        "400",
		`since=x`:                                                     "400",
		fmt.Sprintf(`since=%d&until=1`, moment.Unix()):                "400",
		fmt.Sprintf(`since=0&until=%d.000000088`, moment.Unix()):      "create connect",
		fmt.Sprintf(`until=%d.000000088`, moment.Unix()):              "create connect",
		fmt.Sprintf(`since=0&until=%d.000000089&x=`, moment.Unix()-2): "create",
	} {
		path := "/v1.52/events?" + strings.NewReplacer(`"`, "%22", "{", "%7B", "}", "%7D", "[", "%5B", "]", "%5D").Replace(query)
		if !strings.Contains(query, "until") {
			path += "&until=" + fmt.Sprint(moment.Unix()+1)
		}
		w := ask(s, "GET", path, "")
		if w.Code != 200 {
			if fmt.Sprint(w.Code) != want {
				t.Errorf("%s: %d %s", query, w.Code, w.Body)
			}
			continue
		}
		var actions []string
		for line := range strings.Lines(w.Body.String()) {
			var m events.Message
			if err := json.Unmarshal([]byte(line), &m); err != nil {
				t.Fatal(err)
			}
			actions = append(actions, string(m.Action))
		}
		if got := strings.Join(actions, " "); got != want {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
}

func TestEventShapes(t *testing.T) {
	s := newTestServer(t, &fakeNetworking{}, &fakeContainers{})
	threeEvents(s.events)
	for v, want := range map[string][2]string{
		"1.51": {"application/json", `{"status":"start","id":"` + string(ctrID) + `","from":"bb:1","Type":"container","Action":"start","Actor":{"ID":"` + string(ctrID) + `","Attributes":{"a":"b","image":"bb:1","name":"web"}},"scope":"local","time":1772600767,"timeNano":1772600767000000089}`},
		"1.52": {"application/jsonl", `{"Type":"container","Action":"start","Actor":{"ID":"` + string(ctrID) + `","Attributes":{"a":"b","image":"bb:1","name":"web"}},"scope":"local","time":1772600767,"timeNano":1772600767000000089}`},
	} {
		w := ask(s, "GET", "/v"+v+"/events?since=0&until=1772600768&filters="+escape(`{"type":["container"]}`), "")
		if diff := cmp.Diff(want, [2]string{w.Header().Get("Content-Type"), strings.TrimSpace(w.Body.String())}); diff != "" {
			t.Errorf("%s (-want +got):\n%s", v, diff)
		}
	}
	w := ask(s, "GET", "/events?since=0&until=1772600768&filters="+escape(`{"event":["connect"]}`), "")
	if want := `"Attributes":{"container":"` + string(ctrID) + `","name":"lab","type":"bridge"}`; !strings.Contains(w.Body.String(), want) {
		t.Errorf("%s lacks %s", w.Body, want)
	}
}

// A watcher sees each event once and in order, however the two interleave, and
// one that stands still is dropped and holds nobody up.
func TestWatchers(t *testing.T) {
	e := NewEvents()
	const n = 5000
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	stuck := make(chan struct{})
	ended := make(chan error, 2)
	started := make(chan struct{})
	begin := e.position()
	go func() {
		ended <- e.follow(ctx, begin, watch{}, func([]events.Message) error { close(started); <-stuck; return nil })
	}()
	// The first event finds the second watcher at the start.
	e.Daemon("reload", "d", nil)
	<-started
	var seen []string
	enough := errors.New("enough")
	at := e.position()
	next := make(chan struct{}, n)
	go func() {
		ended <- e.follow(ctx, at, watch{}, func(batch []events.Message) error {
			for _, m := range batch {
				seen = append(seen, m.Actor.ID)
				next <- struct{}{}
			}
			if len(seen) == n {
				return enough
			}
			return nil
		})
	}()
	for i := range n {
		e.Daemon("reload", fmt.Sprint(i), nil)
		if i%500 == 499 { // a watcher at some pace, never a whole ring behind
			for range 500 {
				<-next
			}
		}
	}
	if err := <-ended; !errors.Is(err, enough) {
		t.Fatal(err)
	}
	for i, id := range seen {
		if id != fmt.Sprint(i) {
			t.Fatalf("event %d is %s", i, id)
		}
	}
	close(stuck)
	if err := <-ended; err != nil || ctx.Err() != nil {
		t.Errorf("the slow watcher was not dropped: %v", err)
	}
}

func BenchmarkPublishWith1000Watchers(b *testing.B) {
	e := NewEvents()
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	for range 1000 {
		go e.follow(ctx, 0, watch{filters: filters{"type": {"image"}}}, func([]events.Message) error { return nil })
	}
	for b.Loop() {
		e.Daemon("reload", "d", nil)
	}
}

// An image is meant by its ID, and by its name with and without the tag.
func TestEventsOfAnImage(t *testing.T) {
	of := events.Message{Type: events.ImageEventType, Actor: events.Actor{ID: "sha256:1", Attributes: map[string]string{"name": "bb:1"}}}
	for image, want := range map[string]bool{"sha256:1": true, "bb:1": true, "bb": true, "b": false} {
		if got := (watch{filters: filters{"image": {image}}}).wants(of); got != want {
			t.Errorf("image=%s: %t, want %t", image, got, want)
		}
	}
}
