package controller

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/dns"
	"github.com/linkspan/linkspan/dns/resolvconf"
	"github.com/linkspan/linkspan/endpoint"
	"github.com/linkspan/linkspan/sandbox"
	"github.com/linkspan/linkspan/store"
)

// files are the texts that a sandbox starts with, or has after a change.
func (c *Controller) files(t store.Tables, cfg store.Config, s sandbox.Sandbox, links []link, host hostFiles) (sandbox.Files, error) {
	hostname := hostnameOf(cfg)
	if s.OfHost && cfg.Hostname == "" {
		hostname = host.hostname
	}
	servers := host.servers
	if s.OfHost {
		servers = host.own
	}
	hosts, err := c.hosts(t, cfg, s, hostname, links, host)
	if err != nil {
		return sandbox.Files{}, err
	}
	return sandbox.Files{
		Hosts:      hosts,
		ResolvConf: string(c.resolvConf(cfg, s, links, servers).Text),
		Hostname:   hostname + "\n",
	}, nil
}

func hostnameOf(cfg store.Config) string { return cmp.Or(cfg.Hostname, cfg.Owner.Short()) }

func (c *Controller) hosts(t store.Tables, cfg store.Config, s sandbox.Sandbox, hostname string, links []link, host hostFiles) (string, error) {
	if s.OfHost && len(cfg.ExtraHosts) == 0 {
		return string(host.hosts), nil
	}
	file := dns.HostsFile{Hostname: hostname, Domainname: cfg.Domainname, IPv6: host.ipv6 && !cfg.NoIPv6, Links: linkLines(t, cfg)}
	gateways := c.hostGateways(t, links)
	for _, spec := range cfg.ExtraHosts {
		extra, err := dns.ParseExtraHost(spec, gateways)
		if err != nil {
			return "", err
		}
		file.Extra = append(file.Extra, extra...)
	}
	for _, l := range attached(cfg, links) {
		file.Own = append(file.Own, l.endpoint.Addrs()...)
	}
	return string(file.Render()), nil
}

// attached returns links in the order in which the container was attached; those
// that its user did not ask for come last.
func attached(cfg store.Config, links []link) []link {
	place := func(l link) int {
		i := slices.IndexFunc(cfg.Attachments, func(want endpoint.Config) bool { return isNetwork(want, l.network) })
		if i < 0 {
			return len(cfg.Attachments)
		}
		return i
	}
	return slices.SortedStableFunc(slices.Values(links), func(a, b link) int { return cmp.Compare(place(a), place(b)) })
}

// hostGateways are the addresses that "host-gateway" stands for: those that the
// daemon's flag names, else the host's own on the first of the container's
// networks on which it has any, else the host's on the default network.
func (c *Controller) hostGateways(t store.Tables, links []link) []netip.Addr {
	if len(c.o.Defaults.HostGateway) > 0 {
		return c.o.Defaults.HostGateway
	}
	for _, l := range links {
		driver, err := c.driver(l.network.Driver)
		if err != nil || !driver.Traits().Gateway {
			continue // its gateway, if any, is another machine
		}
		var addrs []netip.Addr
		for _, lease := range l.endpoint.Addrs() {
			if pool, ok := l.network.Pool(lease); ok && pool.Gateway.IsValid() {
				addrs = append(addrs, pool.Gateway)
			}
		}
		if len(addrs) > 0 {
			return addrs
		}
	}
	return defaultGateways(t)
}

// defaultGateways are the host's own addresses on the default network.
func defaultGateways(t store.Tables) []netip.Addr {
	row, err := findNetwork(t, "bridge")
	if err != nil {
		return nil
	}
	var addrs []netip.Addr
	for _, pool := range row.Value.Pools {
		if pool.Gateway.IsValid() {
			addrs = append(addrs, pool.Gateway)
		}
	}
	return addrs
}

// maxHostname is the most that the kernel takes, in bytes (__NEW_UTS_LEN).
const maxHostname = 64

// checkNames refuses wishes about names that are wrong in themselves. What they
// hold goes into files: nothing may end a line.
func checkNames(ctr Container) error {
	for what, name := range map[string]string{"hostname": ctr.Config.Hostname, "domainname": ctr.Config.Domainname} {
		odd := func(r rune) bool { return r <= ' ' || r == 0x7f || r == '#' || r == '/' }
		if len(name) > maxHostname || strings.ContainsFunc(name, odd) {
			return linkspan.Errorf(linkspan.ErrInvalid, "invalid %s format: %q: want at most %d bytes, no blanks, '#' or '/'", what, name, maxHostname)
		}
	}
	hc := ctr.HostConfig
	anywhere := []netip.Addr{netip.IPv6Unspecified()} // which it will be is known at the start
	for _, spec := range hc.ExtraHosts {
		if _, err := dns.ParseExtraHost(spec, anywhere); err != nil {
			return err
		}
	}
	if i := slices.IndexFunc(hc.DNS, func(a netip.Addr) bool { return !a.IsValid() }); i >= 0 {
		return linkspan.Errorf(linkspan.ErrInvalid, "invalid DNS server: entry %d of the list is empty", i+1)
	}
	for _, domain := range hc.DNSSearch {
		if err := resolvconf.CheckSearch(domain); err != nil {
			return err
		}
	}
	for _, option := range hc.DNSOptions {
		if err := resolvconf.CheckOption(option); err != nil {
			return err
		}
	}
	return nil
}
