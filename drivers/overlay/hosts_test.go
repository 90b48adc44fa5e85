package overlay_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/drivers"
	"github.com/linkspan/linkspan/drivers/overlay"
	"github.com/linkspan/linkspan/endpoint"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/sandbox"
)

// patience is how long anything may take on a busy machine.
const patience = 20 * time.Second

// site is a host of a cluster, with one container on an overlay network.
type site struct {
	*nstest.Machine
	driver   overlay.Driver
	endpoint endpoint.Endpoint
	sandbox  sandbox.Sandbox
	plan     op.Plan
	peers    op.Plan
}

// sites makes hosts that are plugged into one switch, each with a container.
// Their VTEPs are 192.0.2.1, … or 2001:db8:2::1, ….
func sites(t *testing.T, n network.Network, count int, ipv6 bool) (all []*site, wire *nstest.Machine) {
	t.Helper()
	wire = nstest.New(t)
	wire.Sh(t, "ip link add sw type bridge mcast_snooping 0; ip link set sw up")
	for i := range count {
		h := &site{Machine: nstest.New(t)}
		wire.Sh(t, fmt.Sprintf("ip link add h%d master sw type veth peer name u0 netns %s; ip link set h%d up", i, h.Name(), i))
		h.Sh(t, fmt.Sprintf("ip addr add 192.0.2.%d/24 dev u0; ip addr add 2001:db8:2::%d/64 dev u0 nodad; ip link set u0 up; ip link set lo up", i+1, i+1))
		vtep := fmt.Sprintf("192.0.2.%d", i+1)
		if ipv6 {
			vtep = fmt.Sprintf("2001:db8:2::%d", i+1)
		}
		var err error
		if h.driver, err = overlay.At(h.Host(), addr(vtep)); err != nil {
			t.Fatal(err)
		}
		id := func(kind string) linkspan.ID { return linkspan.ID(strings.Repeat(fmt.Sprint(kind, i), 32)) }
		h.endpoint = endpoint.Endpoint{
			ID: id("a"), Network: n.ID, Sandbox: id("5"), Owner: id("7"), Name: fmt.Sprint("c", i), Interface: "eth0",
			IPv4: prefix(fmt.Sprintf("10.77.0.1%d/24", i)), IPv6: prefix(fmt.Sprintf("2001:db8:77::1%d/64", i)),
			MAC: fmt.Sprintf("02:42:0a:4d:00:1%d", i), HostMAC: fmt.Sprintf("02:42:0a:4d:01:1%d", i),
		}
		h.sandbox = sandbox.Sandbox{ID: id("5"), Owner: id("7"), Dir: t.TempDir()}
		if err := h.driver.Check(t.Context(), h.Host(), n); err != nil {
			t.Fatal(err)
		}
		all = append(all, h)
	}
	for _, h := range all {
		h.join(t, n, all)
	}
	t.Cleanup(func() {
		for _, h := range all {
			x := op.Executor{Host: h.Host()}
			if err := x.Undo(t.Context(), append(h.plan, h.peers...)); err != nil {
				t.Error(err)
			}
			if err := h.Host().Reap(); err != nil {
				t.Error(err)
			}
			h.Sh(t, "ip link del u0")
		}
		wire.Sh(t, "ip link del sw")
	})
	return all, wire
}

func (h *site) join(t *testing.T, n network.Network, all []*site) {
	t.Helper()
	plan, err := h.driver.Network(n)
	if err != nil {
		t.Fatal(err)
	}
	h.plan = append(plan, h.sandbox.Plan(sandbox.Files{Hosts: "127.0.0.1\tlocalhost\n", ResolvConf: "\n", Hostname: h.endpoint.Name + "\n"})...)
	if plan, err = h.driver.Endpoint(n, h.endpoint, h.sandbox); err != nil {
		t.Fatal(err)
	}
	h.plan = append(h.plan, plan...)
	var peers []drivers.Peer
	for _, other := range all {
		if other != h {
			peers = append(peers, drivers.Peer{Addresses: other.endpoint.Addrs(), MAC: other.endpoint.MAC, VTEP: other.driver.VTEP})
		}
	}
	if h.peers, err = h.driver.Peers(n, peers); err != nil {
		t.Fatal(err)
	}
	x := op.Executor{Host: h.Host()}
	if err := x.Do(t.Context(), append(h.plan, h.peers...)); err != nil {
		t.Fatal(err)
	}
	if err := x.Check(t.Context(), append(h.plan, h.peers...)); err != nil {
		t.Fatal(err)
	}
}

// inside runs a command in the container's network stack.
func (h *site) inside(command string) (string, error) {
	return h.TrySh("nsenter --net=/run/netns/" + h.sandbox.Netns() + " " + command)
}

func (h *site) pings(t *testing.T, target netip.Addr, options string) {
	t.Helper()
	var out string
	if !nstest.Until(patience, func() (answered bool) {
		var err error
		out, err = h.inside(fmt.Sprintf("ping -n -c1 -W1 %s %s", options, target))
		return err == nil
	}) {
		t.Errorf("%s does not reach %s (ping %s):\n%s", h.endpoint.Name, target, options, out)
	}
}

