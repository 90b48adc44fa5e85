package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/lab"
)

// labDir is where labs are kept. It belongs to no daemon: a lab needs none.
const labDir = "/run/linkspan-labs"

func newLab(a *app) *cobra.Command {
	command := &cobra.Command{
		Use:   "lab VERB",
		Short: "Build small networks from a file, to learn on and to break",
		Args:  unknownVerb,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	link := &cobra.Command{
		Use:   "link VERB",
		Short: "Cut and mend the cables of a lab",
		Args:  unknownVerb,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	link.AddCommand(
		a.labLinkSet(),
		labVerb("cut LAB NODE:INTERFACE", "Take the carrier from an end of a cable", 2, func(ctx context.Context, e *lab.Engine, args []string) error {
			return e.Cut(ctx, args[0], args[1])
		}),
		labVerb("restore LAB NODE:INTERFACE", "Make a cable as good as new: plugged in, with no rate, losses or delay", 2, func(ctx context.Context, e *lab.Engine, args []string) error {
			return e.Restore(ctx, args[0], args[1])
		}),
	)
	command.AddCommand(
		a.labUp(), a.labStatus(), a.labSave(), a.labExec(), a.labCompare(), link,
		labVerb("down LAB|FILE", "Take a lab down, whatever state it is in", 1, func(ctx context.Context, e *lab.Engine, args []string) error {
			name, err := e.NameOf(args[0])
			if err != nil {
				return err
			}
			return e.Down(ctx, name)
		}),
		labVerb("reset LAB", "Build a lab anew from the text that it was built from", 1, func(ctx context.Context, e *lab.Engine, args []string) error {
			return e.Reset(ctx, args[0])
		}),
	)
	command.AddCommand(append(a.lessonVerbs(), a.resultVerbs()...)...)
	return command
}

// labVerb is a verb that prints nothing when all is well.
func labVerb(use, short string, args int, act func(context.Context, *lab.Engine, []string) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: cobra.ExactArgs(args),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withLabs(func(e *lab.Engine) error { return act(cmd.Context(), e, args) })
		},
	}
}

func withLabs(act func(*lab.Engine) error) error {
	host, err := kernel.Open()
	if err != nil {
		return err
	}
	defer host.Close()
	return act(&lab.Engine{Dir: labDir, Real: host})
}

func (a *app) labUp() *cobra.Command {
	var explain bool
	command := &cobra.Command{
		Use:   "up [--explain] FILE",
		Short: "Put a lab up: all of it, or nothing",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := os.ReadFile(args[0])
			if err != nil {
				return fmt.Errorf("reading a lab: %w", err)
			}
			if explain {
				var script string
				if script, err = lab.Explain(text); err == nil {
					fmt.Fprint(a.out, script)
				}
				return err
			}
			path, err := filepath.Abs(args[0])
			if err != nil {
				return fmt.Errorf("reading a lab: %w", err)
			}
			return withLabs(func(e *lab.Engine) error {
				warnings, err := e.Up(cmd.Context(), text, path)
				for _, warning := range warnings {
					fmt.Fprintln(a.err, "WARNING:", warning)
				}
				return err
			})
		},
	}
	command.Flags().BoolVar(&explain, "explain", false, "print the script that puts the lab up, and do nothing")
	return command
}

func (a *app) labLinkSet() *cobra.Command {
	var rate, loss, delay string
	command := &cobra.Command{
		Use:     "set [--rate RATE] [--loss SHARE] [--delay TIME] LAB NODE:INTERFACE",
		Short:   "Make a cable slow, lossy or long, each way, in place of what was wrong with it before",
		Example: "  linkspan lab link set --rate 1mbit --loss 5% lan a:eth0\n  linkspan lab link restore lan a:eth0",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			var bad lab.Impairment
			if cmd.Flags().Changed("rate") {
				if bad.Rate, err = lab.ParseRate(rate); err != nil {
					return err
				}
			}
			if cmd.Flags().Changed("loss") {
				if bad.Loss, err = lab.ParseShare(loss); err != nil {
					return err
				}
			}
			if cmd.Flags().Changed("delay") {
				if bad.Delay, err = lab.ParseDelay(delay); err != nil {
					return err
				}
			}
			if bad == (lab.Impairment{}) {
				return linkspan.Errorf(linkspan.ErrInvalid, "want --rate, --loss or --delay; linkspan lab link restore takes them away")
			}
			return withLabs(func(e *lab.Engine) error { return e.Impair(cmd.Context(), args[0], args[1], bad) })
		},
	}
	flags := command.Flags()
	flags.StringVar(&rate, "rate", "", "bits per second: `64kbit`, 1.5mbit")
	flags.StringVar(&loss, "loss", "", "share of frames that are lost: `5%`")
	flags.StringVar(&delay, "delay", "", "how long a frame is on its way: `20ms`; needs a kernel with netem")
	return command
}

