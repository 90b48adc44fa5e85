package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/dns"
	"github.com/linkspan/linkspan/dns/resolvconf"
	"github.com/linkspan/linkspan/endpoint"
	"github.com/linkspan/linkspan/firewall"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/sandbox"
	"github.com/linkspan/linkspan/store"
)

// resolverPort is where the resolver's sockets really listen, at
// firewall.ResolverAddress inside each sandbox. It lies above the ephemeral
// range, so that no program gets it by chance.
const resolverPort = 61053

// dnsNames are the names of an endpoint on a user's network, the one for PTR
// first. The default bridge has none, as in Docker.
func dnsNames(cfg store.Config, n network.Network, want endpoint.Config) []string {
	if network.Predefined(n.Name) {
		return nil
	}
	var names []string
	seen := make(map[string]bool)
	all := append([]string{cfg.Name}, want.Aliases...)
	for _, name := range append(all, cfg.Owner.Short(), cfg.Hostname) {
		if name != "" && !seen[name] {
			seen[name] = true
			names = append(names, name)
		}
	}
	return names
}

// files are the texts that a sandbox starts with, or has after a change.
func (c *Controller) files(cfg store.Config, s sandbox.Sandbox, links []link, host hostFiles, hostGateway []netip.Addr) (sandbox.Files, error) {
	hostname := cmp.Or(cfg.Hostname, cfg.Owner.Short())
	hosts, err := c.hosts(cfg, s, hostname, links, host, hostGateway)
	if err != nil {
		return sandbox.Files{}, err
	}
	return sandbox.Files{
		Hosts:      hosts,
		ResolvConf: string(c.resolvConf(cfg, s, links, host.resolvConf).Text),
		Hostname:   hostname + "\n",
	}, nil
}

func (c *Controller) hosts(cfg store.Config, s sandbox.Sandbox, hostname string, links []link, host hostFiles, hostGateway []netip.Addr) (string, error) {
	if s.OfHost && len(cfg.ExtraHosts) == 0 {
		return string(host.hosts), nil
	}
	gateways := hostGateway
	if len(c.o.Defaults.HostGateway) > 0 {
		gateways = nil
		for _, text := range c.o.Defaults.HostGateway {
			addr, err := netip.ParseAddr(text)
			if err != nil {
				return "", linkspan.Errorf(linkspan.ErrInvalid, "invalid host-gateway address %q: %w", text, err)
			}
			gateways = append(gateways, addr)
		}
	}
	file := dns.HostsFile{Hostname: hostname, Domainname: cfg.Domainname, IPv6: true}
	for _, spec := range cfg.ExtraHosts {
		extra, err := dns.ParseExtraHost(spec, gateways)
		if err != nil {
			return "", err
		}
		file.Extra = append(file.Extra, extra...)
	}
	for _, l := range links {
		file.Own = append(file.Own, l.endpoint.Addrs()...)
	}
	return string(file.Render()), nil
}

// defaultGateways are what "host-gateway" stands for: the host's own addresses
// on the default network.
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

// resolvConf builds the sandbox's /etc/resolv.conf and the list of servers that
// its resolver forwards to.
func (c *Controller) resolvConf(cfg store.Config, s sandbox.Sandbox, links []link, hostFile []byte) resolvconf.Result {
	pick := func(own, fallback []string) []string {
		if len(own) > 0 {
			return own
		}
		return fallback
	}
	ipv6 := false
	for _, l := range links {
		ipv6 = ipv6 || l.endpoint.IPv6.IsValid()
	}
	mode := resolvconf.Legacy
	switch {
	case s.Resolver:
		mode = resolvconf.Internal
	case s.OfHost:
		mode = resolvconf.HostMode
	}
	return resolvconf.Build(resolvconf.Parse(hostFile), resolvconf.Options{
		Mode: mode, Path: cmp.Or(c.o.Defaults.ResolvConf, resolvconf.Path), IPv6: ipv6,
		Servers: pick(cfg.Servers, c.o.Defaults.DNS),
		Search:  pick(cfg.Search, c.o.Defaults.DNSSearch),
		Options: pick(cfg.Options, c.o.Defaults.DNSOptions),
	})
}

// startResolver answers questions in a sandbox: on the sockets that its
// container's shim kept, or on new ones. It returns duplicates for the shim.
func (c *Controller) startResolver(s sandbox.Sandbox, kept []*os.File) ([]*os.File, error) {
	var udp *net.UDPConn
	var tcp net.Listener
	var err error
	if len(kept) == 2 {
		udp, tcp, err = adopt(kept)
	} else {
		udp, tcp, err = c.listen(s)
	}
	if err != nil {
		return nil, fmt.Errorf("opening the resolver's sockets in sandbox %s: %w", s.Netns(), err)
	}
	udpFile, err := udp.File()
	if err != nil {
		return nil, fmt.Errorf("duplicating the resolver's socket: %w", err)
	}
	tcpFile, err := tcp.(*net.TCPListener).File()
	if err != nil {
		return nil, fmt.Errorf("duplicating the resolver's socket: %w", err)
	}
	resolver, err := c.names.Start(udp, tcp, c.view(s))
	if err != nil {
		return nil, fmt.Errorf("starting the resolver of sandbox %s: %w", s.Netns(), err)
	}
	c.mu.Lock()
	c.resolvers[s.ID] = resolver
	c.mu.Unlock()
	return []*os.File{udpFile, tcpFile}, nil
}

