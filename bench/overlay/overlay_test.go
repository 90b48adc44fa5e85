package overlay

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/ipam"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/store/cluster"
	"github.com/linkspan/linkspan/store/etcdtest"
)

var (
	full      = flag.Bool("full", false, "measure, instead of only seeing that it can be measured")
	only      = flag.String("only", ".", "run if this regular expression matches overlay")
	hostCount = flag.Int("hosts", 100, "simulated hosts, with -full")
	perHost   = flag.Int("endpoints", 100, "endpoints of each, with -full")
)

func TestMain(m *testing.M) { nstest.Main(m) }

// patience is how long a step may take.
const patience = 10 * time.Minute

// size is what is simulated.
type size struct {
	hosts, endpoints, networks int // endpoints are of each host, spread over the networks
	rounds                     int // joins whose way to the last host is measured
	idle                       time.Duration
}

// TestOverlay runs the simulation, and prints a table.
func TestOverlay(t *testing.T) {
	if wanted, err := regexp.Compile(*only); err != nil || !wanted.MatchString("overlay") {
		t.Logf("not asked for: -only %s (%v)", *only, err)
		return
	}
	s := size{hosts: 3, endpoints: 4, networks: 2, rounds: 4, idle: time.Second}
	if *full {
		s = size{hosts: *hostCount, endpoints: *perHost, networks: 10, rounds: 200, idle: 20 * time.Second}
	}
	m := nstest.New(t)
	etcd := etcdtest.Alone(t, m)
	sim := &simulation{size: s, machine: m, etcd: etcd, arrived: make(map[linkspan.ID]*arrival)}
	if *full {
		// One heap for all hosts: its collections would stop them all.
		defer debug.SetGCPercent(debug.SetGCPercent(400))
	}
	sim.run(t)
	if *full {
		t.Logf("%d hosts, %d endpoints on each, %d networks, on %d processors\n%s", s.hosts, s.endpoints, s.networks, runtime.NumCPU(), sim.table())
	}
}

type simulation struct {
	size
	machine  *nstest.Machine
	etcd     *etcdtest.Member
	hosts    []*cluster.Cluster
	networks []network.Network
	lines    [][2]string

	mu      sync.Mutex
	arrived map[linkspan.ID]*arrival // by endpoint
}

// arrival is the way of an endpoint's news to all hosts.
type arrival struct {
	network linkspan.ID
	missing map[linkspan.ID]bool // hosts
	gone    bool                 // it is the end of the endpoint that is waited for
	all     chan struct{}        // closed when the last one knows
}

func (s *simulation) say(t *testing.T, what, format string, args ...any) {
	t.Helper()
	t.Logf(what+": "+format, args...)
	s.lines = append(s.lines, [2]string{what, fmt.Sprintf(format, args...)})
}

func (s *simulation) table() string {
	var out strings.Builder
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	for _, line := range s.lines {
		fmt.Fprintf(w, "%s\t%s\n", line[0], line[1])
	}
	w.Flush() //nolint:errcheck // a Builder takes everything
	return out.String()
}

func (s *simulation) run(t *testing.T) {
	empty := heap()
	ctx, cancel := context.WithCancel(context.Background())
	var followers sync.WaitGroup
	defer func() {
		cancel()
		followers.Wait()
		for _, c := range s.hosts {
			must(t, c.Close())
		}
	}()
	for i := range s.size.hosts {
		c, err := cluster.Open(ctx, cluster.Options{
			Endpoints: []string{s.etcd.Endpoint()}, Dial: etcdtest.Dial(s.machine),
			Self: cluster.Member{ID: linkspan.NewID(), Name: fmt.Sprintf("host%03d", i), VTEP: netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)})},
			// So many on so few processors may be slow, and must not take that for an outage.
			Life: 30 * time.Second, Timeout: 20 * time.Second,
		})
		must(t, err)
		c.Resume(nil, nil)
		s.hosts = append(s.hosts, c)
		followers.Go(func() { c.Follow(ctx, func(change cluster.Change) { s.heard(c, change) }) })
	}
	until(t, "all hosts know each other", func() bool {
		return !slices.ContainsFunc(s.hosts, func(c *cluster.Cluster) bool { return c.Err() != nil || len(c.Members()) < len(s.hosts) })
	})
	for i := range s.size.networks {
		s.makeNetwork(t, i)
	}
	s.fill(t)
	s.say(t, "memory of a host", "%.1f MB", float64(heap()-empty)/float64(len(s.hosts))/1e6)
	s.rest(t)
	s.steady(t)
	s.start(t)
}

