package controller_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	mdns "github.com/miekg/dns"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/controller"
	"github.com/linkspan/linkspan/drivers/overlay"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/store/cluster"
	"github.com/linkspan/linkspan/store/etcdtest"
)

// cloud is hosts on one switch with a store, an etcd of its own:
//
//	host 192.0.2.1 ──┐
//	host 192.0.2.2 ──┼── hub ── etcd 192.0.2.100
//	host 192.0.2.3 ──┘
//
// What a host and the store say to each other takes the same wire as what
// containers do.
type cloud struct {
	t     *testing.T
	hub   *nstest.Machine
	etcd  *etcdtest.Member
	hosts []*cloudHost
	lab   linkspan.ID
}

// cloudHost is a host with what runs on it.
type cloudHost struct {
	*daemon
	m       *nstest.Machine
	way     *cluster.Cluster
	vtep    netip.Addr
	running []*cell

	mu    sync.Mutex
	conns []net.Conn // to the store
}

// cell is a container on the network lab, with what it has there.
type cell struct {
	controller.Container
	controller.Attachment
	addr netip.Addr
	mac  string
}

const hostLife = 2 * time.Second // of a host that is silent

func newCloud(t *testing.T, count int, life time.Duration) *cloud {
	t.Helper()
	c := &cloud{t: t, hub: nstest.New(t)}
	c.hub.Sh(t, "ip link add hub type bridge; ip link set hub up")
	machines := make([]*nstest.Machine, count+1)
	for i := range machines {
		m, number := nstest.New(t), i+1
		if i == count {
			number = 100
		}
		c.hub.Sh(t, fmt.Sprintf("ip link add p%d master hub type veth peer name u0 netns %s; ip link set p%d up", i, m.Name(), i))
		m.Sh(t, fmt.Sprintf("ip addr add 192.0.2.%d/24 dev u0; ip link set u0 up; ip link set lo up", number))
		machines[i] = m
	}
	c.etcd = etcdtest.Start(t, machines[count], etcdtest.Config{Addr: netip.MustParseAddr("192.0.2.100")})
	c.etcd.Ready(t)
	for i, m := range machines[:count] {
		c.hosts = append(c.hosts, c.host(m, i, life))
	}
	c.lab = c.hosts[0].network(t, "lab", func(s *controller.NetworkSpec) { s.Driver = "overlay" })
	for _, h := range c.hosts {
		eventually(t, "all know the network", func() bool { return knows(h.daemon, "lab") })
	}
	return c
}

func (c *cloud) host(m *nstest.Machine, i int, life time.Duration) *cloudHost {
	h := &cloudHost{m: m, vtep: netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)})}
	var err error
	h.way, err = cluster.Open(c.t.Context(), cluster.Options{
		Endpoints: []string{c.etcd.Endpoint()}, Life: life, Timeout: 2 * time.Second,
		Self: cluster.Member{ID: linkspan.NewID(), Name: fmt.Sprint("host", i), VTEP: h.vtep},
		Dial: func(ctx context.Context, address string) (net.Conn, error) {
			conn, err := etcdtest.Dial(m)(ctx, address)
			if err == nil {
				h.mu.Lock()
				h.conns = append(h.conns, conn)
				h.mu.Unlock()
			}
			return conn, err
		},
	})
	must(c.t, err)
	c.t.Cleanup(func() { h.way.Close() })
	driver, err := overlay.At(m.Host(), h.vtep)
	must(c.t, err)
	h.daemon = start(c.t, m, newRoots(c.t), func(o *controller.Options) {
		o.Cluster = h.way
		o.Drivers["overlay"] = driver
		o.Logf = func(string, ...any) {}
	})
	return h
}

// drop breaks off all that the host and the store are saying to each other.
func (h *cloudHost) drop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, conn := range h.conns {
		conn.Close()
	}
	h.conns = nil
}

