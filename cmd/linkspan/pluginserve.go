package main

import (
	"context"
	"log"
	"os"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/drivers"
	"github.com/linkspan/linkspan/drivers/bridge"
	"github.com/linkspan/linkspan/drivers/overlay"
	"github.com/linkspan/linkspan/firewall/nftables"
	"github.com/linkspan/linkspan/ipam"
	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/plugin/export"
)

// servePlugin offers our drivers to another engine until ctx ends. What they
// made stays.
func servePlugin(ctx context.Context, o serveOptions) error {
	if o.scope != "local" && o.scope != "global" {
		return linkspan.Errorf(linkspan.ErrInvalid, "invalid --scope %q: want local or global", o.scope)
	}
	config, err := o.cluster.config()
	if err != nil {
		return err
	}
	lock, err := lockNamespace(ctx)
	if err != nil {
		return err
	}
	defer lock.Close()
	host, err := kernel.Open()
	if err != nil {
		return err
	}
	defer host.Close()
	id, err := engineID(o.dataRoot)
	if err != nil {
		return err
	}
	logf := log.New(os.Stderr, "linkspan plugin: ", log.LstdFlags|log.Lmsgprefix).Printf
	shared, tunnels, err := openCluster(ctx, host, config, id, logf)
	if err != nil {
		return err
	}
	if shared != nil {
		defer func() { report(logf, "leaving the cluster's store as it is", shared.Close()) }()
	}
	exporter, err := export.New(ctx, export.Options{
		Host: host, Drivers: exported(tunnels), Default: "bridge", Firewall: nftables.Backend{},
		Codec: op.NewCodec(nftables.Kinds()), Dir: o.dataRoot, Scope: o.scope, Cluster: shared,
		Bases4: ipam.DefaultBases(), Bases6: ipam.DefaultBases6(o.dataRoot), Logf: logf,
	})
	if err != nil {
		return err
	}
	logf("listening on %s", o.socket)
	return exporter.Serve(ctx, o.socket)
}

// exported are the drivers that make links of their own, with addresses.
func exported(tunnels overlay.Driver) map[string]drivers.Driver {
	offered := make(map[string]drivers.Driver)
	for name, driver := range builtIn(bridge.Driver{}, tunnels) {
		if traits := driver.Traits(); traits.Addresses && !traits.Single {
			offered[name] = driver
		}
	}
	return offered
}
