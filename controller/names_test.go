package controller_test

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
	apinetwork "github.com/moby/moby/api/types/network"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/controller"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/ipam"
	"github.com/linkspan/linkspan/network"
)

// wish changes a container's configuration of the host's side.
func wish(change func(*container.HostConfig)) func(*controller.Container) {
	return func(c *controller.Container) { change(c.HostConfig) }
}

// dig asks the resolver of a sandbox, and returns what +short prints or, if
// that is nothing, the status.
func dig(t *testing.T, m *nstest.Machine, a controller.Attachment, server, question string) string {
	t.Helper()
	command := "dig"
	if a.Netns != "" {
		command = "nsenter --net=" + a.Netns + " dig"
	}
	out, err := m.TrySh(command + " +time=20 +tries=1 +noall +answer +comments @" + server + " " + question)
	if err != nil {
		t.Errorf("dig %s: %v\n%s", question, err, out)
	}
	var answers []string
	status := ""
	for line := range strings.Lines(out) {
		field := strings.Fields(line)
		switch {
		case strings.Contains(line, "status: "):
			_, status, _ = strings.Cut(line, "status: ")
			status, _, _ = strings.Cut(status, ",")
		case len(field) > 4 && !strings.HasPrefix(line, ";"):
			answers = append(answers, field[4])
		}
	}
	return strings.Join(append([]string{status}, answers...), " ")
}

func expect(t *testing.T, m *nstest.Machine, a controller.Attachment, server string, questions map[string]string) {
	t.Helper()
	for question, want := range questions {
		if got := dig(t, m, a, server, question); got != want {
			t.Errorf("dig @%s %s: %s, want %s", server, question, got, want)
		}
	}
}

const inside = "127.0.0.11"

func records(text string) func(*controller.NetworkSpec) {
	return func(s *controller.NetworkSpec) { s.Options = map[string]string{network.OptionRecords: text} }
}

func aliases(names ...string) func(*controller.Container) {
	return func(c *controller.Container) {
		for _, s := range c.Networking.EndpointsConfig {
			s.Aliases = names
		}
	}
}

// A container sees the names of its own networks, by their addresses there.
func TestNamesAreOfTheNetwork(t *testing.T) {
	m := nstest.New(t)
	d := start(t, m, newRoots(t))
	d.network(t, "lab", subnet("10.77.0.0/24"), records("db=192.0.2.5,www=web,*.dev=192.0.2.6"))
	d.network(t, "side", subnet("10.78.0.0/24"))
	web := d.run(t, spec("web", "lab", aliases("pool", "*.web")))
	d.run(t, spec("web2", "lab", aliases("pool")))
	both := d.run(t, spec("both", "lab", also("side")))
	far := d.run(t, spec("far", "side"))
	expect(t, m, web, inside, map[string]string{
		"both": "NOERROR 10.77.0.4", "far": "SERVFAIL", "db": "NOERROR 192.0.2.5", "www": "NOERROR 10.77.0.2",
		"x.dev": "NOERROR 192.0.2.6", "any.thing.web": "NOERROR 10.77.0.2", "both.lab": "NOERROR 10.77.0.4", "both.side": "SERVFAIL",
		"-x 192.0.2.5": "NOERROR db.lab.", "-x 10.77.0.2": "NOERROR web.lab.", "-x 10.78.0.2": "SERVFAIL", "web AAAA": "NOERROR", "WEB": "NOERROR 10.77.0.2",
	})
	expect(t, m, both, inside, map[string]string{"far": "NOERROR 10.78.0.3", "web": "NOERROR 10.77.0.2", "both.side": "NOERROR 10.78.0.2", "-x 10.78.0.3": "NOERROR far.side."})
	expect(t, m, far, inside, map[string]string{"both": "NOERROR 10.78.0.2", "web": "SERVFAIL", "db": "SERVFAIL", "x.web": "SERVFAIL"})
	got := strings.Fields(dig(t, m, web, inside, "pool"))
	if len(got) != 3 || !strings.Contains(strings.Join(got, " "), "10.77.0.2") || !strings.Contains(strings.Join(got, " "), "10.77.0.3") {
		t.Errorf("a shared alias has %v", got)
	}
	if _, err := d.CreateNetwork(t.Context(), controller.NetworkSpec{Name: "wrong", IPv4: true, Options: map[string]string{network.OptionRecords: "db"}}); !errors.Is(err, linkspan.ErrInvalid) || !strings.Contains(err.Error(), network.OptionRecords) {
		t.Errorf("a bad record: %v", err)
	}
	d.clear(t)
}