func (c *cloud) cut(i int)  { c.hub.Sh(c.t, fmt.Sprintf("ip link set p%d down", i)) }
func (c *cloud) mend(i int) { c.hub.Sh(c.t, fmt.Sprintf("ip link set p%d up", i)) }

func (c *cloud) join(h *cloudHost, name string) error {
	ctr := spec(name, "lab")
	if err := h.Reserve(ctr); err != nil {
		return err
	}
	a, err := h.Attach(c.t.Context(), ctr.ID)
	if err != nil {
		return err
	}
	h.shims.launched(ctr.ID, a)
	mine := h.Settings(ctr.ID).Networks["lab"]
	h.running = append(h.running, &cell{ctr, a, mine.IPAddress, mine.MacAddress.String()})
	return nil
}

func (c *cloud) leave(h *cloudHost, i int) error {
	gone := h.running[i]
	h.running = slices.Delete(h.running, i, i+1)
	if err := h.Detach(c.t.Context(), gone.ID); err != nil {
		return err
	}
	return h.Forget(gone.ID)
}

// wrong compares the tables of a host with what leads to the containers of the
// others, as bridge(8) and ip(8) show them.
func (c *cloud) wrong(h *cloudHost, others ...*cloudHost) string {
	device, bridge := "vx-"+c.lab.Short(), "br-"+c.lab.Short()
	var want []string
	for _, other := range others {
		for _, cell := range other.running {
			want = append(want,
				fmt.Sprintf("%s dst %s self permanent", cell.mac, other.vtep), fmt.Sprintf("%s master %s static", cell.mac, bridge),
				fmt.Sprintf("%s lladdr %s PERMANENT", cell.addr, cell.mac))
		}
	}
	if len(h.running) == 0 {
		want = nil // this host has no part of the network
	}
	got, err := h.m.TrySh("test ! -e /sys/class/net/" + device + " || { bridge fdb show dev " + device + " | grep -v 'master .* permanent' || true; ip neigh show dev " + device + "; }")
	if err != nil {
		return got
	}
	return nstest.Diff(sortedLines(strings.Join(want, "\n")), sortedLines(got))
}

func sortedLines(text string) string {
	var all []string
	for line := range strings.Lines(text) {
		if line = strings.Join(strings.Fields(line), " "); line != "" {
			all = append(all, line)
		}
	}
	slices.Sort(all)
	return strings.Join(all, "\n")
}

// quiet waits until the tables of all hosts named are as computed, and then has
// all containers there reach each other by name.
func (c *cloud) quiet(when string, hosts ...*cloudHost) {
	c.t.Helper()
	began := time.Now()
	for _, h := range hosts {
		others := slices.DeleteFunc(slices.Clone(hosts), func(other *cloudHost) bool { return other == h })
		var diff string
		if !nstest.Until(time.Minute, func() bool { diff = c.wrong(h, others...); return diff == "" }) {
			c.t.Fatalf("%s: the entries of host %s differ (- computed, + there):\n%s", when, h.vtep, diff)
		}
	}
	c.t.Logf("%s: the tables are as computed after %v", when, time.Since(began).Round(time.Millisecond))
	var all sync.WaitGroup
	for _, h := range hosts {
		all.Go(func() {
			for _, from := range h.running {
				for _, other := range hosts {
					for _, to := range other.running {
						c.reaches(when, h, from, to)
					}
				}
			}
		})
	}
	all.Wait()
}

func (c *cloud) reaches(when string, h *cloudHost, from, to *cell) {
	ping := fmt.Sprintf("nsenter --net=/run/netns/%s ping -n -c1 -W2 %s", nsOf(from.Attachment), to.addr)
	if !nstest.Until(20*time.Second, func() bool { _, err := h.m.TrySh(ping); return err == nil }) {
		c.t.Errorf("%s: %s does not reach %s", when, from.Name, to.Name)
	}
	var got string
	if !nstest.Until(20*time.Second, func() bool { got = askFor(h.m, from.Attachment, to.Name); return got == to.addr.String() }) {
		c.t.Errorf("%s: for %s, %s is %q, want %s", when, from.Name, to.Name, got, to.addr)
	}
}

