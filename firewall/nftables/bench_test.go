package nftables_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	nft "github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan/firewall"
	"github.com/linkspan/linkspan/firewall/nftables"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/op"
)

// BenchmarkNetwork reports the medians of adding and removing a network beside
// none and beside 300 others.
func BenchmarkNetwork(b *testing.B) {
	for _, others := range []int{0, 300} {
		b.Run(fmt.Sprintf("beside=%d", others), func(b *testing.B) {
			ctx := context.Background()
			x := op.Executor{Host: nstest.New(b).Host()}
			plans := op.Plan(nftables.Backend{}.Base())
			for i := range others {
				plans = append(plans, numbered(i)...)
			}
			if err := x.Do(ctx, plans); err != nil {
				b.Fatal(err)
			}
			plan := numbered(others)
			var add, remove []time.Duration
			for b.Loop() {
				start := time.Now()
				if err := x.Do(ctx, plan); err != nil {
					b.Fatal(err)
				}
				added := time.Now()
				if err := x.Undo(ctx, plan); err != nil {
					b.Fatal(err)
				}
				add, remove = append(add, added.Sub(start)), append(remove, time.Since(added))
			}
			b.ReportMetric(median(add), "µs/add")
			b.ReportMetric(median(remove), "µs/remove")
			if err := x.Undo(ctx, nftables.Backend{}.Base()); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// BenchmarkNetworkGrowth adds 301 networks, one after the other and none
// removed, and reports the medians of the first and the last 30.
func BenchmarkNetworkGrowth(b *testing.B) {
	ctx := context.Background()
	var first, last []time.Duration
	for b.Loop() {
		x := op.Executor{Host: nstest.New(b).Host()}
		if err := x.Do(ctx, nftables.Backend{}.Base()); err != nil {
			b.Fatal(err)
		}
		for i := range 301 {
			plan := numbered(i)
			start := time.Now()
			if err := x.Do(ctx, plan); err != nil {
				b.Fatal(err)
			}
			switch took := time.Since(start); {
			case i < 30:
				first = append(first, took)
			case i > 270:
				last = append(last, took)
			}
		}
		if err := x.Undo(ctx, nftables.Backend{}.Base()); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(median(first), "µs/first")
	b.ReportMetric(median(last), "µs/301st")
}

func numbered(i int) op.Plan {
	return nftables.Backend{}.Network(firewall.Network{
		Bridge: fmt.Sprintf("br-%d", i), ICC: true, Masquerade: true,
		Subnets: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i / 256), byte(i), 0}), 24)},
	})
}

// BenchmarkResolverSetUp reports the medians of one transaction, in one fresh
// namespace after another: the rewrite, and a redirection by NAT.
func BenchmarkResolverSetUp(b *testing.B) {
	ctx := context.Background()
	x := op.Executor{Host: nstest.New(b).Host()}
	box := op.Plan{{Op: op.AddNetns{Name: "box"}}}
	ways := map[string]func() error{
		"rewrite": func() error { return x.Do(ctx, nftables.Backend{}.Resolver("box", udpPort, tcpPort)) },
		"nat":     func() error { return addNAT(x.Host, "box") },
	}
	took := make(map[string][]time.Duration)
	for b.Loop() {
		for way, add := range ways {
			if err := x.Do(ctx, box); err != nil {
				b.Fatal(err)
			}
			if _, err := x.Host.Links("box"); err != nil { // the namespace's doors are open by then
				b.Fatal(err)
			}
			start := time.Now()
			if err := add(); err != nil {
				b.Fatal(err)
			}
			took[way] = append(took[way], time.Since(start))
			if err := x.Undo(ctx, box); err != nil {
				b.Fatal(err)
			}
		}
	}
	for way := range ways {
		b.ReportMetric(median(took[way]), "µs/"+way)
	}
}

