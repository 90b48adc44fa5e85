package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	mobyterm "github.com/moby/term"
	"github.com/spf13/cobra"
)

func newAttach(a *app) *cobra.Command {
	var noStdin, sigProxy bool
	var keys string
	cmd := &cobra.Command{
		Use:   "attach [OPTIONS] CONTAINER",
		Short: "Attach local standard input, output, and error streams to a running container",
		Args:  cobra.ExactArgs(1),
	}
	cmd.Flags().BoolVar(&noStdin, "no-stdin", false, "do not attach STDIN")
	cmd.Flags().BoolVar(&sigProxy, "sig-proxy", true, "proxy all received signals to the process")
	cmd.Flags().StringVar(&keys, "detach-keys", "", "override the key sequence for detaching a container")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		daemon, err := a.connect(cmd.Context())
		if err != nil {
			return err
		}
		return a.attach(cmd.Context(), daemon, args[0], session{stdin: !noStdin, sigProxy: sigProxy, keys: keys})
	}
	return cmd
}

// attach holds the streams of a container that runs already.
func (a *app) attach(ctx context.Context, daemon *engine, name string, s session) error {
	waitCtx, stopWaiting := context.WithCancel(ctx)
	defer stopWaiting()
	waited := daemon.ContainerWait(waitCtx, name, client.ContainerWaitOptions{Condition: container.WaitConditionNotRunning})
	found, err := daemon.ContainerInspect(ctx, name, client.ContainerInspectOptions{})
	if err != nil {
		return err
	}
	config, state := found.Container.Config, found.Container.State
	switch {
	case !state.Running:
		return errors.New("cannot attach to a stopped container, start it first")
	case state.Paused:
		return errors.New("cannot attach to a paused container, unpause it first")
	case state.Restarting:
		return errors.New("cannot attach to a restarting container, wait until it is running")
	}
	s.id, s.tty, s.stdout, s.stderr = found.Container.ID, config.Tty, true, true
	s.stdin = s.stdin && config.OpenStdin
	s.sigProxy = s.sigProxy && !s.tty
	if s.stdin && s.tty {
		if err = a.needTerminal(); err != nil {
			return err
		}
	}
	held, err := daemon.ContainerAttach(ctx, s.id, client.ContainerAttachOptions{
		Stream: true, Stdin: s.stdin, Stdout: true, Stderr: true, DetachKeys: s.keys,
	})
	if err != nil {
		return err
	}
	defer held.Close()
	streams, err := a.newStreams(held.HijackedResponse, s)
	if err != nil {
		return err
	}
	defer streams.restore()
	if s.sigProxy {
		defer a.proxySignals(ctx, daemon, s.id)()
	}
	if s.tty {
		defer a.followSize(ctx, func(ctx context.Context, height, width uint) error {
			_, err := daemon.ContainerResize(ctx, s.id, client.ContainerResizeOptions{Height: height, Width: width})
			return err
		})()
	}
	return finish(ctx, streams, waited)
}

// execOptions are the flags of exec.
type execOptions struct {
	detach, interactive, tty, privileged bool
	env, envFiles                        []string
	user, workdir, keys                  string
}

func newExec(a *app) *cobra.Command {
	var o execOptions
	cmd := &cobra.Command{
		Use:   "exec [OPTIONS] CONTAINER COMMAND [ARG...]",
		Short: "Execute a command in a running container",
		Args:  cobra.MinimumNArgs(2),
	}
	flags := cmd.Flags()
	flags.SetInterspersed(false)
	flags.BoolVarP(&o.detach, "detach", "d", false, "run command in the background")
	flags.BoolVarP(&o.interactive, "interactive", "i", false, "keep STDIN open even if not attached")
	flags.BoolVarP(&o.tty, "tty", "t", false, "allocate a pseudo-TTY")
	flags.BoolVar(&o.privileged, "privileged", false, "give extended privileges to the command")
	flags.StringArrayVarP(&o.env, "env", "e", nil, "set environment variables")
	flags.StringArrayVar(&o.envFiles, "env-file", nil, "read in a `file` of environment variables")
	flags.StringVarP(&o.user, "user", "u", "", "user name or UID (`<name|uid>[:<group|gid>]`)")
	flags.StringVarP(&o.workdir, "workdir", "w", "", "working directory inside the container")
	flags.StringVar(&o.keys, "detach-keys", "", "override the key sequence for detaching a container")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.exec(cmd.Context(), o, args[0], args[1:])
	}
	return cmd
}

func (a *app) exec(ctx context.Context, o execOptions, name string, command []string) error {
	env, err := environment(a.ambient(), o.envFiles, o.env)
	if err != nil {
		return err
	}
	if o.tty && o.interactive && !o.detach {
		if err = a.needTerminal(); err != nil {
			return err
		}
	}
	daemon, err := a.connect(ctx)
	if err != nil {
		return err
	}
	// A container that does not exist is worth a plain error, not one in a stream.
	if _, err = daemon.ContainerInspect(ctx, name, client.ContainerInspectOptions{}); err != nil {
		return err
	}
	request := client.ExecCreateOptions{
		User: o.user, Privileged: o.privileged, TTY: o.tty, Env: env, WorkingDir: o.workdir, Cmd: command, DetachKeys: o.keys,
		AttachStdin: o.interactive && !o.detach, AttachStdout: !o.detach, AttachStderr: !o.detach,
	}
	if height, width, ok := a.size(); ok && o.tty {
		request.ConsoleSize = client.ConsoleSize{Height: height, Width: width}
	}
	made, err := daemon.ExecCreate(ctx, name, request)
	if err != nil {
		return err
	}
	if o.detach {
		_, err = daemon.ExecStart(ctx, made.ID, client.ExecStartOptions{Detach: true, TTY: o.tty, ConsoleSize: request.ConsoleSize})
		return err
	}
	return a.execAttached(ctx, daemon, made.ID, o, request.ConsoleSize)
}

func (a *app) execAttached(ctx context.Context, daemon *engine, id string, o execOptions, size client.ConsoleSize) error {
	held, err := daemon.ExecAttach(ctx, id, client.ExecAttachOptions{TTY: o.tty, ConsoleSize: size})
	if err != nil {
		return err
	}
	defer held.Close()
	streams, err := a.newStreams(held.HijackedResponse, session{tty: o.tty, stdin: o.interactive, stdout: true, stderr: true, keys: o.keys})
	if err != nil {
		return err
	}
	defer streams.restore()
	if o.tty {
		defer a.followSize(ctx, func(ctx context.Context, height, width uint) error {
			_, failed := daemon.ExecResize(ctx, id, client.ExecResizeOptions{Height: height, Width: width})
			return failed
		})()
	}
	err = streams.copy(ctx)
	streams.restore()
	if errors.As(err, &mobyterm.EscapeError{}) {
		return nil
	}
	if err != nil {
		return err
	}
	end, err := daemon.ExecInspect(ctx, id, client.ExecInspectOptions{})
	if err != nil {
		return fmt.Errorf("asking for the exit status: %w", err)
	}
	if end.ExitCode != 0 {
		return exit{code: end.ExitCode}
	}
	return nil
}
