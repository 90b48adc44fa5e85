package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/api"
	"github.com/linkspan/linkspan/controller"
	"github.com/linkspan/linkspan/drivers/bridge"
	"github.com/linkspan/linkspan/drivers/overlay"
	"github.com/linkspan/linkspan/drivers/remote"
	"github.com/linkspan/linkspan/firewall/iptables"
	"github.com/linkspan/linkspan/firewall/nftables"
	"github.com/linkspan/linkspan/ipam"
	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/plugin"
	"github.com/linkspan/linkspan/runtime"
	"github.com/linkspan/linkspan/runtime/image"
	"github.com/linkspan/linkspan/store"
	"github.com/linkspan/linkspan/store/cluster"
)

// shutdownTimeout bounds the wait for requests under way when the daemon ends.
const shutdownTimeout = 10 * time.Second

// askEvery is how often plugins that offer it are asked how they are.
const askEvery = 5 * time.Second

// stack is all that a daemon consists of, from the kernel upwards.
type stack struct {
	host       *kernel.Host
	store      *store.Store
	plugins    *remote.Plugins
	cluster    *cluster.Cluster // nil: this host shares nothing
	controller *controller.Controller
	containers *runtime.Runtime
	images     *image.Store
	server     *api.Server
}

// runDaemon serves the API until ctx ends. Networks and containers stay.
func runDaemon(ctx context.Context, config DaemonConfig) error {
	if err := supported(config); err != nil {
		return err
	}
	logf := log.New(os.Stderr, "linkspan: ", log.LstdFlags|log.Lmsgprefix).Printf
	lock, err := lockNamespace(ctx)
	if err != nil {
		return err
	}
	defer lock.Close()
	s, err := build(ctx, config, logf)
	if err != nil {
		return err
	}
	defer s.close(logf)
	if err := writePid(config); err != nil {
		return err
	}
	failed := make(chan error, len(config.Hosts))
	for _, address := range config.Hosts {
		listener, err := api.Listen(ctx, address, config.TLS)
		if err != nil {
			return err
		}
		go func() { failed <- s.server.Serve(listener) }()
		logf("listening on %s", address)
	}
	s.containers.Resume()
	go s.plugins.FollowStatus(ctx, askEvery)
	if s.cluster != nil {
		go followNodes(ctx, s.cluster, s.plugins.Nodes)
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-failed:
		return err
	}
}

// runUninstall makes the host what it was before the first daemon. None may run,
// and no container or user's network may be there.
func runUninstall(ctx context.Context, config DaemonConfig) error {
	lock, err := lockNamespace(ctx)
	if err != nil {
		return err
	}
	defer lock.Close()
	logf := log.New(os.Stderr, "linkspan: ", 0).Printf
	s, err := build(ctx, config, logf)
	if err != nil {
		return err
	}
	defer s.close(logf)
	for _, c := range s.containers.List() {
		return linkspan.Errorf(linkspan.ErrForbidden, "container %s is there still: remove it first (see: linkspan rm -f %s)", c.Name, c.Name)
	}
	return s.controller.Uninstall(ctx)
}

// supported refuses what this release does not have, instead of ignoring it.
func supported(config DaemonConfig) error {
	switch {
	case config.MetricsAddr != "":
		return linkspan.Errorf(linkspan.ErrNotImplemented, "--metrics-addr: metrics are not built yet")
	}
	return nil
}

// lockNamespace makes sure that one daemon alone looks after a network
// namespace: an abstract socket (unix(7)) is one namespace's own, and goes with
// its process however that ends.
func lockNamespace(ctx context.Context) (net.Listener, error) {
	var config net.ListenConfig
	lock, err := config.Listen(ctx, "unix", "@linkspan-daemon")
	if err != nil {
		return nil, linkspan.Errorf(linkspan.ErrConflict, "another linkspan daemon looks after this network namespace (see: ss -xlp src @linkspan-daemon): %w", err)
	}
	return lock, nil
}

func build(ctx context.Context, config DaemonConfig, logf func(string, ...any)) (*stack, error) {
	s := &stack{}
	if err := s.build(ctx, config, logf); err != nil {
		s.close(logf)
		return nil, err
	}
	return s, nil
}

