package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

func startVerb() verb {
	cmd := &cobra.Command{
		Use:   "start [OPTIONS] CONTAINER [CONTAINER...]",
		Short: "Start one or more stopped containers",
		Args:  cobra.MinimumNArgs(1),
	}
	cmd.Flags().BoolP("attach", "a", false, "attach STDOUT/STDERR and forward signals")
	cmd.Flags().BoolP("interactive", "i", false, "attach container's STDIN")
	cmd.Flags().String("detach-keys", "", "override the key sequence for detaching a container")
	return verb{cmd, func(_ *cobra.Command, args []string) ([]call, error) {
		return callEach(args, http.MethodPost, "/containers/", "/start", nil)
	}}
}

func newStart(a *app) *cobra.Command {
	cmd := a.acted(startVerb())
	detached := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		flags := cmd.Flags()
		attach, err := flags.GetBool("attach")
		if err != nil {
			return err
		}
		interactive, err := flags.GetBool("interactive")
		if err != nil {
			return err
		}
		keys, err := flags.GetString("detach-keys")
		if err != nil {
			return err
		}
		if !attach && !interactive {
			return detached(cmd, args)
		}
		if len(args) > 1 {
			return errors.New("you cannot start and attach multiple containers at once")
		}
		daemon, err := a.connect(cmd.Context())
		if err != nil {
			return err
		}
		found, err := daemon.ContainerInspect(cmd.Context(), args[0], client.ContainerInspectOptions{})
		if err != nil {
			return err
		}
		one := found.Container
		condition := container.WaitConditionNextExit
		if one.HostConfig.AutoRemove {
			condition = container.WaitConditionRemoved
		}
		return a.startAttached(cmd.Context(), daemon, session{
			id: one.ID, tty: one.Config.Tty, stdin: interactive && one.Config.OpenStdin, stdout: true, stderr: true,
			keys: keys, sigProxy: !one.Config.Tty, condition: condition, autoRemove: one.HostConfig.AutoRemove,
		})
	}
	return cmd
}

// stopping builds stop and restart, which differ in their word only.
func stopping(word, short string) verb {
	var timeout int
	var signalName string
	cmd := &cobra.Command{
		Use:   word + " [OPTIONS] CONTAINER [CONTAINER...]",
		Short: short,
		Args:  cobra.MinimumNArgs(1),
	}
	cmd.Flags().IntVarP(&timeout, "timeout", "t", 0, "`seconds` to wait before killing the container")
	cmd.Flags().SetNormalizeFunc(currentName)
	cmd.Flags().StringVarP(&signalName, "signal", "s", "", "signal to send to the container")
	return verb{cmd, func(cmd *cobra.Command, args []string) ([]call, error) {
		query := url.Values{}
		if cmd.Flags().Changed("timeout") {
			query.Set("t", strconv.Itoa(timeout))
		}
		if signalName != "" {
			query.Set("signal", signalName)
		}
		return callEach(args, http.MethodPost, "/containers/", "/"+word, query)
	}}
}

func stopVerb() verb    { return stopping("stop", "Stop one or more running containers") }
func restartVerb() verb { return stopping("restart", "Restart one or more containers") }

func killVerb() verb {
	var signalName string
	cmd := &cobra.Command{
		Use:   "kill [OPTIONS] CONTAINER [CONTAINER...]",
		Short: "Kill one or more running containers",
		Args:  cobra.MinimumNArgs(1),
	}
	cmd.Flags().StringVarP(&signalName, "signal", "s", "", "signal to send to the container")
	return verb{cmd, func(_ *cobra.Command, args []string) ([]call, error) {
		query := url.Values{}
		if signalName != "" {
			query.Set("signal", signalName)
		}
		return callEach(args, http.MethodPost, "/containers/", "/kill", query)
	}}
}

