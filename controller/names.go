package controller

import (
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

// named tells whether containers on a network have names there, and so a
// resolver. On the default bridge that is the daemon's flag --bridge-names: off,
// as in Docker.
func (c *Controller) named(n network.Network) bool {
	return !network.Predefined(n.Name) && !ofGateway(n) || c.o.Defaults.BridgeNames && n.Driver == "bridge" && !ofGateway(n)
}

// dnsNames are the names of an endpoint on a network, the one for PTR first.
func (c *Controller) dnsNames(cfg store.Config, n network.Network, want endpoint.Config) []string {
	if !c.named(n) {
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

// resolvConf builds the sandbox's /etc/resolv.conf and the list of servers that
// its resolver forwards to.
func (c *Controller) resolvConf(cfg store.Config, s sandbox.Sandbox, links []link, host nameServers) resolvconf.Result {
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
	return resolvconf.Build(resolvconf.Parse(host.text), resolvconf.Options{
		Mode: mode, Path: host.path, IPv6: ipv6,
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
	host, err := c.readServers()
	if err != nil {
		c.o.Logf("resolver of %s: %v", cfg.Name, err)
	}
	built := c.resolvConf(cfg, s, links, host)
	view := dns.Config{Links: make(map[string]string), NDotsSet: built.NDotsSet}
	external := false
	for _, l := range links {
		if zone := c.zone(l.network.ID); zone != nil && c.named(l.network) {
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
		from := s.Netns()
		if server.Host {
			from = ""
		}
		view.Upstreams = append(view.Upstreams, dns.Upstream{Addr: server.Addr, Dial: c.dialFrom(from)})
	}
	return view
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
