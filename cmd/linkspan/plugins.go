package main

import (
	"path/filepath"

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
