package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/go-archive"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

// copyOptions are the flags of cp.
type copyOptions struct {
	follow, owner, quiet bool
}

func newCp(a *app) *cobra.Command {
	var o copyOptions
	cmd := &cobra.Command{
		Use:   "cp [OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n  linkspan cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
		Short: "Copy files between a container, running or not, and this machine",
		Args:  cobra.ExactArgs(2),
	}
	cmd.Flags().BoolVarP(&o.follow, "follow-link", "L", false, "always follow symbol link in SRC_PATH")
	cmd.Flags().BoolVarP(&o.owner, "archive", "a", false, "archive mode (copy all uid/gid information)")
	cmd.Flags().BoolVarP(&o.quiet, "quiet", "q", false, "suppress progress output during copy")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		from, source := ofContainer(args[0])
		to, target := ofContainer(args[1])
		switch {
		case from != "" && to != "":
			return errors.New("copying between containers is not supported")
		case from == "" && to == "":
			return errors.New("must specify at least one container source")
		case source == "" || target == "":
			return errors.New("neither path may be empty")
		}
		daemon, err := a.connect(cmd.Context())
		if err != nil {
			return err
		}
		if from != "" {
			return a.copyFrom(cmd.Context(), daemon, o, from, source, target)
		}
		return a.copyTo(cmd.Context(), daemon, o, source, to, target)
	}
	return cmd
}

// ofContainer parts CONTAINER:PATH. A path of this machine that has a colon in it
// begins with a slash or a dot.
func ofContainer(text string) (name, path string) {
	name, path, ok := strings.Cut(text, ":")
	if !ok || strings.HasPrefix(text, "/") || strings.HasPrefix(text, ".") {
		return "", text
	}
	return name, path
}

func (a *app) copyFrom(ctx context.Context, daemon *engine, o copyOptions, name, source, target string) error {
	rebase := ""
	if o.follow {
		stat, err := daemon.ContainerStatPath(ctx, name, client.ContainerStatPathOptions{Path: source})
		if err != nil {
			return err
		}
		if stat.Stat.Mode&fs.ModeSymlink != 0 {
			link := stat.Stat.LinkTarget
			if !filepath.IsAbs(link) {
				link = filepath.Join(filepath.Dir(source), link)
			}
			link, rebase = archive.GetRebaseName(source, link)
			source = link
		}
	}
	got, err := daemon.CopyFromContainer(ctx, name, client.CopyFromContainerOptions{SourcePath: source})
	if err != nil {
		return err
	}
	defer got.Content.Close()
	if target == "-" {
		if _, ok := terminal(a.out); ok {
			return errors.New("refusing to write an archive to a terminal: redirect the output")
		}
		_, err = io.Copy(a.out, got.Content)
		return err
	}
	absolute, err := absolutely(target)
	if err != nil {
		return err
	}
	info := archive.CopyInfo{Path: source, Exists: true, IsDir: got.Stat.Mode.IsDir(), RebaseName: rebase}
	var content io.Reader = &counter{Reader: got.Content}
	if rebase != "" {
		_, base := archive.SplitPathDirEntry(source)
		content = archive.RebaseArchiveEntries(content, base, rebase)
	}
	if err := archive.CopyTo(content, info, absolute); err != nil {
		return fmt.Errorf("copying to %s: %w", target, err)
	}
	return nil
}

// absolutely keeps an end in / or /. , which asks for a folder's content.
func absolutely(path string) (string, error) {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	return archive.PreserveTrailingDotOrSeparator(absolute, path), nil
}

// counter counts what is read through it.
type counter struct {
	io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n += int64(n)
	return n, err
}

func (a *app) copyTo(ctx context.Context, daemon *engine, o copyOptions, source, name, target string) error {
	at := archive.CopyInfo{Path: target}
	stat, err := daemon.ContainerStatPath(ctx, name, client.ContainerStatPathOptions{Path: target})
	if err == nil && stat.Stat.Mode&fs.ModeSymlink != 0 {
		if at.Path = stat.Stat.LinkTarget; !filepath.IsAbs(at.Path) {
			at.Path = filepath.Join(filepath.Dir(target), at.Path)
		}
		stat, err = daemon.ContainerStatPath(ctx, name, client.ContainerStatPathOptions{Path: at.Path})
	}
	switch {
	case err == nil:
		at.Exists, at.IsDir = true, stat.Stat.Mode.IsDir()
	case !isNotFound(err) || strings.Contains(err.Error(), "No such container"):
		return err
	}
	content, folder, err := a.contentFor(o, source, name, at)
	if err != nil {
		return err
	}
	defer content.Close()
	counted := &counter{Reader: content}
	_, err = daemon.CopyToContainer(ctx, name, client.CopyToContainerOptions{DestinationPath: folder, Content: counted, CopyUIDGID: o.owner})
	if err == nil && !o.quiet && source != "-" {
		fmt.Fprintf(a.err, "Successfully copied %s to %s:%s\n", units.HumanSize(float64(counted.n)), name, target)
	}
	return err
}

