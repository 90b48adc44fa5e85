package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	ossignal "os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/linkspan/linkspan/firewall"
	"github.com/linkspan/linkspan/ipam"
)

const (
	defaultDataRoot   = "/var/lib/linkspan"
	defaultExecRoot   = "/run/linkspan"
	defaultConfigFile = "/etc/linkspan/daemon.json"
	defaultBridge     = "linkspan0"
)

// DaemonConfig is what a daemon is told at its start: the flags of linkspan
// daemon and the keys of its file, checked. The zero values of addresses mean
// that nothing was said.
type DaemonConfig struct {
	Hosts     []string // listening addresses, unix:// or tcp://
	DataRoot  string   // absolute; survives a reboot
	ExecRoot  string   // absolute; on a tmpfs
	PidFile   string   // absolute; "" for <exec-root>/linkspan.pid
	Debug     bool
	PluginDir []string // folders searched before Docker's own places

	PluginTimeout time.Duration // how long a plugin may take to answer

	Insecure []string // registries (host, host:port or prefix) that may speak plain HTTP

	FirewallBackend     string        // auto, nftables or iptables
	AllowDirectRouting  bool          // published ports are open at containers' own addresses too
	AcceptMark          firewall.Mark // of packets that may enter any network
	DefaultAddressPools []ipam.Base   // none: Docker's
	BIP                 netip.Prefix  // address and subnet of the default bridge
	Bridge              string        // name of the default bridge; "none" for no such network
	MTU                 int           // bytes; 0 for the kernel's
	IP                  netip.Addr    // host address of published ports
	ICC                 bool          // containers of the default bridge may talk to each other
	IPv6                bool          // the default bridge has IPv6 too
	BIP6                netip.Prefix
	FixedCIDR6          netip.Prefix // what the default bridge leases IPv6 addresses from

	NameConfig

	TLS *tls.Config // for addresses that are TCP; nil if there are none

	MetricsAddr      string // host:port; "" for none
	ClusterStore     string // etcd://host:port,…; "" for a daemon on its own
	ClusterAdvertise string // host:port, or interface:port; the port may be left out
	ClusterOptions   map[string]string
}

// daemonFlags are the flags as typed, before they are checked. Their names
// are those of dockerd's, and the keys of the file are the same but for the
// plurals that Docker has.
type daemonFlags struct {
	pluginTimeout                               time.Duration
	hosts, pluginDirs, pools, insecure          []string
	clusterOptions                              []string
	dataRoot, execRoot, pidFile, configFile     string
	firewallBackend, bip, bridge, ip            string
	acceptMark                                  string
	bip6, fixedCIDR6                            string
	metricsAddr, clusterStore, clusterAdvertise string
	mtu                                         int
	debug, icc, ipv6, liveRestore, allowDirect  bool
	names                                       nameFlags
	tls                                         tlsFlags
}

func (f *daemonFlags) bind(flags *pflag.FlagSet) {
	// The root's own -H names the daemon to talk to; here it is one to be.
	flags.StringArrayVarP(&f.hosts, "host", "H", []string{defaultHost}, "daemon `socket`(s) to listen on")
	flags.StringVar(&f.dataRoot, "data-root", defaultDataRoot, "`folder` of persistent state")
	flags.StringVar(&f.execRoot, "exec-root", defaultExecRoot, "`folder` of state that dies with the kernel's")
	flags.StringVarP(&f.pidFile, "pidfile", "p", "", "`file` for the daemon's process ID (default <exec-root>/linkspan.pid)")
	flags.StringVar(&f.configFile, "config-file", defaultConfigFile, "daemon configuration `file`")
	flags.BoolVarP(&f.debug, "debug", "D", false, "enable debug mode")
	flags.StringVar(&f.firewallBackend, "firewall-backend", "auto", "firewall backend to use (`auto|nftables|iptables`)")
	flags.BoolVar(&f.allowDirect, "allow-direct-routing", false, "let other machines reach published ports at the addresses of containers, too")
	flags.StringVar(&f.acceptMark, "bridge-accept-fwmark", "", "let packets with this firewall `mark` into bridge networks (NUMBER or NUMBER/MASK)")
	flags.StringArrayVar(&f.pools, "default-address-pool", nil, "default address pool for networks (`base=PREFIX,size=BITS`)")
	flags.StringVar(&f.bip, "bip", "", "IPv4 `address` of the default bridge, with its prefix length")
	flags.StringVar(&f.bip6, "bip6", "", "IPv6 `address` of the default bridge, with its prefix length")
	flags.StringVar(&f.fixedCIDR6, "fixed-cidr-v6", "", "IPv6 `subnet` for the addresses of containers on the default bridge")
	flags.StringVarP(&f.bridge, "bridge", "b", defaultBridge, "name of the default bridge, or none")
	f.names.bind(flags)
	f.tls.bind(flags)
	flags.IntVar(&f.mtu, "mtu", 0, "containers' network MTU (`bytes`)")
	flags.StringVar(&f.ip, "ip", "0.0.0.0", "host IP `address` for port publishing from the default bridge network")
	flags.BoolVar(&f.icc, "icc", true, "enable inter-container communication for the default bridge network")
	flags.BoolVar(&f.ipv6, "ipv6", false, "enable IPv6 networking for the default bridge network")
	flags.BoolVar(&f.liveRestore, "live-restore", true, "keep containers alive when the daemon is not running: always on")
	flags.StringVar(&f.metricsAddr, "metrics-addr", "", "`address` and port to serve the metrics api on")
	flags.StringVar(&f.clusterStore, "cluster-store", "", "`URL` of the store that the daemons of a cluster share (etcd://host:port)")
	flags.StringArrayVar(&f.clusterOptions, "cluster-store-opt", nil, "`option` of the cluster's store, such as kv.cacertfile=FILE")
	flags.StringVar(&f.clusterAdvertise, "cluster-advertise", "", "`address` or interface, and port, to advertise to the cluster")
	flags.StringArrayVar(&f.insecure, "insecure-registry", nil, "`registry` that may speak plain HTTP or show any certificate: host, host:port, or a prefix of addresses")
	flags.DurationVar(&f.pluginTimeout, "plugin-timeout", 0, "how long a plugin may take to answer a call (default 30s)")
	flags.StringArrayVar(&f.pluginDirs, "plugin-dir", nil, "`folder` of plugins, searched before Docker's own places")
}

