package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

func newLogs(a *app) *cobra.Command {
	o := client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true}
	cmd := &cobra.Command{
		Use:   "logs [OPTIONS] CONTAINER",
		Short: "Fetch the logs of a container",
		Args:  cobra.ExactArgs(1),
	}
	flags := cmd.Flags()
	flags.BoolVarP(&o.Follow, "follow", "f", false, "follow log output")
	flags.BoolVarP(&o.Timestamps, "timestamps", "t", false, "show timestamps")
	flags.BoolVar(&o.Details, "details", false, "show extra details provided to logs")
	flags.StringVar(&o.Since, "since", "", "show logs since timestamp (e.g. \"2013-01-02T13:23:37Z\") or relative (e.g. \"42m\")")
	flags.StringVar(&o.Until, "until", "", "show logs before a timestamp or relative time")
	flags.StringVarP(&o.Tail, "tail", "n", "all", "number of lines to show from the end of the logs")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		daemon, err := a.connect(cmd.Context())
		if err != nil {
			return err
		}
		found, err := daemon.ContainerInspect(cmd.Context(), args[0], client.ContainerInspectOptions{})
		if err != nil {
			return err
		}
		lines, err := daemon.ContainerLogs(cmd.Context(), found.Container.ID, o)
		if err != nil {
			return err
		}
		defer lines.Close()
		if found.Container.Config.Tty {
			_, err = io.Copy(a.out, lines)
		} else {
			_, err = stdcopy.StdCopy(a.out, a.err, lines)
		}
		if err != nil {
			return fmt.Errorf("reading logs of %s: %w", args[0], err)
		}
		return nil
	}
	return cmd
}

func newInspect(a *app) *cobra.Command {
	var format, kind string
	var size, commands bool
	var dialect dialectFlag
	cmd := &cobra.Command{
		Use:   "inspect [OPTIONS] NAME|ID [NAME|ID...]",
		Short: "Return low-level information on containers, images and networks, or the commands that made them",
		Args:  cobra.MinimumNArgs(1),
	}
	cmd.Flags().StringVarP(&format, "format", "f", "", "format output using a custom Go `template`, or 'json'")
	cmd.Flags().BoolVarP(&size, "size", "s", false, "display total file sizes if the type is container")
	cmd.Flags().StringVar(&kind, "type", "", "only inspect objects of the given type (`container|image|network`)")
	dialect.bind(cmd.Flags())
	cmd.Flags().BoolVar(&commands, "commands", false, "print the shell commands with the effect of what was done")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if kind != "" && kind != "container" && kind != "image" && kind != "network" {
			return fmt.Errorf("unknown type: %q: want container, image or network", kind)
		}
		if commands && format != "" {
			return errors.New("conflicting options: cannot specify both --commands and --format")
		}
		daemon, err := a.connect(cmd.Context())
		if err != nil {
			return err
		}
		if commands {
			return a.printCommands(cmd.Context(), daemon, kind, args, &dialect)
		}
		return a.inspect(format, args, func(name string) (inspected, error) {
			return daemon.find(cmd.Context(), kind, name, size)
		})
	}
	return cmd
}

// find looks for a thing of any kind, or of the one kind given, in the order
// in which Docker does.
func (e *engine) find(ctx context.Context, kind, name string, size bool) (inspected, error) {
	escaped, err := segment(name)
	if err != nil {
		return inspected{}, err
	}
	looks := []struct {
		kind string
		look func() (inspected, error)
	}{
		{"container", func() (inspected, error) {
			found, err := e.ContainerInspect(ctx, escaped, client.ContainerInspectOptions{Size: size})
			return inspected{found.Container, found.Raw}, err
		}},
		{"image", func() (inspected, error) { return e.inspectImage(ctx, name) }},
		{"network", func() (inspected, error) { return e.inspectNetwork(ctx, name, false) }},
	}
	for _, one := range looks {
		if kind != "" && kind != one.kind {
			continue
		}
		found, err := one.look()
		if err == nil {
			return found, nil
		}
		if kind != "" || !isMissing(err) {
			return inspected{}, err
		}
	}
	return inspected{}, fmt.Errorf("error: no such object: %s", name)
}

// isMissing says that a thing may be of another kind: the daemon has none of
// this kind by that name, or does not know this kind at all.
func isMissing(err error) bool {
	return isNotFound(err) || strings.Contains(err.Error(), "not supported") || strings.Contains(err.Error(), "not implemented")
}

// printCommands prints what was done for things: the container of a name, else
// the network of it.
func (a *app) printCommands(ctx context.Context, daemon *engine, kind string, names []string, dialect *dialectFlag) error {
	if kind == "image" {
		return errors.New("an image changes nothing in the kernel: --commands is for containers and networks")
	}
	var failed []error
	for _, name := range names {
		script, err := daemon.commands(ctx, kind, name, dialect)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		fmt.Fprint(a.out, script)
	}
	return errors.Join(failed...)
}

func (e *engine) commands(ctx context.Context, kind, name string, dialect *dialectFlag) (string, error) {
	for _, one := range []string{"container", "network"} {
		if kind != "" && kind != one {
			continue
		}
		target, err := path("/linkspan/v1/commands/"+one+"/", name, "", nil)
		if err != nil {
			return "", err
		}
		script, err := e.text(ctx, call{Method: "GET", Path: dialect.in(target)})
		if err == nil {
			return script, nil
		}
		if kind != "" || !isNotFound(err) {
			return "", err
		}
	}
	return "", fmt.Errorf("error: no such object: %s", name)
}

func portLines(ports network.PortMap) []string {
	var lines []string
	sorted := slices.SortedFunc(maps.Keys(ports), func(a, b network.Port) int {
		if a.Num() != b.Num() {
			return int(a.Num()) - int(b.Num())
		}
		return strings.Compare(string(a.Proto()), string(b.Proto()))
	})
	for _, port := range sorted {
		for _, binding := range ports[port] {
			lines = append(lines, fmt.Sprintf("%s -> %s", port, hostPort(binding)))
		}
	}
	return lines
}

func onePort(name, wanted string, ports network.PortMap) ([]string, error) {
	port, err := network.ParsePort(wanted)
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, binding := range ports[port] {
		lines = append(lines, hostPort(binding))
	}
	if len(lines) == 0 {
		return nil, fmt.Errorf("no public port '%s' published for %s", port, name)
	}
	return lines, nil
}

func hostPort(binding network.PortBinding) string {
	if binding.HostIP.Is6() {
		return "[" + binding.HostIP.String() + "]:" + binding.HostPort
	}
	if !binding.HostIP.IsValid() {
		return ":" + binding.HostPort
	}
	return binding.HostIP.String() + ":" + binding.HostPort
}

func newTop(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "top CONTAINER [ps OPTIONS]",
		Short: "Display the running processes of a container",
		Args:  cobra.MinimumNArgs(1),
	}
	cmd.Flags().SetInterspersed(false)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		daemon, err := a.connect(cmd.Context())
		if err != nil {
			return err
		}
		shown, err := daemon.ContainerTop(cmd.Context(), args[0], client.ContainerTopOptions{Arguments: args[1:]})
		if err != nil {
			return err
		}
		table := tabwriter.NewWriter(a.out, 20, 1, 3, ' ', 0)
		fmt.Fprintln(table, strings.Join(shown.Titles, "\t"))
		for _, process := range shown.Processes {
			fmt.Fprintln(table, strings.Join(process, "\t"))
		}
		return table.Flush()
	}
	return cmd
}
