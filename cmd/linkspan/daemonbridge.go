package main

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/spf13/pflag"

	"github.com/linkspan/linkspan/controller"
	"github.com/linkspan/linkspan/drivers/bridge"
)

const (
	defaultBridge = "linkspan0"
	noBridge      = "none"
)

// BridgeConfig is what a daemon is told about its default bridge, and about
// the options that networks begin with.
type BridgeConfig struct {
	Bridge     string       // its name; "none" for no such network
	BIP, BIP6  netip.Prefix // its addresses and subnets
	FixedCIDR  netip.Prefix // what it leases IPv4 addresses from
	FixedCIDR6 netip.Prefix // what it leases IPv6 addresses from
	Gateway    netip.Addr   // of its containers, in place of the bridge's own address
	Gateway6   netip.Addr
	MTU        int        // bytes; 0 for the kernel's
	IP         netip.Addr // host address of published ports
	ICC        bool       // its containers may talk to each other
	IPv6       bool       // it has IPv6 too
	Masquerade bool       // its containers reach the outside by the host's address

	NetworkOptions map[string]map[string]string // of new networks, by driver
}

// apply writes the configuration into the controller's.
func (b BridgeConfig) apply(d *controller.Defaults) {
	d.NoBridge = b.Bridge == noBridge
	d.Options = bridge.DefaultOptions(b.Bridge, b.MTU, b.ICC)
	d.Options[bridge.OptionMasquerade] = fmt.Sprint(b.Masquerade)
	d.Options[bridge.OptionBinding] = b.IP.String()
	if b.BIP.IsValid() {
		d.BridgeAddress = b.BIP.String()
	}
	if b.BIP6.IsValid() {
		d.BridgeAddress6 = b.BIP6.String()
	}
	d.IPv6, d.FixedCIDR4, d.FixedCIDR6, d.Gateway4, d.Gateway6 = b.IPv6, b.FixedCIDR, b.FixedCIDR6, b.Gateway, b.Gateway6
	d.PublishAddress, d.NetworkOptions = b.IP, b.NetworkOptions
}

type bridgeFlags struct {
	name, ip              string
	bip, bip6             string
	fixedCIDR, fixedCIDR6 string
	gateway, gateway6     string
	options               []string
	mtu                   int
	icc, ipv6, masquerade bool
}

func (f *bridgeFlags) bind(flags *pflag.FlagSet) {
	flags.StringVarP(&f.name, "bridge", "b", defaultBridge, "name of the default bridge, or none")
	flags.StringVar(&f.bip, "bip", "", "IPv4 `address` of the default bridge, with its prefix length")
	flags.StringVar(&f.bip6, "bip6", "", "IPv6 `address` of the default bridge, with its prefix length")
	flags.StringVar(&f.fixedCIDR, "fixed-cidr", "", "IPv4 `subnet` for the addresses of containers on the default bridge")
	flags.StringVar(&f.fixedCIDR6, "fixed-cidr-v6", "", "IPv6 `subnet` for the addresses of containers on the default bridge")
	flags.StringVar(&f.gateway, "default-gateway", "", "IPv4 `address` of the gateway of containers on the default bridge (default: the bridge's)")
	flags.StringVar(&f.gateway6, "default-gateway-v6", "", "IPv6 `address` of the gateway of containers on the default bridge (default: the bridge's)")
	flags.IntVar(&f.mtu, "mtu", 0, "containers' network MTU (`bytes`)")
	flags.StringVar(&f.ip, "ip", "0.0.0.0", "host IP `address` for port publishing from the default bridge network")
	flags.BoolVar(&f.icc, "icc", true, "enable inter-container communication for the default bridge network")
	flags.BoolVar(&f.ipv6, "ipv6", false, "enable IPv6 networking for the default bridge network")
	flags.BoolVar(&f.masquerade, "ip-masq", true, "enable IP masquerading for the default bridge network")
	flags.StringArrayVar(&f.options, "default-network-opt", nil, "default option of new networks (`driver=option=value`)")
}