func newDaemon(_ *app) *cobra.Command {
	var f daemonFlags
	cmd := &cobra.Command{
		Use:   "daemon [OPTIONS]",
		Short: "Serve the Docker Engine API: the daemon that the other commands talk to",
		Args:  cobra.NoArgs,
	}
	f.bind(cmd.Flags())
	uninstall := cmd.Flags().Bool("uninstall", false, "take the predefined networks and all changes to the host away, and exit")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		config, err := f.config(cmd.Flags())
		if err != nil {
			return err
		}
		ctx, stop := ossignal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
		defer stop()
		if *uninstall {
			return runUninstall(ctx, config)
		}
		return runDaemon(ctx, config)
	}
	return cmd
}

// config reads the file into the flags that were not given, and checks all.
func (f *daemonFlags) config(flags *pflag.FlagSet) (DaemonConfig, error) {
	content, err := os.ReadFile(f.configFile)
	switch {
	case err == nil:
		if err = applyConfigFile(flags, content); err != nil {
			return DaemonConfig{}, fmt.Errorf("unable to configure the daemon with file %s: %w", f.configFile, err)
		}
	case errors.Is(err, os.ErrNotExist) && !flags.Changed("config-file"):
	default:
		return DaemonConfig{}, fmt.Errorf("unable to configure the daemon: %w", err)
	}
	return f.checked()
}

// checked turns the texts into values; each refusal names its flag.
func (f *daemonFlags) checked() (DaemonConfig, error) {
	config := DaemonConfig{
		Hosts: f.hosts, DataRoot: f.dataRoot, ExecRoot: f.execRoot, PidFile: f.pidFile, Debug: f.debug, PluginDir: f.pluginDirs, PluginTimeout: f.pluginTimeout, Insecure: f.insecure,
		FirewallBackend: f.firewallBackend, AllowDirectRouting: f.allowDirect, Bridge: f.bridge, MTU: f.mtu, ICC: f.icc, IPv6: f.ipv6,
		MetricsAddr: f.metricsAddr, ClusterStore: f.clusterStore, ClusterAdvertise: f.clusterAdvertise,
	}
	if err := f.checkPlaces(&config); err != nil {
		return config, err
	}
	var err error
	if config.TLS, err = f.tls.config(config.Hosts); err != nil {
		return config, err
	}
	if err := f.checkAddresses(&config); err != nil {
		return config, err
	}
	if config.ClusterOptions, err = clusterOptions(f.clusterOptions); err != nil {
		return config, err
	}
	switch {
	case f.firewallBackend != "auto" && f.firewallBackend != "nftables" && f.firewallBackend != "iptables":
		return config, fmt.Errorf("invalid --firewall-backend %q: want auto, nftables or iptables", f.firewallBackend)
	case f.mtu != 0 && (f.mtu < 68 || f.mtu > 65535):
		return config, fmt.Errorf("invalid --mtu %d: want 68 to 65535 bytes", f.mtu)
	case !f.liveRestore:
		return config, errors.New("invalid --live-restore=false: containers never die with this daemon; leave the option out")
	case f.clusterStore != "" && !strings.HasPrefix(f.clusterStore, "etcd://"):
		return config, fmt.Errorf("invalid --cluster-store %q: want etcd://host:port", f.clusterStore)
	case f.clusterStore == "" && f.clusterAdvertise+strings.Join(f.clusterOptions, "") != "":
		return config, errors.New("conflicting options: --cluster-advertise and --cluster-store-opt need --cluster-store")
	case f.bridge == "" || len(f.bridge) > 15 || strings.ContainsAny(f.bridge, "/ \t"):
		return config, fmt.Errorf("invalid --bridge %q: a link's name has 1 to 15 bytes, no slash and no space", f.bridge)
	case f.bip+f.bip6+f.fixedCIDR6 != "" && f.bridge == "none":
		return config, errors.New("conflicting options: --bip, --bip6 and --fixed-cidr-v6 need the default bridge that --bridge none leaves out")
	case f.bip6+f.fixedCIDR6 != "" && !f.ipv6:
		return config, errors.New("conflicting options: --bip6 and --fixed-cidr-v6 need --ipv6")
	}
	return config, nil
}

