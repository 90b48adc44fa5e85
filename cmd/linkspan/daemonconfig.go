package main

import (
	"crypto/tls"
	"errors"
	"fmt"
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

	BridgeConfig
	NameConfig

	TLS *tls.Config // for addresses that are TCP; nil if there are none

	MetricsAddr string // host:port; "" for none
	Cluster     ClusterConfig
}

// daemonFlags are the flags as typed, before they are checked. Their names
// are those of dockerd's, and the keys of the file are the same but for the
// plurals that Docker has.
type daemonFlags struct {
	pluginTimeout                           time.Duration
	hosts, pluginDirs, pools, insecure      []string
	dataRoot, execRoot, pidFile, configFile string
	firewallBackend                         string
	acceptMark                              string
	metricsAddr                             string
	debug, liveRestore, allowDirect         bool
	bridge                                  bridgeFlags
	names                                   nameFlags
	cluster                                 clusterFlags
	tls                                     tlsFlags
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
	f.bridge.bind(flags)
	f.names.bind(flags)
	f.tls.bind(flags)
	flags.BoolVar(&f.liveRestore, "live-restore", true, "keep containers alive when the daemon is not running: always on")
	flags.StringVar(&f.metricsAddr, "metrics-addr", "", "`address` and port to serve the metrics api on")
	f.cluster.bind(flags)
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
		FirewallBackend: f.firewallBackend, AllowDirectRouting: f.allowDirect,
		MetricsAddr: f.metricsAddr,
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
	if config.Cluster, err = f.cluster.config(); err != nil {
		return config, err
	}
	switch {
	case f.firewallBackend != "auto" && f.firewallBackend != "nftables" && f.firewallBackend != "iptables":
		return config, fmt.Errorf("invalid --firewall-backend %q: want auto, nftables or iptables", f.firewallBackend)
	case !f.liveRestore:
		return config, errors.New("invalid --live-restore=false: containers never die with this daemon; leave the option out")
	}
	return config, nil
}

func (f *daemonFlags) checkPlaces(config *DaemonConfig) error {
	for i, host := range f.hosts {
		if !strings.Contains(host, "://") {
			host = "tcp://" + host // as dockerd reads it
			f.hosts[i] = host
		}
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
	if config.BridgeConfig, err = f.bridge.checked(); err != nil {
		return err
	}
	if f.acceptMark != "" {
		if config.AcceptMark, err = firewall.ParseMark(f.acceptMark); err != nil {
			return fmt.Errorf("invalid --bridge-accept-fwmark: %w", err)
		}
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