// askFor asks a sandbox's resolver; "" is no answer.
func askFor(m *nstest.Machine, a controller.Attachment, name string) string {
	var conn net.Conn
	if err := m.Host().Inside(nsOf(a), func() (err error) { conn, err = net.Dial("udp", "127.0.0.11:53"); return err }); err != nil {
		return ""
	}
	defer conn.Close()
	client := mdns.Client{Timeout: 2 * time.Second}
	reply, _, err := client.ExchangeWithConn(new(mdns.Msg).SetQuestion(name+".", mdns.TypeA), &mdns.Conn{Conn: conn})
	if err != nil || len(reply.Answer) != 1 {
		return ""
	}
	if a, is := reply.Answer[0].(*mdns.A); is {
		return a.A.String()
	}
	return ""
}

// churn has containers come and go at random on each of the hosts, side by side.
func (c *cloud) churn(steps int, hosts ...*cloudHost) {
	c.t.Helper()
	var all sync.WaitGroup
	for _, h := range hosts {
		random := rand.New(rand.NewPCG(14, uint64(h.vtep.As4()[3])))
		all.Go(func() {
			for i := range steps / len(hosts) {
				var err error
				if full := len(h.running) == 5; full || len(h.running) > 0 && random.IntN(2) == 0 {
					err = c.leave(h, random.IntN(len(h.running)))
				} else {
					err = c.join(h, fmt.Sprintf("c%d-%d-%d", h.vtep.As4()[3], i, time.Now().UnixNano()))
				}
				if err != nil {
					c.t.Errorf("on host %s: %v", h.vtep, err)
					return
				}
				if random.IntN(25) == 0 {
					h.drop()
				}
			}
		})
	}
	all.Wait()
	for _, h := range hosts { // the checks that follow need somebody to look from
		if len(h.running) == 0 {
			must(c.t, c.join(h, fmt.Sprintf("last%d", h.vtep.As4()[3])))
		}
	}
}

// clear takes all down, on hosts that reach the store.
func (c *cloud) clear() {
	for _, h := range c.hosts {
		for len(h.running) > 0 {
			must(c.t, c.leave(h, 0))
		}
	}
	must(c.t, c.hosts[0].RemoveNetwork(c.t.Context(), "lab"))
	for _, h := range c.hosts {
		eventually(c.t, "all forget the network", func() bool { return !knows(h.daemon, "lab") })
		h.clear(c.t)
	}
}

// Scenario 14: containers come and go at random on three hosts, while what hosts
// and store say to each other is broken off again and again; one host is cut off
// and comes back, one dies. Whenever it is quiet, the tables of each host are what
// the containers of the others make them, all reach each other, and by name.
func TestOverlayChurn(t *testing.T) {
	const steps = 300 // 1,000 in make bench (overlay-churn)
	c := newCloud(t, 3, hostLife)
	a, b, d := c.hosts[0], c.hosts[1], c.hosts[2]
	c.churn(steps, a, b, d)
	c.quiet("after the churn", a, b, d)

	device := "vx-" + c.lab.Short()
	victim := b.running[0]
	a.m.Sh(t, fmt.Sprintf("bridge fdb del %s dev %s dst %s self; bridge fdb add 02:00:00:00:00:77 dev %s dst 192.0.2.77 self permanent; ip neigh replace 10.0.0.250 lladdr 02:00:00:00:00:77 dev %s nud permanent",
		victim.mac, device, b.vtep, device, device))
	c.quiet("after an entry was removed and stale ones were put in", a, b, d)
	eventually(t, "the doctor tells of three repairs", func() bool {
		found, err := a.Diagnose(t.Context())
		must(t, err)
		for _, f := range found {
			if f.Reason == "entries-repaired" && strings.Contains(f.What, "network lab: 3 entries") {
				return true
			}
		}
		return false
	})

	c.cut(2)
	c.churn(steps/8, a, b)
	c.quiet("while a host is cut off", a, b)
	for _, from := range d.running { // it goes on by itself
		for _, to := range d.running {
			c.reaches("cut off", d, from, to)
		}
	}
	c.mend(2)
	c.quiet("after the host has come back", a, b, d)

	c.cut(1)
	c.quiet("after a host has died", a, d)
	c.mend(1)
	c.quiet("after all", a, b, d)
	c.clear()
}

