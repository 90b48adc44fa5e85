package controller

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"
	apinetwork "github.com/moby/moby/api/types/network"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/drivers"
	"github.com/linkspan/linkspan/endpoint"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/store"
)

// This is the one place where wishes that make no sense, alone or together, are
// refused, in the words that users of Docker know. Wishes that only fail because
// somebody else has what is wanted are the business of the verbs.

// connectionless are the words for a container that has no stack of its own.
const connectionless = "container sharing network namespace with another container or host cannot be connected to any other network"

// traitsOf returns the traits of the kind of network that a container's mode
// stands for.
func (c *Controller) traitsOf(mode string) drivers.Traits {
	kind := ""
	switch {
	case mode == "host":
		kind = "host"
	case mode == "none":
		kind = "null"
	case strings.HasPrefix(mode, "container:"):
		kind = "container"
	}
	if driver := c.o.Drivers[kind]; driver != nil {
		return driver.Traits()
	}
	return drivers.Traits{Addresses: true} // a network by name, which need not exist yet
}

// stackless tells whether a container of a mode is attached to no network.
func stackless(traits drivers.Traits) bool { return traits.Borrows != drivers.None || traits.Alone }

// userDefined tells whether a name is that of a user's network.
func userDefined(name string) bool {
	return !network.Predefined(name) && !strings.HasPrefix(name, "container:")
}

// CheckWishes refuses a container for what its client typed, before an image or
// a lender fills in the rest.
func (c *Controller) CheckWishes(ctr Container) error {
	borrows := c.traitsOf(modeOf(ctr.HostConfig.NetworkMode)).Borrows == drivers.Container
	if borrows && ctr.Config.Hostname != "" {
		return conflicting("hostname and the network mode")
	}
	if err := c.checkWishes(ctr); err != nil {
		return err
	}
	if borrows && len(ctr.Config.ExposedPorts) > 0 {
		return conflicting("port exposing and the container type network mode")
	}
	return nil
}

// checkWishes refuses a container for what it wants of networks.
func (c *Controller) checkWishes(ctr Container) error {
	if err := checkNames(ctr); err != nil {
		return err
	}
	hc, mode := ctr.HostConfig, modeOf(ctr.HostConfig.NetworkMode)
	if hc.UTSMode.IsHost() && ctr.Config.Hostname != "" {
		return conflicting("hostname and the UTS mode")
	}
	if mode == "container" {
		return errNoLender()
	}
	traits := c.traitsOf(mode)
	var err error
	switch traits.Borrows {
	case drivers.Host:
		err = checkOfHost(hc)
	case drivers.Container:
		err = checkBorrowed(hc, strings.TrimPrefix(mode, "container:"))
	case drivers.None:
	}
	if err != nil {
		return err
	}
	return checkEndpoints(mode, traits, ctr.Networking)
}

func conflicting(what string) error {
	return linkspan.Errorf(linkspan.ErrInvalid, "conflicting options: %s", what)
}

func checkOfHost(hc *container.HostConfig) error {
	if len(hc.Links) > 0 {
		return conflicting("host type networking can't be used with links. This would result in undefined behavior")
	}
	return nil
}

func checkBorrowed(hc *container.HostConfig, lender string) error {
	switch {
	case lender == "":
		return errNoLender()
	case len(hc.Links) > 0:
		return conflicting("container type network can't be used with links. This would result in undefined behavior")
	case len(hc.DNS) > 0:
		return conflicting("dns and the network mode")
	case len(hc.ExtraHosts) > 0:
		return conflicting("custom host-to-IP mapping and the network mode")
	case len(hc.PortBindings) > 0 || hc.PublishAllPorts:
		return conflicting("port publishing and the container type network mode")
	}
	return nil
}

// checkEndpoints refuses what a client wants of its endpoints on the network of
// the mode, and on others.
func checkEndpoints(mode string, traits drivers.Traits, n *apinetwork.NetworkingConfig) error {
	if n == nil {
		return nil
	}
	for _, typed := range slices.Sorted(maps.Keys(n.EndpointsConfig)) {
		name, settings := modeOf(container.NetworkMode(typed)), n.EndpointsConfig[typed]
		if settings == nil {
			return linkspan.Errorf(linkspan.ErrInvalid, "invalid config for network %s: EndpointsConfig is nil", typed)
		}
		if traits.Borrows != drivers.None && len(settings.MacAddress) > 0 {
			return conflicting("mac-address and the network mode")
		}
		if _, err := endpointConfig(name, settings); err != nil {
			return invalidFor(name, err)
		}
		switch {
		case name == mode:
		case traits.Borrows != drivers.None:
			return linkspan.Errorf(linkspan.ErrInvalid, connectionless)
		case traits.Alone || name == "none":
			return errAlone()
		case name == "host", strings.HasPrefix(name, "container:"):
			return conflicting("cannot attach both user-defined and non-user-defined network-modes")
		}
	}
	return nil
}

