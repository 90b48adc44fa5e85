package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"syscall"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

// Exit statuses of run when its command did not start.
const (
	statusDaemon        = 125
	statusNotExecutable = 126
	statusNotFound      = 127
)

// runOptions are the flags of run.
type runOptions struct {
	containerOptions
	detach, sigProxy bool
	sigProxyGiven    bool
}

func bindRun(o *runOptions, cmd *cobra.Command) {
	o.bind(cmd.Flags())
	cmd.Flags().Bool("help", false, "print usage")
	cmd.Flags().BoolVarP(&o.detach, "detach", "d", false, "run container in background and print container ID")
	cmd.Flags().BoolVar(&o.sigProxy, "sig-proxy", true, "proxy received signals to the process")
}

func runCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "run [OPTIONS] IMAGE [COMMAND] [ARG...]\n  linkspan run [OPTIONS] --rootfs DIR [--] COMMAND [ARG...]",
		Short: "Create and run a new container",
		Example: "  linkspan run --rm --network lab --rootfs / -- ip addr\n" +
			"  linkspan run -d --name web --network lab -p 8080:80 nginx",
	}
}

// runVerb is run for explain: creation and start in one plan.
func runVerb(a *app) verb {
	var o runOptions
	cmd := runCommand()
	bindRun(&o, cmd)
	return verb{cmd, func(cmd *cobra.Command, args []string) ([]call, error) {
		body, err := o.body(a, cmd, args)
		if err != nil {
			return nil, err
		}
		return []call{o.createCall(body, url.Values{"start": {"1"}})}, nil
	}}
}

// createVerb is create for explain.
func createVerb(a *app) verb {
	var o runOptions
	cmd := createCommand(&o)
	return verb{cmd, func(cmd *cobra.Command, args []string) ([]call, error) {
		body, err := o.body(a, cmd, args)
		if err != nil {
			return nil, err
		}
		return []call{o.createCall(body, url.Values{})}, nil
	}}
}

func createCommand(o *runOptions) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "create [OPTIONS] IMAGE [COMMAND] [ARG...]\n  linkspan create [OPTIONS] --rootfs DIR [--] COMMAND [ARG...]",
		Short: "Create a new container",
	}
	o.bind(cmd.Flags())
	cmd.Flags().Bool("help", false, "print usage")
	return cmd
}

// body returns the request body, with the streams as run holds them.
func (o *runOptions) body(a *app, cmd *cobra.Command, args []string) (container.CreateRequest, error) {
	if err := o.take(cmd.Flags(), args); err != nil {
		return container.CreateRequest{}, err
	}
	if o.detach && len(o.attach) > 0 {
		return container.CreateRequest{}, errors.New("conflicting options: cannot specify both --attach and --detach")
	}
	if !slices.Contains([]string{"always", "missing", "never"}, o.pull) {
		return container.CreateRequest{}, fmt.Errorf("invalid --pull %q: want always, missing or never", o.pull)
	}
	body, err := o.request(a.ambient())
	if err != nil {
		return body, err
	}
	if o.detach {
		body.AttachStdin, body.AttachStdout, body.AttachStderr, body.StdinOnce = false, false, false, false
	}
	if height, width, ok := a.size(); ok && o.tty && !o.detach {
		body.HostConfig.ConsoleSize = [2]uint{height, width}
	}
	return body, nil
}

func (o *containerOptions) createCall(body container.CreateRequest, query url.Values) call {
	if o.name != "" {
		query.Set("name", o.name)
	}
	if o.platform != "" {
		query.Set("platform", o.platform)
	}
	target := "/containers/create"
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	return call{http.MethodPost, target, body}
}

func newCreate(a *app) *cobra.Command {
	var o runOptions
	cmd := createCommand(&o)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		body, err := o.body(a, cmd, args)
		if err != nil {
			return err
		}
		daemon, err := a.connect(cmd.Context())
		if err != nil {
			return err
		}
		made, err := a.create(cmd.Context(), daemon, &o.containerOptions, body)
		if err != nil {
			return err
		}
		fmt.Fprintln(a.out, made.ID)
		return nil
	}
	return cmd
}

func newRun(a *app) *cobra.Command {
	var o runOptions
	cmd := runCommand()
	bindRun(&o, cmd)
	step := stepFlag(cmd.Flags())
	// Whatever stops run before its command has a status of its own.
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return exit{statusDaemon, err} })
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		o.sigProxyGiven = cmd.Flags().Changed("sig-proxy")
		body, err := o.body(a, cmd, args)
		if err != nil {
			return exit{statusDaemon, err}
		}
		if *step {
			// Standard input is the reader's, so the container runs in the background.
			return a.stepThrough(cmd.Context(), []call{o.createCall(body, url.Values{"start": {"1"}})}, &dialectFlag{})
		}
		err = a.runContainer(cmd.Context(), &o, body)
		if special := (exit{}); err == nil || errors.As(err, &special) {
			return err
		}
		return exit{statusDaemon, err}
	}
	return cmd
}

