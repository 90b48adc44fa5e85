package api

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	apinetwork "github.com/moby/moby/api/types/network"
)

// What follows are the shapes that older clients expect: today's types, and
// beside them the fields that were dropped since. A field of the outer struct
// hides one of the same name in the inner.

// oldInspect is what API versions before 1.52 have.
type oldInspect struct {
	container.InspectResponse
	Config          *oldConfig
	NetworkSettings *oldNetworkSettings
	Linkspan        ownPart
}

type oldConfig struct {
	*container.Config
	MacAddress string `json:",omitempty"`
}

// oldNetworkSettings repeats the endpoint on the network bridge.
type oldNetworkSettings struct {
	*container.NetworkSettings
	Bridge                 string
	HairpinMode            bool
	LinkLocalIPv6Address   string
	LinkLocalIPv6PrefixLen int
	SecondaryIPAddresses   []string
	SecondaryIPv6Addresses []string
	EndpointID             string
	Gateway                netip.Addr
	GlobalIPv6Address      netip.Addr
	GlobalIPv6PrefixLen    int
	IPAddress              netip.Addr
	IPPrefixLen            int
	IPv6Gateway            netip.Addr
	MacAddress             apinetwork.HardwareAddr
}

func legacyInspect(inspect container.InspectResponse, v version) oldInspect {
	settings := &oldNetworkSettings{NetworkSettings: inspect.NetworkSettings}
	if e := inspect.NetworkSettings.Networks["bridge"]; e != nil {
		settings.EndpointID, settings.MacAddress = e.EndpointID, e.MacAddress
		settings.Gateway, settings.IPAddress, settings.IPPrefixLen = e.Gateway, e.IPAddress, e.IPPrefixLen
		settings.IPv6Gateway, settings.GlobalIPv6Address, settings.GlobalIPv6PrefixLen = e.IPv6Gateway, e.GlobalIPv6Address, e.GlobalIPv6PrefixLen
	}
	old := oldInspect{InspectResponse: inspect, NetworkSettings: settings, Config: &oldConfig{Config: inspect.Config}}
	if e := inspect.NetworkSettings.Networks[inspect.HostConfig.NetworkMode.NetworkName()]; e != nil {
		old.Config.MacAddress = e.MacAddress.String()
	}
	if v < 45 {
		settings.NetworkSettings = withShortID(inspect)
	}
	return old
}

// withShortID lists the container's short ID among the aliases on networks of
// users, as was done before 1.45.
func withShortID(inspect container.InspectResponse) *container.NetworkSettings {
	settings := *inspect.NetworkSettings
	settings.Networks = maps.Clone(settings.Networks)
	for name, e := range settings.Networks {
		mode := container.NetworkMode(name)
		short := inspect.ID[:min(12, len(inspect.ID))]
		if e == nil || !mode.IsUserDefined() || slices.Contains(e.Aliases, short) {
			continue
		}
		copied := e.Copy()
		copied.Aliases = append(copied.Aliases, short)
		settings.Networks[name] = copied
	}
	return &settings
}

// oldEvent is what API versions before 1.52 have.
type oldEvent struct {
	Status string `json:"status,omitempty"`
	ID     string `json:"id,omitempty"`
	From   string `json:"from,omitempty"`
	events.Message
}

func legacyEvent(m events.Message) oldEvent {
	old := oldEvent{Message: m}
	switch m.Type {
	case events.ContainerEventType:
		old.Status, old.ID, old.From = string(m.Action), m.Actor.ID, m.Actor.Attributes["image"]
	case events.ImageEventType:
		old.Status, old.ID = string(m.Action), m.Actor.ID
	}
	return old
}
