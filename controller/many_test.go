package controller_test

import (
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"testing"

	apinetwork "github.com/moby/moby/api/types/network"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/controller"
	"github.com/linkspan/linkspan/endpoint"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/ipam"
)

// on adds a network with settings to those that a container wants.
func on(name string, s apinetwork.EndpointSettings) func(*controller.Container) {
	return func(c *controller.Container) { c.Networking.EndpointsConfig[name] = &s }
}

func ifname(name string) apinetwork.EndpointSettings {
	return apinetwork.EndpointSettings{DriverOpts: map[string]string{endpoint.OptionInterface: name}}
}

// interfaces lists the links of a sandbox, without lo, as "name address".
func interfaces(t *testing.T, m *nstest.Machine, a controller.Attachment) string {
	t.Helper()
	var links []struct {
		Name string `json:"ifname"`
		Info []struct {
			Local, Scope string
		} `json:"addr_info"`
	}
	must(t, json.Unmarshal([]byte(m.Sh(t, "ip -n "+nsOf(a)+" -4 -j addr")), &links))
	var words []string
	for _, link := range links {
		if link.Name != "lo" {
			words = append(words, link.Name+" "+link.Info[0].Local)
		}
	}
	return strings.Join(words, ", ")
}

func TestInterfaceNames(t *testing.T) {
	m := nstest.New(t)
	d := start(t, m, newRoots(t))
	for name, cidr := range map[string]string{"a": "10.71.0.0/24", "b": "10.72.0.0/24", "c": "10.73.0.0/24", "d": "10.74.0.0/24"} {
		d.network(t, name, subnet(cidr))
	}
	// eth0 was chosen for the last of them: the numbered ones must leave it alone.
	web := spec("web", "b", also("a"), on("c", ifname("eth0")))
	a := d.run(t, web)
	if got, want := interfaces(t, m, a), "eth1 10.72.0.2, eth2 10.71.0.2, eth0 10.73.0.2"; got != want {
		t.Errorf("interfaces %q, want %q", got, want)
	}
	taken := ifname("eth2")
	if err := d.Connect(t.Context(), "d", web.ID, &taken); !errors.Is(err, linkspan.ErrConflict) || !strings.Contains(err.Error(), "file exists") {
		t.Errorf("a taken name: %v", err)
	}
	own := ifname("wan")
	must(t, d.Connect(t.Context(), "d", web.ID, &own))
	// The same again at the next start.
	for range 2 {
		must(t, d.Detach(t.Context(), web.ID))
		a, err := d.Attach(t.Context(), web.ID)
		must(t, err)
		for _, file := range a.Keep {
			file.Close()
		}
		if got, want := interfaces(t, m, a), "eth1 10.72.0.2, eth2 10.71.0.2, eth0 10.73.0.2, wan 10.74.0.2"; got != want {
			t.Errorf("interfaces after a restart %q, want %q", got, want)
		}
	}
	for name, choice := range map[string]string{"lo": "lo", "twice": "eth0"} {
		c := spec(name, "a", on("a", ifname(choice)), on("b", ifname(choice)))
		must(t, d.Reserve(c))
		if _, err := d.Attach(t.Context(), c.ID); !errors.Is(err, linkspan.ErrConflict) {
			t.Errorf("interface %s on two networks: %v", choice, err)
		}
	}
	d.clear(t)
}

// Each family leaves by the first network, in the order of the documented rule,
// that has a gateway of it.
func TestGatewayPerFamily(t *testing.T) {
	m := nstest.New(t)
	d := start(t, m, newRoots(t))
	d.network(t, "four", subnet("10.71.0.0/24"))
	d.network(t, "six", onlyIPv6, subnet("fd00:72::/64"))
	d.network(t, "zboth", dualStack, func(s *controller.NetworkSpec) {
		s.Pools = []ipam.Pool{{Subnet: netip.MustParsePrefix("10.73.0.0/24")}, {Subnet: netip.MustParsePrefix("fd00:73::/64")}}
	})
	web := spec("web", "four", also("six"))
	a := d.run(t, web)
	routes := func() string {
		t.Helper()
		return strings.ReplaceAll(m.Sh(t, "ip -n "+nsOf(a)+" route show default; ip -n "+nsOf(a)+" -6 route show default"), "\n", " ")
	}
	expect := func(when string, want ...string) {
		t.Helper()
		got := routes()
		for _, gateway := range want {
			if !strings.Contains(got, "via "+gateway+" ") {
				t.Errorf("%s: routes %q, want one via %s", when, got, gateway)
			}
		}
		if strings.Count(got, "default") != len(want) {
			t.Errorf("%s: routes %q, want %d", when, got, len(want))
		}
	}
	expect("two of one family each", "10.71.0.1", "fd00:72::1")
	must(t, d.Connect(t.Context(), "zboth", web.ID, nil))
	expect("dual stack comes before single", "10.73.0.1", "fd00:73::1")
	must(t, d.Disconnect(t.Context(), "zboth", web.ID, false))
	expect("it left", "10.71.0.1", "fd00:72::1")
	must(t, d.Connect(t.Context(), "zboth", web.ID, &apinetwork.EndpointSettings{GwPriority: -1}))
	expect("its priority is low", "10.71.0.1", "fd00:72::1")
	must(t, d.Disconnect(t.Context(), "four", web.ID, false))
	expect("the only other of IPv4 left", "10.73.0.1", "fd00:72::1")
	d.clear(t)
}

