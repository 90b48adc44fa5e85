package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

func newEvents(a *app) *cobra.Command {
	var o client.EventsListOptions
	var filters []string
	var format string
	cmd := &cobra.Command{Use: "events", Short: "Get real time events from the server", Args: cobra.NoArgs}
	cmd.Flags().StringVar(&o.Since, "since", "", "show all events created since timestamp")
	cmd.Flags().StringVar(&o.Until, "until", "", "stream events until this timestamp")
	cmd.Flags().StringArrayVarP(&filters, "filter", "f", nil, "filter output based on conditions provided")
	cmd.Flags().StringVar(&format, "format", "", "format output: 'json' or a Go `template`")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var err error
		if o.Filters, err = parseFilters(filters); err != nil {
			return err
		}
		daemon, err := a.connect(cmd.Context())
		if err != nil {
			return err
		}
		return a.followEvents(cmd.Context(), daemon, o, format)
	}
	return cmd
}

func (a *app) followEvents(ctx context.Context, daemon *engine, o client.EventsListOptions, format string) error {
	show := func(message events.Message) error {
		fmt.Fprintln(a.out, eventLine(message))
		return nil
	}
	if format != "" {
		if format == "json" {
			format = "{{json .}}"
		}
		parsed, err := parseTemplate(unescape(format))
		if err != nil {
			return err
		}
		show = func(message events.Message) error {
			defer fmt.Fprintln(a.out)
			return parsed.Execute(a.out, message)
		}
	}
	stream := daemon.Events(ctx, o)
	for {
		select {
		case message := <-stream.Messages:
			if err := show(message); err != nil {
				return err
			}
		case err := <-stream.Err:
			if err == io.EOF { //nolint:errorlint // the client documents the bare value
				return nil
			}
			return err
		}
	}
}

// eventLine writes an event as Docker does: time, type, action, ID, and the
// attributes in order.
func eventLine(message events.Message) string {
	at := time.Unix(message.Time, 0)
	if message.TimeNano != 0 {
		at = time.Unix(0, message.TimeNano)
	}
	line := fmt.Sprintf("%s %s %s %s", at.Format("2006-01-02T15:04:05.000000000Z07:00"), message.Type, message.Action, message.Actor.ID)
	if len(message.Actor.Attributes) == 0 {
		return line
	}
	var pairs []string
	for _, key := range slices.Sorted(maps.Keys(message.Actor.Attributes)) {
		pairs = append(pairs, key+"="+message.Actor.Attributes[key])
	}
	return line + " (" + strings.Join(pairs, ", ") + ")"
}

func newInfo(a *app) *cobra.Command {
	var format string
	cmd := &cobra.Command{Use: "info", Short: "Display system-wide information", Args: cobra.NoArgs}
	cmd.Flags().StringVarP(&format, "format", "f", "", "format output using a custom Go `template`, or 'json'")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		daemon, err := a.connect(cmd.Context())
		if err != nil {
			return err
		}
		found, err := daemon.Info(cmd.Context(), client.InfoOptions{})
		if err != nil {
			return err
		}
		if format != "" {
			return a.printTemplate(format, found.Info)
		}
		printInfo(a.out, found.Info)
		for _, warning := range found.Info.Warnings {
			fmt.Fprintln(a.err, warning)
		}
		return nil
	}
	return cmd
}

// printTemplate prints one value by a template, or as JSON by that word.
func (a *app) printTemplate(format string, value any) error {
	if format == "json" {
		format = "{{json .}}"
	}
	parsed, err := parseTemplate(unescape(format))
	if err != nil {
		return err
	}
	if err := parsed.Execute(a.out, value); err != nil {
		return fmt.Errorf("template parsing error: %w", err)
	}
	fmt.Fprintln(a.out)
	return nil
}