func (s *simulation) makeNetwork(t *testing.T, i int) {
	n, err := s.hosts[i%len(s.hosts)].CreateNetwork(t.Context(), func(_ []network.Network, vni uint32) (network.Network, error) {
		subnet := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i), 0, 0}), 16)
		return network.Network{
			ID: linkspan.NewID(), Name: fmt.Sprintf("net%02d", i), Driver: "overlay", Scope: "global", IPv4: true, VNI: vni,
			Pools: []ipam.Pool{{Subnet: subnet, Gateway: subnet.Addr().Next()}},
		}, nil
	})
	must(t, err)
	s.networks = append(s.networks, n)
}

// heard notes that a host was told of a change where one is waited for. There is
// no other one meanwhile. A daemon would look at the network's endpoints now; a
// hundred that look at the same time do not fit on one machine, so that one in ten
// does.
func (s *simulation) heard(c *cluster.Cluster, change cluster.Change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	self := c.Self()
	for e, a := range s.arrived {
		if !a.missing[self.ID] || !slices.Contains(change.Endpoints, a.network) {
			continue
		}
		if self.VTEP.As4()[3]%10 == 0 {
			there := slices.ContainsFunc(c.Endpoints(a.network), func(x cluster.Endpoint) bool { return x.ID == e })
			if there == a.gone {
				continue
			}
		}
		if delete(a.missing, self.ID); len(a.missing) == 0 {
			close(a.all)
			delete(s.arrived, e)
		}
	}
}

