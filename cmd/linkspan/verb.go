package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
)

// verb is a command line that amounts to calls of the API: flags bound to an
// options struct, and a pure function from arguments to calls. The command
// gets its action from whoever uses it: to act, or to explain.
type verb struct {
	command *cobra.Command
	calls   func(cmd *cobra.Command, args []string) ([]call, error)
}

// explainable returns the verbs that the word explain can stand in front of.
func explainable(a *app) []verb {
	return []verb{
		runVerb(a), createVerb(a), startVerb(), stopVerb(), restartVerb(), killVerb(), rmVerb(), pauseVerb(), unpauseVerb(), renameVerb(),
	}
}

func explainableNetworks() []verb {
	return []verb{networkCreateVerb(), networkRmVerb(), networkConnectVerb(), networkDisconnectVerb(), networkPruneVerb(), networkUpdateVerb()}
}

// newExplain mirrors the verbs' own flags, so that a line typed before can be
// repeated with one word more.
func newExplain(a *app) *cobra.Command {
	explain := &cobra.Command{
		Use:   "explain VERB [ARG...]",
		Short: "Print what a verb would do, as a commented shell script, without doing it",
		Example: "  linkspan explain run --network lab --rootfs / -- true\n" +
			"  linkspan explain network create --subnet 10.77.0.0/24 lab",
		Args: unknownVerb,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	networks := &cobra.Command{
		Use:   "network VERB [ARG...]",
		Short: "Print what a network verb would do",
		Args:  unknownVerb,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	explain.AddCommand(networks, brctlCommand(a, true))
	for _, v := range explainable(a) {
		explain.AddCommand(a.explained(v))
	}
	for _, v := range explainableNetworks() {
		networks.AddCommand(a.explained(v))
	}
	return explain
}

func unknownVerb(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("unknown verb %q: see `%s --help` for those there are", args[0], cmd.CommandPath())
	}
	return nil
}

// explained makes a verb's command print the daemon's plan of it.
func (a *app) explained(v verb) *cobra.Command {
	v.command.RunE = func(cmd *cobra.Command, args []string) error {
		calls, err := v.calls(cmd, args)
		if err != nil {
			return err
		}
		return a.explain(cmd.Context(), calls)
	}
	return v.command
}

func (a *app) explain(ctx context.Context, calls []call) error {
	daemon, err := a.connect(ctx)
	if err != nil {
		return err
	}
	for _, c := range calls {
		script, err := daemon.text(ctx, call{Method: "POST", Path: "/linkspan/v1/explain", Body: c})
		if err != nil {
			return err
		}
		fmt.Fprint(a.out, script)
	}
	return nil
}

// doing makes a verb's command do something with its calls.
func (a *app) doing(v verb, do func(cmd *cobra.Command, args []string, daemon *engine, calls []call) error) *cobra.Command {
	v.command.RunE = func(cmd *cobra.Command, args []string) error {
		calls, err := v.calls(cmd, args)
		if err != nil {
			return err
		}
		daemon, err := a.connect(cmd.Context())
		if err != nil {
			return err
		}
		return do(cmd, args, daemon, calls)
	}
	return v.command
}

// acted makes a verb's command do its calls, one for each name given, and
// print each name that it was done for.
func (a *app) acted(v verb) *cobra.Command {
	return a.doing(v, func(cmd *cobra.Command, args []string, daemon *engine, calls []call) error {
		next := 0
		return a.eachOf(args, func(string) error {
			next++
			return daemon.do(cmd.Context(), calls[next-1], nil)
		})
	})
}
