package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/docker/go-units"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/moby/moby/api/pkg/authconfig"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

// newImage has the verbs of images in one place, as Docker does.
func newImage(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "image",
		Short: "Manage images",
		Args:  unknownVerb,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	ls := newImages(a)
	ls.Use, ls.Aliases = "ls [OPTIONS] [REPOSITORY[:TAG]]", []string{"list"}
	rm := newRmi(a)
	rm.Use, rm.Aliases = "rm [OPTIONS] IMAGE [IMAGE...]", []string{"remove"}
	cmd.AddCommand(ls, rm, newImport(a), newLoad(a), newPull(a), newPush(a), newSave(a), newTag(a), newImageHistory(a), newImageInspect(a), newImagePrune(a))
	return cmd
}

func newImageInspect(a *app) *cobra.Command {
	var format string
	cmd := &cobra.Command{Use: "inspect [OPTIONS] IMAGE [IMAGE...]", Short: "Display detailed information on one or more images", Args: cobra.MinimumNArgs(1)}
	cmd.Flags().StringVarP(&format, "format", "f", "", "format output using a custom Go `template`, or 'json'")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		daemon, err := a.connect(cmd.Context())
		if err != nil {
			return err
		}
		return a.inspect(format, args, func(name string) (inspected, error) { return daemon.inspectImage(cmd.Context(), name) })
	}
	return cmd
}

func newRmi(a *app) *cobra.Command {
	var force bool
	cmd := &cobra.Command{Use: "rmi [OPTIONS] IMAGE [IMAGE...]", Short: "Remove one or more images", Args: cobra.MinimumNArgs(1)}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "force removal of the image")
	cmd.Flags().Bool("no-prune", false, "do not delete untagged parents: they are not deleted in any case")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		daemon, err := a.connect(cmd.Context())
		if err != nil {
			return err
		}
		var failed []error
		for _, image := range args {
			done, err := daemon.ImageRemove(cmd.Context(), image, client.ImageRemoveOptions{Force: force, PruneChildren: true})
			if err != nil && (!force || !isNotFound(err)) {
				failed = append(failed, err)
			}
			for _, item := range done.Items {
				if item.Deleted != "" {
					fmt.Fprintln(a.out, "Deleted:", item.Deleted)
				} else {
					fmt.Fprintln(a.out, "Untagged:", item.Untagged)
				}
			}
		}
		return errors.Join(failed...)
	}
	return cmd
}

func newTag(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "tag SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]", Short: "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE", Args: cobra.ExactArgs(2)}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		daemon, err := a.connect(cmd.Context())
		if err != nil {
			return err
		}
		_, err = daemon.ImageTag(cmd.Context(), client.ImageTagOptions{Source: args[0], Target: args[1]})
		return err
	}
	return cmd
}

func newSave(a *app) *cobra.Command {
	var output string
	cmd := &cobra.Command{Use: "save [OPTIONS] IMAGE [IMAGE...]", Short: "Save one or more images to a tar archive (streamed to STDOUT by default)", Args: cobra.MinimumNArgs(1)}
	cmd.Flags().StringVarP(&output, "output", "o", "", "write to a `file`, instead of STDOUT")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		daemon, err := a.connect(cmd.Context())
		if err != nil {
			return err
		}
		content, err := daemon.ImageSave(cmd.Context(), args)
		if err != nil {
			return err
		}
		defer content.Close()
		return a.writeArchive(output, content)
	}
	return cmd
}

func newPush(a *app) *cobra.Command {
	var o client.ImagePushOptions
	var quiet bool
	cmd := &cobra.Command{Use: "push [OPTIONS] NAME[:TAG]", Short: "Upload an image to a registry", Args: cobra.ExactArgs(1)}
	cmd.Flags().BoolVarP(&o.All, "all-tags", "a", false, "push all tags of an image to the repository")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "suppress verbose output")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		daemon, err := a.connect(cmd.Context())
		if err != nil {
			return err
		}
		if o.RegistryAuth, err = credentialsFor(cmd.Context(), args[0]); err != nil {
			return err
		}
		stream, err := daemon.ImagePush(cmd.Context(), args[0], o)
		if err != nil {
			return err
		}
		defer stream.Close()
		shown := a.out
		if quiet {
			shown = io.Discard
		}
		return printProgress(shown, stream.JSONMessages(cmd.Context()))
	}
	return cmd
}