// expect waits for the news of an endpoint at all hosts.
func (s *simulation) expect(n network.Network, e cluster.Endpoint, gone bool) *arrival {
	a := &arrival{network: n.ID, missing: make(map[linkspan.ID]bool, len(s.hosts)), gone: gone, all: make(chan struct{})}
	for _, c := range s.hosts {
		a.missing[c.Self().ID] = true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.arrived[e.ID] = a
	return a
}

func endpoint(name string) cluster.Endpoint {
	return cluster.Endpoint{ID: linkspan.NewID(), Owner: linkspan.NewID(), Name: name, MAC: network.RandomMAC(), DNSNames: []string{name, "alias-" + name}}
}

// fill joins all endpoints, as fast as it goes: all hosts at the same time, each
// one after the other.
func (s *simulation) fill(t *testing.T) {
	before, began := s.etcd.Metrics(t), time.Now()
	var all sync.WaitGroup
	for i, c := range s.hosts {
		all.Go(func() {
			for j := range s.endpoints {
				if _, err := c.Join(t.Context(), s.networks[(i+j)%len(s.networks)], endpoint(fmt.Sprintf("c%d-%d", i, j))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	joined := time.Since(began)
	total := s.size.hosts * s.endpoints
	until(t, "all hosts know all endpoints", func() bool {
		return !slices.ContainsFunc(s.hosts, func(c *cluster.Cluster) bool {
			known := 0
			for _, n := range s.networks {
				known += len(c.Endpoints(n.ID))
			}
			return known < total
		})
	})
	known := time.Since(began)
	after := s.etcd.Metrics(t)
	s.say(t, "all join at once", "%d joins in %.1f s (%.0f/s), all hosts know all after %.1f s", total, joined.Seconds(), float64(total)/joined.Seconds(), known.Seconds())
	s.load(t, before, after, known, float64(total), "join")
}

// load tells what etcd did between two looks at its metrics.
func (s *simulation) load(t *testing.T, before, after map[string]float64, took time.Duration, count float64, per string) {
	delta := func(name string) float64 { return after[name] - before[name] }
	proposals, events := delta("etcd_server_proposals_committed_total"), delta("etcd_debugging_mvcc_events_total")
	sent := delta("etcd_network_client_grpc_sent_bytes_total")
	s.say(t, "  etcd, of each "+per, "%.1f proposals, %.1f keys written, %.0f events to watchers, %.0f kB sent, %.2f ms of processor",
		proposals/count, delta("etcd_mvcc_put_total")/count, events/count, sent/count/1e3, 1e3*delta("process_cpu_seconds_total")/count)
	s.say(t, "  etcd, meanwhile", "%.0f %% of one processor, %.0f MB resident, database %.0f MB", 100*delta("process_cpu_seconds_total")/took.Seconds(),
		after["process_resident_memory_bytes"]/1e6, after["etcd_mvcc_db_total_size_in_bytes"]/1e6)
}

// rest measures what it costs that nothing happens.
func (s *simulation) rest(t *testing.T) {
	before, began := s.etcd.Metrics(t), time.Now()
	time.Sleep(s.idle)
	after, took := s.etcd.Metrics(t), time.Since(began)
	s.say(t, "nothing happens", "%.2f %% of one processor of etcd for each host, %.1f proposals/s in all (life of %s, claim of %s)",
		100*(after["process_cpu_seconds_total"]-before["process_cpu_seconds_total"])/took.Seconds()/float64(len(s.hosts)),
		(after["etcd_server_proposals_committed_total"]-before["etcd_server_proposals_committed_total"])/took.Seconds(), 30*time.Second, cluster.DefaultClaim)
}

// steady joins and leaves one after the other, on hosts and networks at random,
// and takes the time until the last host knows.
func (s *simulation) steady(t *testing.T) {
	var asked, known, left []time.Duration
	before, start := s.etcd.Metrics(t), time.Now()
	for i := range s.rounds {
		c, n := s.hosts[rand.IntN(len(s.hosts))], s.networks[rand.IntN(len(s.networks))]
		e := endpoint(fmt.Sprint("late", i))
		a, began := s.expect(n, e, false), time.Now()
		e, err := c.Join(t.Context(), n, e)
		must(t, err)
		asked = append(asked, time.Since(began))
		known = append(known, s.wait(t, a, began))
		a, began = s.expect(n, e, true), time.Now()
		must(t, c.Leave(t.Context(), e))
		left = append(left, s.wait(t, a, began))
	}
	took := time.Since(start)
	after := s.etcd.Metrics(t)
	s.say(t, "a join, until it is answered", "%s", percentiles(asked))
	s.say(t, "a join, until the last host knows", "%s", percentiles(known))
	s.say(t, "a leave, until the last host knows", "%s", percentiles(left))
	s.load(t, before, after, took, float64(2*s.rounds), "join or leave")
}

func (s *simulation) wait(t *testing.T, a *arrival, began time.Time) time.Duration {
	t.Helper()
	select {
	case <-a.all:
	case <-time.After(patience):
		t.Fatalf("not within %s: all hosts know", patience)
	}
	return time.Since(began)
}

// start measures a host that comes anew: how long until it knows all.
func (s *simulation) start(t *testing.T) {
	began := time.Now()
	c, err := cluster.Open(t.Context(), cluster.Options{
		Endpoints: []string{s.etcd.Endpoint()}, Dial: etcdtest.Dial(s.machine), Timeout: 20 * time.Second,
		Self: cluster.Member{ID: linkspan.NewID(), Name: "late", VTEP: netip.MustParseAddr("198.18.255.1")},
	})
	must(t, err)
	c.Resume(nil, nil)
	until(t, "the late host knows all", func() bool { return c.Err() == nil })
	s.say(t, "a host that starts", "knows all %d endpoints after %.0f ms", s.size.hosts*s.endpoints, float64(time.Since(began).Milliseconds()))
	must(t, c.Close())
}

func percentiles(all []time.Duration) string {
	slices.Sort(all)
	at := func(percent int) float64 {
		return float64(all[min(len(all)*percent/100, len(all)-1)].Microseconds()) / 1e3
	}
	return fmt.Sprintf("p50 %.1f ms, p99 %.1f ms, max %.1f ms", at(50), at(99), at(100))
}

// heap returns how much memory is in use.
func heap() uint64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc + stats.StackInuse
}

func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	if !nstest.Until(patience, holds) {
		t.Fatalf("not within %s: %s", patience, what)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil && !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}
