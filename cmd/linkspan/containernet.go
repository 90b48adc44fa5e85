package main

import (
	"cmp"
	"encoding/csv"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/docker/go-connections/nat"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
)

// networking turns --network and the flags that go with it into the mode and
// the endpoints of a request. The plain flags (--ip, --network-alias, ...)
// belong to the first network. A single network with no settings of its own
// is named by the mode alone.
func (o *containerOptions) networking() (container.NetworkMode, *network.NetworkingConfig, error) {
	attachments, err := o.attachments()
	if err != nil {
		return "", nil, err
	}
	endpoints := map[string]*network.EndpointSettings{}
	for _, one := range attachments {
		if _, twice := endpoints[one.name]; twice {
			return "", nil, fmt.Errorf("network %q is specified multiple times", one.name)
		}
		settings, err := one.settings()
		if err != nil {
			return "", nil, err
		}
		endpoints[one.name] = settings
	}
	mode := container.NetworkMode(attachments[0].name)
	if len(attachments) == 1 && attachments[0].plain() && len(o.networks) > 0 {
		return mode, &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{}}, nil
	}
	return mode, &network.NetworkingConfig{EndpointsConfig: endpoints}, nil
}

func (o *containerOptions) attachments() ([]attachment, error) {
	var attachments []attachment
	for _, text := range o.networks {
		one, err := parseAttachment(text)
		if err != nil {
			return nil, err
		}
		attachments = append(attachments, one)
	}
	if len(attachments) == 0 {
		attachments = []attachment{{name: network.NetworkDefault}}
	}
	first := &attachments[0]
	for _, pair := range []struct {
		flag, typed string
		target      *string
	}{{"ip", o.ip, &first.ip}, {"ip6", o.ip6, &first.ip6}, {"mac-address", o.mac, &first.mac}} {
		if pair.typed != "" && *pair.target != "" {
			return nil, fmt.Errorf("conflicting options: cannot specify both --%s and %s=… in --network", pair.flag, pair.flag)
		}
		*pair.target = cmp.Or(*pair.target, pair.typed)
	}
	first.aliases = append(first.aliases, o.aliases...)
	first.links = append(first.links, o.links...)
	first.linkLocal = append(first.linkLocal, o.linkLocal...)
	if len(attachments) > 1 {
		for _, one := range attachments {
			if mode := container.NetworkMode(one.name); !mode.IsUserDefined() {
				return nil, errors.New("conflicting options: cannot attach both user-defined and non-user-defined network-modes")
			}
		}
	}
	return attachments, nil
}

// parsePorts reads --publish and --expose. Ranges are spelled out here, one
// entry a port, since the API has no way to write them.
func parsePorts(publish, expose []string) (network.PortSet, network.PortMap, error) {
	exposed, bindings := network.PortSet{}, network.PortMap{}
	for _, text := range publish {
		short, err := shortForm(text)
		if err != nil {
			return nil, nil, err
		}
		mappings, err := nat.ParsePortSpec(short)
		if err != nil {
			return nil, nil, fmt.Errorf("invalid --publish %q: %w", text, err)
		}
		for _, mapping := range mappings {
			port, binding, err := portBinding(mapping)
			if err != nil {
				return nil, nil, fmt.Errorf("invalid --publish %q: %w", text, err)
			}
			exposed[port] = struct{}{}
			bindings[port] = append(bindings[port], binding)
		}
	}
	for _, text := range expose {
		if strings.Contains(text, ":") {
			return nil, nil, fmt.Errorf("invalid port format for --expose: %s", text)
		}
		ports, err := network.ParsePortRange(text)
		if err != nil {
			return nil, nil, fmt.Errorf("invalid range format for --expose: %w", err)
		}
		for port := range ports.All() {
			exposed[port] = struct{}{}
		}
	}
	return exposed, bindings, nil
}

func portBinding(mapping nat.PortMapping) (network.Port, network.PortBinding, error) {
	port, err := network.ParsePort(string(mapping.Port))
	if err != nil {
		return network.Port{}, network.PortBinding{}, err
	}
	binding := network.PortBinding{HostPort: mapping.Binding.HostPort}
	if mapping.Binding.HostIP != "" {
		if binding.HostIP, err = netip.ParseAddr(mapping.Binding.HostIP); err != nil {
			return network.Port{}, network.PortBinding{}, err
		}
	}
	return port, binding, nil
}

// shortForm rewrites published=8080,target=80,protocol=tcp as 8080:80/tcp.
func shortForm(text string) (string, error) {
	if !strings.Contains(text, "=") {
		return text, nil
	}
	fields, err := csv.NewReader(strings.NewReader(text)).Read()
	if err != nil {
		return "", fmt.Errorf("invalid --publish %q: %w", text, err)
	}
	var published, target, hostIP string
	protocol := "tcp"
	for _, field := range fields {
		key, value, ok := strings.Cut(field, "=")
		if !ok {
			return "", fmt.Errorf("invalid field %q in --publish: want key=value", field)
		}
		switch strings.ToLower(key) {
		case "published":
			published = value
		case "target":
			if _, err := strconv.ParseUint(value, 10, 16); err != nil {
				return "", fmt.Errorf("invalid --publish %q: target is not a port", text)
			}
			target = value
		case "protocol":
			protocol = value
		case "host_ip", "host-ip":
			hostIP = value
		case "mode":
			if value != "host" && value != "ingress" {
				return "", fmt.Errorf("invalid --publish %q: mode is host or ingress", text)
			}
		default:
			return "", fmt.Errorf("invalid field key %q in --publish", key)
		}
	}
	if target == "" {
		return "", fmt.Errorf("invalid --publish %q: target=PORT is missing", text)
	}
	if strings.Contains(hostIP, ":") {
		hostIP = "[" + hostIP + "]"
	}
	switch {
	case hostIP != "":
		return hostIP + ":" + published + ":" + target + "/" + protocol, nil
	case published != "":
		return published + ":" + target + "/" + protocol, nil
	default:
		return target + "/" + protocol, nil
	}
}
