package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/spf13/pflag"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/drivers/overlay"
	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/store/cluster"
)

// defaultAdvertised is the port that is advertised if none is given. Nothing
// listens there: it completes the form HOST:PORT that the flag has in Docker.
const defaultAdvertised = "2377"

// ClusterConfig says which store a host shares with others, and how they reach it.
type ClusterConfig struct {
	Store     string // etcd://host:port,…; "" for a host on its own
	Advertise string // host:port, or interface:port; the port may be left out
	Options   map[string]string
}

// clusterFlags are those of whatever has a part in a cluster, as typed.
type clusterFlags struct {
	store, advertise string
	options          []string
}

func (f *clusterFlags) bind(flags *pflag.FlagSet) {
	flags.StringVar(&f.store, "cluster-store", "", "`URL` of the store that the daemons of a cluster share (etcd://host:port)")
	flags.StringArrayVar(&f.options, "cluster-store-opt", nil, "`option` of the cluster's store, such as kv.cacertfile=FILE")
	flags.StringVar(&f.advertise, "cluster-advertise", "", "`address` or interface, and port, to advertise to the cluster")
}

func (f *clusterFlags) config() (ClusterConfig, error) {
	config := ClusterConfig{Store: f.store, Advertise: f.advertise}
	var err error
	if config.Options, err = clusterOptions(f.options); err != nil {
		return config, err
	}
	switch {
	case f.store != "" && !strings.HasPrefix(f.store, "etcd://"):
		return config, fmt.Errorf("invalid --cluster-store %q: want etcd://host:port", f.store)
	case f.store == "" && f.advertise+strings.Join(f.options, "") != "":
		return config, errors.New("conflicting options: --cluster-advertise and --cluster-store-opt need --cluster-store")
	}
	return config, nil
}

// openCluster begins to follow the store that hosts share, and returns the driver
// of networks that span them. Without a store there is nothing to share, and no
// cluster. It does not wait for the store. id outlives the process.
func openCluster(ctx context.Context, host *kernel.Host, config ClusterConfig, id string, logf func(string, ...any)) (*cluster.Cluster, overlay.Driver, error) {
	if config.Store == "" {
		return nil, overlay.Driver{}, nil
	}
	o, err := cluster.ParseStore(config.Store, config.Options)
	if err != nil {
		return nil, overlay.Driver{}, err
	}
	if o.Self, err = selfIn(host, config.Advertise, o.Endpoints[0], id); err != nil {
		return nil, overlay.Driver{}, err
	}
	tunnels, err := overlay.At(host, o.Self.VTEP)
	if err != nil {
		return nil, tunnels, fmt.Errorf("invalid --cluster-advertise %q: %w", config.Advertise, err)
	}
	o.Logf = logf
	shared, err := cluster.Open(ctx, o)
	if err != nil {
		return nil, tunnels, err
	}
	logf("one of the hosts that share %s: %s, whose tunnels end at %s", o, o.Self.Name, o.Self.VTEP)
	return shared, tunnels, nil
}

// selfIn returns this host as a member of the cluster.
func selfIn(h *kernel.Host, advertise, store, id string) (cluster.Member, error) {
	name, err := os.Hostname()
	if err != nil {
		return cluster.Member{}, fmt.Errorf("reading the host's name: %w", err)
	}
	self := cluster.Member{ID: linkspan.ID(strings.ReplaceAll(id, "-", "")), Name: name}
	where, port := advertise, defaultAdvertised
	if host, given, err := net.SplitHostPort(advertise); err == nil {
		where, port = host, given
	}
	switch addr, err := netip.ParseAddr(strings.Trim(where, "[]")); {
	case err == nil:
		self.VTEP = addr.Unmap()
	case where == "":
		self.VTEP, err = towards(h, store)
		if err != nil {
			return self, err
		}
	default:
		if self.VTEP, err = addressOf(h, where); err != nil {
			return self, err
		}
	}
	if self.VTEP.IsLoopback() || self.VTEP.IsUnspecified() || self.VTEP.IsMulticast() {
		return self, linkspan.Errorf(linkspan.ErrInvalid, "invalid --cluster-advertise %q: other hosts cannot reach this one at %s; name the address or the link that they reach it by", advertise, self.VTEP)
	}
	self.Advertise = net.JoinHostPort(self.VTEP.String(), port)
	return self, nil
}

// towards returns the address that this host has on its way to the store.
func towards(h *kernel.Host, store string) (addr netip.Addr, err error) {
	to, err := netip.ParseAddrPort(store)
	if err != nil {
		return addr, linkspan.Errorf(linkspan.ErrInvalid, "missing --cluster-advertise: name the address or the link by which other hosts reach this one")
	}
	err = h.Inside("", func() error {
		conn, failed := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to)) // sends nothing: it asks for the route
		if failed != nil {
			return fmt.Errorf("choosing the address to advertise: %w; give --cluster-advertise", failed)
		}
		defer conn.Close()
		local, _ := netip.ParseAddrPort(conn.LocalAddr().String())
		addr = local.Addr().Unmap()
		return nil
	})
	return addr, err
}

// addressOf returns an address of a link by which others can reach it: IPv4 if
// it has one.
func addressOf(h *kernel.Host, name string) (found netip.Addr, err error) {
	err = h.Inside("", func() error {
		link, missing := net.InterfaceByName(name)
		if missing != nil {
			return linkspan.Errorf(linkspan.ErrInvalid, "invalid --cluster-advertise %q: it is no address, and no link has that name (see: ip link)", name)
		}
		all, failed := link.Addrs()
		if failed != nil {
			return fmt.Errorf("reading the addresses of link %s: %w", name, failed)
		}
		for _, each := range all {
			prefix, bad := netip.ParsePrefix(each.String())
			if addr := prefix.Addr().Unmap(); bad == nil && addr.IsGlobalUnicast() && (!found.IsValid() || found.Is6() && addr.Is4()) {
				found = addr
			}
		}
		return nil
	})
	if err == nil && !found.IsValid() {
		err = linkspan.Errorf(linkspan.ErrInvalid, "invalid --cluster-advertise %q: the link has no address that other hosts could reach (see: ip addr show %s)", name, name)
	}
	return found, err
}

// clusterOptions reads the values of --cluster-store-opt.
func clusterOptions(texts []string) (map[string]string, error) {
	if len(texts) == 0 {
		return nil, nil
	}
	options := make(map[string]string, len(texts))
	for _, text := range texts {
		key, value, ok := strings.Cut(text, "=")
		if !ok || key == "" {
			return nil, fmt.Errorf("invalid --cluster-store-opt %q: want KEY=VALUE, such as kv.cacertfile=/etc/etcd/ca.pem", text)
		}
		options[key] = value
	}
	return options, nil
}
