package main

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/lab"
	"github.com/linkspan/linkspan/lab/lesson"
)

// lessonVerbs are the verbs of `linkspan lab` for learners and teachers.
func (a *app) lessonVerbs() []*cobra.Command {
	var seed, format string
	var skip bool
	start := a.lessonVerb("start LESSON", "Begin a lesson: build its lab and print its first task", 1, func(ctx context.Context, c lesson.Course, args []string) error {
		if _, err := c.Start(ctx, args[0], lesson.Seed(seed)); err != nil {
			return err
		}
		return a.printTask(c, args[0])
	})
	start.Flags().StringVar(&seed, "seed", "", "vary names, addresses and ports by a `word`, such as the learner's name")
	next := a.lessonVerb("next LESSON", "Go to the next task", 1, func(ctx context.Context, c lesson.Course, args []string) error {
		if err := c.Next(ctx, args[0], skip); err != nil {
			return err
		}
		return a.printTask(c, args[0])
	})
	next.Flags().BoolVar(&skip, "skip", false, "go on though the task has not passed, from the state that its solution leaves")
	report := a.lessonVerb("report", "Print what was done of each lesson", 0, func(_ context.Context, c lesson.Course, _ []string) error {
		return a.report(c, format)
	})
	report.Flags().StringVar(&format, "format", "json", "`format`: json or csv")
	check := a.lessonVerb("check LESSON [ANSWER]", "Look whether the task is done; ANSWER is a prediction", 1, func(ctx context.Context, c lesson.Course, args []string) error {
		err := c.Check(ctx, args[0], strings.Join(args[1:], " "))
		if errors.Is(err, linkspan.ErrInvalid) {
			return fmt.Errorf("not yet: %w", err)
		}
		if err == nil {
			fmt.Fprintf(a.out, "passed (go on with: linkspan lab next %s)\n", args[0])
		}
		return err
	})
	check.Args = cobra.RangeArgs(1, 2)
	return []*cobra.Command{
		start, next, report, check, a.lessonList(),
		a.lessonVerb("task LESSON", "Print the current task again", 1, func(_ context.Context, c lesson.Course, args []string) error {
			return a.printTask(c, args[0])
		}),
		a.lessonVerb("hint LESSON", "Print the next hint", 1, func(_ context.Context, c lesson.Course, args []string) error {
			return a.printed(c.Hint(args[0]))
		}),
		a.lessonVerb("solution LESSON", "Print what solves the task", 1, func(ctx context.Context, c lesson.Course, args []string) error {
			return a.printed(c.Solution(ctx, args[0]))
		}),
		a.lessonVerb("undo LESSON", "Bring the lab back to the beginning of the current task", 1, func(ctx context.Context, c lesson.Course, args []string) error {
			return c.Undo(ctx, args[0])
		}),
		a.lessonVerb("stop LESSON", "Take a lesson's lab down; its results stay", 1, func(ctx context.Context, c lesson.Course, args []string) error {
			return c.Stop(ctx, args[0])
		}),
	}
}

func (a *app) lessonVerb(use, short string, args int, act func(context.Context, lesson.Course, []string) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: cobra.ExactArgs(args),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withLabs(func(e *lab.Engine) error { return act(cmd.Context(), lesson.Course{Labs: e}, args) })
		},
	}
}

func (a *app) lessonList() *cobra.Command {
	return &cobra.Command{
		Use: "lessons", Short: "List the lessons", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			table := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
			for _, l := range lesson.Lessons() {
				fmt.Fprintf(table, "%s\t%s\n", l.Name, l.Title)
			}
			return table.Flush()
		},
	}
}

func (a *app) printed(text string, err error) error {
	if err == nil {
		fmt.Fprintln(a.out, text)
	}
	return err
}

func (a *app) printTask(c lesson.Course, name string) error {
	text, err := c.Text(name)
	if err == nil {
		fmt.Fprint(a.out, text)
	}
	return err
}

func (a *app) report(c lesson.Course, format string) error {
	all, err := c.Report()
	if err != nil {
		return err
	}
	switch format {
	case "json":
		encoder := json.NewEncoder(a.out)
		encoder.SetIndent("", "  ")
		return encoder.Encode(all)
	case "csv":
		rows := csv.NewWriter(a.out)
		lines := [][]string{{"lesson", "seed", "task", "kind", "attempts", "hints", "solution shown", "passed"}}
		for _, p := range all {
			for i, t := range p.Tasks {
				passed := ""
				if !t.Passed.IsZero() {
					passed = t.Passed.Format(time.RFC3339)
				}
				lines = append(lines, []string{
					p.Lesson, string(p.Seed), strconv.Itoa(i + 1), t.Kind, strconv.Itoa(t.Attempts), strconv.Itoa(t.Hints), strconv.FormatBool(t.Shown), passed,
				})
			}
		}
		return rows.WriteAll(lines)
	}
	return fmt.Errorf("unknown format %q: there are json, csv", format)
}
