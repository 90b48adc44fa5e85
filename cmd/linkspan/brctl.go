package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/endpoint"
	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/lab/brctl"
)

// newBrctl is brctl(8) in the namespace that the command runs in, or another.
func newBrctl(a *app) *cobra.Command {
	command := brctlCommand(a, nil)
	command.Short = "Show and change bridges in the words of brctl(8)"
	command.Example = "  linkspan brctl show --who\n  linkspan brctl --netns lab-a showmacs br0"
	return command
}

// brctlCommand carries a command line of brctl(8) out or, with a dialect, explains
// it.
func brctlCommand(a *app, dialect *dialectFlag) *cobra.Command {
	var netns string
	var who, version bool
	command := &cobra.Command{
		Use:   "brctl [--netns NAME] [--who] COMMAND [ARG...]",
		Short: "Print what a command of brctl(8) would do",
		RunE: func(cmd *cobra.Command, args []string) error {
			host, err := openHost(netns)
			if err != nil {
				return err
			}
			defer host.Close()
			tool := brctl.Tool{Host: host, Out: a.out, Err: a.err}
			if dialect != nil {
				tool.Explain, tool.Dialect = true, dialect.Dialect
			}
			if who {
				if tool.Who, err = a.owners(cmd.Context()); err != nil {
					return err
				}
			}
			if version {
				args = []string{"--version"}
			}
			if code := tool.Run(cmd.Context(), args); code != 0 {
				return exit{code: code}
			}
			return nil
		},
	}
	command.Flags().StringVar(&netns, "netns", "", "work in the `namespace` of that name (see: ip netns)")
	command.Flags().BoolVarP(&version, "version", "V", false, "print the version of bridge-utils whose dialect it is")
	command.Flags().BoolVar(&who, "who", false, "say behind each port which container it belongs to")
	return command
}

// openHost opens the namespace pinned under a name; empty: the caller's own.
func openHost(netns string) (*kernel.Host, error) {
	if netns == "" {
		return kernel.Open()
	}
	return kernel.OpenAt(kernel.Pin(netns))
}

// owners asks the daemon whose the links in its namespace are: container,
// network and addresses.
func (a *app) owners(ctx context.Context) (func(link string) string, error) {
	daemon, err := a.connect(ctx)
	if err != nil {
		return nil, err
	}
	containers, err := daemon.ContainerList(ctx, client.ContainerListOptions{})
	if err != nil {
		return nil, err
	}
	owners := map[string]string{}
	for _, c := range containers.Items {
		if c.NetworkSettings == nil {
			continue
		}
		for network, e := range c.NetworkSettings.Networks {
			var addresses []string
			for _, address := range []fmt.Stringer{e.IPAddress, e.GlobalIPv6Address} {
				addresses = append(addresses, address.String())
			}
			addresses = slices.DeleteFunc(addresses, func(text string) bool { return strings.HasPrefix(text, "invalid") })
			link := endpoint.Endpoint{ID: linkspan.ID(e.EndpointID)}.HostLink()
			owners[link] = strings.Join(append([]string{strings.TrimPrefix(c.Names[0], "/"), network}, addresses...), " ")
		}
	}
	return func(link string) string { return owners[link] }, nil
}
