package api

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	goruntime "runtime"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	apinetwork "github.com/moby/moby/api/types/network"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/runtime"
)

// thousand are containers as they stand in a list.
func thousand() []runtime.Container {
	var list []runtime.Container
	for i := range 1000 {
		list = append(list, runtime.Container{
			ID: linkspan.ID(fmt.Sprintf("%064x", i)), Name: fmt.Sprintf("box%d", i), Created: moment,
			Config:     &container.Config{Image: "bb", Cmd: []string{"sleep", "300"}, Labels: map[string]string{"n": fmt.Sprint(i)}},
			HostConfig: &container.HostConfig{NetworkMode: "lab"}, State: runtime.State{Status: container.StateRunning, StartedAt: moment},
		})
	}
	return list
}

func BenchmarkListThousand(b *testing.B) {
	networks := &fakeNetworking{settings: container.NetworkSettings{Networks: map[string]*apinetwork.EndpointSettings{"lab": {NetworkID: string(netID)}}}}
	s := newTestServer(b, networks, &fakeContainers{all: thousand()})
	for b.Loop() {
		if w := ask(s, "GET", "/containers/json?all=1", ""); w.Code != http.StatusOK {
			b.Fatal(w.Body)
		}
	}
}

// BenchmarkEventWatched is what a verb pays for telling of itself while a
// thousand clients watch.
func BenchmarkEventWatched(b *testing.B) {
	e := NewEvents()
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	for range 1000 {
		go e.follow(ctx, e.position(), watch{}, func([]events.Message) error { return nil }) //nolint:errcheck // it ends with ctx
	}
	for e.watchers.Load() < 1000 {
		goruntime.Gosched()
	}
	for b.Loop() {
		e.Container(runtime.Event{Action: "start", ID: ctrID, Attributes: map[string]string{"name": "x"}, Time: moment})
	}
}

// Many connections that nobody speaks on hinder nobody, and leave nothing.
func TestIdleConnections(t *testing.T) {
	connect := served(t, newTestServer(t, &fakeNetworking{}, &fakeContainers{}))
	before := goruntime.NumGoroutine()
	const many = 500
	idle := make([]*net.UnixConn, many)
	for i := range idle {
		idle[i] = connect()
		if i%2 == 0 { // half of them after a request
			if _, err := io.WriteString(idle[i], "GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
		}
	}
	conn := connect()
	if _, err := io.WriteString(conn, "GET /_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Errorf("%v %v", answer, err)
	}
	conn.Close()
	for _, c := range idle {
		c.Close()
	}
	if !nstest.Until(time.Minute, func() bool { return goruntime.NumGoroutine() <= before+10 }) {
		t.Errorf("%d goroutines before, %d after", before, goruntime.NumGoroutine())
	}
}
