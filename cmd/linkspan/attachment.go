package main

import (
	"encoding/csv"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/network"
)

// attachment is one network of a container, as typed: either a name in
// --network with its own flags beside it, or all in one value,
// name=lab,ip=10.77.0.5,alias=www.
type attachment struct {
	name, ip, ip6, mac                    string
	aliases, links, linkLocal, driverOpts []string
	gwPriority                            int
}

// parseAttachment reads one value of --network.
func parseAttachment(text string) (attachment, error) {
	if !strings.Contains(text, "=") {
		name := strings.TrimSpace(text)
		if name == "" {
			return attachment{}, errors.New("invalid --network: the name is empty")
		}
		return attachment{name: name}, nil
	}
	fields, err := csv.NewReader(strings.NewReader(text)).Read()
	if err != nil {
		return attachment{}, fmt.Errorf("invalid --network %q: %w", text, err)
	}
	var a attachment
	for _, field := range fields {
		key, value, ok := strings.Cut(strings.TrimSpace(field), "=")
		if !ok || key == "" {
			return attachment{}, fmt.Errorf("invalid field %q in --network: want key=value", field)
		}
		if err := a.set(strings.ToLower(strings.TrimSpace(key)), strings.TrimSpace(value)); err != nil {
			return attachment{}, err
		}
	}
	if a.name == "" {
		return attachment{}, fmt.Errorf("invalid --network %q: name=NETWORK is missing", text)
	}
	return a, nil
}

func (a *attachment) set(key, value string) error {
	switch key {
	case "name":
		a.name = value
	case "alias":
		a.aliases = append(a.aliases, value)
	case "ip":
		a.ip = value
	case "ip6":
		a.ip6 = value
	case "mac-address":
		a.mac = value
	case "link-local-ip":
		a.linkLocal = append(a.linkLocal, value)
	case "link":
		a.links = append(a.links, value)
	case "driver-opt":
		a.driverOpts = append(a.driverOpts, value)
	case "gw-priority":
		priority, err := strconv.Atoi(value)
		if err != nil {
			return fmt.Errorf("invalid gw-priority %q in --network: want a whole number", value)
		}
		a.gwPriority = priority
	default:
		return fmt.Errorf("invalid field key %q in --network", key)
	}
	return nil
}

// plain says that nothing but the name was given.
func (a attachment) plain() bool {
	return a.ip == "" && a.ip6 == "" && a.mac == "" && a.gwPriority == 0 &&
		len(a.aliases)+len(a.links)+len(a.linkLocal)+len(a.driverOpts) == 0
}

// settings returns the endpoint part of a request.
func (a attachment) settings() (*network.EndpointSettings, error) {
	settings := &network.EndpointSettings{Aliases: a.aliases, Links: a.links, GwPriority: a.gwPriority}
	if len(a.driverOpts) > 0 {
		options, err := keyValues("driver-opt", a.driverOpts)
		if err != nil {
			return nil, err
		}
		settings.DriverOpts = options
	}
	if a.mac != "" {
		mac, err := net.ParseMAC(strings.TrimSpace(a.mac))
		if err != nil || len(mac) != 6 {
			return nil, fmt.Errorf("%q is not a valid mac address: want six bytes, such as 02:42:0a:4d:00:32", a.mac)
		}
		settings.MacAddress = network.HardwareAddr(mac)
	}
	if a.ip == "" && a.ip6 == "" && len(a.linkLocal) == 0 {
		return settings, nil
	}
	settings.IPAMConfig = &network.EndpointIPAMConfig{}
	var err error
	if settings.IPAMConfig.IPv4Address, err = familyAddress("IPv4", a.ip); err != nil {
		return nil, err
	}
	if settings.IPAMConfig.IPv6Address, err = familyAddress("IPv6", a.ip6); err != nil {
		return nil, err
	}
	for _, text := range a.linkLocal {
		addr, err := netip.ParseAddr(text)
		if err != nil {
			return nil, fmt.Errorf("invalid link-local address %q: want an IP address", text)
		}
		settings.IPAMConfig.LinkLocalIPs = append(settings.IPAMConfig.LinkLocalIPs, addr)
	}
	return settings, nil
}

// familyAddress reads an address of one family; "" is the zero address.
func familyAddress(family, text string) (netip.Addr, error) {
	if text == "" {
		return netip.Addr{}, nil
	}
	addr, err := netip.ParseAddr(text)
	if err != nil || addr.Is4() != (family == "IPv4") || addr.Is4In6() || addr.Zone() != "" {
		return netip.Addr{}, fmt.Errorf("invalid %s address: %s", family, text)
	}
	return addr, nil
}