func TestRenamedAndStopped(t *testing.T) {
	m := nstest.New(t)
	d := start(t, m, newRoots(t))
	d.network(t, "lab", subnet("10.77.0.0/24"))
	web := spec("web", "lab", aliases("www"))
	d.run(t, web)
	probe := d.run(t, spec("probe", "lab"))
	must(t, d.Rename(web.ID, "www"))
	expect(t, m, probe, inside, map[string]string{"www": "NOERROR 10.77.0.2", "-x 10.77.0.2": "NOERROR www.lab."})
	must(t, d.Rename(web.ID, "shop"))
	expect(t, m, probe, inside, map[string]string{"shop": "NOERROR 10.77.0.2", "www": "NOERROR 10.77.0.2", "-x 10.77.0.2": "NOERROR shop.lab."})
	must(t, d.Detach(t.Context(), web.ID))
	expect(t, m, probe, inside, map[string]string{"shop": "SERVFAIL", "www": "SERVFAIL", "-x 10.77.0.2": "SERVFAIL", web.ID.Short(): "SERVFAIL"})
	d.clear(t)
}

// On the default bridge there are no names, unless the daemon is told to.
func TestBridgeNames(t *testing.T) {
	m := nstest.New(t)
	r := newRoots(t)
	d := start(t, m, r)
	plain := d.run(t, spec("plain", "bridge"))
	if got := read(t, plain.ResolvConf); strings.Contains(got, inside) {
		t.Errorf("a resolver on the default bridge, unasked:\n%s", got)
	}
	d.clear(t)
	d.stop(t)
	d = start(t, m, r, func(o *controller.Options) { o.Defaults.BridgeNames = true })
	d.run(t, spec("web", "bridge"))
	probe := d.run(t, spec("probe", "bridge"))
	if got := read(t, probe.ResolvConf); !strings.Contains(got, "nameserver 127.0.0.11\n") {
		t.Errorf("no resolver:\n%s", got)
	}
	expect(t, m, probe, inside, map[string]string{"web": "NOERROR 172.17.0.2", "web.bridge": "NOERROR 172.17.0.2", "-x 172.17.0.2": "NOERROR web.bridge."})
	d.clear(t)
}

// The host asks at an address of its own, sees all networks, and is passed on
// to its own servers for the rest.
func TestHostResolver(t *testing.T) {
	m := nstest.New(t)
	r := newRoots(t)
	must(t, os.MkdirAll(r.data, 0o700))
	must(t, os.WriteFile(filepath.Join(r.data, "resolv.conf"), []byte("nameserver 127.0.0.54\nnameserver 192.0.2.1\n"), 0o644))
	m.Sh(t, "ip addr add 192.0.2.1/32 dev lo")
	serve(t, m, "192.0.2.1", "198.51.100.1")
	at := netip.MustParseAddrPort("127.0.0.54:53")
	d := start(t, m, r, func(o *controller.Options) { o.Defaults.DNSListen = at })
	d.network(t, "lab", subnet("10.77.0.0/24"))
	d.run(t, spec("web", "lab"))
	lab := map[string]string{
		"web": "NOERROR 10.77.0.2", "web.lab +tcp": "NOERROR 10.77.0.2", "-x 10.77.0.2": "NOERROR web.lab.",
		"www.example.test": "NOERROR 198.51.100.1", "nobody.example.test": "NXDOMAIN",
	}
	expect(t, m, controller.Attachment{}, "127.0.0.54", lab)
	d.network(t, "side", subnet("10.78.0.0/24"))
	d.run(t, spec("web", "side"))
	expect(t, m, controller.Attachment{}, "127.0.0.54", map[string]string{"web": "NOERROR 10.77.0.2", "web.side": "NOERROR 10.78.0.2"})
	d.clear(t)
	expect(t, m, controller.Attachment{}, "127.0.0.54", map[string]string{"web.side": "NXDOMAIN"})
	d.stop(t)
	var busy net.PacketConn
	must(t, m.Host().Inside("", func() (err error) {
		busy, err = net.ListenPacket("udp", at.String())
		return err
	}))
	defer busy.Close()
	taken := opened(t, m, r, func(o *controller.Options) { o.Defaults.DNSListen = at })
	if err := taken.Recover(t.Context()); err == nil || !strings.Contains(err.Error(), "sport = 53") {
		t.Errorf("an address that is taken: %v", err)
	}
	taken.stop(t)
	start(t, m, r).clear(t)
}