func TestEndpointSettings(t *testing.T) {
	m := nstest.New(t)
	d := start(t, m, newRoots(t))
	d.network(t, "lab", dualStack, func(s *controller.NetworkSpec) {
		s.Pools = []ipam.Pool{{Subnet: netip.MustParsePrefix("10.71.0.0/24")}, {Subnet: netip.MustParsePrefix("fd00:71::/64")}}
	})
	d.network(t, "four", subnet("10.72.0.0/24"))
	local := []netip.Addr{netip.MustParseAddr("169.254.7.7"), netip.MustParseAddr("fe80::77")}
	a := d.run(t, spec("web", "lab", on("lab", apinetwork.EndpointSettings{
		IPAMConfig: &apinetwork.EndpointIPAMConfig{IPv4Address: netip.MustParseAddr("10.71.0.9"), IPv6Address: netip.MustParseAddr("fd00:71::9"), LinkLocalIPs: local},
		MacAddress: apinetwork.HardwareAddr{0x02, 0x42, 0x0a, 0x47, 0, 9},
		DriverOpts: map[string]string{endpoint.OptionSysctls: "net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.conf.ifname.accept_ra=2"},
	}), on("four", apinetwork.EndpointSettings{IPAMConfig: &apinetwork.EndpointIPAMConfig{LinkLocalIPs: local[:1]}})))
	got := m.Sh(t, "ip -n "+nsOf(a)+" addr; "+in(a, "sysctl net.ipv4.conf.eth0.log_martians net.ipv6.conf.eth0.accept_ra net.ipv4.conf.eth1.log_martians"))
	for _, want := range []string{
		"02:42:0a:47:00:09", "10.71.0.9/24", "fd00:71::9/64", "169.254.7.7/16", "fe80::77/64",
		"eth0.log_martians = 1", "eth0.accept_ra = 2", "eth1.log_martians = 0",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%s is missing:\n%s", want, got)
		}
	}
	if strings.Contains(got, "tentative") {
		t.Errorf("an address waits for duplicates:\n%s", got)
	}
	// A parameter that the kernel refuses fails the start, by its name.
	bad := spec("bad", "four", on("four", apinetwork.EndpointSettings{DriverOpts: map[string]string{endpoint.OptionSysctls: "net.ipv4.conf.IFNAME.nonsense=1"}}))
	must(t, d.Reserve(bad))
	if _, err := d.Attach(t.Context(), bad.ID); err == nil || !strings.Contains(err.Error(), "net/ipv4/conf/eth0/nonsense") {
		t.Errorf("a parameter that is none: %v", err)
	}
	d.clear(t)
}

// A container gets its MAC again at the next start, and its address unless
// somebody took it meanwhile; a static one nobody can take.
func TestSticky(t *testing.T) {
	m := nstest.New(t)
	r := newRoots(t)
	d := start(t, m, r)
	d.network(t, "lab", subnet("10.71.0.0/24"))
	again := func(id linkspan.ID) *apinetwork.EndpointSettings {
		t.Helper()
		a, err := d.Attach(t.Context(), id)
		must(t, err)
		for _, file := range a.Keep {
			file.Close()
		}
		return d.Settings(id).Networks["lab"]
	}
	first, second, fixed := spec("first", "lab"), spec("second", "lab"), spec("fixed", "lab", ip4("10.71.0.4"))
	d.run(t, first)
	d.run(t, second)
	d.run(t, fixed)
	was := d.Settings(second.ID).Networks["lab"]
	if was.IPAddress.String() != "10.71.0.3" {
		t.Fatalf("second has %s", was.IPAddress)
	}
	for _, id := range []linkspan.ID{first.ID, second.ID, fixed.ID} {
		must(t, d.Detach(t.Context(), id))
	}
	if s := d.Settings(second.ID).Networks["lab"]; len(s.MacAddress) > 0 || s.IPAddress.IsValid() {
		t.Errorf("a stopped container shows what it had: %+v", s)
	}
	d.stop(t)
	d = start(t, m, r)
	if now := again(second.ID); now.IPAddress != was.IPAddress || now.MacAddress.String() != was.MacAddress.String() {
		t.Errorf("second had %s %s, now %s %s", was.IPAddress, was.MacAddress, now.IPAddress, now.MacAddress)
	}
	must(t, d.Detach(t.Context(), second.ID))
	thief, other := spec("thief", "lab"), spec("other", "lab")
	d.run(t, thief)
	d.run(t, other)
	if s := d.Settings(other.ID).Networks["lab"]; s.IPAddress != was.IPAddress {
		t.Fatalf("a released address is not the next to be given: %s", s.IPAddress)
	}
	if now := again(second.ID); now.IPAddress.String() != "10.71.0.5" || now.MacAddress.String() != was.MacAddress.String() {
		t.Errorf("second now has %s %s, beside %s", now.IPAddress, now.MacAddress, was.MacAddress)
	}
	if now := again(fixed.ID); now.IPAddress.String() != "10.71.0.4" {
		t.Errorf("a static address became %s", now.IPAddress)
	}
	d.clear(t)
}

