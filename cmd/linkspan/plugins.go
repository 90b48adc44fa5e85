package main

import (
	"context"
	"path/filepath"
	"slices"
	"strings"

	"github.com/linkspan/linkspan/api"
	"github.com/linkspan/linkspan/controller"
	"github.com/linkspan/linkspan/drivers"
	"github.com/linkspan/linkspan/drivers/remote"
	"github.com/linkspan/linkspan/plugin"
)

// openPlugins finds the drivers that are programs of their own: in the folders of
// --plugin-dir, in the daemon's own, and where plugins for Docker are.
func openPlugins(config DaemonConfig, up func(name string), logf func(string, ...any)) *remote.Plugins {
	return &remote.Plugins{
		Directory: plugin.NewDirectory(plugin.Options{
			Dirs:     append(append([]string(nil), config.PluginDir...), filepath.Join(config.ExecRoot, "plugins")),
			Deadline: config.PluginTimeout, Up: up, Logf: logf,
		}),
		Logf: logf,
	}
}

// pluginBook tells the API about plugins.
type pluginBook struct {
	plugins    *remote.Plugins
	controller *controller.Controller
}

// Names returns those that offer a kind of driver.
func (b pluginBook) Names(ctx context.Context, kind string) []string {
	return b.plugins.Names(ctx, kind)
}

// Plugins describes all that there are.
func (b pluginBook) Plugins(ctx context.Context) []api.Plugin {
	all := []api.Plugin{}
	for _, place := range b.plugins.Places() {
		about, err := b.plugins.Line(place.Name).Glance(ctx)
		p := api.Plugin{
			Name: place.Name, Address: place.URL, File: place.File, State: "ready", Implements: about.Implements,
			Scope: about.Network.Scope, ConnectivityScope: about.Network.ConnectivityScope, Extensions: about.Network.Extensions,
			RequiresMAC: about.IPAM.RequiresMACAddress, RequiresReplay: about.IPAM.RequiresRequestReplay,
		}
		p.Networks, p.Waiting = b.controller.Dependents(place.Name)
		if err == nil {
			err = b.plugins.Status(ctx, place.Name)
		} else {
			p.State = "away"
		}
		if err != nil {
			p.Problem = err.Error()
		} else {
			p.Problem = strings.Join(b.problems(ctx, place.Name, p.Networks), "; ")
		}
		all = append(all, p)
	}
	return all
}

// problems collects what a plugin says of its endpoints.
func (b pluginBook) problems(ctx context.Context, name string, networks []string) []string {
	var all []string
	for _, network := range networks {
		n, err := b.controller.Network(network)
		if err != nil || n.Driver != name {
			continue
		}
		for _, e := range b.controller.Endpoints(n.ID) {
			problems, err := b.plugins.Problems(ctx, name, drivers.HeldEndpoint{Network: n.ID, Endpoint: e.ID})
			if err != nil {
				return append(all, err.Error())
			}
			for _, problem := range problems {
				all = append(all, "container "+e.Name+": "+problem)
			}
		}
	}
	return slices.Compact(all)
}
