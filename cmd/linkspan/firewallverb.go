package main

import (
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/linkspan/linkspan/api"
)

func newFirewall(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "firewall", Short: "Look after the firewall's rules", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(newFirewallReapply(a))
	return cmd
}

func newFirewallReapply(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "reapply",
		Short: "Put back at once what is missing of the firewall's rules",
		Long:  "Put back at once what is missing of the firewall's rules, and print what was.\nThe daemon does so by itself as soon as the kernel reports that somebody else changed rules.",
		Args:  cobra.NoArgs,
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		daemon, err := a.connect(cmd.Context())
		if err != nil {
			return err
		}
		text, err := daemon.text(cmd.Context(), call{Method: http.MethodPost, Path: "/linkspan/v1/firewall/reapply"})
		if err != nil {
			return err
		}
		var answer api.Reapplied
		if err := json.Unmarshal([]byte(text), &answer); err != nil {
			return fmt.Errorf("reading the daemon's answer: %w", err)
		}
		if len(answer.Steps) == 0 {
			fmt.Fprintln(a.out, "nothing was missing")
		}
		for _, step := range answer.Steps {
			fmt.Fprintln(a.out, step.Why)
		}
		return nil
	}
	return cmd
}
