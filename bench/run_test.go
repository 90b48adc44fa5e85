package bench

import (
	"net/http"
	"os"
	"testing"

	"github.com/linkspan/linkspan/internal/nstest"
)

// run measures a container from nothing to nothing: by the stock CLI, and by the
// requests that it makes.
func run(t *testing.T) []figure {
	e := start(t, nstest.New(t))
	e.network(t, "lab", "10.77.0.0/24")
	var cli, version, requests sample
	for range size(1, 40) {
		cli.took(func() { e.docker(t, "run", "--rm", "--network", "lab", "box", "true") })
		version.took(func() { e.docker(t, "version") })
		requests.took(func() { e.runToEnd(t, "lab") })
	}
	return []figure{
		{what: "docker run --rm --network lab box true", got: ms(cli.median()), unit: "ms", target: 40, note: "min " + millis(cli.fastest()) + "; docker version alone " + version.String()},
		atMost("the same as bare requests: create, start, wait, remove", requests, 15),
	}
}

func (e *engine) docker(t *testing.T, args ...string) {
	t.Helper()
	cmd := e.command(append([]string{"docker"}, args...)...)
	cmd.Stderr = os.Stderr
	must(t, cmd.Run())
}

func (e *engine) runToEnd(t *testing.T, network string) {
	t.Helper()
	id := e.createTo(t, "once", network, []string{"true"})
	e.start(t, id)
	e.call(t, http.MethodPost, "/containers/"+id+"/wait", nil, nil)
	e.call(t, http.MethodDelete, "/containers/"+id, nil, nil)
}