// capture starts to note what passes one host's port of the switch. It ends when
// the last packet is there, of which the parameter of stop tells; the result has
// one line for each packet and each inner one.
func capture(t *testing.T, wire *nstest.Machine, filter string) (stop func(last string) string) {
	t.Helper()
	const begun, file = "listening on", "/run/capture"
	end := wire.Start(t, "tcpdump -U --immediate-mode -n -e -i h0 -w "+file+".pcap '"+filter+"' 2>"+file)
	if !nstest.Until(patience, func() bool { out, err := wire.TrySh("cat " + file); return err == nil && strings.Contains(out, begun) }) {
		t.Fatal("tcpdump does not begin")
	}
	return func(last string) (seen string) {
		if !nstest.Until(patience, func() bool {
			seen, _ = wire.TrySh("tcpdump -n -e -v -r " + file + ".pcap 2>/dev/null")
			return strings.Contains(seen, last)
		}) {
			t.Errorf("the capture has not seen %q:\n%s", last, seen)
		}
		end()
		wire.Sh(t, "rm "+file+" "+file+".pcap")
		return seen
	}
}

// Containers of three hosts reach each other in both families, over both; what
// crosses the underlay are their packets alone, each in one piece, and no
// questions.
func TestThreeHosts(t *testing.T) {
	for name, ipv6 := range map[string]bool{"over IPv4": false, "over IPv6": true} {
		t.Run(name, func(t *testing.T) {
			n := record()
			hosts, wire := sites(t, n, 3, ipv6)
			stop := capture(t, wire, "udp port 4789 or (ip[6:2] & 0x3fff != 0) or (ip6[6] = 44)")
			for _, from := range hosts {
				for _, to := range hosts {
					for _, target := range to.endpoint.Addrs() {
						from.pings(t, target, "")
					}
				}
				for _, pool := range n.Pools {
					from.pings(t, pool.Gateway, "")
				}
			}
			size := 1500 - 50
			if ipv6 {
				size = 1500 - 70
			}
			first, second := hosts[0], hosts[1].endpoint
			first.pings(t, second.IPv4.Addr(), fmt.Sprintf("-M do -s %d", size-28))
			first.pings(t, second.IPv6.Addr(), fmt.Sprintf("-M do -s %d", size-48))
			if out, err := first.inside(fmt.Sprintf("ping -n -c1 -W1 -M do -s %d %s", size-27, second.IPv4.Addr())); err == nil {
				t.Errorf("a packet of %d bytes passed:\n%s", size+1, out)
			}
			first.pings(t, second.IPv4.Addr(), "-s 777")
			crossed := stop("length 785")
			for _, question := range []string{"ARP", "solicitation", "advertisement", "ff:ff:ff:ff:ff:ff", "33:33:", "frag ("} {
				if strings.Contains(crossed, question) {
					t.Errorf("%q crossed the underlay:\n%s", question, crossed)
				}
			}
		})
	}
}

// What is for nobody stays on its host: addresses that nobody has, stations that
// nobody is, broadcasts and multicasts.
func TestNothingElseLeaves(t *testing.T) {
	hosts, wire := sites(t, record(), 2, false)
	hosts[0].pings(t, hosts[1].endpoint.IPv4.Addr(), "")
	stop := capture(t, wire, "udp port 4789")
	for _, command := range []string{
		"ping -n -c1 -W1 10.77.0.200",
		"ping -n -c1 -W1 2001:db8:77::200",
		"ping -n -c1 -W1 -b 10.77.0.255",
		"ping -n -c1 -W1 224.0.0.1",
		"ip neigh replace 10.77.0.201 lladdr 02:42:0a:4d:00:99 dev eth0 nud permanent",
		"ping -n -c1 -W1 10.77.0.201",
	} {
		out, err := hosts[0].inside(command)
		if strings.HasPrefix(command, "ping") && err == nil {
			t.Errorf("%s was answered:\n%s", command, out)
		}
	}
	hosts[0].pings(t, hosts[1].endpoint.IPv4.Addr(), "-s 777")
	for line := range strings.Lines(stop("length 785")) {
		if strings.Contains(line, "02:42:0a:4d:00:1") && !strings.Contains(line, "02:42:0a:4d:00:10 > 02:42:0a:4d:00:11") && !strings.Contains(line, "02:42:0a:4d:00:11 > 02:42:0a:4d:00:10") {
			t.Errorf("crossed the underlay: %s", line)
		}
	}
}

// A frame with somebody else's source, from beyond a tunnel, moves nobody.
func TestForgedSource(t *testing.T) {
	hosts, _ := sites(t, record(), 3, false)
	victim := hosts[2].endpoint
	hosts[0].pings(t, victim.IPv4.Addr(), "")
	out, err := hosts[1].inside("ip link set eth0 down; nsenter --net=/run/netns/" + hosts[1].sandbox.Netns() + " ip link set eth0 address " + victim.MAC + " up")
	if err != nil {
		t.Fatal(out)
	}
	for range 3 {
		hosts[1].inside(fmt.Sprintf("ping -n -c1 -W1 %s", hosts[0].endpoint.IPv4.Addr())) //nolint:errcheck // the answer goes to the one who has the MAC
	}
	hosts[0].pings(t, victim.IPv4.Addr(), "")
}