func (s *stack) build(ctx context.Context, config DaemonConfig, logf func(string, ...any)) error {
	var err error
	if s.host, err = kernel.Open(); err != nil {
		return err
	}
	epoch, err := s.host.Epoch()
	if err != nil {
		return err
	}
	s.plugins = openPlugins(config, plugin.Options{
		Meet: func(ctx context.Context, name string) { s.controller.Meet(ctx, name) },
		Up:   func(name string) { s.controller.Heal(name) },
	}, logf)
	id, err := engineID(config.DataRoot)
	if err != nil {
		return err
	}
	var tunnels overlay.Driver
	if s.cluster, tunnels, err = openCluster(ctx, s.host, config.Cluster, id, logf); err != nil {
		return err
	}
	var shared controller.Cluster
	if s.cluster != nil {
		shared = s.cluster
	}
	s.store, _, err = store.Open(store.Options{
		DataRoot: config.DataRoot, ExecRoot: config.ExecRoot, Epoch: epoch, Codec: op.NewCodec(nftables.Kinds(), iptables.Kinds(), remote.Kinds(s.plugins), controller.Kinds(shared)),
		Quarantine: func(err error) { logf("store: %v", err) },
	})
	if err != nil {
		return err
	}
	rules, backend, err := chooseFirewall(s.host, config.FirewallBackend, config.AcceptMark, logf)
	if err != nil {
		return err
	}
	events, history := api.NewEvents(), api.NewHistory()
	s.controller = controller.New(controller.Options{
		Guard: nftables.Backend{}, // with iptables too: nftables alone can look into a bridge
		Host:  s.host, Store: s.store, Holder: holder{s}, Firewall: rules, ExecRoot: config.ExecRoot,
		Drivers: builtIn(bridge.Driver{AllowDirect: config.AllowDirectRouting}, tunnels), Cluster: shared, Plugins: s.plugins, Defaults: defaults(config), Events: events.Network, Trace: history.Trace, Logf: logf,
	})
	networks := api.Networks{Controller: s.controller}
	s.containers, err = runtime.New(runtime.Options{
		DataRoot: config.DataRoot, ExecRoot: config.ExecRoot, Networks: networks, Links: networks,
		Events: events.Container, Volumes: events.Volume, Logf: logf,
	})
	if err != nil {
		return err
	}
	if err = s.controller.Recover(ctx); err != nil {
		return fmt.Errorf("recovering networks: %w", err)
	}
	if err = s.recoverContainers(ctx, logf); err != nil {
		return fmt.Errorf("recovering containers: %w", err)
	}
	s.images, err = image.Open(image.Options{DataRoot: config.DataRoot, InUse: s.imageUsers, Events: events.Image, Logf: logf, Insecure: config.Insecure})
	if err != nil {
		return fmt.Errorf("opening images: %w", err)
	}
	s.server = api.New(api.Options{
		Networks: s.controller, Containers: s.containers, Images: s.images, Volumes: s.containers.Volumes(), Events: events, History: history, Logf: logf,
		Plugins: pluginBook{s.plugins, s.controller},
		About: api.About{
			ID: id, Version: version, DataRoot: config.DataRoot, ExecRoot: config.ExecRoot, Debug: config.Debug,
			NetworkDrivers: builtInNetworks(), FirewallDriver: backend,
		},
	})
	return nil
}

// imageUsers are the containers, as far as images concern them.
func (s *stack) imageUsers() []image.User {
	var users []image.User
	for _, c := range s.containers.List() {
		if c.Image != "" {
			users = append(users, image.User{Container: c.ID, Image: c.Image, Lower: c.Lower, Running: c.State.Running()})
		}
	}
	return users
}

// recoverContainers finds the containers of an earlier daemon, answers again
// in the sandboxes of those that live, and takes away what belongs to none.
func (s *stack) recoverContainers(ctx context.Context, logf func(string, ...any)) error {
	if err := s.containers.Recover(ctx); err != nil {
		return err
	}
	running, known := make(map[linkspan.ID]bool), make(map[linkspan.ID]bool)
	for _, c := range s.containers.List() {
		known[c.ID], running[c.ID] = true, c.State.Running()
	}
	live, configured := s.controller.Owners()
	for _, id := range live {
		if !running[id] {
			report(logf, "detaching a container that has ended", s.controller.DetachEnded(ctx, id))
			continue
		}
		kept, err := s.containers.Kept(id)
		report(logf, "fetching the resolver's sockets of container "+id.Short(), err)
		report(logf, "resuming the resolver of container "+id.Short(), s.controller.Resume(id, kept))
		for _, file := range kept {
			report(logf, "closing a duplicate", file.Close())
		}
	}
	for _, id := range configured {
		if !known[id] {
			report(logf, "forgetting a container that is gone", s.controller.Forget(id))
		}
	}
	return nil
}

func report(logf func(string, ...any), what string, err error) {
	if err != nil {
		logf("%s: %v", what, err)
	}
}

// close takes the stack down from the top. Nothing changes in the kernel.
func (s *stack) close(logf func(string, ...any)) {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	if s.server != nil {
		report(logf, "ending requests", s.server.Shutdown(ctx))
	}
	if s.containers != nil {
		report(logf, "letting go of containers", s.containers.Close())
	}
	if s.plugins != nil {
		s.plugins.Close()
	}
	if s.controller != nil {
		s.controller.Close()
	}
	if s.cluster != nil {
		report(logf, "telling the cluster that containers go on", s.cluster.Away(ctx))
		report(logf, "leaving the cluster's store as it is", s.cluster.Close())
	}
	if s.store != nil {
		report(logf, "closing the store", s.store.Close())
	}
	if s.host != nil {
		report(logf, "closing netlink", s.host.Close())
	}
}

func defaults(config DaemonConfig) controller.Defaults {
	hostID, err := os.ReadFile("/etc/machine-id")
	if err != nil {
		hostID = nil // a machine without an identity gets the same ULA prefix as others of its kind
	}
	four, six := ipam.Bases(config.DefaultAddressPools, string(hostID))
	d := controller.Defaults{Bases4: four, Bases6: six}
	config.BridgeConfig.apply(&d)
	config.NameConfig.apply(&d)
	return d
}

func writePid(config DaemonConfig) error {
	path := config.PidFile
	if path == "" {
		path = filepath.Join(config.ExecRoot, "linkspan.pid")
	}
	if err := os.WriteFile(path, []byte(strconv.Itoa(os.Getpid())+"\n"), 0o644); err != nil {
		return fmt.Errorf("writing the daemon's process ID: %w", err)
	}
	return nil
}
