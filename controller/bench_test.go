package controller_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/controller"
	"github.com/linkspan/linkspan/internal/nstest"
)

// BenchmarkNetwork makes and removes a network in the engine, beside the floor:
// a bridge that is made and brought up by raw netlink, without the delete.
func BenchmarkNetwork(b *testing.B) {
	for _, existing := range []int{0, 300} {
		b.Run(fmt.Sprintf("existing=%d", existing), func(b *testing.B) {
			m := nstest.New(b)
			d := start(b, m, newRoots(b))
			for i := range existing {
				d.network(b, fmt.Sprint("old", i), subnet(fmt.Sprintf("10.%d.%d.0/24", i/256, i%256)))
			}
			var create, remove time.Duration
			for b.Loop() {
				began := time.Now()
				d.network(b, "lab", subnet("10.200.0.0/24"))
				made := time.Now()
				must(b, d.RemoveNetwork(b.Context(), "lab"))
				create, remove = create+made.Sub(began), remove+time.Since(made)
			}
			report(b, "create", create)
			report(b, "remove", remove)
			d.clear(b)
		})
	}
	b.Run("floor", func(b *testing.B) {
		m := nstest.New(b)
		links, err := m.Host().Links("")
		must(b, err)
		var create time.Duration
		for b.Loop() {
			began := time.Now()
			bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "floor"}}
			must(b, links.LinkAdd(bridge))
			must(b, links.LinkSetUp(bridge))
			create += time.Since(began)
			b.StopTimer()
			must(b, links.LinkDel(bridge))
			b.StartTimer()
		}
		report(b, "create", create)
	})
}

// BenchmarkEndpoint connects a live sandbox to a second network and takes it
// off again, with other endpoints on that network.
func BenchmarkEndpoint(b *testing.B) {
	for _, existing := range []int{0, 400} {
		b.Run(fmt.Sprintf("existing=%d", existing), func(b *testing.B) {
			m := nstest.New(b)
			d := start(b, m, newRoots(b))
			d.network(b, "lab", subnet("10.77.0.0/24"))
			d.network(b, "side", subnet("10.78.0.0/16"))
			for i := range existing {
				d.run(b, spec(fmt.Sprint("c", i), "side"))
			}
			web := spec("web", "lab")
			d.run(b, web)
			var join, leave time.Duration
			for b.Loop() {
				began := time.Now()
				must(b, d.Connect(b.Context(), "side", web.ID, nil))
				joined := time.Now()
				must(b, d.Disconnect(b.Context(), "side", web.ID, false))
				join, leave = join+joined.Sub(began), leave+time.Since(joined)
			}
			report(b, "join", join)
			report(b, "leave", leave)
			d.clear(b)
		})
	}
}

// BenchmarkSandbox starts and stops the network of a container.
func BenchmarkSandbox(b *testing.B) {
	m := nstest.New(b)
	d := start(b, m, newRoots(b))
	d.network(b, "lab", subnet("10.77.0.0/24"))
	web := spec("web", "lab", func(c *controller.Container) { c.ID = linkspan.NewID() })
	must(b, d.Reserve(web))
	var attach, detach time.Duration
	for b.Loop() {
		began := time.Now()
		a, err := d.Attach(b.Context(), web.ID)
		must(b, err)
		up := time.Now()
		for _, file := range a.Keep {
			file.Close()
		}
		must(b, d.Detach(b.Context(), web.ID))
		attach, detach = attach+up.Sub(began), detach+time.Since(up)
	}
	report(b, "attach", attach)
	report(b, "detach", detach)
	d.clear(b)
}

func report(b *testing.B, what string, total time.Duration) {
	b.ReportMetric(float64(total.Microseconds())/1000/float64(b.N), what+"-ms")
}