func TestLinksOfTheDefaultBridge(t *testing.T) {
	m := nstest.New(t)
	d := start(t, m, newRoots(t))
	link := func(links ...string) func(*controller.Container) {
		return wish(func(hc *container.HostConfig) { hc.Links = links })
	}
	db := spec("db", "bridge", func(c *controller.Container) { c.Config.Hostname = "dbhost" })
	must(t, d.Reserve(db))
	early := spec("early", "bridge", link("db:store"))
	must(t, d.Reserve(early))
	if _, err := d.Attach(t.Context(), early.ID); !errors.Is(err, linkspan.ErrConflict) || !strings.Contains(err.Error(), "Cannot link to a non running container: /db AS /early/store") {
		t.Errorf("a link to a container that does not run: %v", err)
	}
	_, err := d.Attach(t.Context(), db.ID)
	must(t, err)
	web := d.run(t, spec("web", "bridge", link("db:store", "/db:/web/db", "db")))
	lines := func(addr string, names ...string) string {
		return strings.Join([]string{addr + "\tstore dbhost " + names[0], addr + "\tdb dbhost" + names[1], ""}, "\n")
	}
	has := func(want string) {
		t.Helper()
		if got := read(t, web.Hosts); !strings.Contains(got, want) {
			t.Errorf("hosts lacks %q:\n%s", want, got)
		}
	}
	has(lines("172.17.0.2", "db", ""))
	must(t, d.Rename(db.ID, "base"))
	has(lines("172.17.0.2", "base", " base"))
	must(t, d.Detach(t.Context(), db.ID))
	if got := read(t, web.Hosts); strings.Contains(got, "dbhost") {
		t.Errorf("hosts knows a container that has stopped:\n%s", got)
	}
	d.run(t, spec("squatter", "bridge")) // takes the address
	_, err = d.Attach(t.Context(), db.ID)
	must(t, err)
	has(lines("172.17.0.4", "base", " base"))
	names := []string{"early/store", "web/db", "web/store"}
	if got := d.LinkNames(db.ID); !slices.Equal(got, names) {
		t.Errorf("its names are %q, want %q", got, names)
	}
	must(t, d.Unlink("/web/db"))
	if got := read(t, web.Hosts); strings.Contains(got, "\tdb dbhost") {
		t.Errorf("hosts knows a link that was removed:\n%s", got)
	}
	if target, found := d.LinkTarget("web/db"); found {
		t.Errorf("a link that was removed leads to %s", target)
	}
	for _, wrong := range []string{"base", "nobody/db", "web/db"} {
		if err := d.Unlink(wrong); err == nil {
			t.Errorf("unlinking %s works", wrong)
		}
	}
	d.network(t, "lab", subnet("10.77.0.0/24"))
	d.run(t, spec("away", "lab"))
	for _, test := range []struct {
		link, want string
		kind       error
	}{
		{"nobody", "could not get container for nobody: No such container: nobody", linkspan.ErrInvalid},
		{"", "empty string specified for links", linkspan.ErrInvalid},
		{"a:b:c", "bad format for links: a:b:c", linkspan.ErrInvalid},
		{":b", "bad format for links: :b", linkspan.ErrInvalid},
		{"base:x y", "bad format for links: base:x y", linkspan.ErrInvalid},
		{"away", "Cannot link to /away, as it does not belong to the default network", linkspan.ErrConflict},
	} {
		c := spec("c", "bridge", link(test.link))
		err := d.Reserve(c)
		if err == nil {
			_, err = d.Attach(t.Context(), c.ID)
		}
		if !errors.Is(err, test.kind) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("--link %q: %v, want %s", test.link, err, test.want)
		}
		must(t, d.Forget(c.ID))
	}
	d.clear(t)
}