// create makes a container, pulling its image when the daemon has none.
func (a *app) create(ctx context.Context, daemon *engine, o *containerOptions, body container.CreateRequest) (container.CreateResponse, error) {
	var made container.CreateResponse
	idFile, err := openIDFile(o.cidFile)
	if err != nil {
		return made, err
	}
	if o.image != "" && o.pull == "always" {
		if err = a.pull(ctx, daemon, o.image, o.platform, o.quiet); err != nil {
			return made, errors.Join(err, idFile.close(""))
		}
	}
	request := o.createCall(body, url.Values{})
	err = daemon.do(ctx, request, &made)
	if refused := (*daemonError)(nil); errors.As(err, &refused) && o.image != "" && o.pull == "missing" &&
		refused.status == http.StatusNotFound && strings.Contains(refused.message, "No such image") {
		if !o.quiet {
			fmt.Fprintf(a.err, "Unable to find image '%s' locally\n", o.image)
		}
		if err = a.pull(ctx, daemon, o.image, o.platform, o.quiet); err == nil {
			err = daemon.do(ctx, request, &made)
		}
	}
	for _, warning := range made.Warnings {
		fmt.Fprintln(a.err, "WARNING:", warning)
	}
	return made, errors.Join(err, idFile.close(made.ID))
}

// idFile is the file of --cidfile: made before the container, so that two
// commands cannot both think it theirs, and removed again if there is none.
type idFile struct{ file *os.File }

func openIDFile(name string) (idFile, error) {
	if name == "" {
		return idFile{}, nil
	}
	file, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return idFile{}, fmt.Errorf("container ID file found, make sure the other container isn't running or delete %s", name)
	}
	if err != nil {
		return idFile{}, fmt.Errorf("creating the container ID file: %w", err)
	}
	return idFile{file}, nil
}

func (f idFile) close(id string) error {
	if f.file == nil {
		return nil
	}
	if id == "" {
		return errors.Join(f.file.Close(), os.Remove(f.file.Name()))
	}
	_, err := f.file.WriteString(id)
	return errors.Join(err, f.file.Close())
}

// runContainer creates, attaches, waits and starts, in this order: an attach
// after the start would miss output, a wait after it the exit.
func (a *app) runContainer(ctx context.Context, o *runOptions, body container.CreateRequest) error {
	attached := !o.detach && (body.AttachStdin || body.AttachStdout || body.AttachStderr)
	if attached && o.tty && o.interactive {
		if err := a.needTerminal(); err != nil {
			return err
		}
	}
	daemon, err := a.connect(ctx)
	if err != nil {
		return err
	}
	made, err := a.create(ctx, daemon, &o.containerOptions, body)
	if err != nil {
		return err
	}
	if !attached {
		if _, err := daemon.ContainerStart(ctx, made.ID, client.ContainerStartOptions{}); err != nil {
			return exit{startStatus(err), err}
		}
		if o.detach {
			fmt.Fprintln(a.out, made.ID)
		}
		return nil
	}
	condition := container.WaitConditionNextExit
	if o.remove {
		condition = container.WaitConditionRemoved
	}
	return a.startAttached(ctx, daemon, session{
		id:         made.ID,
		tty:        o.tty,
		stdin:      body.AttachStdin && o.interactive,
		stdout:     body.AttachStdout,
		stderr:     body.AttachStderr,
		keys:       o.detachKeys,
		sigProxy:   o.sigProxy && (o.sigProxyGiven || !o.tty),
		condition:  condition,
		autoRemove: o.remove,
	})
}

// startStatus tells the reasons why a command did not start apart, by the
// words that the engines have for them.
func startStatus(err error) int {
	if !isDaemonError(err) {
		return statusDaemon
	}
	message := err.Error()
	switch {
	case strings.Contains(message, "executable file not found"), strings.Contains(message, "no such file or directory"):
		return statusNotFound
	case strings.Contains(message, syscall.EACCES.Error()), strings.Contains(message, syscall.EISDIR.Error()):
		return statusNotExecutable
	}
	return statusDaemon
}

// isDaemonError says that a daemon was reached and refused.
func isDaemonError(err error) bool {
	if refused := (*daemonError)(nil); errors.As(err, &refused) {
		return true
	}
	return !client.IsErrConnectionFailed(err) && strings.HasPrefix(err.Error(), "Error response from daemon")
}

// isNotFound says that the daemon knows no such thing.
func isNotFound(err error) bool {
	if refused := (*daemonError)(nil); errors.As(err, &refused) {
		return refused.status == http.StatusNotFound
	}
	return cerrdefs.IsNotFound(err)
}