func errNoLender() error {
	return linkspan.Errorf(linkspan.ErrInvalid, "invalid network mode: invalid container format container:<name|id>")
}

func errAlone() error {
	return linkspan.Errorf(linkspan.ErrInvalid, "container cannot be connected to multiple networks with one of the networks in private (none) mode")
}

func invalidFor(name string, err error) error {
	return linkspan.Errorf(linkspan.ErrInvalid, "invalid config for network %s: %w", name, err)
}

// checkConnect refuses a connection that the container's mode or the network's
// kind rules out.
func (c *Controller) checkConnect(cfg store.Config, name string) error {
	own, other := c.traitsOf(cfg.Mode), c.traitsOf(name)
	switch {
	case own.Borrows != drivers.None && cfg.Mode != name:
		return linkspan.Errorf(linkspan.ErrInvalid, connectionless)
	case other.Borrows == drivers.Host:
		return linkspan.Errorf(linkspan.ErrInvalid, "cannot connect container to host network - container must be created in host network mode")
	case own.Alone, other.Alone:
		return errAlone()
	}
	return nil
}

// checkDisconnect refuses to take a container off the stack that it borrows.
func (c *Controller) checkDisconnect(cfg store.Config, name string) error {
	if c.traitsOf(name).Borrows == drivers.Host && cfg.Mode == name {
		return linkspan.Errorf(linkspan.ErrInvalid, "cannot disconnect container from host network - container was created in host network mode")
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
	if ipam := s.IPAMConfig; ipam != nil {
		want.IPv4, want.IPv6, want.LinkLocal = ipam.IPv4Address, ipam.IPv6Address, ipam.LinkLocalIPs
	}
	var wrong []string
	if !userDefined(name) {
		if want.IPv4.IsValid() || want.IPv6.IsValid() {
			wrong = append(wrong, "user-specified IP address is supported on user-defined networks only")
		}
		if len(want.Aliases) > 0 {
			wrong = append(wrong, "network-scoped aliases are only supported for user-defined networks")
		}
	}
	wrong = append(wrong, addressProblems(want)...)
	if len(s.MacAddress) > 0 {
		mac, err := endpoint.ParseMAC(s.MacAddress.String())
		if err != nil {
			wrong = append(wrong, err.Error())
		}
		want.MAC = mac
	}
	wrong = append(wrong, optionProblems(want.Options)...)
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
		switch {
		case !a.IsValid() || a.IsUnspecified() || a.Is4In6() || a.Zone() != "":
			wrong = append(wrong, "invalid link-local IP address: "+a.String())
		case !a.IsLinkLocalUnicast():
			wrong = append(wrong, "invalid link local IP address: "+a.String())
		}
	}
	return wrong
}

func optionProblems(options map[string]string) []string {
	var wrong []string
	if ifname, given := options[endpoint.OptionInterface]; given {
		if err := endpoint.ValidateInterface(ifname); err != nil {
			wrong = append(wrong, err.Error())
		}
	}
	if _, err := endpoint.ParseSysctls(options[endpoint.OptionSysctls]); err != nil {
		wrong = append(wrong, err.Error())
	}
	return wrong
}

// checkSubnets refuses a static address that the network, which exists, will
// never give.
func checkSubnets(want endpoint.Config, n network.Network) error {
	var outside []string
	for _, addr := range []netip.Addr{want.IPv4, want.IPv6} {
		if !addr.IsValid() {
			continue
		}
		if _, inside := n.Pool(addr); !inside {
			outside = append(outside, outsideOf(n, addr))
		}
	}
	if len(outside) == 0 {
		return nil
	}
	return linkspan.Errorf(linkspan.ErrInvalid, "invalid endpoint settings:\n%s", strings.Join(outside, "\n"))
}

func outsideOf(n network.Network, addr netip.Addr) string {
	return fmt.Sprintf("no configured subnet contains IP address %s: network %s has %s (see: linkspan network inspect %s)", addr, n.Name, subnets(n), n.Name)
}
