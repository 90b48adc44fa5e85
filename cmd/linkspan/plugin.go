package main

import (
	"encoding/json"
	"fmt"
	ossignal "os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/linkspan/linkspan/api"
	"github.com/linkspan/linkspan/plugin"
	"github.com/linkspan/linkspan/plugin/check"
)

func newPlugin(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "plugin COMMAND",
		Short: "See, test and be a driver that is a program of its own",
		Args:  unknownVerb,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newPluginLs(a), newPluginInspect(a), newPluginForget(a), newPluginCheck(a), newPluginServe(a))
	return cmd
}

// pluginRow is a line of plugin ls.
type pluginRow struct{ Name, Kind, Scope, State, Networks, Address, Problem string }

func pluginListing() listing {
	return listing{
		head: header{
			"Name": "NAME", "Kind": "KIND", "Scope": "SCOPE", "State": "STATE", "Networks": "NETWORKS",
			"Address": "ADDRESS", "Problem": "PROBLEM",
		},
		table: "{{.Name}}\t{{.Kind}}\t{{.Scope}}\t{{.State}}\t{{.Networks}}\t{{.Address}}",
		quiet: "{{.Name}}",
	}
}

func newPluginLs(a *app) *cobra.Command {
	var format string
	var quiet bool
	cmd := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List plugins, those that are away too",
		Args:    cobra.NoArgs,
	}
	cmd.Flags().StringVar(&format, "format", "", "format output: 'table', 'table TEMPLATE', 'json' or a Go `template`")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "only display names")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		daemon, err := a.connect(cmd.Context())
		if err != nil {
			return err
		}
		var all []api.Plugin
		if err := daemon.do(cmd.Context(), call{Method: "GET", Path: "/linkspan/v1/plugins"}, &all); err != nil {
			return err
		}
		rows := make([]pluginRow, len(all))
		for i, p := range all {
			rows[i] = pluginRow{
				Name: p.Name, Kind: strings.Join(p.Implements, ","), Scope: p.Scope, State: p.State,
				Networks: strings.Join(p.Networks, ","), Address: p.Address, Problem: p.Problem,
			}
		}
		return print(a.out, pluginListing(), format, quiet, rows)
	}
	return cmd
}

func newPluginInspect(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "inspect PLUGIN [PLUGIN...]",
		Short: "Say what a plugin offers, how it is, and what depends on it",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, names []string) error {
			daemon, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			all := make([]api.Plugin, len(names))
			for i, name := range names {
				if err := daemon.do(cmd.Context(), call{Method: "GET", Path: "/linkspan/v1/plugins/" + name}, &all[i]); err != nil {
					return err
				}
			}
			encoder := json.NewEncoder(a.out)
			encoder.SetIndent("", "    ")
			return encoder.Encode(all)
		},
	}
}

func newPluginForget(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "forget PLUGIN [PLUGIN...]",
		Short: "Give up on a plugin that will not come back: drop what waits for it",
		Long: "Give up on a plugin that will not come back. Networks and endpoints whose removal waits for it (see plugin inspect) are gone\n" +
			"then, but the plugin is never told: links, addresses and records that it made and kept outside the containers stay, and are its\n" +
			"owner's to remove. Networks that are not removed yet are left alone: remove them first.",
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, names []string) error {
			daemon, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			for _, name := range names {
				var given api.GivenUp
				if err := daemon.do(cmd.Context(), call{Method: "DELETE", Path: "/linkspan/v1/plugins/" + name}, &given); err != nil {
					return err
				}
				for _, what := range given.Dropped {
					fmt.Fprintf(a.out, "%s: gone, and plugin %s was not told\n", what, name)
				}
			}
			return nil
		},
	}
}

func newPluginCheck(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "check SOCKET",
		Short: "Try every call on a driver, and print what breaks the protocol",
		Long: "Try every call on a driver, and print what breaks the protocol. The driver makes a network and endpoints\n" +
			"in the network namespace that it lives in; all of them are deleted again. Needs no daemon.",
		Example: "  linkspan plugin check /run/docker/plugins/lab.sock",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			broken, err := check.Run(cmd.Context(), args[0], func(f check.Finding) { fmt.Fprintln(a.out, f) })
			if err == nil && broken > 0 {
				err = fmt.Errorf("%s breaks the protocol in %d places", args[0], broken)
			}
			return err
		},
	}
}

func newPluginServe(_ *app) *cobra.Command {
	var o serveOptions
	cmd := &cobra.Command{
		Use:   "serve [OPTIONS]",
		Short: "Be a plugin: offer our drivers and IPAM to another engine, such as Docker",
		Long: "Be a plugin: offer our drivers and IPAM to another engine, such as Docker, in the network namespace\n" +
			"that the engine lives in. Networks, and what of the host was changed, outlive this command.\n\n" +
			"With --cluster-store, networks may span hosts: those that are created with the same\n" +
			"--ipam-opt linkspan.shared=NAME on several hosts, or as an overlay network NAME by a linkspan daemon of the\n" +
			"cluster, are one.",
		Example: "  linkspan plugin serve &\n" +
			"  docker network create -d linkspan --ipam-driver linkspan lab\n\n" +
			"  linkspan plugin serve --cluster-store etcd://10.0.0.1:2379 --cluster-advertise eth0 &\n" +
			"  docker network create -d linkspan --ipam-driver linkspan --ipam-opt linkspan.shared=lab lab",
		Args: cobra.NoArgs,
	}
	cmd.Flags().StringVar(&o.socket, "socket", plugin.DockerSockets+"/linkspan.sock", "`path` to listen on; its name is the driver's")
	cmd.Flags().StringVar(&o.scope, "scope", "local", "scope of networks (`local|global`)")
	cmd.Flags().StringVar(&o.dataRoot, "data-root", defaultDataRoot+"/plugin", "`folder` of persistent state")
	o.cluster.bind(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ctx, stop := ossignal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
		defer stop()
		return servePlugin(ctx, o)
	}
	return cmd
}

// serveOptions are the flags of plugin serve.
type serveOptions struct {
	socket, scope, dataRoot string
	cluster                 clusterFlags
}