// On a user's network a link is a name that its container alone knows, of
// somebody who need not be there yet.
func TestLinksOfUsersNetworks(t *testing.T) {
	m := nstest.New(t)
	d := start(t, m, newRoots(t))
	d.network(t, "lab", subnet("10.77.0.0/24"))
	web := d.run(t, spec("web", "lab", func(c *controller.Container) {
		c.Networking.EndpointsConfig["lab"].Links = []string{"db:store"}
	}))
	expect(t, m, web, inside, map[string]string{"store": "SERVFAIL"})
	other := d.run(t, spec("db", "lab"))
	expect(t, m, web, inside, map[string]string{"store": "NOERROR 10.77.0.3"})
	expect(t, m, other, inside, map[string]string{"store": "SERVFAIL"})
	d.clear(t)
}

func TestHostGatewayIsOfTheNetwork(t *testing.T) {
	m := nstest.New(t)
	r := newRoots(t)
	d := start(t, m, r)
	d.network(t, "lab", subnet("10.77.0.0/24"), func(s *controller.NetworkSpec) {
		s.IPv6, s.Pools = true, append(s.Pools, ipam.Pool{Subnet: netip.MustParsePrefix("fd00:77::/64")})
	})
	d.network(t, "side", subnet("10.78.0.0/24"))
	ask := wish(func(hc *container.HostConfig) {
		hc.ExtraHosts = []string{"host.docker.internal:host-gateway", "db:192.0.2.5"}
	})
	for _, test := range []struct {
		container controller.Container
		want      string
	}{
		{spec("web", "lab", ask), "10.77.0.1\thost.docker.internal\nfd00:77::1\thost.docker.internal\n192.0.2.5\tdb\n"},
		{spec("plain", "bridge", ask), "172.17.0.1\thost.docker.internal\n192.0.2.5\tdb\n"},
		{spec("alone", "none", ask), "172.17.0.1\thost.docker.internal\n192.0.2.5\tdb\n"},
		{spec("two", "lab", ask, also("side"), func(c *controller.Container) { c.Networking.EndpointsConfig["side"].GwPriority = 1 }), "10.78.0.1\thost.docker.internal\n192.0.2.5\tdb\n"},
	} {
		if got := read(t, d.run(t, test.container).Hosts); !strings.Contains(got, "ip6-allrouters\n"+test.want) {
			t.Errorf("%s: want %q in\n%s", test.container.Name, test.want, got)
		}
	}
	d.clear(t)
	d.stop(t)
	d = start(t, m, r, func(o *controller.Options) { o.Defaults.HostGateway = []netip.Addr{netip.MustParseAddr("192.0.2.9")} })
	if got := read(t, d.run(t, spec("web", "bridge", ask)).Hosts); !strings.Contains(got, "192.0.2.9\thost.docker.internal\n192.0.2.5\tdb\n") {
		t.Errorf("the flag does not count:\n%s", got)
	}
	d.clear(t)
}

func TestFilesOfModes(t *testing.T) {
	m := nstest.New(t)
	d := start(t, m, newRoots(t))
	d.network(t, "lab", subnet("10.77.0.0/24"))
	hostname, err := os.Hostname()
	must(t, err)
	hosts, err := os.ReadFile("/etc/hosts")
	must(t, err)
	unnamed := func(c *controller.Container) { c.Config.Hostname = "" }
	own := d.run(t, spec("own", "host", unnamed))
	if got := read(t, own.Hostname); got != hostname+"\n" {
		t.Errorf("the hostname of a container in host mode is %q", got)
	}
	if got := read(t, own.Hosts); got != string(hosts) {
		t.Errorf("hosts in host mode is not the host's:\n%s", got)
	}
	extra := d.run(t, spec("extra", "host", unnamed, wish(func(hc *container.HostConfig) { hc.ExtraHosts = []string{"db:192.0.2.5"} })))
	if got := read(t, extra.Hosts); !strings.HasSuffix(got, "ip6-allrouters\n192.0.2.5\tdb\n") {
		t.Errorf("hosts in host mode with --add-host:\n%s", got)
	}
	four := d.run(t, spec("four", "lab", wish(func(hc *container.HostConfig) { hc.Sysctls = map[string]string{"net.ipv6.conf.all.disable_ipv6": "1"} }), func(c *controller.Container) {
		c.Config.Hostname, c.Config.Domainname = "foobar", "example.com"
	}))
	if got := read(t, four.Hosts); got != "127.0.0.1\tlocalhost\n10.77.0.2\tfoobar.example.com foobar\n" {
		t.Errorf("hosts of a container with IPv6 off:\n%s", got)
	}
	if got := read(t, four.Hostname); got != "foobar\n" {
		t.Errorf("hostname: %q", got)
	}
	d.clear(t)
}