// credentialsFor reads what docker login has left for the registry of an image;
// there may be none.
func credentialsFor(ctx context.Context, image string) (string, error) {
	ref, err := name.ParseReference(image)
	if err != nil {
		return "", nil //nolint:nilerr // the daemon says what is wrong with it
	}
	found, err := authn.Resolve(ctx, authn.DefaultKeychain, ref.Context())
	if err != nil {
		return "", fmt.Errorf("reading credentials for %s: %w", ref.Context().RegistryStr(), err)
	}
	c, err := authn.Authorization(ctx, found)
	if err != nil {
		return "", fmt.Errorf("reading credentials for %s: %w", ref.Context().RegistryStr(), err)
	}
	return authconfig.Encode(registry.AuthConfig{
		Username: c.Username, Password: c.Password, IdentityToken: c.IdentityToken, RegistryToken: c.RegistryToken, ServerAddress: ref.Context().RegistryStr(),
	})
}

// historyRow is a line of image history, under the names of Docker's templates.
type historyRow struct {
	Comment, CreatedAt, CreatedBy, CreatedSince, ID, Size string
}

func newImageHistory(a *app) *cobra.Command {
	var format string
	var noTrunc, quiet bool
	cmd := &cobra.Command{Use: "history [OPTIONS] IMAGE", Short: "Show the history of an image", Args: cobra.ExactArgs(1)}
	cmd.Flags().StringVar(&format, "format", "", "format output: 'table', 'table TEMPLATE', 'json' or a Go `template`")
	cmd.Flags().BoolVar(&noTrunc, "no-trunc", false, "do not truncate output")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "only show image IDs")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		daemon, err := a.connect(cmd.Context())
		if err != nil {
			return err
		}
		found, err := daemon.ImageHistory(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		var rows []historyRow
		for _, item := range found.Items {
			created := time.Unix(item.Created, 0)
			row := historyRow{
				Comment: item.Comment, CreatedAt: created.Format(time.RFC3339), CreatedBy: item.CreatedBy, ID: item.ID,
				CreatedSince: units.HumanDuration(time.Since(created)) + " ago", Size: units.HumanSizeWithPrecision(float64(item.Size), 3),
			}
			if !noTrunc {
				row.ID, row.CreatedBy = imageID(row.ID), shortened(row.CreatedBy, 45)
			}
			rows = append(rows, row)
		}
		return print(a.out, listing{
			head:  header{"Comment": "COMMENT", "CreatedAt": "CREATED AT", "CreatedBy": "CREATED BY", "CreatedSince": "CREATED", "ID": "IMAGE", "Size": "SIZE"},
			table: "{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}", quiet: "{{.ID}}",
		}, format, quiet, rows)
	}
	return cmd
}

func shortened(text string, most int) string {
	if runes := []rune(text); len(runes) > most {
		return string(runes[:most-1]) + "…"
	}
	return text
}

func newImagePrune(a *app) *cobra.Command {
	var all, force bool
	var filters []string
	cmd := &cobra.Command{Use: "prune [OPTIONS]", Short: "Remove unused images", Args: cobra.NoArgs}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "remove all unused images, not just dangling ones")
	cmd.Flags().BoolVarP(&force, "force", "f", false, "do not ask for confirmation")
	cmd.Flags().StringArrayVar(&filters, "filter", nil, "which ones (`\"until=<timestamp>\"`, label=..., label!=...)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		which, err := parseFilters(filters)
		if err != nil {
			return err
		}
		question := "WARNING! This will remove all dangling images."
		if all {
			question = "WARNING! This will remove all images without at least one container associated to them."
			if which == nil {
				which = client.Filters{}
			}
			which.Add("dangling", "false")
		}
		if !force && !a.confirm(question) {
			return nil
		}
		daemon, err := a.connect(cmd.Context())
		if err != nil {
			return err
		}
		done, err := daemon.ImagePrune(cmd.Context(), client.ImagePruneOptions{Filters: which})
		if err != nil {
			return err
		}
		if len(done.Report.ImagesDeleted) > 0 {
			fmt.Fprintln(a.out, "Deleted Images:")
		}
		for _, item := range done.Report.ImagesDeleted {
			if item.Deleted != "" {
				fmt.Fprintln(a.out, "deleted:", item.Deleted)
			} else {
				fmt.Fprintln(a.out, "untagged:", item.Untagged)
			}
		}
		fmt.Fprintln(a.out, "Total reclaimed space:", units.HumanSize(float64(done.Report.SpaceReclaimed)))
		return nil
	}
	return cmd
}