// checked turns the texts into values; each refusal names its flag.
func (f *bridgeFlags) checked() (BridgeConfig, error) {
	config := BridgeConfig{Bridge: f.name, MTU: f.mtu, ICC: f.icc, IPv6: f.ipv6, Masquerade: f.masquerade}
	switch {
	case f.mtu != 0 && (f.mtu < 68 || f.mtu > 65535):
		return config, fmt.Errorf("invalid --mtu %d: want 68 to 65535 bytes", f.mtu)
	case f.name == "" || len(f.name) > 15 || strings.ContainsAny(f.name, "/ \t"):
		return config, fmt.Errorf("invalid --bridge %q: a link's name has 1 to 15 bytes, no slash and no space", f.name)
	case f.bip+f.bip6+f.fixedCIDR+f.fixedCIDR6+f.gateway+f.gateway6 != "" && f.name == noBridge:
		return config, errors.New("conflicting options: --bip, --bip6, --fixed-cidr, --fixed-cidr-v6, --default-gateway and --default-gateway-v6 need the default bridge that --bridge none leaves out")
	case f.bip6+f.fixedCIDR6+f.gateway6 != "" && !f.ipv6:
		return config, errors.New("conflicting options: --bip6, --fixed-cidr-v6 and --default-gateway-v6 need --ipv6")
	}
	var err error
	if config.IP, err = netip.ParseAddr(f.ip); err != nil {
		return config, fmt.Errorf("invalid --ip %q: want an IP address", f.ip)
	}
	for _, family := range []struct {
		plain                     func(netip.Prefix) bool
		name, suffix, suffixOfBIP string
		bip, fixed, gateway       string
		example, network          string
		asBIP, asFixed            *netip.Prefix
		asGateway                 *netip.Addr
	}{
		{plainIPv4, "IPv4", "", "", f.bip, f.fixedCIDR, f.gateway, "172.17.0.1/16", "172.17.0.0/24", &config.BIP, &config.FixedCIDR, &config.Gateway},
		{plainIPv6, "IPv6", "-v6", "6", f.bip6, f.fixedCIDR6, f.gateway6, "fd00:77::1/64", "fd00:77::/64", &config.BIP6, &config.FixedCIDR6, &config.Gateway6},
	} {
		bip, fixed := family.asBIP, family.asFixed
		if family.bip != "" {
			if *bip, err = netip.ParsePrefix(family.bip); err != nil || !family.plain(*bip) || bip.Addr() == bip.Masked().Addr() {
				return config, fmt.Errorf("invalid --bip%s %q: want the bridge's own %s address and its prefix length, such as %s", family.suffixOfBIP, family.bip, family.name, family.example)
			}
		}
		if family.fixed != "" {
			if *fixed, err = netip.ParsePrefix(family.fixed); err != nil || !family.plain(*fixed) || *fixed != fixed.Masked() {
				return config, fmt.Errorf("invalid --fixed-cidr%s %q: want an %s subnet, such as %s", family.suffix, family.fixed, family.name, family.network)
			}
		}
		if bip.IsValid() && fixed.IsValid() && !bip.Masked().Contains(fixed.Addr()) {
			return config, fmt.Errorf("conflicting options: --fixed-cidr%s %s is not part of the subnet of --bip%s %s", family.suffix, fixed, family.suffixOfBIP, bip)
		}
		if family.gateway == "" {
			continue
		}
		subnet := bip.Masked()
		if !subnet.IsValid() {
			subnet = *fixed
		}
		if *family.asGateway, err = netip.ParseAddr(family.gateway); err != nil || !subnet.Contains(*family.asGateway) {
			return config, fmt.Errorf("invalid --default-gateway%s %q: want an address of the subnet that --bip%s or --fixed-cidr%s names", family.suffix, family.gateway, family.suffixOfBIP, family.suffix)
		}
	}
	config.NetworkOptions, err = defaultOptions(f.options)
	return config, err
}

// defaultOptions reads driver=option=value.
func defaultOptions(texts []string) (map[string]map[string]string, error) {
	all := make(map[string]map[string]string)
	for _, text := range texts {
		driver, option, _ := strings.Cut(text, "=")
		key, value, given := strings.Cut(option, "=")
		if driver == "" || key == "" || !given {
			return nil, fmt.Errorf("invalid --default-network-opt %q: want driver=option=value, such as bridge=com.docker.network.driver.mtu=1400", text)
		}
		if all[driver] == nil {
			all[driver] = make(map[string]string)
		}
		all[driver][key] = value
	}
	if len(all) == 0 {
		return nil, nil
	}
	return all, nil
}

func plainIPv4(p netip.Prefix) bool { return p.Addr().Is4() }

func plainIPv6(p netip.Prefix) bool {
	return p.Addr().Is6() && !p.Addr().Is4In6() && !p.Addr().IsLinkLocalUnicast() && !p.Addr().IsMulticast()
}