// A container on an overlay network reaches the world by its own host, and is
// reached at that host's published port; one on an internal network does neither.
func TestOverlayGateway(t *testing.T) {
	c := newCloud(t, 2, 10*time.Second)
	h := c.hosts[1]
	lan := nstest.New(t)
	nstest.Wire(t, h.m, lan, netip.MustParsePrefix("198.51.100.1/24"), netip.MustParsePrefix("198.51.100.2/24"))
	web := h.run(t, spec("web", "lab", publishing))
	var address netip.Addr
	live, _ := h.Owners()
	for _, id := range live {
		address = h.Settings(id).Networks["lab"].IPAddress
	}
	accept(t, h.m, nsOf(web), "tcp4", netip.AddrPortFrom(address, 80).String())
	must(t, connect(lan, "198.51.100.1:8080", 20*time.Second))
	h.m.Sh(t, "nsenter --net=/run/netns/"+nsOf(web)+" ping -n -c1 -W10 198.51.100.2")

	h.network(t, "inner", func(s *controller.NetworkSpec) { s.Driver, s.Internal = "overlay", true })
	closed := h.run(t, spec("closed", "inner"))
	if out, err := h.m.TrySh("nsenter --net=/run/netns/" + nsOf(closed) + " ping -n -c1 -W1 198.51.100.2"); err == nil {
		t.Errorf("from an internal network:\n%s", out)
	}
	for _, id := range live {
		must(t, h.Detach(t.Context(), id))
	}
	for _, h := range slices.Backward(c.hosts) {
		live, _ := h.Owners()
		for _, id := range live {
			must(t, h.Detach(t.Context(), id))
		}
		h.shims.end()
	}
	must(t, h.RemoveNetwork(t.Context(), "inner"))
	c.clear()
}

// What would be done for an overlay network can be read without a cluster, and is
// refused without one when it is to be done.
func TestOverlayExplained(t *testing.T) {
	m := nstest.New(t)
	d := start(t, m, newRoots(t), func(o *controller.Options) { o.Drivers["overlay"] = overlay.Driver{} })
	before := settled(t, m)
	spec := controller.NetworkSpec{Name: "far", Driver: "overlay", IPv4: true}
	plan, err := d.ExplainCreate(t.Context(), spec)
	must(t, err)
	for _, part := range []string{"when its first container joins", "are examples", "type vxlan id 4096 local 192.0.2.1 dstport 4789 nolearning proxy", "learning off flood off"} {
		if !strings.Contains(plan.String(), part) {
			t.Errorf("the explanation lacks %q:\n%s", part, plan)
		}
	}
	if _, err = d.CreateNetwork(t.Context(), spec); err == nil || !strings.Contains(err.Error(), "not part of a cluster") {
		t.Errorf("without a cluster, creating says %v", err)
	}
	spec.Options = map[string]string{"encrypted": ""}
	if _, err = d.ExplainCreate(t.Context(), spec); err == nil || !strings.Contains(err.Error(), "option encrypted is refused") {
		t.Errorf("with encryption, explaining says %v", err)
	}
	if diff := nstest.Diff(before, settled(t, m)); diff != "" {
		t.Errorf("explaining changed the machine:\n%s", diff)
	}
	d.clear(t)
}
