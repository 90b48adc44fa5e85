package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

func newNetwork(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "network",
		Short: "Manage networks",
		Args:  unknownVerb,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		newNetworkCreate(a), newNetworkLs(a), newNetworkInspect(a), newNetworkRm(a),
		newNetworkPrune(a), newNetworkConnect(a), newNetworkDisconnect(a), newNetworkUpdate(a),
	)
	return cmd
}

func newNetworkCreate(a *app) *cobra.Command {
	return a.doing(networkCreateVerb(), func(cmd *cobra.Command, args []string, daemon *engine, calls []call) error {
		var made network.CreateResponse
		if err := daemon.do(cmd.Context(), calls[0], &made); err != nil {
			return err
		}
		if made.Warning != "" {
			fmt.Fprintln(a.err, "WARNING:", made.Warning)
		}
		fmt.Fprintln(a.out, made.ID)
		return nil
	})
}

func networkRmVerb() verb {
	var force bool
	cmd := &cobra.Command{
		Use:     "rm NETWORK [NETWORK...]",
		Aliases: []string{"remove"},
		Short:   "Remove one or more networks",
		Args:    cobra.MinimumNArgs(1),
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "do not complain about a network that does not exist")
	return verb{cmd, func(_ *cobra.Command, args []string) ([]call, error) {
		return callEach(args, http.MethodDelete, "/networks/", "", nil)
	}}
}

// callEach makes one call for each name.
func callEach(names []string, method, before, after string, query url.Values) ([]call, error) {
	calls := make([]call, len(names))
	for i, name := range names {
		target, err := path(before, name, after, query)
		if err != nil {
			return nil, err
		}
		calls[i] = call{Method: method, Path: target}
	}
	return calls, nil
}

func newNetworkRm(a *app) *cobra.Command {
	return a.doing(networkRmVerb(), func(cmd *cobra.Command, args []string, daemon *engine, calls []call) error {
		return a.removeEach(cmd, daemon, args, calls, io.Discard)
	})
}

func networkPruneVerb() verb {
	var filters []string
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "Remove all networks that no container uses",
		Args:  cobra.NoArgs,
	}
	cmd.Flags().StringArrayVar(&filters, "filter", nil, "which ones (`\"until=<timestamp>\"`, label=..., label!=...)")
	cmd.Flags().BoolP("force", "f", false, "do not ask for confirmation")
	return verb{cmd, func(*cobra.Command, []string) ([]call, error) {
		query, err := filterQuery(filters)
		if err != nil {
			return nil, err
		}
		target := "/networks/prune"
		if len(query) > 0 {
			target += "?" + query.Encode()
		}
		return []call{{Method: http.MethodPost, Path: target}}, nil
	}}
}

func newNetworkPrune(a *app) *cobra.Command {
	v := networkPruneVerb()
	v.command.RunE = func(cmd *cobra.Command, args []string) error {
		calls, err := v.calls(cmd, args)
		if err != nil {
			return err
		}
		force, err := cmd.Flags().GetBool("force")
		if err != nil {
			return err
		}
		if !force && !a.confirm("WARNING! This will remove all custom networks not used by at least one container.") {
			return nil
		}
		daemon, err := a.connect(cmd.Context())
		if err != nil {
			return err
		}
		var report network.PruneReport
		if err := daemon.do(cmd.Context(), calls[0], &report); err != nil {
			return err
		}
		if len(report.NetworksDeleted) > 0 {
			fmt.Fprintf(a.out, "Deleted Networks:\n%s\n\n", strings.Join(report.NetworksDeleted, "\n"))
		}
		return nil
	}
	return v.command
}

// confirm asks a question on the output and reads a line; anything but a yes
// is a no.
func (a *app) confirm(question string) bool {
	fmt.Fprintf(a.out, "%s\nAre you sure you want to continue? [y/N] ", question)
	var answer string
	if _, err := fmt.Fscanln(a.in, &answer); err != nil {
		fmt.Fprintln(a.out)
		return false
	}
	answer = strings.ToLower(answer)
	return answer == "y" || answer == "yes"
}

