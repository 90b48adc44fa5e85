package remote

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/linkspan/linkspan/endpoint"
	"github.com/linkspan/linkspan/plugin/wire"
)

// checkEndpoint refuses an answer to CreateEndpoint that changes what the engine
// had given, or that cannot be parsed.
func checkEndpoint(given, answer *wire.Interface) error {
	if answer == nil {
		return nil
	}
	if given == nil {
		given = &wire.Interface{}
	}
	if answer.MacAddress != "" {
		mac, err := net.ParseMAC(answer.MacAddress)
		if err != nil {
			return fmt.Errorf("%w: MacAddress %q: %w", errUnparsable, answer.MacAddress, err)
		}
		if given.MacAddress != "" && mac.String() != given.MacAddress {
			return fmt.Errorf("driver modified interface MAC address: endpoint interface MAC address present (%s). Cannot be modified with %s.", given.MacAddress, mac) //nolint:staticcheck // Docker's words
		}
	}
	for _, field := range []struct {
		name, given, answer string
		six                 bool
	}{
		{"Address", given.Address, answer.Address, false},
		{"AddressIPv6", given.AddressIPv6, answer.AddressIPv6, true},
	} {
		if field.answer == "" {
			continue
		}
		prefix, err := netip.ParsePrefix(field.answer)
		if err != nil || prefix.Addr().Is4() == field.six || prefix.Addr().IsUnspecified() {
			return fmt.Errorf("%w: %s %q is no address with a prefix length", errUnparsable, field.name, field.answer)
		}
		if field.given != "" && field.given != prefix.String() {
			return fmt.Errorf("driver modified interface address: endpoint interface IP present (%s). Cannot be modified with (%s).", field.given, prefix) //nolint:staticcheck // Docker's words
		}
	}
	return nil
}

// wiring is the answer to Join, as types.
type wiring struct {
	source, prefix     string // of the link; empty: there is none
	gateway4, gateway6 netip.Addr
	connected          []netip.Prefix
	routes             []route
	inward             bool // a way out is to be had elsewhere
}

type route struct {
	to  netip.Prefix
	via netip.Addr
}

func readJoin(answer *wire.JoinResponse) (wiring, error) {
	var w wiring
	if name := answer.InterfaceName; name != nil && name.SrcName != "" {
		w.source, w.prefix = name.SrcName, name.DstPrefix
		if w.prefix == "" {
			w.prefix = "eth"
		}
		for _, text := range []string{w.source, w.prefix + "0"} {
			if err := endpoint.ValidateInterface(text); err != nil {
				return w, fmt.Errorf("%w: InterfaceName: %w", errUnparsable, err)
			}
		}
	}
	var err error
	if w.gateway4, err = gateway("Gateway", answer.Gateway, false); err != nil {
		return w, err
	}
	if w.gateway6, err = gateway("GatewayIPv6", answer.GatewayIPv6, true); err != nil {
		return w, err
	}
	outward := w.gateway4.IsValid() || answer.DisableGatewayService
	for _, r := range answer.StaticRoutes {
		to, err := netip.ParsePrefix(r.Destination)
		if err != nil {
			return w, fmt.Errorf("%w: StaticRoutes: failed to parse destination %q", errUnparsable, r.Destination)
		}
		to = to.Masked()
		outward = outward || to == netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if r.RouteType == wire.RouteConnected {
			w.connected = append(w.connected, to)
			continue
		}
		via, err := netip.ParseAddr(r.NextHop)
		if err != nil || via.Is4() != to.Addr().Is4() {
			return w, fmt.Errorf("%w: StaticRoutes: failed to parse nexthop IP %s", errUnparsable, r.NextHop)
		}
		w.routes = append(w.routes, route{to, via})
	}
	if w.source == "" && (len(w.routes) > 0 || len(w.connected) > 0 || w.gateway4.IsValid() || w.gateway6.IsValid()) {
		return w, fmt.Errorf("%w: it gives routes or a gateway, but no interface for them", errUnparsable)
	}
	w.inward = !outward
	return w, nil
}

func gateway(field, text string, six bool) (netip.Addr, error) {
	if text == "" {
		return netip.Addr{}, nil
	}
	addr, err := netip.ParseAddr(text)
	if err != nil || addr.Unmap().Is4() == six || addr.Zone() != "" {
		return addr, fmt.Errorf("%w: unable to parse %s %q", errUnparsable, field, text)
	}
	return addr.Unmap(), nil
}