func (a *app) labSave() *cobra.Command {
	var output string
	command := &cobra.Command{
		Use:   "save [-o FILE] LAB",
		Short: "Write the file of a lab as it is now, with all that was changed by hand",
		Long: "Write the file of a lab as it is now, with all that was changed by hand. What no lab file can say is named, on standard\n" +
			"error and in the file's comment.",
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			return withLabs(func(e *lab.Engine) error {
				text, lost, err := e.Save(args[0])
				if err != nil {
					return err
				}
				for _, what := range lost {
					fmt.Fprintln(a.err, "WARNING: not saved:", what)
				}
				if output == "" {
					_, err = a.out.Write(text)
				} else {
					err = os.WriteFile(output, text, 0o644) //nolint:gosec // a lab is no secret
				}
				if err != nil {
					return fmt.Errorf("saving lab %s: %w", args[0], err)
				}
				return nil
			})
		},
	}
	command.Flags().StringVarP(&output, "output", "o", "", "write to `FILE`, not to standard output")
	return command
}

func (a *app) labStatus() *cobra.Command {
	return &cobra.Command{
		Use:   "status [LAB]...",
		Short: "Show labs, who is alive, the cables, and what was changed since they were put up",
		RunE: func(cmd *cobra.Command, names []string) error {
			return withLabs(func(e *lab.Engine) error {
				if len(names) == 0 {
					var err error
					if names, err = e.Names(); err != nil {
						return err
					}
				}
				var all []lab.Status
				for _, name := range names {
					status, err := e.Status(cmd.Context(), name)
					if err != nil {
						return err
					}
					all = append(all, status)
				}
				return a.printStatus(all)
			})
		},
	}
}

func (a *app) printStatus(all []lab.Status) error {
	table := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "LAB\tNODE\tNETNS\tPROCESSES\tRUN")
	for _, status := range all {
		for _, node := range status.Nodes {
			run := ""
			switch {
			case node.Gone:
				run = "gone"
			case node.Run != "" && node.Running != 0:
				run = fmt.Sprintf("alive (%d)", node.Running)
			case node.Run != "":
				run = "ended, see " + node.Log
			}
			fmt.Fprintf(table, "%s\t%s\t%s\t%d\t%s\n", status.Name, node.Name, node.Netns, len(node.Processes), run)
		}
	}
	fmt.Fprintln(table, "\nLAB\tLINK\tSTATE\tIMPAIRED")
	for _, status := range all {
		for _, link := range status.Links {
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", status.Name, link.Link, link.State, link.Bad)
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, status := range all {
		if status.Difference != nil {
			for line := range strings.Lines(status.Difference.Error()) {
				fmt.Fprintf(a.out, "%s: changed: %s\n", status.Name, strings.TrimSpace(line))
			}
		}
	}
	return nil
}

func (a *app) labExec() *cobra.Command {
	command := &cobra.Command{
		Use:   "exec LAB NODE COMMAND [ARG...]",
		Short: "Run a command in a node, or with - on the lab's machine, with a /sys of its own",
		Args:  cobra.MinimumNArgs(3),
		RunE: func(_ *cobra.Command, args []string) error {
			return withLabs(func(e *lab.Engine) error {
				node, hostname := args[1], args[1]
				if node == "-" {
					node, hostname = "", args[0]
				}
				cmd := lab.Command(hostname, args[2:]...)
				cmd.Stdin, cmd.Stdout, cmd.Stderr = a.in, a.out, a.err
				if err := e.Exec(args[0], node, cmd); err != nil {
					return err
				}
				err := cmd.Wait()
				if ended := (*exec.ExitError)(nil); errors.As(err, &ended) {
					return exit{code: ended.ExitCode()}
				}
				return err
			})
		},
	}
	command.Flags().SetInterspersed(false)
	return command
}
