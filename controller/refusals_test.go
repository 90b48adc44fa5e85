package controller_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
	apinetwork "github.com/moby/moby/api/types/network"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/controller"
	"github.com/linkspan/linkspan/endpoint"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/ipam"
)

func address(text string) *apinetwork.EndpointIPAMConfig {
	addr := netip.MustParseAddr(text)
	if addr.Is4() {
		return &apinetwork.EndpointIPAMConfig{IPv4Address: addr}
	}
	return &apinetwork.EndpointIPAMConfig{IPv6Address: addr}
}

func hostConfig(change func(*container.HostConfig)) func(*controller.Container) {
	return func(c *controller.Container) { change(c.HostConfig) }
}

// The words of each refusal are Docker's, down to the letter: people search for
// them. Nothing is recorded of a container that is refused.
func TestWishesThatMakeNoSense(t *testing.T) {
	m := nstest.New(t)
	d := start(t, m, newRoots(t))
	d.network(t, "lab", subnet("10.71.0.0/24"))
	named := func(c *controller.Container) { c.Config.Hostname = "x" }
	mac := apinetwork.EndpointSettings{MacAddress: apinetwork.HardwareAddr{2, 0, 0, 0, 0, 1}}
	links := hostConfig(func(h *container.HostConfig) { h.Links = []string{"a"} })
	const settings = "invalid endpoint settings:\n"
	for name, test := range map[string]struct {
		mode   string
		wishes []func(*controller.Container)
		want   string
	}{
		"no lender":           {"container:", nil, "invalid network mode: invalid container format container:<name|id>"},
		"no lender, no colon": {"container", nil, "invalid network mode: invalid container format container:<name|id>"},
		"lent, hostname":      {"container:a", []func(*controller.Container){named}, "conflicting options: hostname and the network mode"},
		"lent, links":         {"container:a", []func(*controller.Container){links}, "conflicting options: container type network can't be used with links. This would result in undefined behavior"},
		"lent, dns":           {"container:a", []func(*controller.Container){hostConfig(func(h *container.HostConfig) { h.DNS = []netip.Addr{netip.MustParseAddr("10.0.0.1")} })}, "conflicting options: dns and the network mode"},
		"lent, extra hosts":   {"container:a", []func(*controller.Container){hostConfig(func(h *container.HostConfig) { h.ExtraHosts = []string{"a:10.0.0.1"} })}, "conflicting options: custom host-to-IP mapping and the network mode"},
		"lent, ports": {"container:a", []func(*controller.Container){hostConfig(func(h *container.HostConfig) {
			h.PortBindings = apinetwork.PortMap{apinetwork.MustParsePort("80/tcp"): nil}
		})}, "conflicting options: port publishing and the container type network mode"},
		"lent, all ports": {"container:a", []func(*controller.Container){hostConfig(func(h *container.HostConfig) { h.PublishAllPorts = true })}, "conflicting options: port publishing and the container type network mode"},
		"lent, expose": {"container:a", []func(*controller.Container){func(c *controller.Container) {
			c.Config.ExposedPorts = apinetwork.PortSet{apinetwork.MustParsePort("80/tcp"): {}}
		}}, "conflicting options: port exposing and the container type network mode"},
		"lent, MAC":          {"container:a", []func(*controller.Container){on("container:a", mac)}, "conflicting options: mac-address and the network mode"},
		"lent, alias":        {"container:a", []func(*controller.Container){on("container:a", apinetwork.EndpointSettings{Aliases: []string{"x"}})}, "network-scoped aliases are only supported for user-defined networks"},
		"lent, and a second": {"container:a", []func(*controller.Container){also("lab")}, "container sharing network namespace with another container or host cannot be connected to any other network"},
		"host, links":        {"host", []func(*controller.Container){links}, "conflicting options: host type networking can't be used with links. This would result in undefined behavior"},
		"host, MAC":          {"host", []func(*controller.Container){on("host", mac)}, "conflicting options: mac-address and the network mode"},
		"host, alias":        {"host", []func(*controller.Container){on("host", apinetwork.EndpointSettings{Aliases: []string{"x"}})}, "invalid config for network host: " + settings + "network-scoped aliases are only supported for user-defined networks"},
		"host, address":      {"host", []func(*controller.Container){on("host", apinetwork.EndpointSettings{IPAMConfig: address("10.0.0.9")})}, "invalid config for network host: " + settings + "user-specified IP address is supported on user-defined networks only"},
		"host, and a second": {"host", []func(*controller.Container){also("lab")}, "container sharing network namespace with another container or host cannot be connected to any other network"},
		"UTS of the host":    {"lab", []func(*controller.Container){named, hostConfig(func(h *container.HostConfig) { h.UTSMode = "host" })}, "conflicting options: hostname and the UTS mode"},
		"none, alias":        {"none", []func(*controller.Container){on("none", apinetwork.EndpointSettings{Aliases: []string{"x"}})}, settings + "network-scoped aliases are only supported for user-defined networks"},
		"none, and a second": {"none", []func(*controller.Container){also("lab")}, "container cannot be connected to multiple networks with one of the networks in private (none) mode"},
		"a second is none":   {"lab", []func(*controller.Container){also("none")}, "container cannot be connected to multiple networks with one of the networks in private (none) mode"},
		"a second is host":   {"lab", []func(*controller.Container){also("host")}, "conflicting options: cannot attach both user-defined and non-user-defined network-modes"},
		"default, address":   {"bridge", []func(*controller.Container){on("bridge", apinetwork.EndpointSettings{IPAMConfig: address("172.17.0.9")})}, "invalid config for network bridge: " + settings + "user-specified IP address is supported on user-defined networks only"},
		"default, alias":     {"default", []func(*controller.Container){on("default", apinetwork.EndpointSettings{Aliases: []string{"x"}})}, "invalid config for network bridge: " + settings + "network-scoped aliases are only supported for user-defined networks"},
		"null settings":      {"lab", []func(*controller.Container){func(c *controller.Container) { c.Networking.EndpointsConfig["lab"] = nil }}, "invalid config for network lab: EndpointsConfig is nil"},
		"IPv4 is IPv6":       {"lab", []func(*controller.Container){on("lab", apinetwork.EndpointSettings{IPAMConfig: &apinetwork.EndpointIPAMConfig{IPv4Address: netip.MustParseAddr("fd00::9")}})}, settings + "invalid IPv4 address: fd00::9"},
		"unspecified":        {"lab", []func(*controller.Container){on("lab", apinetwork.EndpointSettings{IPAMConfig: address("0.0.0.0")})}, settings + "invalid IPv4 address: 0.0.0.0"},
		"IPv6 is mapped":     {"lab", []func(*controller.Container){on("lab", apinetwork.EndpointSettings{IPAMConfig: address("::ffff:10.71.0.9")})}, settings + "invalid IPv6 address: ::ffff:10.71.0.9"},
		"IPv6 has a zone":    {"lab", []func(*controller.Container){on("lab", apinetwork.EndpointSettings{IPAMConfig: address("fe80::1%eth0")})}, settings + "invalid IPv6 address: fe80::1%eth0"},
		"no link-local": {"lab", []func(*controller.Container){on("lab", apinetwork.EndpointSettings{IPAMConfig: &apinetwork.EndpointIPAMConfig{
			LinkLocalIPs: []netip.Addr{netip.MustParseAddr("10.0.0.1")},
		}})}, settings + "invalid link local IP address: 10.0.0.1"},
		"all at once": {"lab", []func(*controller.Container){on("lab", apinetwork.EndpointSettings{
			IPAMConfig: &apinetwork.EndpointIPAMConfig{IPv4Address: netip.MustParseAddr("0.0.0.0"), IPv6Address: netip.MustParseAddr("::")},
		})}, settings + "invalid IPv4 address: 0.0.0.0\ninvalid IPv6 address: ::"},
		"outside":        {"lab", []func(*controller.Container){on("lab", apinetwork.EndpointSettings{IPAMConfig: address("10.99.0.9")})}, "invalid config for network lab: " + settings + "no configured subnet contains IP address 10.99.0.9"},
		"no IPv6 there":  {"lab", []func(*controller.Container){on("lab", apinetwork.EndpointSettings{IPAMConfig: address("fd00::9")})}, "invalid config for network lab: " + settings + "no configured subnet contains IP address fd00::9"},
		"sysctl":         {"lab", []func(*controller.Container){on("lab", apinetwork.EndpointSettings{DriverOpts: map[string]string{endpoint.OptionSysctls: "net.ipv4.conf.eth0.x=1"}})}, settings + "unrecognised network interface sysctl 'net.ipv4.conf.eth0.x=1'; represent 'net.X.Y.ethN.Z=V' as 'net.X.Y.IFNAME.Z=V', 'X' must be 'ipv4', 'ipv6' or 'mpls'"},
		"interface name": {"lab", []func(*controller.Container){on("lab", ifname("a/b"))}, settings + "invalid interface name"},
		"interface ends": {"lab", []func(*controller.Container){on("lab", ifname("a\x00"))}, settings + "invalid interface name"},
		"multicast MAC":  {"lab", []func(*controller.Container){on("lab", apinetwork.EndpointSettings{MacAddress: apinetwork.HardwareAddr{1, 0, 0x5e, 0, 0, 1}})}, "invalid MAC address: 01:00:5e:00:00:01 is a multicast address"},
	} {
		t.Run(name, func(t *testing.T) {
			c := spec("web", test.mode)
			c.Config.Hostname = ""
			for _, change := range test.wishes {
				change(&c)
			}
			err := d.CheckWishes(c)
			if err == nil {
				err = d.Reserve(c)
			}
			if !errors.Is(err, linkspan.ErrInvalid) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v\nwant %s", err, test.want)
			}
			if _, configured := d.Owners(); len(configured) > 0 {
				t.Error("a refused container is recorded")
			}
		})
	}
	d.clear(t)
}