func (f *daemonFlags) checkPlaces(config *DaemonConfig) error {
	for _, host := range f.hosts {
		address, err := url.Parse(host)
		if err != nil || address.Scheme != "unix" && address.Scheme != "tcp" || address.Host+address.Path == "" {
			return fmt.Errorf("invalid --host %q: want unix:///path or tcp://host:port", host)
		}
	}
	for _, place := range []struct {
		flag   string
		target *string
	}{{"data-root", &config.DataRoot}, {"exec-root", &config.ExecRoot}, {"pidfile", &config.PidFile}} {
		if *place.target == "" {
			continue
		}
		absolute, err := filepath.Abs(*place.target)
		if err != nil {
			return fmt.Errorf("invalid --%s %q: %w", place.flag, *place.target, err)
		}
		*place.target = absolute
	}
	if config.DataRoot == "" || config.ExecRoot == "" {
		return errors.New("invalid --data-root or --exec-root: the folder's name is empty")
	}
	if config.PidFile == "" {
		config.PidFile = filepath.Join(config.ExecRoot, "linkspan.pid")
	}
	return nil
}

func (f *daemonFlags) checkAddresses(config *DaemonConfig) error {
	var err error
	if config.NameConfig, err = f.names.checked(); err != nil {
		return err
	}
	if f.bip != "" {
		config.BIP, err = netip.ParsePrefix(f.bip)
		if err != nil || !config.BIP.Addr().Is4() || config.BIP.Addr() == config.BIP.Masked().Addr() {
			return fmt.Errorf("invalid --bip %q: want the bridge's own IPv4 address and its prefix length, such as 172.17.0.1/16", f.bip)
		}
	}
	if err = f.checkIPv6(config); err != nil {
		return err
	}
	if f.acceptMark != "" {
		if config.AcceptMark, err = firewall.ParseMark(f.acceptMark); err != nil {
			return fmt.Errorf("invalid --bridge-accept-fwmark: %w", err)
		}
	}
	if config.IP, err = netip.ParseAddr(f.ip); err != nil {
		return fmt.Errorf("invalid --ip %q: want an IP address", f.ip)
	}
	for _, text := range f.pools {
		pool, err := ipam.ParseBase(text)
		if err != nil {
			return fmt.Errorf("invalid --default-address-pool: %w", err)
		}
		config.DefaultAddressPools = append(config.DefaultAddressPools, pool)
	}
	return nil
}

func (f *daemonFlags) checkIPv6(config *DaemonConfig) (err error) {
	if f.bip6 != "" {
		config.BIP6, err = netip.ParsePrefix(f.bip6)
		if err != nil || !plainIPv6(config.BIP6) || config.BIP6.Addr() == config.BIP6.Masked().Addr() {
			return fmt.Errorf("invalid --bip6 %q: want the bridge's own IPv6 address and its prefix length, such as fd00:77::1/64", f.bip6)
		}
	}
	if f.fixedCIDR6 != "" {
		config.FixedCIDR6, err = netip.ParsePrefix(f.fixedCIDR6)
		if err != nil || !plainIPv6(config.FixedCIDR6) || config.FixedCIDR6 != config.FixedCIDR6.Masked() {
			return fmt.Errorf("invalid --fixed-cidr-v6 %q: want an IPv6 subnet, such as fd00:77::/64", f.fixedCIDR6)
		}
	}
	if config.BIP6.IsValid() && config.FixedCIDR6.IsValid() && !config.BIP6.Masked().Contains(config.FixedCIDR6.Addr()) {
		return fmt.Errorf("conflicting options: --fixed-cidr-v6 %s is not part of the subnet of --bip6 %s", config.FixedCIDR6, config.BIP6)
	}
	return nil
}

func plainIPv6(p netip.Prefix) bool {
	return p.Addr().Is6() && !p.Addr().Is4In6() && !p.Addr().IsLinkLocalUnicast() && !p.Addr().IsMulticast()
}
