package controller

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/dns"
	"github.com/linkspan/linkspan/dns/resolvconf"
	"github.com/linkspan/linkspan/network"
)

// zone returns the names of a network.
func (c *Controller) zone(id linkspan.ID) *dns.Zone {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.zones[id]
}

// openZone makes the zone of a network, if it has none yet, and the records that
// the network's options give it what they say now.
func (c *Controller) openZone(n network.Network) {
	records, err := dns.ParseRecords(n.Options[network.OptionRecords])
	c.note("reading the records of network "+n.Name, err) // they were checked when the network was made
	c.mu.Lock()
	zone := c.zones[n.ID]
	if zone == nil {
		zone = dns.NewZone(n.Name)
		c.zones[n.ID] = zone
	}
	c.mu.Unlock()
	zone.SetRecords(records)
	c.updateHostResolver()
}

func (c *Controller) closeZone(id linkspan.ID) {
	c.mu.Lock()
	delete(c.zones, id)
	c.mu.Unlock()
	c.updateHostResolver()
}

// hostResolver is where the resolver for the host itself is kept, beside those
// of sandboxes; no sandbox has that ID.
const hostResolver = linkspan.ID("host")

// answerHost answers at the address that the daemon was given for the host
// itself: there the names of all networks are known.
func (c *Controller) answerHost() error {
	at := c.o.Defaults.DNSListen
	if !at.IsValid() {
		return nil
	}
	var udp *net.UDPConn
	var tcp net.Listener
	err := c.o.Host.Inside("", func() (err error) {
		if udp, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(at)); err != nil {
			return err
		}
		if tcp, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at)); err != nil {
			return errors.Join(err, udp.Close())
		}
		return nil
	})
	if err != nil {
		return linkspan.Errorf(linkspan.ErrUnavailable, "answering the host's questions at %s: %w (see: ss -lntup 'sport = %d')", at, err, at.Port())
	}
	resolver, err := c.names.Start(udp, tcp, c.hostView())
	if err != nil {
		return fmt.Errorf("answering the host's questions at %s: %w", at, err)
	}
	c.mu.Lock()
	c.resolvers[hostResolver] = resolver
	c.mu.Unlock()
	return nil
}

func (c *Controller) updateHostResolver() {
	c.mu.Lock()
	resolver := c.resolvers[hostResolver]
	c.mu.Unlock()
	if resolver != nil {
		resolver.Update(c.hostView())
	}
}

// hostView is what the host sees: all networks whose containers have names,
// oldest first, and beyond them the host's own servers.
func (c *Controller) hostView() dns.Config {
	var view dns.Config
	for _, n := range c.Networks() {
		if zone := c.zone(n.ID); zone != nil && c.named(n) {
			view.Zones = append(view.Zones, zone)
		}
	}
	host, err := c.readServers()
	c.note("reading the host's name servers", err)
	for _, server := range resolvconf.Parse(host.text).Nameservers {
		if server == c.o.Defaults.DNSListen.Addr() {
			continue // that is us
		}
		view.Upstreams = append(view.Upstreams, dns.Upstream{Addr: netip.AddrPortFrom(server, 53), Dial: c.dialFrom("")})
	}
	return view
}

// dialFrom opens sockets in a namespace, "" for the host's: which it is decides
// where a question leaves from.
func (c *Controller) dialFrom(ns string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, proto, address string) (conn net.Conn, err error) {
		err = c.o.Host.Inside(ns, func() error {
			var d net.Dialer
			conn, err = d.DialContext(ctx, proto, address)
			return err
		})
		return conn, err
	}
}
