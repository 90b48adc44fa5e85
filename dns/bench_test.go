package dns

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"

	mdns "github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan"
)

// benchZone has n names, c0 to c(n-1).
func benchZone(n int) *Zone {
	z := NewZone("lab")
	for i, id := range ids(n) {
		z.Set(id, Entry{Names: []string{fmt.Sprintf("c%d", i), id.Short()}, Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 77, byte(i >> 8), byte(i)})}})
	}
	return z
}

// servers are the resolver and, as the floor of a server made with the library
// alone, a handler that answers from a map.
func servers(b *testing.B, run func(b *testing.B, server string)) {
	b.Run("resolver", func(b *testing.B) {
		_, server := start(b, Config{Zones: []*Zone{benchZone(400)}})
		run(b, server)
	})
	b.Run("library", func(b *testing.B) {
		z := benchZone(400)
		udp, tcp := sockets(b)
		defer tcp.Close()
		s := &mdns.Server{PacketConn: udp, Handler: mdns.HandlerFunc(func(w mdns.ResponseWriter, m *mdns.Msg) {
			resp := new(mdns.Msg).SetReply(m)
			addrs, _ := z.Lookup(m.Question[0].Name)
			for _, a := range addrs {
				resp.Answer = append(resp.Answer, &mdns.A{Hdr: mdns.RR_Header{Name: m.Question[0].Name, Rrtype: mdns.TypeA, Class: mdns.ClassINET, Ttl: ttl}, A: a.AsSlice()})
			}
			_ = w.WriteMsg(resp)
		})}
		go func() { _ = s.ActivateAndServe() }()
		defer s.Shutdown() //nolint:errcheck // the benchmark is over
		run(b, udp.LocalAddr().String())
	})
}

// BenchmarkSerial has one question in flight, from a client that blocks in the
// kernel as a C program does. It reports percentiles in microseconds.
func BenchmarkSerial(b *testing.B) {
	servers(b, func(b *testing.B, server string) {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		if err != nil {
			b.Fatal(err)
		}
		defer unix.Close(fd)
		to := netip.MustParseAddrPort(server)
		if err = unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}); err != nil {
			b.Fatal(err)
		}
		pkt, err := new(mdns.Msg).SetQuestion("c7.", mdns.TypeA).Pack()
		if err != nil {
			b.Fatal(err)
		}
		buf := make([]byte, 512)
		took := make([]time.Duration, 0, b.N)
		for b.Loop() {
			begin := time.Now()
			if _, err := unix.Write(fd, pkt); err != nil {
				b.Fatal(err)
			}
			if n, err := unix.Read(fd, buf); err != nil || n < len(pkt)+recordLen {
				b.Fatalf("%d bytes, %v", n, err)
			}
			took = append(took, time.Since(begin))
		}
		slices.Sort(took)
		b.ReportMetric(float64(took[len(took)/2].Nanoseconds())/1e3, "p50-µs")
		b.ReportMetric(float64(took[len(took)*99/100].Nanoseconds())/1e3, "p99-µs")
	})
}

// BenchmarkDnsperf loads the server with ten clients of dnsperf for two
// seconds a round. It reports answers per second, and the CPU time of this
// process for each, which other load on the machine disturbs less.
func BenchmarkDnsperf(b *testing.B) {
	dnsperf, err := exec.LookPath("dnsperf")
	if err != nil {
		b.Skip("dnsperf is not installed: apt-get install dnsperf")
	}
	var names []byte
	for i := range 10 {
		names = fmt.Appendf(names, "c%d A\n", i)
	}
	file := filepath.Join(b.TempDir(), "names")
	if err := os.WriteFile(file, names, 0o600); err != nil {
		b.Fatal(err)
	}
	completed := regexp.MustCompile(`Queries completed:\s+(\d+)`)
	servers(b, func(b *testing.B, server string) {
		at := netip.MustParseAddrPort(server)
		total, cpu := 0, cpuTime(b)
		for b.Loop() {
			out, err := exec.Command(dnsperf, "-s", at.Addr().String(), "-p", strconv.Itoa(int(at.Port())), "-d", file, "-c", "10", "-T", "10", "-q", "100", "-l", "2").Output()
			m := completed.FindSubmatch(out)
			if err != nil || m == nil {
				b.Fatalf("running dnsperf: %v\n%s", err, out)
			}
			n, err := strconv.Atoi(string(m[1]))
			if err != nil {
				b.Fatal(err)
			}
			total += n
		}
		b.ReportMetric(float64(total)/b.Elapsed().Seconds(), "answers/s")
		b.ReportMetric(float64((cpuTime(b)-cpu).Nanoseconds())/1e3/float64(total), "cpu-µs/answer")
	})
}

func cpuTime(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkPaths compares the two paths without sockets.
func BenchmarkPaths(b *testing.B) {
	v := newView(Config{Zones: []*Zone{benchZone(400)}})
	pkt, err := new(mdns.Msg).SetQuestion("c7.", mdns.TypeA).Pack()
	if err != nil {
		b.Fatal(err)
	}
	var external externals
	b.Run("hand", func(b *testing.B) {
		b.ReportAllocs()
		q, out := new(query), make([]byte, answerLen)
		for b.Loop() {
			if _, _, ok := v.answerFast(q, out, pkt, &external, nil); !ok {
				b.Fatal("not taken")
			}
		}
	})
	b.Run("library", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, what := v.answer(pkt, 0, &external, nil); what != reply {
				b.Fatal("no answer")
			}
		}
	})
}

// BenchmarkZoneUpdate replaces one owner in zones of several sizes: the cost
// is flat.
func BenchmarkZoneUpdate(b *testing.B) {
	for _, n := range []int{0, 400, 10_000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			z, id := benchZone(n), linkspan.NewID()
			e := Entry{Names: []string{"new", "alias", id.Short()}, Addrs: []netip.Addr{addr("10.99.0.1")}}
			for b.Loop() {
				z.Set(id, e)
				z.Delete(id)
			}
		})
	}
}

// BenchmarkIdleResolver reports the memory of a resolver that has answered
// and waits.
func BenchmarkIdleResolver(b *testing.B) {
	const n = 400
	for b.Loop() {
		before := inUse()
		s, z := NewServer(), benchZone(10)
		var all []*Resolver
		for range n {
			udp, tcp := sockets(b)
			r, err := s.Start(udp, tcp, Config{Zones: []*Zone{z}})
			if err != nil {
				b.Fatal(err)
			}
			all = append(all, r)
			answerOnce(b, udp.LocalAddr().String())
		}
		b.ReportMetric(float64(inUse()-before)/n, "B/resolver")
		for _, r := range all {
			if err := r.Close(); err != nil {
				b.Fatal(err)
			}
		}
	}
}

func answerOnce(b *testing.B, server string) {
	if m := ask(b, "udp", server, "c7", mdns.TypeA); len(m.Answer) != 1 {
		b.Fatal(m)
	}
}

func inUse() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}
