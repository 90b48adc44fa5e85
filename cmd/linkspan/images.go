package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/client"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"
)

// imageRow is a line of images, under the names of Docker's templates.
type imageRow struct {
	CreatedAt    string
	CreatedSince string
	Digest       string
	ID           string
	Repository   string
	Size         string
	Tag          string
}

func imageListing() listing {
	return listing{
		head: header{
			"CreatedAt": "CREATED AT", "CreatedSince": "CREATED", "Digest": "DIGEST", "ID": "IMAGE ID",
			"Repository": "REPOSITORY", "Size": "SIZE", "Tag": "TAG",
		},
		table: "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}",
		quiet: "{{.ID}}",
	}
}

func newImages(a *app) *cobra.Command {
	var o client.ImageListOptions
	var filters []string
	var format string
	var noTrunc, quiet bool
	cmd := &cobra.Command{Use: "images [OPTIONS] [REPOSITORY[:TAG]]", Short: "List images", Args: cobra.MaximumNArgs(1)}
	cmd.Flags().BoolVarP(&o.All, "all", "a", false, "show all images (default hides intermediate images)")
	cmd.Flags().StringArrayVarP(&filters, "filter", "f", nil, "filter output based on conditions provided")
	cmd.Flags().StringVar(&format, "format", "", "format output: 'table', 'table TEMPLATE', 'json' or a Go `template`")
	cmd.Flags().BoolVar(&noTrunc, "no-trunc", false, "do not truncate output")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "only show image IDs")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 1 {
			filters = append(filters, "reference="+args[0])
		}
		var err error
		if o.Filters, err = parseFilters(filters); err != nil {
			return err
		}
		daemon, err := a.connect(cmd.Context())
		if err != nil {
			return err
		}
		listed, err := daemon.ImageList(cmd.Context(), o)
		if err != nil {
			return err
		}
		return print(a.out, imageListing(), format, quiet, imageRows(listed.Items, noTrunc, time.Now()))
	}
	return cmd
}

func imageRows(items []image.Summary, whole bool, now time.Time) []imageRow {
	var rows []imageRow
	for _, item := range items {
		created := time.Unix(item.Created, 0)
		row := imageRow{
			CreatedAt:    created.String(),
			CreatedSince: units.HumanDuration(now.Sub(created)) + " ago",
			Digest:       "<none>",
			ID:           item.ID,
			Size:         units.HumanSizeWithPrecision(float64(item.Size), 3),
		}
		if !whole {
			row.ID = imageID(item.ID)
		}
		tags := item.RepoTags
		if len(tags) == 0 {
			tags = []string{"<none>:<none>"}
		}
		for _, tag := range tags {
			row.Repository, row.Tag = tag, "<none>"
			if colon := strings.LastIndex(tag, ":"); colon > strings.LastIndex(tag, "/") {
				row.Repository, row.Tag = tag[:colon], tag[colon+1:]
			}
			rows = append(rows, row)
		}
	}
	return rows
}

func imageID(id string) string { return shortID(strings.TrimPrefix(id, "sha256:"), false) }

func newPull(a *app) *cobra.Command {
	var platform string
	var quiet bool
	cmd := &cobra.Command{Use: "pull [OPTIONS] NAME[:TAG|@DIGEST]", Short: "Download an image from a registry", Args: cobra.ExactArgs(1)}
	cmd.Flags().StringVar(&platform, "platform", "", "set platform if server is multi-platform capable")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "suppress verbose output")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		daemon, err := a.connect(cmd.Context())
		if err != nil {
			return err
		}
		if err := a.pull(cmd.Context(), daemon, args[0], platform, quiet); err != nil {
			return err
		}
		if quiet {
			fmt.Fprintln(a.out, args[0])
		}
		return nil
	}
	return cmd
}

// pull fetches an image; its progress goes to the error output, so that the
// output of run is the container's alone.
func (a *app) pull(ctx context.Context, daemon *engine, name, platform string, quiet bool) error {
	var o client.ImagePullOptions
	if platform != "" {
		one, err := parsePlatform(platform)
		if err != nil {
			return err
		}
		o.Platforms = []ocispec.Platform{one}
	}
	var err error
	if o.RegistryAuth, err = credentialsFor(ctx, name); err != nil {
		return err
	}
	stream, err := daemon.ImagePull(ctx, name, o)
	if err != nil {
		return err
	}
	defer stream.Close()
	shown := a.err
	if quiet {
		shown = io.Discard
	}
	return printProgress(shown, stream.JSONMessages(ctx))
}

