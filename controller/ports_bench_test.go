package controller_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/controller"
	"github.com/linkspan/linkspan/internal/nstest"
)

// BenchmarkPublish starts and stops the network of a container: without ports,
// with one, with a thousand, and beside many.
func BenchmarkPublish(b *testing.B) {
	thousand := publish("50000-51000:50000-51000", "50000-51000:50000-51000/udp")
	var many []string
	for i := range 10_000 {
		many = append(many, fmt.Sprintf("%d:80", 10_001+i)) // no two of them make a range
	}
	thirtyTwo := make([]string, 32)
	for i := range thirtyTwo {
		thirtyTwo[i] = fmt.Sprintf("%d:%d", 60_000+2*i, 1+i)
	}
	for _, c := range []struct {
		name       string
		before     []string // ports of a container that runs already
		containers int      // that run already, without ports
		ports      func(*controller.Container)
	}{
		{"ports=0", nil, 0, publish()},
		{"ports=1", nil, 0, publish("8080:80")},
		{"ports=1/published=10000", many, 0, publish("8080:80")},
		{"ports=1001x4", nil, 0, thousand},
		{"ports=32", nil, 0, publish(thirtyTwo...)},
		{"ports=32/containers=500", nil, 500, publish(thirtyTwo...)},
	} {
		b.Run(c.name, func(b *testing.B) {
			m := nstest.New(b)
			d := start(b, m, newRoots(b))
			d.network(b, "lab", dualStack)
			d.network(b, "old", subnet("10.80.0.0/16"))
			if c.before != nil {
				m.Sh(b, "sysctl -qw net.ipv6.conf.all.disable_ipv6=1") // half the sockets: descriptors are few
				many := spec("many", "old", publish(c.before...))
				must(b, d.Reserve(many))
				a, err := d.Attach(b.Context(), many.ID)
				must(b, err)
				a.Holds.Close() // the rows and rules are what others may pay for
			}
			for i := range c.containers {
				d.run(b, spec(fmt.Sprint("old", i), "old"))
			}
			web := spec("web", "lab", c.ports, func(c *controller.Container) { c.ID = linkspan.NewID() })
			must(b, d.Reserve(web))
			var attach, detach []time.Duration
			for b.Loop() {
				began := time.Now()
				a, err := d.Attach(b.Context(), web.ID)
				must(b, err)
				up := time.Now()
				a.Holds.Close()
				for _, file := range a.Keep {
					file.Close()
				}
				down := time.Now()
				must(b, d.Detach(b.Context(), web.ID))
				attach, detach = append(attach, up.Sub(began)), append(detach, time.Since(down))
			}
			median(b, "attach", attach)
			median(b, "detach", detach)
			d.clear(b)
		})
	}
}

func median(b *testing.B, what string, took []time.Duration) {
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, what+"-p50-ms")
	b.ReportMetric(float64(took[0].Microseconds())/1000, what+"-min-ms")
}
