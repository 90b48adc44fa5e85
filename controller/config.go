package controller

import (
	"net/netip"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	apinetwork "github.com/moby/moby/api/types/network"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/endpoint"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/store"
)

// Container is what the controller needs to know of a container: its identity
// and the client's wishes, in the types of the Docker Engine API.
type Container struct {
	ID         linkspan.ID
	Name       string // without slash
	Created    time.Time
	Config     *container.Config
	HostConfig *container.HostConfig
	Networking *apinetwork.NetworkingConfig
}

// Reserve records what a new container wants of its networks. Networks need
// not exist yet; what is wrong in itself is refused here.
func (c *Controller) Reserve(ctr Container) error {
	cfg, err := configOf(ctr)
	if err != nil {
		return err
	}
	return c.o.Store.Update(func(t store.Tables) error {
		if cfg.Links, err = resolveLinks(t, ctr, cfg); err != nil {
			return err
		}
		for i := range cfg.Attachments {
			if row, err := findNetwork(t, cfg.Attachments[i].Network); err == nil {
				cfg.Attachments[i].NetworkID = row.Value.ID
			}
		}
		t.Configs.Put(cfg.Owner, store.Row[store.Config]{Value: cfg, Phase: store.Ready})
		return nil
	})
}

// Rename follows the new name of a container: in names from now on, and in
// refusals.
func (c *Controller) Rename(owner linkspan.ID, name string) error {
	err := c.o.Store.Update(func(t store.Tables) error {
		row, ok := t.Configs.Get(owner)
		if !ok {
			return noContainer(owner)
		}
		row.Value.Name = name
		t.Configs.Put(owner, row)
		for id, ep := range t.By.EndpointsByOwner.All(owner) {
			n, _ := t.Networks.Get(ep.Value.Network)
			ep.Value.Name = name
			ep.Value.DNSNames = c.dnsNames(row.Value, n.Value, ep.Value.Config)
			t.Endpoints.Put(id, ep)
		}
		return nil
	})
	if err == nil {
		c.announceNames(owner)
		c.refreshLinkers(owner)
	}
	return err
}

// Forget drops what a removed container wanted: its static addresses are free.
func (c *Controller) Forget(owner linkspan.ID) error {
	return c.o.Store.Update(func(t store.Tables) error {
		t.Configs.Delete(owner)
		return nil
	})
}

func noContainer(id linkspan.ID) error {
	return linkspan.Errorf(linkspan.ErrNotFound, "No such container: %s", id)
}

// configOf reads the client's wishes. It is pure.
func configOf(ctr Container) (store.Config, error) {
	hc := ctr.HostConfig
	cfg := store.Config{
		Owner: ctr.ID, Name: ctr.Name, Created: ctr.Created, Volatile: hc.AutoRemove,
		Mode: modeOf(hc.NetworkMode), Hostname: ctr.Config.Hostname, Domainname: ctr.Config.Domainname,
		Search: hc.DNSSearch, Options: hc.DNSOptions, ExtraHosts: hc.ExtraHosts,
	}
	for _, server := range hc.DNS {
		cfg.Servers = append(cfg.Servers, server.String())
	}
	cfg.NoIPv6 = hc.Sysctls["net.ipv6.conf.all.disable_ipv6"] == "1" || hc.Sysctls["net.ipv6.conf.lo.disable_ipv6"] == "1"
	if err := checkNames(ctr); err != nil {
		return cfg, err
	}
	if err := checkMode(ctr, cfg.Mode); err != nil {
		return cfg, err
	}
	var err error
	if cfg.Ports, cfg.Exposed, err = wishesOf(ctr); err != nil {
		return cfg, err
	}
	if cfg.Mode == "host" || cfg.Mode == "none" || strings.HasPrefix(cfg.Mode, "container:") || ctr.Config.NetworkDisabled {
		return cfg, nil
	}
	wanted := make(map[string]*apinetwork.EndpointSettings)
	if ctr.Networking != nil {
		for name, settings := range ctr.Networking.EndpointsConfig {
			wanted[modeOf(container.NetworkMode(name))] = settings
		}
	}
	if _, given := wanted[cfg.Mode]; !given {
		wanted[cfg.Mode] = nil
	}
	for _, name := range attachmentOrder(cfg.Mode, wanted) {
		want, err := endpointConfig(name, wanted[name])
		if err != nil {
			return cfg, linkspan.Errorf(linkspan.ErrInvalid, "invalid config for network %s: %w", name, err)
		}
		cfg.Attachments = append(cfg.Attachments, want)
	}
	return cfg, nil
}