// A neighbour that knows the last holder of an address hears of the new one,
// though nobody asks it.
func TestAddressesAreAnnounced(t *testing.T) {
	m := nstest.New(t)
	d := start(t, m, newRoots(t))
	d.network(t, "lab", dualStack, func(s *controller.NetworkSpec) {
		s.Pools = []ipam.Pool{{Subnet: netip.MustParsePrefix("10.71.0.0/24")}, {Subnet: netip.MustParsePrefix("fd00:71::/64")}}
		s.Options = map[string]string{"com.docker.network.advertise_addr_ms": "100"}
	})
	watcher := d.run(t, spec("watcher", "lab"))
	for _, live := range []bool{false, true} {
		m.Sh(t, "for a in 10.71.0.9 fd00:71::9; do ip -n "+nsOf(watcher)+" neigh replace $a lladdr 02:00:00:00:00:99 nud stale dev eth0; done")
		settings := apinetwork.EndpointSettings{IPAMConfig: &apinetwork.EndpointIPAMConfig{IPv4Address: netip.MustParseAddr("10.71.0.9"), IPv6Address: netip.MustParseAddr("fd00:71::9")}}
		web := spec("web", "lab", on("lab", settings))
		if live {
			web = spec("web", "bridge")
		}
		d.run(t, web)
		if live {
			must(t, d.Connect(t.Context(), "lab", web.ID, &settings))
		}
		mac := d.Settings(web.ID).Networks["lab"].MacAddress.String()
		known := ""
		if !nstest.Until(patience, func() bool {
			known = m.Sh(t, "ip -n "+nsOf(watcher)+" neigh show dev eth0")
			return strings.Count(known, mac) >= 2
		}) {
			t.Errorf("live=%v: nobody told the neighbour that %s has the address:\n%s", live, mac, known)
		}
		must(t, d.Detach(t.Context(), web.ID))
		must(t, d.Forget(web.ID))
	}
	for option, want := range map[string]string{
		"com.docker.network.advertise_addr_ms=50":   "must be in the range 100 to 2000",
		"com.docker.network.advertise_addr_ms=x":    "must be integer milliseconds",
		"com.docker.network.advertise_addr_nmsgs=4": "must be in the range 0 to 3",
		"com.docker.network.advertise_addr_nmsgs=x": "must be an integer",
	} {
		key, value, _ := strings.Cut(option, "=")
		_, err := d.CreateNetwork(t.Context(), controller.NetworkSpec{Name: "bad", IPv4: true, Options: map[string]string{key: value}})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", option, err)
		}
	}
	d.clear(t)
}

// What inspect says of a container's cables is what the kernel says.
func TestCables(t *testing.T) {
	m := nstest.New(t)
	d := start(t, m, newRoots(t))
	a, b := d.network(t, "a"), d.network(t, "b")
	d.run(t, spec("first", "a"))
	web := spec("web", "a", also("b"))
	d.run(t, web)
	links, err := d.Cables(web.ID)
	must(t, err)
	if len(links) != 2 {
		t.Fatalf("links: %+v", links)
	}
	for i, want := range []controller.Cable{{Network: "a", Interface: "eth0", Bridge: "br-" + a.Short(), Port: 2}, {Network: "b", Interface: "eth1", Bridge: "br-" + b.Short(), Port: 1}} {
		got := links[i]
		want.HostLink, want.HostIndex = got.HostLink, got.HostIndex
		if got != want {
			t.Errorf("link %d: %+v, want %+v", i, got, want)
		}
		var kernel []struct {
			Index  int `json:"ifindex"`
			Master string
		}
		must(t, json.Unmarshal([]byte(m.Sh(t, "ip -j link show "+got.HostLink)), &kernel))
		if kernel[0].Index != got.HostIndex || kernel[0].Master != got.Bridge {
			t.Errorf("the kernel says %+v of %+v", kernel, got)
		}
	}
	must(t, d.Detach(t.Context(), web.ID))
	if links, err := d.Cables(web.ID); err != nil || len(links) != 0 {
		t.Errorf("a stopped container has links %+v %v", links, err)
	}
	d.clear(t)
}