func parsePlatform(text string) (ocispec.Platform, error) {
	parts := strings.Split(text, "/")
	if len(parts) > 3 || parts[0] == "" {
		return ocispec.Platform{}, fmt.Errorf("invalid --platform %q: want os, os/arch or os/arch/variant", text)
	}
	parts = append(parts, "", "")
	return ocispec.Platform{OS: parts[0], Architecture: parts[1], Variant: parts[2]}, nil
}

// printProgress prints the steps of a transfer as lines, without the counts of
// bytes in between.
func printProgress(out io.Writer, messages iter.Seq2[jsonstream.Message, error]) error {
	for message, err := range messages {
		switch {
		case err != nil:
			return fmt.Errorf("reading progress: %w", err)
		case message.Error != nil:
			return errors.New(message.Error.Message)
		case message.Stream != "":
			fmt.Fprint(out, message.Stream)
		case message.Progress != nil && message.Progress.Total > 0:
		case message.ID != "":
			fmt.Fprintf(out, "%s: %s\n", message.ID, message.Status)
		case message.Status != "":
			fmt.Fprintln(out, message.Status)
		}
	}
	return nil
}

func newImport(a *app) *cobra.Command {
	var o client.ImageImportOptions
	var platform string
	cmd := &cobra.Command{
		Use:   "import [OPTIONS] file|URL|- [REPOSITORY[:TAG]]",
		Short: "Import the contents from a tarball to create a filesystem image",
		Args:  cobra.RangeArgs(1, 2),
	}
	cmd.Flags().StringArrayVarP(&o.Changes, "change", "c", nil, "apply Dockerfile instruction to the created image")
	cmd.Flags().StringVarP(&o.Message, "message", "m", "", "set commit message for imported image")
	cmd.Flags().StringVar(&platform, "platform", "", "set platform if server is multi-platform capable")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if platform != "" {
			var err error
			if o.Platform, err = parsePlatform(platform); err != nil {
				return err
			}
		}
		reference := ""
		if len(args) == 2 {
			reference = args[1]
		}
		source := client.ImageImportSource{SourceName: args[0]}
		if !strings.HasPrefix(args[0], "http://") && !strings.HasPrefix(args[0], "https://") {
			input, err := a.open(args[0])
			if err != nil {
				return err
			}
			defer input.Close()
			source = client.ImageImportSource{Source: input, SourceName: "-"}
		}
		daemon, err := a.connect(cmd.Context())
		if err != nil {
			return err
		}
		stream, err := daemon.ImageImport(cmd.Context(), source, reference, o)
		if err != nil {
			return err
		}
		defer stream.Close()
		return printProgress(a.out, decodeMessages(stream))
	}
	return cmd
}

func newLoad(a *app) *cobra.Command {
	var name string
	var quiet bool
	cmd := &cobra.Command{Use: "load [OPTIONS]", Short: "Load an image from a tar archive or STDIN", Args: cobra.NoArgs}
	cmd.Flags().StringVarP(&name, "input", "i", "-", "read from tar archive `file`, instead of STDIN")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "suppress the load output")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if _, ok := terminal(a.in); ok && name == "-" {
			return errors.New("requested load from stdin, but stdin is empty: name a file with -i, or send one by a pipe")
		}
		input, err := a.open(name)
		if err != nil {
			return err
		}
		defer input.Close()
		daemon, err := a.connect(cmd.Context())
		if err != nil {
			return err
		}
		stream, err := daemon.ImageLoad(cmd.Context(), input, client.ImageLoadWithQuiet(quiet))
		if err != nil {
			return err
		}
		defer stream.Close()
		return printProgress(a.out, decodeMessages(stream))
	}
	return cmd
}

// open opens a file for reading; "-" is the standard input.
func (a *app) open(name string) (io.ReadCloser, error) {
	if name == "-" {
		return io.NopCloser(a.in), nil
	}
	file, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("reading archive: %w", err)
	}
	return file, nil
}

// decodeMessages reads a stream of JSON objects until its end.
func decodeMessages(stream io.Reader) iter.Seq2[jsonstream.Message, error] {
	return func(yield func(jsonstream.Message, error) bool) {
		decoder := json.NewDecoder(stream)
		for {
			var message jsonstream.Message
			err := decoder.Decode(&message)
			if errors.Is(err, io.EOF) || !yield(message, err) || err != nil {
				return
			}
		}
	}
}

// inspectImage finds an image by a name that may have slashes in it.
func (e *engine) inspectImage(ctx context.Context, name string) (inspected, error) {
	var raw bytes.Buffer
	found, err := e.ImageInspect(ctx, name, client.ImageInspectWithRawResponse(&raw))
	return inspected{typed: found.InspectResponse, raw: raw.Bytes()}, err
}
