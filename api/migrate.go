package api

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"
	apinetwork "github.com/moby/moby/api/types/network"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/endpoint"
	"github.com/linkspan/linkspan/runtime"
)

// What old clients say of a container as a whole is moved to its endpoint on the
// network that the container's mode names.

// ofMode returns the settings of that endpoint, which it makes if there are none.
func ofMode(n *apinetwork.NetworkingConfig, mode container.NetworkMode) *apinetwork.EndpointSettings {
	if n.EndpointsConfig == nil {
		n.EndpointsConfig = make(map[string]*apinetwork.EndpointSettings)
	}
	settings := n.EndpointsConfig[string(mode)]
	if settings == nil {
		settings = &apinetwork.EndpointSettings{}
		n.EndpointsConfig[string(mode)] = settings
	}
	return settings
}

// migrateSysctls moves the parameters of the interface eth0, and says so. Since
// 1.48 a client must know where they belong.
func migrateSysctls(q runtime.Request, v version) (warnings []string, err error) {
	mode := q.HostConfig.NetworkMode
	if mode.IsHost() || mode.IsContainer() {
		return nil, nil
	}
	var moved []string
	for _, key := range slices.Sorted(maps.Keys(q.HostConfig.Sysctls)) {
		parts := strings.SplitN(key, ".", 5)
		if len(parts) < 5 || parts[0] != "net" || !strings.HasPrefix(parts[3], "eth") {
			continue
		}
		switch {
		case v >= 48:
			return nil, linkspan.Errorf(linkspan.ErrInvalid, "interface specific sysctl setting %q must be supplied using driver option '%s'", key, endpoint.OptionSysctls)
		case parts[3] != "eth0":
			return nil, linkspan.Errorf(linkspan.ErrInvalid, "unable to determine network endpoint for sysctl %s, use driver option '%s' to set per-interface sysctls", key, endpoint.OptionSysctls)
		}
		parts[3] = "IFNAME"
		assignment := strings.Join(parts, ".") + "=" + q.HostConfig.Sysctls[key]
		delete(q.HostConfig.Sysctls, key)
		moved = append(moved, assignment)
		warnings = append(warnings, fmt.Sprintf("Migrated sysctl %q to DriverOpts{%q:%q}.", key, endpoint.OptionSysctls, assignment))
	}
	if len(moved) == 0 {
		return nil, nil
	}
	settings := ofMode(q.Networking, mode)
	if settings.DriverOpts == nil {
		settings.DriverOpts = make(map[string]string)
	}
	if had := settings.DriverOpts[endpoint.OptionSysctls]; had != "" {
		moved = append([]string{had}, moved...)
	}
	settings.DriverOpts[endpoint.OptionSysctls] = strings.Join(moved, ",")
	return warnings, nil
}

// migrateMAC moves the container-wide MAC address of old clients to the
// endpoint on the network that the container's mode names.
func migrateMAC(text string, mode container.NetworkMode, n *apinetwork.NetworkingConfig) error {
	var mac apinetwork.HardwareAddr
	if err := mac.UnmarshalText([]byte(text)); err != nil {
		return linkspan.Errorf(linkspan.ErrInvalid, "invalid MAC address: %w", err)
	}
	if mode.IsContainer() || mode.IsHost() {
		return linkspan.Errorf(linkspan.ErrInvalid, "conflicting options: mac-address and the network mode")
	}
	settings := ofMode(n, mode)
	if len(settings.MacAddress) > 0 && settings.MacAddress.String() != mac.String() {
		return linkspan.Errorf(linkspan.ErrInvalid, "the container-wide MAC address must match the endpoint-specific MAC address for the main network, or be left empty")
	}
	settings.MacAddress = mac
	return nil
}
