package bridge

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/endpoint"
	"github.com/linkspan/linkspan/firewall"
	"github.com/linkspan/linkspan/network"
)

// Names of the options of docker network create -o that this driver knows.
// Others are ignored, as Docker does.
const (
	OptionName       = "com.docker.network.bridge.name"
	OptionMasquerade = "com.docker.network.bridge.enable_ip_masquerade"
	OptionICC        = "com.docker.network.bridge.enable_icc"
	OptionHostIPv4   = "com.docker.network.host_ipv4"
	OptionHostIPv6   = "com.docker.network.host_ipv6"
	OptionInhibit    = "com.docker.network.bridge.inhibit_ipv4"
	OptionBinding    = "com.docker.network.bridge.host_binding_ipv4"
	OptionDefault    = "com.docker.network.bridge.default_bridge"
	OptionMode4      = "com.docker.network.bridge.gateway_mode_ipv4"
	OptionMode6      = "com.docker.network.bridge.gateway_mode_ipv6"
	OptionTrusted    = "com.docker.network.bridge.trusted_host_interfaces"
)

// isolated is the gateway mode of a family in which the bridge has no address.
// To the firewall such a network is an internal one.
const isolated firewall.Mode = "isolated"

// options are a network's options as types.
type options struct {
	name       string // of the bridge
	mtu        int    // bytes; 0: the kernel's default
	masquerade bool
	icc        bool       // whether containers of the network may talk to each other
	inhibit    bool       // no IPv4 address on the bridge
	hostIPv4   netip.Addr // source address instead of masquerading; zero: none
	hostIPv6   netip.Addr
	mode4      firewall.Mode
	mode6      firewall.Mode
	trusted    []string // links of the host from which containers' published ports are reached directly
}

// parse turns what the user typed into types. It is the only place that reads
// the options.
func parse(n network.Network) (options, error) {
	r := reader{options: n.Options}
	o := options{
		name:       r.text(OptionName, "br-"+n.ID.Short()),
		mtu:        r.mtu(),
		masquerade: r.flag(OptionMasquerade, true),
		icc:        r.flag(OptionICC, true),
		inhibit:    r.flag(OptionInhibit, false),
		hostIPv4:   r.addr(OptionHostIPv4),
		hostIPv6:   r.addr(OptionHostIPv6),
		mode4:      r.mode(OptionMode4),
		mode6:      r.mode(OptionMode6),
		trusted:    r.links(OptionTrusted),
	}
	r.addr(OptionBinding)
	r.flag("linkspan.port_security", true) // the controller's to act upon
	if r.err == nil && !n.Internal && (o.mode4 == isolated || o.mode6 == isolated) {
		r.err = errors.New("gateway mode 'isolated' can only be used for an internal network")
	}
	return o, r.err
}

// reader reads options one by one and remembers the first mistake.
type reader struct {
	options map[string]string
	err     error
}

func (r *reader) fail(label, value string, cause error) {
	if r.err == nil {
		r.err = linkspan.Errorf(linkspan.ErrInvalid, "failed to parse %s value: %s (%w)", label, value, cause)
	}
}

func (r *reader) text(label, fallback string) string {
	if value := r.options[label]; value != "" {
		return value
	}
	return fallback
}

func (r *reader) flag(label string, fallback bool) bool {
	value, given := r.options[label]
	if !given {
		return fallback
	}
	on, err := strconv.ParseBool(value)
	if err != nil {
		r.fail(label, value, err)
	}
	return on
}

func (r *reader) addr(label string) netip.Addr {
	value, given := r.options[label]
	if !given || value == "" {
		return netip.Addr{}
	}
	addr, err := netip.ParseAddr(value)
	if err != nil {
		r.fail(label, value, errors.New("nil ip")) // Docker's words
	}
	return addr
}

// links reads names of links with colons between them.
func (r *reader) links(label string) []string {
	value := r.options[label]
	if value == "" {
		return nil
	}
	names := strings.Split(value, ":")
	for _, name := range names {
		if err := endpoint.ValidateInterface(name); err != nil {
			r.fail(label, value, err)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func (r *reader) mode(label string) firewall.Mode {
	switch mode := firewall.Mode(r.options[label]); mode {
	case "nat", firewall.NAT:
		return firewall.NAT
	case firewall.Unprotected, firewall.Routed, isolated:
		return mode
	default:
		r.fail(label, string(mode), fmt.Errorf("unknown gateway mode %s", mode))
	}
	return firewall.NAT
}

// isolated tells whether the bridge keeps out of the family of a subnet.
func (o options) isolated(ipv6 bool) bool {
	if ipv6 {
		return o.mode6 == isolated
	}
	return o.mode4 == isolated
}

func (r *reader) mtu() int {
	value, given := r.options[network.OptionMTU]
	if !given || value == "" {
		return 0
	}
	mtu, err := strconv.Atoi(value)
	switch {
	case err != nil:
		r.fail(network.OptionMTU, value, err)
	case mtu < 0, mtu > 65535:
		if r.err == nil {
			r.err = linkspan.Errorf(linkspan.ErrInvalid, "invalid MTU number: %d", mtu)
		}
	case mtu > 0 && mtu < 68:
		if r.err == nil {
			r.err = linkspan.Errorf(linkspan.ErrInvalid, "invalid MTU number: %d: IPv4 needs at least 68 (RFC 791)", mtu)
		}
	}
	return mtu
}