// Each wish about names that makes no sense is refused when the container is
// made, in the words that users of Docker know.
func TestRefusedNames(t *testing.T) {
	m := nstest.New(t)
	d := start(t, m, newRoots(t))
	d.network(t, "lab", subnet("10.77.0.0/24"))
	hc := func(change func(*container.HostConfig)) func(*controller.Container) { return wish(change) }
	add := func(text string) func(*controller.Container) {
		return hc(func(h *container.HostConfig) { h.ExtraHosts = []string{"ok:192.0.2.1", text} })
	}
	search := func(text string) func(*controller.Container) {
		return hc(func(h *container.HostConfig) { h.DNSSearch = []string{text} })
	}
	option := func(text string) func(*controller.Container) {
		return hc(func(h *container.HostConfig) { h.DNSOptions = []string{text} })
	}
	named := func(hostname, domainname string) func(*controller.Container) {
		return func(c *controller.Container) { c.Config.Hostname, c.Config.Domainname = hostname, domainname }
	}
	for _, test := range []struct {
		mode   string
		change func(*controller.Container)
		want   string
	}{
		{"lab", add("db"), `bad format for add-host: "db"`},
		{"lab", add(":192.0.2.1"), `bad format for add-host: ":192.0.2.1"`},
		{"lab", add("a b:192.0.2.1"), `bad format for add-host: "a b:192.0.2.1"`},
		{"lab", add("a\nb:192.0.2.1"), `bad format for add-host: "a\nb:192.0.2.1"`},
		{"lab", add("db:192.0.2"), `invalid IP address in add-host: "192.0.2"`},
		{"lab", add("db:"), `invalid IP address in add-host: ""`},
		{"lab", add("db:gateway"), `invalid IP address in add-host: "gateway"`},
		{"lab", add("db:[::1"), `invalid IP address in add-host: "[::1"`},
		{"lab", search(""), "is not a valid search domain"},
		{"lab", search("two words"), "is not a valid search domain"},
		{"lab", search("a\nnameserver 192.0.2.1"), "is not a valid search domain"},
		{"lab", search(strings.Repeat("a", 64)), "is not a valid search domain"},
		{"lab", option(""), "is not a valid resolver option"},
		{"lab", option("a\nb"), "is not a valid resolver option"},
		{"lab", option("#a"), "is not a valid resolver option"},
		{"lab", hc(func(h *container.HostConfig) { h.DNS = []netip.Addr{{}} }), "invalid DNS server"},
		{"lab", named(strings.Repeat("a", 65), ""), "invalid hostname format"},
		{"lab", named("a b", ""), "invalid hostname format"},
		{"lab", named("a\nb", ""), "invalid hostname format"},
		{"lab", named("a", "b c"), "invalid domainname format"},
		{"container:", nil, "invalid network mode: invalid container format container:<name|id>"},
		{"container:x", hc(func(h *container.HostConfig) { h.DNS = []netip.Addr{netip.MustParseAddr("192.0.2.1")} }), "conflicting options: dns and the network mode"},
		{"container:x", add("a:192.0.2.1"), "conflicting options: custom host-to-IP mapping and the network mode"},
		{"container:x", hc(func(h *container.HostConfig) { h.Links = []string{"x"} }), "conflicting options: container type network can't be used with links. This would result in undefined behavior"},
		{"host", hc(func(h *container.HostConfig) { h.Links = []string{"x"} }), "conflicting options: host type networking can't be used with links. This would result in undefined behavior"},
		{"bridge", aliases("www"), "invalid config for network bridge: invalid endpoint settings:\nnetwork-scoped aliases are only supported for user-defined networks"},
	} {
		c := spec("c", test.mode, func(c *controller.Container) {
			if strings.HasPrefix(test.mode, "container:") || test.mode == "host" {
				c.Networking = &apinetwork.NetworkingConfig{}
			}
		})
		if test.change != nil {
			test.change(&c)
		}
		err := d.Reserve(c)
		if !errors.Is(err, linkspan.ErrInvalid) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %s", test.mode, err, test.want)
		}
	}
	if _, configured := d.Owners(); len(configured) != 0 {
		t.Errorf("a refused container is recorded: %v", configured)
	}
	d.clear(t)
}
