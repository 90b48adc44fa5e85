package controller_test

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/plugin/plugintest"
)

// BenchmarkPluginJoins connects 100 running containers at once to a network whose
// plugin takes 50 ms to answer Join, and reports the time of all of them.
func BenchmarkPluginJoins(b *testing.B) {
	const containers = 100
	m := nstest.New(b)
	p := startPlugged(b, m, newRoots(b), b.TempDir())
	plugintest.Serve(b, p.socket("slow"), plugintest.HTTP{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := "{}"
		switch r.URL.Path {
		case "/Plugin.Activate":
			answer = `{"Implements":["NetworkDriver"]}`
		case "/NetworkDriver.GetCapabilities":
			answer = `{"Scope":"local"}`
		case "/NetworkDriver.Join":
			time.Sleep(50 * time.Millisecond) // the work of a plugin
			answer = `{"DisableGatewayService":true}`
		}
		w.Write([]byte(answer)) //nolint:errcheck // the caller has hung up
	})})
	p.network(b, "side", subnet("10.78.0.0/16"), internal)
	p.network(b, "lab", subnet("10.77.0.0/16"), driverIs("slow"))
	ids := make([]linkspan.ID, containers)
	for i := range ids {
		c := spec(fmt.Sprintf("c%d", i), "side")
		ids[i] = c.ID
		p.run(b, c)
	}
	all := func(do func(linkspan.ID) error) {
		var wg sync.WaitGroup
		for _, id := range ids {
			wg.Go(func() {
				if err := do(id); err != nil {
					b.Error(err)
				}
			})
		}
		wg.Wait()
	}
	for b.Loop() {
		all(func(id linkspan.ID) error { return p.Connect(context.Background(), "lab", id, nil) })
		b.StopTimer()
		all(func(id linkspan.ID) error { return p.Disconnect(context.Background(), "lab", id, false) })
		b.StartTimer()
	}
	b.StopTimer()
	p.clear(b)
}
