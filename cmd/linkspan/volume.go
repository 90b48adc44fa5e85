package main

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/volume"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

func newVolume(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "volume",
		Short: "Manage volumes",
		Args:  unknownVerb,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newVolumeCreate(a), newVolumeLs(a), newVolumeInspect(a), newVolumeRm(a), newVolumePrune(a))
	return cmd
}

func newVolumeCreate(a *app) *cobra.Command {
	var o client.VolumeCreateOptions
	var labels, options []string
	cmd := &cobra.Command{Use: "create [OPTIONS] [VOLUME]", Short: "Create a volume", Args: cobra.MaximumNArgs(1)}
	cmd.Flags().StringVarP(&o.Driver, "driver", "d", "local", "specify volume driver name")
	cmd.Flags().StringArrayVar(&labels, "label", nil, "set metadata for a volume")
	cmd.Flags().StringArrayVarP(&options, "opt", "o", nil, "set driver specific options")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var err error
		if o.Labels, err = labelValues(labels); err != nil {
			return err
		}
		if o.DriverOpts, err = labelValues(options); err != nil {
			return err
		}
		if len(args) == 1 {
			o.Name = args[0]
		}
		daemon, err := a.connect(cmd.Context())
		if err != nil {
			return err
		}
		made, err := daemon.VolumeCreate(cmd.Context(), o)
		if err != nil {
			return err
		}
		fmt.Fprintln(a.out, made.Volume.Name)
		return nil
	}
	return cmd
}

// volumeRow is a line of volume ls, under the names of Docker's templates.
type volumeRow struct {
	Driver, Labels, Mountpoint, Name, Scope string
	labels                                  map[string]string
}

// Label returns the value of one label.
func (r volumeRow) Label(key string) string { return r.labels[key] }

func newVolumeLs(a *app) *cobra.Command {
	var filters []string
	var format string
	var quiet bool
	cmd := &cobra.Command{Use: "ls [OPTIONS]", Aliases: []string{"list"}, Short: "List volumes", Args: cobra.NoArgs}
	cmd.Flags().StringArrayVarP(&filters, "filter", "f", nil, "provide filter values (e.g. \"dangling=true\")")
	cmd.Flags().StringVar(&format, "format", "", "format output: 'table', 'table TEMPLATE', 'json' or a Go `template`")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "only display volume names")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		which, err := parseFilters(filters)
		if err != nil {
			return err
		}
		daemon, err := a.connect(cmd.Context())
		if err != nil {
			return err
		}
		found, err := daemon.VolumeList(cmd.Context(), client.VolumeListOptions{Filters: which})
		if err != nil {
			return err
		}
		return print(a.out, listing{
			head:  header{"Driver": "DRIVER", "Labels": "LABELS", "Mountpoint": "MOUNTPOINT", "Name": "VOLUME NAME", "Scope": "SCOPE"},
			table: "{{.Driver}}\t{{.Name}}", quiet: "{{.Name}}",
		}, format, quiet, volumeRows(found.Items))
	}
	return cmd
}

func volumeRows(items []volume.Volume) []volumeRow {
	var rows []volumeRow
	for _, item := range items {
		var labels []string
		for _, key := range slices.Sorted(maps.Keys(item.Labels)) {
			labels = append(labels, key+"="+item.Labels[key])
		}
		rows = append(rows, volumeRow{
			Driver: item.Driver, Labels: strings.Join(labels, ","), Mountpoint: item.Mountpoint, Name: item.Name, Scope: item.Scope, labels: item.Labels,
		})
	}
	return rows
}

func newVolumeInspect(a *app) *cobra.Command {
	var format string
	cmd := &cobra.Command{Use: "inspect [OPTIONS] VOLUME [VOLUME...]", Short: "Display detailed information on one or more volumes", Args: cobra.MinimumNArgs(1)}
	cmd.Flags().StringVarP(&format, "format", "f", "", "format output using a custom Go `template`, or 'json'")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		daemon, err := a.connect(cmd.Context())
		if err != nil {
			return err
		}
		return a.inspect(format, args, func(name string) (inspected, error) {
			escaped, err := segment(name)
			if err != nil {
				return inspected{}, err
			}
			found, err := daemon.VolumeInspect(cmd.Context(), escaped, client.VolumeInspectOptions{})
			return inspected{typed: found.Volume, raw: found.Raw}, err
		})
	}
	return cmd
}

func newVolumeRm(a *app) *cobra.Command {
	var force bool
	cmd := &cobra.Command{Use: "rm [OPTIONS] VOLUME [VOLUME...]", Aliases: []string{"remove"}, Short: "Remove one or more volumes", Args: cobra.MinimumNArgs(1)}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "do not complain about a volume that does not exist")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		query := url.Values{}
		if force {
			query.Set("force", "1")
		}
		calls, err := callEach(args, http.MethodDelete, "/volumes/", "", query)
		if err != nil {
			return err
		}
		daemon, err := a.connect(cmd.Context())
		if err != nil {
			return err
		}
		return a.removeEach(cmd, daemon, args, calls, a.err)
	}
	return cmd
}

func newVolumePrune(a *app) *cobra.Command {
	var o client.VolumePruneOptions
	var force bool
	var filters []string
	cmd := &cobra.Command{Use: "prune [OPTIONS]", Short: "Remove unused volumes", Args: cobra.NoArgs}
	cmd.Flags().BoolVarP(&o.All, "all", "a", false, "remove all unused volumes, not just anonymous ones")
	cmd.Flags().BoolVarP(&force, "force", "f", false, "do not ask for confirmation")
	cmd.Flags().StringArrayVar(&filters, "filter", nil, "which ones (label=..., label!=...)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var err error
		if o.Filters, err = parseFilters(filters); err != nil {
			return err
		}
		question := "WARNING! This will remove anonymous local volumes not used by at least one container."
		if o.All {
			question = "WARNING! This will remove all local volumes not used by at least one container."
		}
		if !force && !a.confirm(question) {
			return nil
		}
		daemon, err := a.connect(cmd.Context())
		if err != nil {
			return err
		}
		done, err := daemon.VolumePrune(cmd.Context(), o)
		if err != nil {
			return err
		}
		if len(done.Report.VolumesDeleted) > 0 {
			fmt.Fprintf(a.out, "Deleted Volumes:\n%s\n\n", strings.Join(done.Report.VolumesDeleted, "\n"))
		}
		fmt.Fprintln(a.out, "Total reclaimed space:", units.HumanSize(float64(done.Report.SpaceReclaimed)))
		return nil
	}
	return cmd
}
