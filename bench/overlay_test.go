package bench

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/store/etcdtest"
)

// span is daemons on hosts that share an etcd, all on one switch, with an overlay
// network.
//
//	host 192.0.2.1, .2, … ── hub ── etcd 192.0.2.100
type span struct {
	hosts []*engine
	lab   string // the network's ID
}

func newSpan(t *testing.T, count int) span {
	t.Helper()
	m := machines(t, count+2)
	hub, store := m[count], m[count+1]
	hub.Sh(t, "ip link add hub type bridge; ip link set hub up")
	plug := func(m *nstest.Machine, number int) {
		hub.Sh(t, fmt.Sprintf(`ip link add p%[1]d master hub type veth peer name u0 netns %[2]s; ip link set p%[1]d up
			ip -n %[2]s addr add 192.0.2.%[1]d/24 dev u0; ip -n %[2]s link set u0 up`, number, m.Name()))
	}
	plug(store, 100)
	etcd := etcdtest.Start(t, store, etcdtest.Config{Addr: netip.MustParseAddr("192.0.2.100")})
	etcd.Ready(t)
	var s span
	for i := range count {
		plug(m[i], i+1)
		s.hosts = append(s.hosts, start(t, m[i], "--cluster-store", "etcd://"+etcd.Endpoint(), "--cluster-advertise", fmt.Sprintf("192.0.2.%d", i+1)))
	}
	var made struct{ ID string }
	s.hosts[0].call(t, http.MethodPost, "/networks/create", object{"Name": "far", "Driver": "overlay", "IPAM": object{"Config": []object{{"Subnet": "10.99.0.0/16"}}}}, &made)
	s.lab = made.ID
	for _, e := range s.hosts {
		if !nstest.Until(time.Minute, func() bool { return e.try(http.MethodGet, "/networks/far", nil, nil) == nil }) {
			t.Fatal("a host does not learn of the network")
		}
	}
	t.Cleanup(func() { // before the daemons end, whose own clearing would race for the one network
		for _, e := range s.hosts {
			e.clearContainers(t)
		}
		s.hosts[0].call(t, http.MethodDelete, "/networks/far", nil, nil)
		for _, e := range s.hosts {
			if !nstest.Until(time.Minute, func() bool { return e.try(http.MethodGet, "/networks/far", nil, nil) != nil }) {
				t.Error("a host does not learn that the network has gone")
			}
		}
	})
	return s
}

// overlayTraffic compares containers on two hosts with what somebody makes by hand
// between the same two: one more bridge, tunnel and cable for each.
func overlayTraffic(t *testing.T) []figure {
	s := newSpan(t, 2)
	var to [2]netip.AddrPort
	var in [2]*kernel.Host
	for i, e := range s.hosts {
		id := e.create(t, fmt.Sprint("c", i), "far")
		e.start(t, id)
		in[i] = e.inside(t, id)
		to[i] = netip.AddrPortFrom(netip.MustParseAddr(e.address(t, id, "far", false)), 80)
		e.machine.Sh(t, fmt.Sprintf(`ip link add hand0 mtu 1450 type bridge; ip link set hand0 up
			ip link add handx mtu 1450 master hand0 type vxlan id 99 local 192.0.2.%d remote 192.0.2.%d dstport 8472; ip link set handx up
			ip link add handv mtu 1450 master hand0 type veth peer name hand9 mtu 1450 netns %d; ip link set handv up
			nsenter --net=/proc/%[3]d/ns/net ip addr add 10.88.0.%[1]d/24 dev hand9; nsenter --net=/proc/%[3]d/ns/net ip link set hand9 up`, i+1, 2-i, e.pid(t, id)))
		t.Cleanup(func() { e.machine.TrySh("ip link del handv; ip link del handx; ip link del hand0") }) //nolint:errcheck // what is left is reported
	}
	figures := compare(t, "between two hosts",
		path{in[0], in[1], to[1], to[1]},
		path{in[0], in[1], netip.MustParseAddrPort("10.88.0.2:80"), netip.MustParseAddrPort("10.88.0.2:80")})
	for i := range figures {
		figures[i].target = 0.95
	}
	return figures
}