func printInfo(out io.Writer, info system.Info) {
	line := func(indent int, name string, value any) {
		fmt.Fprintf(out, "%s%s: %v\n", strings.Repeat(" ", indent), name, value)
	}
	fmt.Fprintln(out, "Client:")
	line(1, "Version", version)
	fmt.Fprintln(out, "\nServer:")
	line(1, "Containers", info.Containers)
	line(2, "Running", info.ContainersRunning)
	line(2, "Paused", info.ContainersPaused)
	line(2, "Stopped", info.ContainersStopped)
	line(1, "Images", info.Images)
	line(1, "Server Version", info.ServerVersion)
	line(1, "Storage Driver", info.Driver)
	for _, pair := range info.DriverStatus {
		line(2, pair[0], pair[1])
	}
	line(1, "Logging Driver", info.LoggingDriver)
	line(1, "Cgroup Driver", info.CgroupDriver)
	line(1, "Cgroup Version", info.CgroupVersion)
	fmt.Fprintln(out, " Plugins:")
	line(2, "Volume", strings.Join(info.Plugins.Volume, " "))
	line(2, "Network", strings.Join(info.Plugins.Network, " "))
	line(2, "Log", strings.Join(info.Plugins.Log, " "))
	line(1, "Runtimes", strings.Join(slices.Sorted(maps.Keys(info.Runtimes)), " "))
	line(1, "Default Runtime", info.DefaultRuntime)
	fmt.Fprintln(out, " Security Options:")
	for _, option := range info.SecurityOptions {
		fmt.Fprintln(out, "  "+option)
	}
	line(1, "Kernel Version", info.KernelVersion)
	line(1, "Operating System", info.OperatingSystem)
	line(1, "OSType", info.OSType)
	line(1, "Architecture", info.Architecture)
	line(1, "CPUs", info.NCPU)
	line(1, "Total Memory", units.BytesSize(float64(info.MemTotal)))
	line(1, "Name", info.Name)
	line(1, "ID", info.ID)
	line(1, "Data Root Dir", info.DockerRootDir)
	line(1, "Debug Mode", info.Debug)
	line(1, "Live Restore Enabled", info.LiveRestoreEnabled)
	if info.FirewallBackend != nil {
		line(1, "Firewall Backend", info.FirewallBackend.Driver)
	}
	if len(info.DefaultAddressPools) > 0 {
		fmt.Fprintln(out, " Default Address Pools:")
		for _, pool := range info.DefaultAddressPools {
			fmt.Fprintf(out, "   Base: %s, Size: %d\n", pool.Base, pool.Size)
		}
	}
}

// versions is what version prints, under the names of Docker's templates.
type versions struct {
	Client clientVersion
	Server *client.ServerVersionResult `json:",omitempty"`
}

type clientVersion struct {
	Version    string
	APIVersion string `json:"ApiVersion"`
	GoVersion  string
	Os, Arch   string
}

func newVersion(a *app) *cobra.Command {
	var format string
	cmd := &cobra.Command{Use: "version", Short: "Show the version information of client and daemon", Args: cobra.NoArgs}
	cmd.Flags().StringVarP(&format, "format", "f", "", "format output using a custom Go `template`, or 'json'")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		both := versions{Client: clientVersion{
			Version: version, APIVersion: client.MaxAPIVersion, GoVersion: runtime.Version(), Os: runtime.GOOS, Arch: runtime.GOARCH,
		}}
		daemon, err := a.connect(cmd.Context())
		if err == nil {
			both.Client.APIVersion = daemon.ClientVersion()
			var server client.ServerVersionResult
			if server, err = daemon.ServerVersion(cmd.Context(), client.ServerVersionOptions{}); err == nil {
				both.Server = &server
			}
		}
		if format != "" {
			if templateErr := a.printTemplate(format, both); templateErr != nil && err == nil {
				return templateErr
			}
			return err
		}
		printVersions(a.out, both)
		return err
	}
	return cmd
}

func printVersions(out io.Writer, both versions) {
	fmt.Fprintf(out, "Client:\n Version:           %s\n API version:       %s\n Go version:        %s\n OS/Arch:           %s/%s\n",
		both.Client.Version, both.Client.APIVersion, both.Client.GoVersion, both.Client.Os, both.Client.Arch)
	if both.Server == nil {
		return
	}
	fmt.Fprintf(out, "\nServer:\n Version:           %s\n API version:       %s (minimum version %s)\n OS/Arch:           %s/%s\n",
		both.Server.Version, both.Server.APIVersion, both.Server.MinAPIVersion, both.Server.Os, both.Server.Arch)
	for _, component := range both.Server.Components {
		fmt.Fprintf(out, " %s:\n  Version:          %s\n", component.Name, component.Version)
		for _, key := range slices.Sorted(maps.Keys(component.Details)) {
			fmt.Fprintf(out, "  %-17s %s\n", key+":", component.Details[key])
		}
	}
}
