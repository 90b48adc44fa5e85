package main

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	apinetwork "github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/lab/topology"
	"github.com/linkspan/linkspan/network"
)

func newTopology(a *app) *cobra.Command {
	var format, netns string
	command := &cobra.Command{
		Use:     "topology [--format FORMAT]",
		Short:   "Draw namespaces, links, bridges, addresses and published ports",
		Example: "  linkspan topology\n  linkspan topology --format svg > lab.svg",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			daemon, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			known, err := daemon.known(cmd.Context())
			if err != nil {
				return err
			}
			host, err := openHost(netns)
			if err != nil {
				return err
			}
			defer host.Close()
			picture, err := topology.Gather(host, known)
			if err != nil {
				return err
			}
			return topology.Write(a.out, format, picture)
		},
	}
	command.Flags().StringVar(&format, "format", "text", "`format`: "+strings.Join(topology.Formats(), ", "))
	command.Flags().StringVar(&netns, "netns", "", "the `namespace` that the daemon runs in, if it is not that of this command")
	return command
}

// known asks the daemon whose the namespaces and the bridges are.
func (e *engine) known(ctx context.Context) (topology.Known, error) {
	known := topology.Known{Owners: map[string]topology.Owner{}, Networks: map[string]string{}}
	networks, err := e.NetworkList(ctx, client.NetworkListOptions{})
	if err != nil {
		return known, err
	}
	for _, n := range networks.Items {
		record := network.Network{ID: linkspan.ID(n.ID), Options: n.Options}
		known.Networks[cmp.Or(record.Options["com.docker.network.bridge.name"], "br-"+record.ID.Short())] = n.Name
	}
	containers, err := e.ContainerList(ctx, client.ContainerListOptions{})
	if err != nil {
		return known, err
	}
	for _, c := range containers.Items {
		found, err := e.ContainerInspect(ctx, c.ID, client.ContainerInspectOptions{})
		if err != nil || found.Container.NetworkSettings == nil {
			continue // it has ended since
		}
		settings := found.Container.NetworkSettings
		if filepath.Dir(settings.SandboxKey) != "/run/netns" {
			continue // the host's own, or another container's
		}
		known.Owners[filepath.Base(settings.SandboxKey)] = topology.Owner{
			Container: strings.TrimPrefix(found.Container.Name, "/"), Ports: published(settings.Ports),
		}
	}
	return known, nil
}

// published prints port bindings as docker ps does, in order.
func published(ports apinetwork.PortMap) []string {
	var lines []string
	for port, bindings := range ports {
		for _, b := range bindings {
			lines = append(lines, fmt.Sprintf("%s:%s->%s", b.HostIP, b.HostPort, port))
		}
	}
	slices.Sort(lines)
	return lines
}
