package controller

import (
	"slices"
	"sort"

	"github.com/moby/moby/api/types/container"
	apinetwork "github.com/moby/moby/api/types/network"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/drivers"
	"github.com/linkspan/linkspan/endpoint"
	"github.com/linkspan/linkspan/ipam"
	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/sandbox"
	"github.com/linkspan/linkspan/store"
)

// Settings returns the network part of a container's inspection: what was
// asked for, and for a live container what is in use.
func (c *Controller) Settings(owner linkspan.ID) container.NetworkSettings {
	settings := container.NetworkSettings{Ports: apinetwork.PortMap{}, Networks: make(map[string]*apinetwork.EndpointSettings)}
	c.o.Store.View(func(t store.Tables) {
		config, ok := t.Configs.Get(owner)
		if !ok {
			return
		}
		for _, want := range config.Value.Attachments {
			name, s := c.configuredSettings(t, config.Value, want)
			settings.Networks[name] = s
		}
		live, running := sandboxOf(t, owner)
		if implied, yes := c.impliedEndpoint(t, config.Value, live.Value); yes {
			settings.Networks[config.Value.Mode] = &apinetwork.EndpointSettings{NetworkID: string(implied.Network), EndpointID: string(implied.ID)}
		}
		if !running {
			return
		}
		settings.SandboxID = string(live.Value.ID)
		settings.SandboxKey = sandboxKey(live.Value)
		ports, _ := t.Ports.Get(live.Value.ID)
		links := linksOf(t, live.Value.ID)
		if slices.ContainsFunc(links, c.filters) {
			settings.Ports = portMap(config.Value.Exposed, ports.Value.Ports)
		}
		for _, l := range links {
			if s := settings.Networks[l.network.Name]; s != nil {
				operate(s, l.endpoint)
			}
		}
	})
	return settings
}

// filters tells whether what passes a link passes the host's firewall, which is
// what leads to a container's ports: beside the host, on a wire of the LAN, none
// is listed.
func (c *Controller) filters(l link) bool {
	driver, err := c.driver(l.network.Driver)
	_, filtered := driver.(drivers.Filtered)
	return err == nil && filtered
}

func sandboxKey(s sandbox.Sandbox) string {
	if s.OfHost {
		return "/proc/1/ns/net"
	}
	return kernel.Pin(s.Netns())
}

// configuredSettings returns what a user wants of an attachment, under the name
// that its network has.
func (c *Controller) configuredSettings(t store.Tables, cfg store.Config, want endpoint.Config) (string, *apinetwork.EndpointSettings) {
	s := &apinetwork.EndpointSettings{
		Links: want.Links, Aliases: want.Aliases, DriverOpts: want.Options, GwPriority: want.GwPriority,
	}
	if want.IPv4.IsValid() || want.IPv6.IsValid() || len(want.LinkLocal) > 0 {
		s.IPAMConfig = &apinetwork.EndpointIPAMConfig{IPv4Address: want.IPv4, IPv6Address: want.IPv6, LinkLocalIPs: want.LinkLocal}
	}
	s.MacAddress = hardwareAddr(want.MAC)
	name := want.Network
	if row, err := findAttached(t, want); err == nil {
		name, s.NetworkID = row.Value.Name, string(row.Value.ID)
		s.DNSNames = c.dnsNames(cfg, row.Value, want)
	}
	return name, s
}

// operate adds the values in use.
func operate(s *apinetwork.EndpointSettings, e endpoint.Endpoint) {
	s.EndpointID, s.NetworkID, s.DNSNames = string(e.ID), string(e.Network), e.DNSNames
	s.MacAddress = hardwareAddr(e.MAC)
	s.Gateway, s.IPv6Gateway = e.Gateway4, e.Gateway6
	if e.IPv4.IsValid() {
		s.IPAddress, s.IPPrefixLen = e.IPv4.Addr(), e.IPv4.Bits()
	}
	if e.IPv6.IsValid() {
		s.GlobalIPv6Address, s.GlobalIPv6PrefixLen = e.IPv6.Addr(), e.IPv6.Bits()
	}
}

func hardwareAddr(text string) apinetwork.HardwareAddr {
	var mac apinetwork.HardwareAddr
	if text != "" {
		mac.UnmarshalText([]byte(text)) //nolint:errcheck // it was parsed before it was stored
	}
	return mac
}

// PoolStatus is how full a pool is.
type PoolStatus struct {
	Pool             ipam.Pool
	InUse, Available uint64
}

// Status returns how full the pools of a network are.
func (c *Controller) Status(id linkspan.ID) []PoolStatus {
	var status []PoolStatus
	c.o.Store.View(func(t store.Tables) {
		row, ok := t.Networks.Get(id)
		if !ok {
			return
		}
		held := c.heldOn(t, row.Value)
		for _, pool := range row.Value.Pools {
			inUse, available := pool.Counts(held)
			status = append(status, PoolStatus{pool, inUse, available})
		}
	})
	return status
}

// heldOn returns who has addresses on a network, wherever they are.
func (c *Controller) heldOn(t store.Tables, n network.Network) ipam.Holders {
	if !n.Shared || c.o.Cluster == nil {
		return leasesOf(t, n, "")
	}
	held := make(ipam.Used)
	for _, e := range c.o.Cluster.Endpoints(n.ID) {
		for _, addr := range e.Addresses() {
			held[addr] = "container " + e.Name
		}
	}
	return held
}

// NetworkCommands returns the stored plan of a network: what was done.
func (c *Controller) NetworkCommands(ref string) (op.Plan, error) {
	row, err := c.networkRow(ref)
	return row.Plan, err
}

// ContainerCommands returns the stored plans of a live container, as one.
func (c *Controller) ContainerCommands(owner linkspan.ID) (op.Plan, error) {
	var plan op.Plan
	found := false
	c.o.Store.View(func(t store.Tables) {
		var r reservation
		if r, found = liveOf(t, owner); found {
			sort.Slice(r.endpoints, func(i, j int) bool { return r.endpoints[i].Value.Interface < r.endpoints[j].Value.Interface })
			plan = r.plan()
		}
	})
	if !found {
		return nil, linkspan.Errorf(linkspan.ErrNotFound, "container %s has no network namespace: it does not run", owner.Short())
	}
	return plan, nil
}

// HostCommands returns what was done to the machine as a whole.
func (c *Controller) HostCommands() (plan op.Plan) {
	c.o.Store.View(func(t store.Tables) {
		row, _ := t.Hosts.Get(store.HostID)
		plan = row.Plan
	})
	return plan
}
