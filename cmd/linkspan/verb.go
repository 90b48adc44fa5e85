package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/linkspan/linkspan/op"
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
	var dialect dialectFlag
	explain := &cobra.Command{
		Use:   "explain [--dialect DIALECT] VERB [ARG...]",
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
	ports := &cobra.Command{
		Use:   "port VERB [ARG...]",
		Short: "Print what a change of published ports would do",
		Args:  unknownVerb,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	dialect.bind(explain.PersistentFlags())
	step := explain.PersistentFlags().Bool("step", false, "do it after all: wait before each kernel operation, and show what it changes before and after")
	ports.AddCommand(a.explained(portAddVerb(), &dialect, step), a.explained(portRmVerb(), &dialect, step))
	explain.AddCommand(networks, ports, brctlCommand(a, &dialect))
	for _, v := range explainable(a) {
		explain.AddCommand(a.explained(v, &dialect, step))
	}
	for _, v := range explainableNetworks() {
		networks.AddCommand(a.explained(v, &dialect, step))
	}
	return explain
}

// dialectFlag is --dialect: how commands are worded.
type dialectFlag struct{ op.Dialect }

func (d *dialectFlag) bind(flags *pflag.FlagSet) {
	d.Dialect = op.IP
	flags.Var(d, "dialect", "word commands in this `dialect`: "+strings.Join(op.Dialects(), ", ")+", which says bridges as brctl(8) does")
}

func (d *dialectFlag) String() string { return string(d.Dialect) }
func (d *dialectFlag) Type() string   { return "dialect" }

// Set takes a dialect that there is.
func (d *dialectFlag) Set(name string) (err error) {
	d.Dialect, err = op.ParseDialect(name)
	return err
}

// in asks for an answer in the dialect.
func (d *dialectFlag) in(path string) string {
	if d.Dialect == op.IP || d.Dialect == "" {
		return path
	}
	mark := "?"
	if strings.Contains(path, "?") {
		mark = "&"
	}
	return path + mark + "dialect=" + string(d.Dialect)
}

func unknownVerb(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("unknown verb %q: see `%s --help` for those there are", args[0], cmd.CommandPath())
	}
	return nil
}

// explained makes a verb's command print the daemon's plan of it.
func (a *app) explained(v verb, dialect *dialectFlag, step *bool) *cobra.Command {
	v.command.RunE = func(cmd *cobra.Command, args []string) error {
		calls, err := v.calls(cmd, args)
		if err != nil {
			return err
		}
		if *step {
			return a.stepThrough(cmd.Context(), calls, dialect)
		}
		return a.explain(cmd.Context(), calls, dialect)
	}
	return v.command
}

func (a *app) explain(ctx context.Context, calls []call, dialect *dialectFlag) error {
	daemon, err := a.connect(ctx)
	if err != nil {
		return err
	}
	for _, c := range calls {
		script, err := daemon.text(ctx, call{Method: "POST", Path: dialect.in("/linkspan/v1/explain"), Body: c})
		if err != nil {
			return err
		}
		fmt.Fprint(a.out, script)
	}
	return nil
}

// doing makes a verb's command do something with its calls, or go through them step
// by step.
func (a *app) doing(v verb, do func(cmd *cobra.Command, args []string, daemon *engine, calls []call) error) *cobra.Command {
	step := stepFlag(v.command.Flags())
	v.command.RunE = func(cmd *cobra.Command, args []string) error {
		calls, err := v.calls(cmd, args)
		if err != nil {
			return err
		}
		if *step {
			return a.stepThrough(cmd.Context(), calls, &dialectFlag{})
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