func rmVerb() verb {
	var force, volumes, link bool
	cmd := &cobra.Command{
		Use:     "rm [OPTIONS] CONTAINER [CONTAINER...]",
		Aliases: []string{"remove"},
		Short:   "Remove one or more containers",
		Args:    cobra.MinimumNArgs(1),
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "force the removal of a running container (uses SIGKILL)")
	cmd.Flags().BoolVarP(&volumes, "volumes", "v", false, "remove anonymous volumes associated with the container")
	cmd.Flags().BoolVarP(&link, "link", "l", false, "remove the specified link")
	return verb{cmd, func(_ *cobra.Command, args []string) ([]call, error) {
		query := url.Values{}
		for name, given := range map[string]bool{"force": force, "v": volumes, "link": link} {
			if given {
				query.Set(name, "1")
			}
		}
		names := make([]string, len(args))
		for i, name := range args {
			names[i] = strings.Trim(name, "/")
		}
		return callEach(names, http.MethodDelete, "/containers/", "", query)
	}}
}

func newRm(a *app) *cobra.Command {
	return a.doing(rmVerb(), func(cmd *cobra.Command, args []string, daemon *engine, calls []call) error {
		return a.removeEach(cmd, daemon, args, calls, a.err)
	})
}

// removeEach removes things and prints the names of those that it removed.
// With --force a thing that does not exist is gone, which is what was asked
// for: it is told to missing and is no failure.
func (a *app) removeEach(cmd *cobra.Command, daemon *engine, names []string, calls []call, missing io.Writer) error {
	force, err := cmd.Flags().GetBool("force")
	if err != nil {
		return err
	}
	var failed []error
	for i, name := range names {
		err := daemon.do(cmd.Context(), calls[i], nil)
		switch {
		case err == nil:
			fmt.Fprintln(a.out, name)
		case force && isNotFound(err):
			fmt.Fprintln(missing, "linkspan:", oneLine(err.Error()))
		default:
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

func oneWord(word, short string) verb {
	cmd := &cobra.Command{
		Use:   word + " CONTAINER [CONTAINER...]",
		Short: short,
		Args:  cobra.MinimumNArgs(1),
	}
	return verb{cmd, func(_ *cobra.Command, args []string) ([]call, error) {
		return callEach(args, http.MethodPost, "/containers/", "/"+word, nil)
	}}
}

func pauseVerb() verb { return oneWord("pause", "Pause all processes within one or more containers") }

func unpauseVerb() verb {
	return oneWord("unpause", "Unpause all processes within one or more containers")
}

func renameVerb() verb {
	cmd := &cobra.Command{Use: "rename CONTAINER NEW_NAME", Short: "Rename a container", Args: cobra.ExactArgs(2)}
	return verb{cmd, func(_ *cobra.Command, args []string) ([]call, error) {
		if strings.Trim(args[0], " /") == "" || strings.Trim(args[1], " /") == "" {
			return nil, errors.New("neither old nor new names may be empty")
		}
		return callEach(args[:1], http.MethodPost, "/containers/", "/rename", url.Values{"name": {args[1]}})
	}}
}

func newStop(a *app) *cobra.Command    { return a.acted(stopVerb()) }
func newRestart(a *app) *cobra.Command { return a.acted(restartVerb()) }
func newKill(a *app) *cobra.Command    { return a.acted(killVerb()) }
func newPause(a *app) *cobra.Command   { return a.acted(pauseVerb()) }
func newUnpause(a *app) *cobra.Command { return a.acted(unpauseVerb()) }
func newRename(a *app) *cobra.Command  { return a.silent(renameVerb()) }

func newWait(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "wait CONTAINER [CONTAINER...]",
		Short: "Block until one or more containers stop, then print their exit codes",
		Args:  cobra.MinimumNArgs(1),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		daemon, err := a.connect(cmd.Context())
		if err != nil {
			return err
		}
		var failed []error
		for _, name := range args {
			waited := daemon.ContainerWait(cmd.Context(), name, client.ContainerWaitOptions{})
			select {
			case end := <-waited.Result:
				fmt.Fprintln(a.out, end.StatusCode)
			case err := <-waited.Error:
				failed = append(failed, err)
			}
		}
		return errors.Join(failed...)
	}
	return cmd
}