// overlayChurn has containers join and leave an overlay network at random on three
// hosts, and measures how long after each the other two have it: in the tables of
// their tunnel devices, and by its name.
func overlayChurn(t *testing.T) []figure {
	const each = 4 // containers on a host
	s := newSpan(t, 3)
	var far []*farHost
	for i, e := range s.hosts {
		h := &farHost{engine: e}
		resident := e.create(t, fmt.Sprint("resident", i), "far")
		e.start(t, resident)
		h.inside = e.inside(t, resident)
		for k := range each {
			id := e.create(t, fmt.Sprintf("c%d%d", i, k), "bridge")
			e.start(t, id)
			h.members = append(h.members, &farMember{id: id, name: fmt.Sprintf("c%d%d", i, k)})
		}
		links, err := e.machine.Host().Links("")
		must(t, err)
		link, err := links.LinkByName("vx-" + s.lab[:12])
		must(t, err)
		h.device = link.Attrs().Index
		far = append(far, h)
	}
	random := rand.New(rand.NewPCG(14, 14))
	var joins, leaves sample
	for range size(6, 1000) {
		at := random.IntN(len(far))
		h := far[at]
		m := h.members[random.IntN(each)]
		verb, taken := "connect", &joins
		if m.joined {
			verb, taken = "disconnect", &leaves
		}
		h.call(t, http.MethodPost, "/networks/far/"+verb, object{"Container": m.id}, nil)
		m.joined = !m.joined
		if m.joined {
			m.addr, m.mac = h.attached(t, m.id)
		}
		began := time.Now()
		for i, other := range far {
			if i != at && !nstest.Until(time.Minute, func() bool { return other.agrees(m) }) {
				t.Fatalf("host %d never learns of %s by %s", i, verb, m.name)
			}
		}
		taken.add(time.Since(began))
	}
	all := append(append(sample{}, joins...), leaves...)
	return []figure{
		{
			what: "overlay, a join or leave until all hosts have it, p99", got: ms(all.at(99)), unit: "ms", target: 200,
			note: fmt.Sprintf("%d of them; p50 %s, most %s; joins p50 %s, leaves p50 %s", len(all), millis(all.median()), millis(all.at(100)), median(joins), median(leaves)),
		},
	}
}

func median(s sample) string {
	if len(s) == 0 {
		return "none"
	}
	return millis(s.median())
}

type farHost struct {
	*engine
	inside  *kernel.Host // of a container on the network
	device  int          // index of the tunnel device
	members []*farMember
}

type farMember struct {
	id, name string
	joined   bool
	addr     netip.Addr // when it joined last
	mac      string
}

// agrees tells whether a host has what a container on another one has.
func (h *farHost) agrees(m *farMember) bool {
	for _, entry := range []kernel.Station{
		{Table: kernel.Tunnels, MAC: m.mac}, {Table: kernel.Ports, MAC: m.mac}, {Table: kernel.Neighbours, Addr: m.addr},
	} {
		found, err := h.machine.Host().Station(h.device, entry)
		there := err == nil && found.MAC == m.mac
		if there != m.joined {
			return false
		}
	}
	answer, known := question(h.inside, m.name)
	return known == m.joined && (!known || answer == m.addr)
}

// question asks the container's resolver once.
func question(from *kernel.Host, name string) (answer netip.Addr, known bool) {
	socket := -1
	err := from.Inside("", func() (err error) {
		if socket, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		return unix.Connect(socket, sockaddr(netip.MustParseAddrPort("127.0.0.11:53")))
	})
	if socket >= 0 {
		defer unix.Close(socket)
	}
	if err != nil {
		return answer, false
	}
	limit := unix.Timeval{Sec: 5}
	unix.SetsockoptTimeval(socket, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit) //nolint:errcheck // a socket takes it
	query := append([]byte("\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00"), byte(len(name)))
	query = append(append(query, name...), "\x00\x00\x01\x00\x01"...) // RFC 1035 section 4.1
	if _, err := unix.Write(socket, query); err != nil {
		return answer, false
	}
	reply := make([]byte, 512)
	n, err := unix.Read(socket, reply)
	if err != nil || n < len(query)+16 || !bytes.Equal(reply[6:8], []byte{0, 1}) {
		return answer, false
	}
	answer, known = netip.AddrFromSlice(reply[n-4 : n])
	return answer, known
}

// attached is what a container has on the network far.
func (e *engine) attached(t *testing.T, id string) (netip.Addr, string) {
	t.Helper()
	var c struct {
		NetworkSettings struct {
			Networks map[string]struct{ IPAddress, MacAddress string }
		}
	}
	e.call(t, http.MethodGet, "/containers/"+id+"/json", nil, &c)
	n := c.NetworkSettings.Networks["far"]
	addr, err := netip.ParseAddr(n.IPAddress)
	must(t, err)
	return addr, n.MacAddress
}