func (c *Controller) listen(s sandbox.Sandbox) (udp *net.UDPConn, tcp net.Listener, err error) {
	at := netip.AddrPortFrom(netip.MustParseAddr(firewall.ResolverAddress), resolverPort)
	err = c.o.Host.Inside(s.Netns(), func() error {
		if udp, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(at)); err != nil {
			return err
		}
		if tcp, err = net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(at)); err != nil {
			return errors.Join(err, udp.Close())
		}
		return nil
	})
	return udp, tcp, err
}

func adopt(kept []*os.File) (*net.UDPConn, net.Listener, error) {
	packet, err := net.FilePacketConn(kept[0])
	if err != nil {
		return nil, nil, err
	}
	udp, ok := packet.(*net.UDPConn)
	if !ok {
		return nil, nil, errors.Join(fmt.Errorf("kept socket is %T, not UDP", packet), packet.Close())
	}
	tcp, err := net.FileListener(kept[1])
	if err != nil {
		return nil, nil, errors.Join(err, udp.Close())
	}
	return udp, tcp, nil
}

func (c *Controller) stopResolver(id linkspan.ID) {
	c.mu.Lock()
	resolver := c.resolvers[id]
	delete(c.resolvers, id)
	delete(c.writing, id)
	c.mu.Unlock()
	if resolver != nil {
		resolver.Close() //nolint:errcheck // the namespace goes, and the sockets with it
	}
}

// view is what the resolver of a sandbox sees: its networks' zones, by
// priority, and whom to ask for the rest.
func (c *Controller) view(s sandbox.Sandbox) dns.Config {
	var cfg store.Config
	var links []link
	c.o.Store.View(func(t store.Tables) {
		row, _ := t.Configs.Get(s.Owner)
		cfg, links = row.Value, linksOf(t, s.ID)
	})
	hostFile, err := c.readResolvConf()
	if err != nil {
		c.o.Logf("resolver of %s: %v", cfg.Name, err)
	}
	built := c.resolvConf(cfg, s, links, hostFile)
	view := dns.Config{Links: make(map[string]string), NDotsSet: built.NDotsSet}
	external := false
	for _, l := range links {
		if zone := c.zone(l.network.ID); zone != nil && !network.Predefined(l.network.Name) {
			view.Zones = append(view.Zones, zone)
		}
		external = external || !l.network.Internal
		for _, spec := range l.endpoint.Config.Links {
			if target, alias, ok := strings.Cut(spec, ":"); ok {
				view.Links[alias] = target
			} else {
				view.Links[spec] = spec
			}
		}
	}
	for _, server := range built.Upstreams {
		if server.Host && !external {
			continue // an internal network has no way out, not even by way of the host's servers
		}
		view.Upstreams = append(view.Upstreams, dns.Upstream{Addr: server.Addr, Dial: c.dialFrom(s, server.Host)})
	}
	return view
}

// dialFrom opens sockets in the namespace that a server is reached from: the
// host's for the host's own servers, the container's for those of --dns.
func (c *Controller) dialFrom(s sandbox.Sandbox, host bool) func(context.Context, string, string) (net.Conn, error) {
	ns := s.Netns()
	if host {
		ns = ""
	}
	return func(ctx context.Context, proto, address string) (conn net.Conn, err error) {
		err = c.o.Host.Inside(ns, func() error {
			var d net.Dialer
			conn, err = d.DialContext(ctx, proto, address)
			return err
		})
		return conn, err
	}
}

// announceNames makes names and files follow the rows of a container.
func (c *Controller) announceNames(owner linkspan.ID) {
	var live store.Row[sandbox.Sandbox]
	var links []link
	found := false
	c.o.Store.View(func(t store.Tables) {
		if live, found = sandboxOf(t, owner); found {
			links = linksOf(t, live.Value.ID)
		}
	})
	if !found {
		return
	}
	for _, l := range links {
		if zone := c.zone(l.network.ID); zone != nil {
			zone.Set(l.endpoint.ID, dns.Entry{Names: l.endpoint.DNSNames, Addrs: l.endpoint.Addrs()})
		}
	}
	c.mu.Lock()
	resolver := c.resolvers[live.Value.ID]
	c.mu.Unlock()
	if resolver != nil {
		resolver.Update(c.view(live.Value))
	}
}

// forgetNames takes the names of an endpoint out of its network's zone.
func (c *Controller) forgetNames(e endpoint.Endpoint) {
	if zone := c.zone(e.Network); zone != nil {
		zone.Delete(e.ID)
	}
}