// What connect and disconnect refuse, of containers that run and that do not.
func TestConnectionsThatMakeNoSense(t *testing.T) {
	m := nstest.New(t)
	d := start(t, m, newRoots(t))
	d.network(t, "lab", subnet("10.71.0.0/24"))
	d.network(t, "side", subnet("10.72.0.0/24"))
	web, onHost, alone, lent := spec("web", "lab"), spec("onHost", "host"), spec("alone", "none"), spec("lent", "container:web")
	for _, c := range []controller.Container{web, onHost, alone, lent} {
		d.run(t, c)
	}
	stopped := spec("stopped", "lab")
	must(t, d.Reserve(stopped))
	before := settled(t, m)
	const sharing = "container sharing network namespace with another container or host cannot be connected to any other network"
	const private = "container cannot be connected to multiple networks with one of the networks in private (none) mode"
	ip := func(text string) *apinetwork.EndpointSettings {
		return &apinetwork.EndpointSettings{IPAMConfig: address(text)}
	}
	for name, test := range map[string]struct {
		network  string
		who      controller.Container
		settings *apinetwork.EndpointSettings
		kind     error
		want     string
	}{
		"from the host":      {"lab", onHost, nil, linkspan.ErrInvalid, sharing},
		"borrowed":           {"lab", lent, nil, linkspan.ErrInvalid, sharing},
		"from none":          {"lab", alone, nil, linkspan.ErrInvalid, private},
		"to none":            {"none", web, nil, linkspan.ErrInvalid, private},
		"to the host":        {"host", web, nil, linkspan.ErrInvalid, "cannot connect container to host network - container must be created in host network mode"},
		"host again":         {"host", onHost, nil, linkspan.ErrInvalid, "cannot connect container to host network - container must be created in host network mode"},
		"twice":              {"lab", web, nil, linkspan.ErrForbidden, "endpoint with name web already exists in network lab"},
		"nowhere":            {"nowhere", web, nil, linkspan.ErrNotFound, "network nowhere not found"},
		"nobody":             {"lab", controller.Container{ID: "0"}, nil, linkspan.ErrNotFound, "No such container: 0"},
		"outside":            {"side", web, ip("10.99.0.1"), linkspan.ErrInvalid, "invalid endpoint settings:\nno configured subnet contains IP address 10.99.0.1"},
		"outside, stopped":   {"side", stopped, ip("10.99.0.1"), linkspan.ErrInvalid, "invalid endpoint settings:\nno configured subnet contains IP address 10.99.0.1"},
		"gateway's":          {"side", web, ip("10.72.0.1"), linkspan.ErrForbidden, "Address already in use"},
		"default, alias":     {"bridge", web, &apinetwork.EndpointSettings{Aliases: []string{"x"}}, linkspan.ErrInvalid, "invalid endpoint settings:\nnetwork-scoped aliases are only supported for user-defined networks"},
		"none, alias":        {"none", web, &apinetwork.EndpointSettings{Aliases: []string{"x"}}, linkspan.ErrInvalid, "network-scoped aliases are only supported for user-defined networks"},
		"default, ip":        {"bridge", stopped, ip("172.17.0.9"), linkspan.ErrInvalid, "user-specified IP address is supported on user-defined networks only"},
		"malformed, stopped": {"nowhere", stopped, ip("0.0.0.0"), linkspan.ErrInvalid, "invalid IPv4 address: 0.0.0.0"},
		"interface, stopped": {"side", stopped, &apinetwork.EndpointSettings{DriverOpts: map[string]string{endpoint.OptionInterface: "much too long a name"}}, linkspan.ErrInvalid, "invalid interface name"},
		"not link-local":     {"side", web, &apinetwork.EndpointSettings{IPAMConfig: &apinetwork.EndpointIPAMConfig{LinkLocalIPs: []netip.Addr{netip.MustParseAddr("10.0.0.1")}}}, linkspan.ErrInvalid, "invalid link local IP address: 10.0.0.1"},
	} {
		t.Run(name, func(t *testing.T) {
			err := d.Connect(t.Context(), test.network, test.who.ID, test.settings)
			if !errors.Is(err, test.kind) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v\nwant %v: %s", err, test.kind, test.want)
			}
		})
	}
	for name, test := range map[string]struct {
		network string
		who     controller.Container
		want    string
	}{
		"running":  {"side", web, "is not connected to network side"},
		"stopped":  {"side", stopped, "is not connected to the network side"},
		"the host": {"host", onHost, "cannot disconnect container from host network - container was created in host network mode"},
		"nowhere":  {"nowhere", web, "network nowhere not found"},
	} {
		t.Run("disconnect "+name, func(t *testing.T) {
			if err := d.Disconnect(t.Context(), test.network, test.who.ID, false); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v\nwant %s", err, test.want)
			}
		})
	}
	if diff := nstest.Diff(before, settled(t, m)); diff != "" {
		t.Errorf("the refusals changed something:\n%s", diff)
	}
	// A wish for a network that is not there is recorded, and fails at the start.
	must(t, d.Connect(t.Context(), "later", stopped.ID, nil))
	if _, err := d.Attach(t.Context(), stopped.ID); !errors.Is(err, linkspan.ErrNotFound) || !strings.Contains(err.Error(), "failed to set up container networking: network later not found") {
		t.Errorf("a start onto a network that is not there: %v", err)
	}
	must(t, d.Disconnect(t.Context(), "later", stopped.ID, false))
	d.clear(t)
}

// A container whose own parameters switch IPv6 off gets no address of it.
func TestContainerWithoutIPv6(t *testing.T) {
	m := nstest.New(t)
	d := start(t, m, newRoots(t))
	d.network(t, "lab", dualStack, func(s *controller.NetworkSpec) {
		s.Pools = []ipam.Pool{{Subnet: netip.MustParsePrefix("10.71.0.0/24")}, {Subnet: netip.MustParsePrefix("fd00:71::/64")}}
	})
	web := spec("web", "lab", hostConfig(func(h *container.HostConfig) { h.Sysctls = map[string]string{"net.ipv6.conf.all.disable_ipv6": "1"} }))
	a := d.run(t, web)
	if s := d.Settings(web.ID).Networks["lab"]; s.GlobalIPv6Address.IsValid() || s.IPv6Gateway.IsValid() || !s.IPAddress.IsValid() {
		t.Errorf("settings: %+v", s)
	}
	if got := m.Sh(t, "ip -n "+nsOf(a)+" -6 addr show dev eth0"); got != "" {
		t.Errorf("eth0 has IPv6:\n%s", got)
	}
	d.clear(t)
}