func networkConnectVerb() verb {
	var attach attachment
	var container string
	cmd := &cobra.Command{
		Use:   "connect [OPTIONS] NETWORK CONTAINER",
		Short: "Connect a container to a network",
		Args:  cobra.ExactArgs(2),
	}
	flags := cmd.Flags()
	flags.StringVar(&attach.ip, "ip", "", "IPv4 `address` (e.g. 172.30.100.104)")
	flags.StringVar(&attach.ip6, "ip6", "", "IPv6 `address` (e.g. 2001:db8::33)")
	flags.StringVar(&attach.mac, "mac-address", "", "MAC `address` (e.g. 92:d0:c6:0a:29:33)")
	flags.StringArrayVar(&attach.links, "link", nil, "link to another container")
	flags.StringArrayVar(&attach.aliases, "alias", nil, "network-scoped alias for the container")
	flags.StringArrayVar(&attach.linkLocal, "link-local-ip", nil, "link-local `address` for the container")
	flags.StringArrayVar(&attach.driverOpts, "driver-opt", nil, "driver options for the network")
	flags.IntVar(&attach.gwPriority, "gw-priority", 0, "highest gw-priority provides the default gateway")
	return verb{cmd, func(_ *cobra.Command, args []string) ([]call, error) {
		container = args[1]
		settings, err := attach.settings()
		if err != nil {
			return nil, err
		}
		target, err := path("/networks/", args[0], "/connect", nil)
		if err != nil {
			return nil, err
		}
		return []call{{http.MethodPost, target, network.ConnectRequest{Container: container, EndpointConfig: settings}}}, nil
	}}
}

func newNetworkConnect(a *app) *cobra.Command { return a.silent(networkConnectVerb()) }

func networkDisconnectVerb() verb {
	var force bool
	cmd := &cobra.Command{
		Use:   "disconnect [OPTIONS] NETWORK CONTAINER",
		Short: "Disconnect a container from a network",
		Args:  cobra.ExactArgs(2),
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "force the container to disconnect")
	return verb{cmd, func(_ *cobra.Command, args []string) ([]call, error) {
		target, err := path("/networks/", args[0], "/disconnect", nil)
		if err != nil {
			return nil, err
		}
		return []call{{http.MethodPost, target, network.DisconnectRequest{Container: args[1], Force: force}}}, nil
	}}
}

func newNetworkDisconnect(a *app) *cobra.Command { return a.silent(networkDisconnectVerb()) }

// silent makes a verb's command do its calls and print nothing.
func (a *app) silent(v verb) *cobra.Command {
	return a.doing(v, func(cmd *cobra.Command, args []string, daemon *engine, calls []call) error {
		for _, c := range calls {
			if err := daemon.do(cmd.Context(), c, nil); err != nil {
				return err
			}
		}
		return nil
	})
}

func newNetworkInspect(a *app) *cobra.Command {
	var format string
	var verbose bool
	cmd := &cobra.Command{
		Use:   "inspect [OPTIONS] NETWORK [NETWORK...]",
		Short: "Display detailed information on one or more networks",
		Args:  cobra.MinimumNArgs(1),
	}
	cmd.Flags().StringVarP(&format, "format", "f", "", "format output using a custom Go `template`, or 'json'")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "verbose output for diagnostics")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		daemon, err := a.connect(cmd.Context())
		if err != nil {
			return err
		}
		return a.inspect(format, args, func(name string) (inspected, error) {
			return daemon.inspectNetwork(cmd.Context(), name, verbose)
		})
	}
	return cmd
}

func (e *engine) inspectNetwork(ctx context.Context, name string, verbose bool) (inspected, error) {
	name, err := segment(name)
	if err != nil {
		return inspected{}, err
	}
	found, err := e.NetworkInspect(ctx, name, client.NetworkInspectOptions{Verbose: verbose})
	return inspected{typed: found.Network, raw: found.Raw}, err
}
