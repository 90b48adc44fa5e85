package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/linkspan/linkspan/api"
)

func newHistory(a *app) *cobra.Command {
	var follow bool
	var dialect dialectFlag
	command := &cobra.Command{
		Use:   "history [-f]",
		Short: "Print the kernel operations of late as commands, with when, how long and why",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			daemon, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			path := "/linkspan/v1/history"
			if follow {
				path += "?follow=1"
			}
			resp, err := daemon.send(cmd.Context(), call{Method: http.MethodGet, Path: dialect.in(path)})
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			lines := json.NewDecoder(resp.Body)
			for {
				var o api.Operation
				if err := lines.Decode(&o); errors.Is(err, io.EOF) {
					return nil
				} else if err != nil {
					return fmt.Errorf("reading the history: %w", err)
				}
				if _, err := io.WriteString(a.out, historyText(o)); err != nil {
					return err
				}
			}
		},
	}
	dialect.bind(command.Flags())
	command.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what happens from now on")
	return command
}

// historyText is an operation as two lines of a script. What was undone, or
// failed, is a comment: only what was done can be done again.
func historyText(o api.Operation) string {
	comment, command := "", o.Command
	switch {
	case o.Error != "":
		comment, command = "FAILED: "+strings.ReplaceAll(o.Error, "\n", "; ")+" ", commented(command)
	case o.Verb == "undo":
		comment, command = "undone: ", commented(command)
	}
	why := strings.ReplaceAll(o.Why, "\n", " ")
	return fmt.Sprintf("# %s (%s) %s%s\n%s\n", o.Time.Format("15:04:05.000"), o.Took.Round(time.Microsecond), comment, why, command)
}

// commented is the first line of a command as a comment, and dots for the others.
func commented(script string) string {
	first, more, _ := strings.Cut(script, "\n")
	if more != "" {
		first += " …"
	}
	return "# " + first
}

// newScript prints all that makes a network and what is attached to it.
func newScript(a *app) *cobra.Command {
	var dialect dialectFlag
	command := &cobra.Command{
		Use:     "script [--dialect DIALECT] NETWORK",
		Short:   "Print the script that makes the host's part, a network, and the sandboxes on it",
		Example: "  linkspan script lab > lab.sh",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			daemon, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			found, err := daemon.NetworkInspect(cmd.Context(), args[0], client.NetworkInspectOptions{})
			if err != nil {
				return err
			}
			sections := []string{"host/" + found.Network.ID, "network/" + found.Network.ID}
			started, err := daemon.byStart(cmd.Context(), slices.Collect(maps.Keys(found.Network.Containers)))
			if err != nil {
				return err
			}
			for _, id := range started {
				sections = append(sections, "container/"+id)
			}
			for _, section := range sections {
				script, err := daemon.text(cmd.Context(), call{Method: http.MethodGet, Path: dialect.in("/linkspan/v1/commands/" + section)})
				if err != nil {
					return err
				}
				fmt.Fprintln(a.out, strings.TrimSuffix(script, "\n"))
			}
			return nil
		},
	}
	dialect.bind(command.Flags())
	return command
}

// byStart sorts containers by when they started: a bridge numbers its ports in
// the order in which they are plugged in.
func (e *engine) byStart(ctx context.Context, ids []string) ([]string, error) {
	starts := make(map[string]time.Time, len(ids))
	for _, id := range ids {
		found, err := e.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
		if err != nil {
			return nil, err
		}
		if found.Container.State != nil {
			starts[id], err = time.Parse(time.RFC3339Nano, found.Container.State.StartedAt)
		}
		if err != nil {
			return nil, fmt.Errorf("reading when container %s started: %w", id, err)
		}
	}
	slices.SortFunc(ids, func(a, b string) int { return starts[a].Compare(starts[b]) })
	return ids, nil
}
