package nftables_test

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/linkspan/linkspan/firewall/nftables"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/sandbox"
)

// BenchmarkPort reports the medians of publishing and unpublishing one port, and
// a range of 1,001 of TCP and UDP and both families, beside none and beside
// 10,000 ports.
func BenchmarkPort(b *testing.B) {
	v4, v6 := netip.MustParseAddr("10.77.0.2"), netip.MustParseAddr("fd77::2")
	one := []sandbox.Port{{Protocol: sandbox.TCP, Host: netip.IPv4Unspecified(), First: 8080, Count: 1, To: netip.AddrPortFrom(v4, 80)}}
	var many []sandbox.Port
	for _, protocol := range []string{sandbox.TCP, sandbox.UDP} {
		many = append(many,
			sandbox.Port{Protocol: protocol, Host: netip.IPv4Unspecified(), First: 50000, Count: 1001, To: netip.AddrPortFrom(v4, 50000)},
			sandbox.Port{Protocol: protocol, Host: netip.IPv6Unspecified(), First: 50000, Count: 1001, To: netip.AddrPortFrom(v6, 50000)})
	}
	for _, others := range []int{0, 10000} {
		for what, ports := range map[string][]sandbox.Port{"one": one, "range": many} {
			b.Run(fmt.Sprintf("%s/beside=%d", what, others), func(b *testing.B) {
				ctx := context.Background()
				x := op.Executor{Host: nstest.New(b).Host()}
				plan := nftables.Backend{}.Base()
				for i := range others / 100 {
					var some []sandbox.Port
					for j := range 100 {
						some = append(some, sandbox.Port{Protocol: sandbox.TCP, Host: netip.IPv4Unspecified(), First: uint16(10000 + 100*i + j), Count: 1, To: netip.AddrPortFrom(v4, 80)})
					}
					plan = append(plan, nftables.Backend{}.Ports("br-lab", some)...)
				}
				if err := x.Do(ctx, plan); err != nil {
					b.Fatal(err)
				}
				publish := nftables.Backend{}.Ports("br-lab", ports)
				var add, remove []time.Duration
				for b.Loop() {
					start := time.Now()
					if err := x.Do(ctx, publish); err != nil {
						b.Fatal(err)
					}
					added := time.Now()
					if err := x.Undo(ctx, publish); err != nil {
						b.Fatal(err)
					}
					add, remove = append(add, added.Sub(start)), append(remove, time.Since(added))
				}
				b.ReportMetric(median(add), "µs/publish")
				b.ReportMetric(median(remove), "µs/unpublish")
				if err := x.Undo(ctx, nftables.Backend{}.Base()); err != nil {
					b.Fatal(err)
				}
			})
		}
	}
}