// contentFor makes the archive that, unpacked in the folder, puts the source
// where it is wanted.
func (a *app) contentFor(o copyOptions, source, name string, at archive.CopyInfo) (content io.ReadCloser, folder string, err error) {
	if source == "-" {
		if !at.IsDir {
			return nil, "", fmt.Errorf("destination %q must be a directory", name+":"+at.Path)
		}
		return io.NopCloser(a.in), at.Path, nil
	}
	absolute, err := absolutely(source)
	if err != nil {
		return nil, "", err
	}
	info, err := archive.CopyInfoSourcePath(absolute, o.follow)
	if err != nil {
		return nil, "", err
	}
	packed, err := archive.TarResource(info)
	if err != nil {
		return nil, "", err
	}
	folder, prepared, err := archive.PrepareArchiveCopy(packed, info, at)
	if err != nil {
		return nil, "", errors.Join(err, packed.Close())
	}
	return prepared, folder, nil
}

func newExport(a *app) *cobra.Command {
	var output string
	cmd := &cobra.Command{Use: "export [OPTIONS] CONTAINER", Short: "Export a container's filesystem as a tar archive", Args: cobra.ExactArgs(1)}
	cmd.Flags().StringVarP(&output, "output", "o", "", "write to a `file`, instead of STDOUT")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		daemon, err := a.connect(cmd.Context())
		if err != nil {
			return err
		}
		content, err := daemon.ContainerExport(cmd.Context(), args[0], client.ContainerExportOptions{})
		if err != nil {
			return err
		}
		defer content.Close()
		return a.writeArchive(output, content)
	}
	return cmd
}

// writeArchive writes to a file, which appears only when it is whole, or to
// the output.
func (a *app) writeArchive(name string, content io.Reader) error {
	if name == "" {
		if _, ok := terminal(a.out); ok {
			return errors.New("refusing to write an archive to a terminal: use -o, or redirect the output")
		}
		_, err := io.Copy(a.out, content)
		return err
	}
	file, err := os.CreateTemp(filepath.Dir(name), ".linkspan-")
	if err != nil {
		return fmt.Errorf("writing archive: %w", err)
	}
	_, err = io.Copy(file, content)
	if err = errors.Join(err, file.Close()); err == nil {
		err = os.Rename(file.Name(), name)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("writing archive: %w", err), os.Remove(file.Name()))
	}
	return nil
}

func newDiff(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "diff CONTAINER", Short: "Inspect changes to files or directories on a container's filesystem", Args: cobra.ExactArgs(1)}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		daemon, err := a.connect(cmd.Context())
		if err != nil {
			return err
		}
		found, err := daemon.ContainerDiff(cmd.Context(), args[0], client.ContainerDiffOptions{})
		if err != nil {
			return err
		}
		for _, change := range found.Changes {
			fmt.Fprintln(a.out, change.Kind, change.Path)
		}
		return nil
	}
	return cmd
}

func newCommit(a *app) *cobra.Command {
	var o client.ContainerCommitOptions
	var pause bool
	cmd := &cobra.Command{Use: "commit [OPTIONS] CONTAINER [REPOSITORY[:TAG]]", Short: "Create a new image from a container's changes", Args: cobra.RangeArgs(1, 2)}
	cmd.Flags().StringVarP(&o.Author, "author", "a", "", "author (e.g. \"Ada <ada@example.org>\")")
	cmd.Flags().StringVarP(&o.Comment, "message", "m", "", "commit message")
	cmd.Flags().StringArrayVarP(&o.Changes, "change", "c", nil, "apply Dockerfile instruction to the created image")
	cmd.Flags().BoolVarP(&pause, "pause", "p", true, "pause container during commit")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		o.NoPause = !pause
		if len(args) == 2 {
			o.Reference = args[1]
		}
		daemon, err := a.connect(cmd.Context())
		if err != nil {
			return err
		}
		made, err := daemon.ContainerCommit(cmd.Context(), args[0], o)
		if err != nil {
			return err
		}
		fmt.Fprintln(a.out, made.ID)
		return nil
	}
	return cmd
}