// BenchmarkResolverQuery compares the ways from a program to the resolver, in
// turns. With "new" each question has a socket of its own, as those of the C
// library do.
func BenchmarkResolverQuery(b *testing.B) {
	for _, socket := range []string{"new", "kept"} {
		b.Run(socket, func(b *testing.B) {
			ctx := context.Background()
			m := nstest.New(b)
			x := op.Executor{Host: m.Host()}
			ways := []way{{ns: "direct", addr: fmt.Sprint("127.0.0.11:", udpPort)}, {ns: "rewrite", addr: "127.0.0.11:53"}, {ns: "nat", addr: "127.0.0.11:53"}}
			var plan op.Plan
			for _, w := range ways {
				plan = append(plan, op.Step{Op: op.AddNetns{Name: w.ns}})
			}
			plan = append(plan, nftables.Backend{}.Resolver("rewrite", udpPort, tcpPort)...)
			if err := x.Do(ctx, plan); err != nil {
				b.Fatal(err)
			}
			defer x.Undo(ctx, plan) //nolint:errcheck // the machine reports what is left
			if err := addNAT(m.Host(), "nat"); err != nil {
				b.Fatal(err)
			}
			for i := range ways {
				m.Sh(b, "ip -n "+ways[i].ns+" link set lo up")
				newServer(b, m, ways[i].ns, fmt.Sprint("127.0.0.11:", udpPort), fmt.Sprint("127.0.0.11:", tcpPort), "")
				defer ways[i].serve(b, m, socket == "new")()
			}
			for b.Loop() {
				for i := range ways {
					ways[i].ask <- struct{}{}
					took := <-ways[i].took
					ways[i].all = append(ways[i].all, took)
				}
			}
			for _, w := range ways {
				b.ReportMetric(median(w.all), "µs/"+w.ns)
			}
		})
	}
}

// way leads from a program to the resolver, in a namespace of its own.
type way struct {
	ns, addr string
	ask      chan struct{}
	took     chan time.Duration
	all      []time.Duration
}

// serve starts a program that asks when it is told to, on a thread that is in
// the namespace. The returned function ends it.
func (w *way) serve(b *testing.B, m *nstest.Machine, fresh bool) (stop func()) {
	w.ask, w.took = make(chan struct{}), make(chan time.Duration)
	go m.Host().Inside(w.ns, func() error { //nolint:errcheck // reported below
		defer close(w.took)
		question, buf := make([]byte, 40), make([]byte, 512)
		conn, err := net.Dial("udp", w.addr)
		for range w.ask {
			start := time.Now()
			if fresh && err == nil {
				conn.Close()
				conn, err = net.Dial("udp", w.addr)
			}
			if err == nil {
				conn.SetDeadline(start.Add(time.Second))
				_, err = conn.Write(question)
			}
			if err == nil {
				_, err = conn.Read(buf)
			}
			if err != nil {
				b.Errorf("asking %s in %s: %v", w.addr, w.ns, err)
			}
			w.took <- time.Since(start)
		}
		return nil
	})
	return func() { close(w.ask); <-w.took }
}

// addNAT redirects as Docker does, with connection tracking, in one transaction:
//
//	output       ip daddr 127.0.0.11 udp dport 53 dnat to 127.0.0.11:5301     and the same for TCP
//	postrouting  ip saddr 127.0.0.11 udp sport 5301 snat to 127.0.0.11:53
func addNAT(h *kernel.Host, ns string) error {
	return h.Transact(ns, func(conn *nft.Conn) error {
		table := conn.CreateTable(&nft.Table{Name: "nat", Family: nft.TableFamilyIPv4})
		dnat := conn.AddChain(&nft.Chain{Name: "output", Table: table, Type: nft.ChainTypeNAT, Hooknum: nft.ChainHookOutput, Priority: nft.ChainPriorityNATDest})
		snat := conn.AddChain(&nft.Chain{Name: "postrouting", Table: table, Type: nft.ChainTypeNAT, Hooknum: nft.ChainHookPostrouting, Priority: nft.ChainPriorityNATSource})
		for _, p := range []struct {
			number byte
			port   uint16
		}{{unix.IPPROTO_UDP, udpPort}, {unix.IPPROTO_TCP, tcpPort}} {
			conn.AddRule(&nft.Rule{Table: table, Chain: dnat, Exprs: translate(expr.NATTypeDestNAT, 16, 2, p.number, 53, p.port)})
			conn.AddRule(&nft.Rule{Table: table, Chain: snat, Exprs: translate(expr.NATTypeSourceNAT, 12, 0, p.number, p.port, 53)})
		}
		return nil
	})
}

func translate(kind expr.NATType, addr, port uint32, protocol byte, from, to uint16) []expr.Any {
	resolver := []byte{127, 0, 0, 11}
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: addr, Len: 4},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: resolver},
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{protocol}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: port, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binary.BigEndian.AppendUint16(nil, from)},
		&expr.Immediate{Register: 1, Data: resolver},
		&expr.Immediate{Register: 2, Data: binary.BigEndian.AppendUint16(nil, to)},
		&expr.NAT{Type: kind, Family: unix.NFPROTO_IPV4, RegAddrMin: 1, RegProtoMin: 2},
	}
}

func median(all []time.Duration) float64 {
	slices.Sort(all)
	return float64(all[len(all)/2].Nanoseconds()) / 1000
}