func modeOf(mode container.NetworkMode) string {
	if mode == "" || mode.IsDefault() {
		return "bridge"
	}
	return string(mode)
}

// checkMode refuses combinations that make no sense, in Docker's words.
func checkMode(ctr Container, mode string) error {
	hc := ctr.HostConfig
	conflict := func(what string) error {
		return linkspan.Errorf(linkspan.ErrInvalid, "conflicting options: %s", what)
	}
	donor, borrows := strings.CutPrefix(mode, "container:")
	switch {
	case mode == "host" && len(hc.Links) > 0:
		return conflict("host type networking can't be used with links. This would result in undefined behavior")
	case !borrows:
		return nil
	case donor == "":
		return linkspan.Errorf(linkspan.ErrInvalid, "invalid network mode: invalid container format container:<name|id>")
	case len(hc.Links) > 0:
		return conflict("container type network can't be used with links. This would result in undefined behavior")
	case len(hc.DNS) > 0:
		return conflict("dns and the network mode")
	case len(hc.ExtraHosts) > 0:
		return conflict("custom host-to-IP mapping and the network mode")
	case len(hc.PortBindings) > 0 || hc.PublishAllPorts:
		return conflict("port publishing and the container type network mode")
	case len(ctr.Config.ExposedPorts) > 0:
		return conflict("port exposing and the container type network mode")
	}
	return nil
}

// endpointConfig reads what a client wants of one attachment, and lists all
// that is wrong with it.
func endpointConfig(name string, s *apinetwork.EndpointSettings) (endpoint.Config, error) {
	want := endpoint.Config{Network: name}
	if s == nil {
		return want, nil
	}
	want.Aliases, want.Links, want.Options, want.GwPriority = s.Aliases, s.Links, s.DriverOpts, s.GwPriority
	var wrong []string
	if ipam := s.IPAMConfig; ipam != nil {
		want.IPv4, want.IPv6, want.LinkLocal = ipam.IPv4Address, ipam.IPv6Address, ipam.LinkLocalIPs
		wrong = append(wrong, addressProblems(want)...)
	}
	if network.Predefined(name) {
		if want.IPv4.IsValid() || want.IPv6.IsValid() {
			wrong = append(wrong, "user-specified IP address is supported on user-defined networks only")
		}
		if len(want.Aliases) > 0 {
			wrong = append(wrong, "network-scoped aliases are only supported for user-defined networks")
		}
	}
	if len(s.MacAddress) > 0 {
		mac, err := endpoint.ParseMAC(s.MacAddress.String())
		if err != nil {
			wrong = append(wrong, err.Error())
		}
		want.MAC = mac
	}
	if ifname, given := want.Options[endpoint.OptionInterface]; given {
		if err := endpoint.ValidateInterface(ifname); err != nil {
			wrong = append(wrong, err.Error())
		}
	}
	if len(wrong) > 0 {
		return want, linkspan.Errorf(linkspan.ErrInvalid, "invalid endpoint settings:\n%s", strings.Join(wrong, "\n"))
	}
	return want, nil
}

func addressProblems(want endpoint.Config) []string {
	var wrong []string
	if a := want.IPv4; a.IsValid() && (!a.Is4() || a.IsUnspecified()) {
		wrong = append(wrong, "invalid IPv4 address: "+a.String())
	}
	if a := want.IPv6; a.IsValid() && (!a.Is6() || a.Is4In6() || a.IsUnspecified() || a.Zone() != "") {
		wrong = append(wrong, "invalid IPv6 address: "+a.String())
	}
	for _, a := range want.LinkLocal {
		if !linkLocal(a) {
			wrong = append(wrong, "invalid link-local IP address: "+a.String())
		}
	}
	return wrong
}

func linkLocal(a netip.Addr) bool { return a.IsValid() && a.IsLinkLocalUnicast() && !a.Is4In6() }
