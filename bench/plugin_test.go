package bench

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/plugin"
	"github.com/linkspan/linkspan/plugin/plugintest"
	"github.com/linkspan/linkspan/plugin/wire"
)

// driver is a network plugin that takes its time for Join.
func driver(join time.Duration) plugintest.HTTP {
	return plugintest.HTTP{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := "{}"
		switch r.URL.Path {
		case "/Plugin.Activate":
			answer = `{"Implements":["NetworkDriver"]}`
		case "/NetworkDriver.GetCapabilities":
			answer = `{"Scope":"local"}`
		case "/NetworkDriver.Join":
			time.Sleep(join) // the work of a plugin
			answer = `{"DisableGatewayService":true}`
		}
		w.Write([]byte(answer)) //nolint:errcheck // the caller has hung up
	})}
}

// pluginCall measures a call of the plugin host beside the bare exchange that it
// rests on.
func pluginCall(t *testing.T) []figure {
	dir := t.TempDir()
	socket := filepath.Join(dir, "quick.sock")
	plugintest.Serve(t, socket, driver(0))
	d := plugin.NewDirectory(plugin.Options{Sockets: []string{dir}, Specs: []string{}})
	defer d.Close() //nolint:errcheck // nothing is lost
	client := plugintest.Client(socket)
	message := wire.EndpointRequest{NetworkID: strings.Repeat("a", 64), EndpointID: strings.Repeat("b", 64)}
	var whole, bare sample
	for range size(5, 5000) {
		whole.took(func() { must(t, d.Line("quick").Call(t.Context(), "NetworkDriver.Leave", message, nil)) })
		bare.took(func() {
			response, err := client.Post("http://plugin/NetworkDriver.Leave", "", strings.NewReader("{}")) //nolint:noctx // a benchmark
			must(t, err)
			must(t, response.Body.Close())
		})
	}
	return []figure{{
		what: "the plugin host's own part of a call", got: ms(whole.median() - bare.median()), unit: "ms", target: 0.2,
		note: fmt.Sprintf("%.0f against %.0f µs", µs(whole.median()), µs(bare.median())),
	}}
}

// pluginJoins connects many running containers at once to a network whose plugin
// takes 50 ms to answer Join.
func pluginJoins(t *testing.T) []figure {
	dir := t.TempDir()
	plugintest.Serve(t, filepath.Join(dir, "slow.sock"), driver(50*time.Millisecond))
	e := start(t, nstest.New(t), "--plugin-dir", dir)
	e.network(t, "side", "10.78.0.0/16")
	e.call(t, http.MethodPost, "/networks/create", object{"Name": "lab", "Driver": "slow", "IPAM": object{"Config": []object{{"Subnet": "10.77.0.0/16"}}}}, nil)
	count := size(3, 100)
	e.many(t, "c", "side", count)
	all := func(verb string) {
		var parallel sync.WaitGroup
		for i := range count {
			parallel.Go(func() {
				if err := e.try(http.MethodPost, "/networks/lab/"+verb, object{"Container": fmt.Sprint("c", i)}, nil); err != nil {
					t.Error(err)
				}
			})
		}
		parallel.Wait()
	}
	var s sample
	for range size(1, 7) {
		s.took(func() { all("connect") })
		all("disconnect")
	}
	return []figure{atMost("100 joins at once through a plugin that takes 50 ms", s, 200)}
}
