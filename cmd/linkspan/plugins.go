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
func openPlugins(config DaemonConfig, o plugin.Options, logf func(string, ...any)) *remote.Plugins {
	o.Dirs = append(append([]string(nil), config.PluginDir...), filepath.Join(config.ExecRoot, "plugins"))
	o.Deadline, o.Logf = config.PluginTimeout, logf
	return &remote.Plugins{Directory: plugin.NewDirectory(o), Logf: logf}
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

// GiveUp drops what waits for a plugin that will not come back.
func (b pluginBook) GiveUp(ctx context.Context, name string) ([]string, error) {
	return b.controller.GiveUp(ctx, name)
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
			p.Endpoints, err = b.endpoints(ctx, place.Name, p.Networks)
			p.Problem = problemsOf(p.Endpoints, err)
		}
		all = append(all, p)
	}
	return all
}

// endpoints asks a plugin about its endpoints.
func (b pluginBook) endpoints(ctx context.Context, name string, networks []string) ([]api.PluginEndpoint, error) {
	var all []api.PluginEndpoint
	for _, network := range networks {
		n, err := b.controller.Network(network)
		if err != nil || n.Driver != name {
			continue
		}
		for _, e := range b.controller.Endpoints(n.ID) {
			p := api.PluginEndpoint{Network: n.Name, Container: e.Name}
			if p.Info, err = b.controller.Describe(ctx, e); err == nil {
				p.Problems, err = b.plugins.Problems(ctx, name, drivers.HeldEndpoint{Network: n.ID, Endpoint: e.ID})
			}
			all = append(all, p)
			if err != nil {
				return all, err
			}
		}
	}
	return all, nil
}

// problemsOf is what is amiss with endpoints in one line.
func problemsOf(endpoints []api.PluginEndpoint, err error) string {
	var all []string
	for _, e := range endpoints {
		for _, problem := range e.Problems {
			all = append(all, "container "+e.Container+": "+problem)
		}
	}
	if err != nil {
		all = append(all, err.Error())
	}
	return strings.Join(slices.Compact(all), "; ")
}
