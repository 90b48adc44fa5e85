package bench

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/linkspan/linkspan/internal/nstest"
)

// startDocker starts Debian's dockerd with all its defaults, in particular
// iptables and a proxy process for each port.
func startDocker(t *testing.T, m *nstest.Machine) *engine {
	t.Helper()
	e := newEngine(t, m)
	e.launch(t, "dockerd", "-H", "unix://"+e.socket(), "--data-root", e.dir+"/data", "--exec-root", e.dir+"/exec", "--pidfile", e.dir+"/pid", "--storage-driver", "vfs")
	t.Cleanup(func() {
		e.clear(t)
		e.stop(t)
		e.machine.Sh(t, "umount -R "+e.dir+"/exec/netns "+e.dir+"/data 2>/dev/null || true")
	})
	return e
}

// docker does the same with our daemon, with both firewall backends, and with
// Docker's, in turns. The target is to take no longer.
func docker(t *testing.T) []figure {
	m := machines(t, 3)
	theirs := startDocker(t, m[2])
	ours := []*engine{start(t, m[0]), start(t, m[1], "--firewall-backend", "iptables")}
	for _, e := range append(ours, theirs) {
		e.network(t, "lab", "10.77.0.0/24")
		e.network(t, "side", "10.78.0.0/24")
	}
	var hundred []string
	for i := range size(3, 100) {
		hundred = append(hundred, fmt.Sprintf("%[1]d:%[1]d/tcp", 50_000+i))
	}
	names := []string{"nftables", "iptables", "docker.io"}
	engines := append(ours, theirs)
	var variants []variant
	for _, ports := range [][]string{nil, {"8080:80/tcp"}, thirtyTwo()[:size(2, 32)], hundred} {
		for _, e := range engines {
			variants = append(variants, variant{e, ports, nil})
		}
	}
	s := starts(t, size(1, 10), "lab", variants...)
	var figures []figure
	add := func(what string, samples []sample) {
		for i := range ours {
			figures = append(figures, times(what+", "+names[i]+" against docker.io", samples[i], samples[2], 1))
		}
	}
	for i, what := range []string{"start", "start with 1 port", "start with 32 ports", "start with a range of 100"} {
		add(what, s[3*i:])
	}
	runs, joins, leaves := make([]sample, 3), make([]sample, 3), make([]sample, 3)
	web := make([]string, 3)
	for i, e := range engines {
		web[i] = e.up(t, "web")
	}
	for range size(1, 10) {
		for i, e := range engines {
			runs[i].took(func() { e.runToEnd(t, "lab") })
			joins[i].took(func() { e.call(t, http.MethodPost, "/networks/side/connect", object{"Container": web[i]}, nil) })
			leaves[i].took(func() { e.call(t, http.MethodPost, "/networks/side/disconnect", object{"Container": web[i]}, nil) })
		}
	}
	add("run to completion", runs)
	add("join", joins)
	add("leave", leaves)
	asked := make([]sample, 3)
	for i, e := range engines {
		asked[i] = ask(t, e.inside(t, e.up(t, "app")), size(10, 10_000))
	}
	add("name of a neighbour", asked)
	return figures
}
