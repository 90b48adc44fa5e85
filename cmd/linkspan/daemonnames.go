package main

import (
	"fmt"
	"net/netip"
	"strconv"

	"github.com/spf13/pflag"

	"github.com/linkspan/linkspan/controller"
	"github.com/linkspan/linkspan/dns/resolvconf"
)

// NameConfig is what a daemon is told about names: the defaults of its
// containers, and what goes beyond Docker.
type NameConfig struct {
	DNS         []netip.Addr
	DNSSearch   []string
	DNSOptions  []string
	HostGateway []netip.Addr   // what host-gateway stands for; none: each network's own
	BridgeNames bool           // names on the default bridge, too
	DNSListen   netip.AddrPort // where the host may ask for names; zero: nowhere
}

// apply writes the configuration into the controller's.
func (n NameConfig) apply(d *controller.Defaults) {
	for _, server := range n.DNS {
		d.DNS = append(d.DNS, server.String())
	}
	d.DNSSearch, d.DNSOptions, d.HostGateway = n.DNSSearch, n.DNSOptions, n.HostGateway
	d.BridgeNames, d.DNSListen = n.BridgeNames, n.DNSListen
}

type nameFlags struct {
	servers, search, options, hostGateway []string
	listen                                string
	bridgeNames                           bool
}

func (f *nameFlags) bind(flags *pflag.FlagSet) {
	flags.StringArrayVar(&f.servers, "dns", nil, "DNS server to use")
	flags.StringArrayVar(&f.search, "dns-search", nil, "DNS search domains to use")
	flags.StringArrayVar(&f.options, "dns-opt", nil, "DNS options to use")
	flags.StringArrayVar(&f.hostGateway, "host-gateway-ip", nil, "`address` that the special 'host-gateway' string in --add-host resolves to (default: the host's on each network)")
	flags.BoolVar(&f.bridgeNames, "bridge-names", false, "answer for the names of containers on the default bridge network, too")
	flags.StringVar(&f.listen, "dns-listen", "", "`address` at which the host itself may ask for the names of all networks, such as 127.0.0.54")
}

func (f *nameFlags) checked() (NameConfig, error) {
	config := NameConfig{DNSSearch: f.search, DNSOptions: f.options, BridgeNames: f.bridgeNames}
	dns, err := servers(f.servers)
	if err != nil {
		return config, err
	}
	config.DNS = dns
	for _, domain := range f.search {
		if err := resolvconf.CheckSearch(domain); err != nil {
			return config, fmt.Errorf("invalid --dns-search: %w", err)
		}
	}
	for _, option := range f.options {
		if err := resolvconf.CheckOption(option); err != nil {
			return config, fmt.Errorf("invalid --dns-opt: %w", err)
		}
	}
	families := map[bool]bool{}
	for _, text := range f.hostGateway {
		addr, faulty := netip.ParseAddr(text)
		if faulty != nil || addr.Zone() != "" || addr.IsUnspecified() || families[addr.Is4()] {
			return config, fmt.Errorf("invalid --host-gateway-ip %q: want one IPv4 address, one IPv6 address, or one of each", text)
		}
		families[addr.Is4()] = true
		config.HostGateway = append(config.HostGateway, addr)
	}
	config.DNSListen, err = listenAddress(f.listen)
	return config, err
}

// listenAddress reads an address with or without a port, 53 if without.
func listenAddress(text string) (netip.AddrPort, error) {
	if text == "" {
		return netip.AddrPort{}, nil
	}
	at, err := netip.ParseAddrPort(text)
	if err != nil {
		var addr netip.Addr
		if addr, err = netip.ParseAddr(text); err == nil {
			at = netip.AddrPortFrom(addr, 53)
		}
	}
	// Of any address, replies would leave with another one than was asked.
	if err != nil || at.Port() == 0 || at.Addr().IsUnspecified() || at.Addr().IsMulticast() {
		return at, fmt.Errorf("invalid --dns-listen %s: want one address of this host, with a port if it is not 53, such as 127.0.0.54", strconv.Quote(text))
	}
	return at, nil
}
