package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/linkspan/linkspan/api"
)

// newPort is docker's port, which lists, with verbs of our own below it.
func newPort(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "port CONTAINER [PRIVATE_PORT[/PROTO]]",
		Short: "List port mappings or a specific mapping for the container; publish ports of running containers",
		Args:  cobra.RangeArgs(1, 2),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		daemon, err := a.connect(cmd.Context())
		if err != nil {
			return err
		}
		found, err := daemon.ContainerInspect(cmd.Context(), args[0], client.ContainerInspectOptions{})
		if err != nil {
			return err
		}
		if len(args) == 2 {
			lines, err := onePort(args[0], args[1], found.Container.NetworkSettings.Ports)
			if err != nil {
				return err
			}
			fmt.Fprintln(a.out, strings.Join(lines, "\n"))
			return nil
		}
		for _, line := range portLines(found.Container.NetworkSettings.Ports) {
			fmt.Fprintln(a.out, line)
		}
		return nil
	}
	cmd.AddCommand(newPortLs(a), newPortChange(a, portAddVerb()), newPortChange(a, portRmVerb()))
	return cmd
}

func newPortLs(a *app) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "ls [CONTAINER]",
		Short: "List published ports and from where they can be reached",
		Args:  cobra.MaximumNArgs(1),
	}
	cmd.Flags().StringVar(&format, "format", "", "json, or a table if left out")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c := call{Method: http.MethodGet, Path: "/linkspan/v1/ports"}
		if len(args) == 1 {
			var err error
			if c.Path, err = path("/linkspan/v1/containers/", args[0], "/ports", nil); err != nil {
				return err
			}
		}
		return a.ports(cmd, c, format)
	}
	return cmd
}

func portAddVerb() verb {
	var from []string
	cmd := &cobra.Command{
		Use:     "add CONTAINER PORT...",
		Short:   "Publish ports of a running container; connections under way go on",
		Example: "  linkspan port add web 8080:80\n  linkspan port add --from 192.0.2.0/24 db 5432:5432",
		Args:    cobra.MinimumNArgs(2),
	}
	cmd.Flags().StringArrayVar(&from, "from", nil, "`prefix` of addresses that may use the ports (default: everybody)")
	return verb{cmd, func(_ *cobra.Command, args []string) ([]call, error) {
		return portCalls(http.MethodPost, args, from)
	}}
}

func portRmVerb() verb {
	cmd := &cobra.Command{
		Use:     "rm CONTAINER PORT...",
		Short:   "Take published ports of a running container back; connections by others go on",
		Example: "  linkspan port rm web 80\n  linkspan port rm web 127.0.0.1:8080:80",
		Args:    cobra.MinimumNArgs(2),
	}
	return verb{cmd, func(_ *cobra.Command, args []string) ([]call, error) {
		return portCalls(http.MethodDelete, args, nil)
	}}
}

func portCalls(method string, args, from []string) ([]call, error) {
	target, err := path("/linkspan/v1/containers/", args[0], "/ports", nil)
	return []call{{Method: method, Path: target, Body: api.PortsRequest{Ports: args[1:], Sources: from}}}, err
}

// newPortChange makes a verb's command do its call and print what is published
// then.
func newPortChange(a *app, v verb) *cobra.Command {
	return a.doing(v, func(cmd *cobra.Command, _ []string, daemon *engine, calls []call) error {
		return a.printPorts(cmd, daemon, calls[0], "")
	})
}

// ports is printPorts with the daemon that there is.
func (a *app) ports(cmd *cobra.Command, c call, format string) error {
	daemon, err := a.connect(cmd.Context())
	if err != nil {
		return err
	}
	return a.printPorts(cmd, daemon, c, format)
}

// printPorts makes a call and prints the ports that it answers with.
func (a *app) printPorts(cmd *cobra.Command, daemon *engine, c call, format string) error {
	text, err := daemon.text(cmd.Context(), c)
	if err != nil {
		return err
	}
	switch format {
	case "json":
		fmt.Fprintln(a.out, strings.TrimSpace(text))
		return nil
	case "", "table":
	default:
		return fmt.Errorf("invalid --format %q: want table or json", format)
	}
	var rows []api.PublishedPort
	if err := json.Unmarshal([]byte(text), &rows); err != nil {
		return fmt.Errorf("reading the daemon's answer: %w", err)
	}
	table := tabwriter.NewWriter(a.out, 0, 1, 3, ' ', 0)
	fmt.Fprintln(table, "CONTAINER\tHOST\tLEADS TO\tREACHABLE FROM")
	for _, row := range rows {
		fmt.Fprintf(table, "%s\t%s\t%s/%s\t%s\n", row.Name, hostSide(row), through(row.To, row.Count), row.Protocol, row.ReachableFrom)
	}
	return table.Flush()
}

func hostSide(row api.PublishedPort) string {
	switch {
	case row.Host == "":
		return "(routed)"
	case strings.Contains(row.Host, ":"):
		return through("["+row.Host+"]:"+strconv.Itoa(int(row.HostPort)), row.Count)
	}
	return through(row.Host+":"+strconv.Itoa(int(row.HostPort)), row.Count)
}

// through writes the last of several ports behind the first.
func through(first string, count uint16) string {
	port, err := strconv.Atoi(first[strings.LastIndexByte(first, ':')+1:])
	if err != nil || count <= 1 {
		return first
	}
	return fmt.Sprintf("%s-%d", first, port+int(count)-1)
}
