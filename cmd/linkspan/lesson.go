package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/lab"
	"github.com/linkspan/linkspan/lab/lesson"
)

// lessonAct is what a verb does with a lesson; args are those behind its name.
type lessonAct func(ctx context.Context, c lesson.Course, name string, args []string) error

// lessonVerbs are the verbs of `linkspan lab` for learners.
func (a *app) lessonVerbs() []*cobra.Command {
	var seed string
	var number int
	var skip bool
	start := a.lessonVerb("start LESSON", "Begin a lesson: build its lab and print its first task", func(ctx context.Context, c lesson.Course, name string, _ []string) error {
		if _, err := c.StartAt(ctx, name, lesson.Seed(seed), number); err != nil {
			return err
		}
		return a.printTask(c, name)
	})
	start.Args = cobra.ExactArgs(1)
	start.Flags().StringVar(&seed, "seed", "", "vary names, addresses, ports and faults by a `word`, such as the learner's name")
	start.Flags().IntVar(&number, "task", 1, "begin with the task of that `number`, from the state that the solutions before it leave")
	next := a.lessonVerb("next [LESSON]", "Go to the next task", func(ctx context.Context, c lesson.Course, name string, _ []string) error {
		if err := c.Next(ctx, name, skip); err != nil {
			return err
		}
		return a.printTask(c, name)
	})
	next.Flags().BoolVar(&skip, "skip", false, "go on though the task has not passed, from the state that its solution leaves")
	check := a.lessonVerb("check [LESSON] [ANSWER]", "Look whether the task is done; ANSWER is a prediction", func(ctx context.Context, c lesson.Course, name string, args []string) error {
		err := c.Check(ctx, name, strings.Join(args, " "))
		if errors.Is(err, linkspan.ErrInvalid) {
			return fmt.Errorf("not yet: %w", err)
		}
		if err == nil {
			fmt.Fprintf(a.out, "passed (go on with: linkspan lab next %s)\n", name)
		}
		return err
	})
	check.Args = cobra.MaximumNArgs(2)
	return []*cobra.Command{
		start, next, check, a.lessonList(),
		a.lessonVerb("task [LESSON]", "Print the current task again", func(_ context.Context, c lesson.Course, name string, _ []string) error {
			return a.printTask(c, name)
		}),
		a.lessonVerb("hint [LESSON]", "Print the next hint", func(_ context.Context, c lesson.Course, name string, _ []string) error {
			return a.printed(c.Hint(name))
		}),
		a.lessonVerb("solution [LESSON]", "Print what solves the task", func(ctx context.Context, c lesson.Course, name string, _ []string) error {
			return a.printed(c.Solution(ctx, name))
		}),
		a.lessonVerb("undo [LESSON]", "Bring the lab back to the beginning of the current task", func(ctx context.Context, c lesson.Course, name string, _ []string) error {
			return c.Undo(ctx, name)
		}),
		a.lessonVerb("stop [LESSON]", "Take a lesson's lab down; its results stay", func(ctx context.Context, c lesson.Course, name string, _ []string) error {
			return c.Stop(ctx, name)
		}),
	}
}

// lessonVerb is a verb of a lesson: the one that is named, else the one that was
// started last.
func (a *app) lessonVerb(use, short string, act lessonAct) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withCourse(func(c lesson.Course) error {
				name, rest, err := lessonOf(c, args, strings.Contains(use, "[ANSWER]"))
				if err != nil {
					return err
				}
				return act(cmd.Context(), c, name, rest)
			})
		},
	}
}

// lessonOf takes the name of a lesson from the arguments. A single word that names
// none is an answer, where one may be given.
func lessonOf(c lesson.Course, args []string, answers bool) (name string, rest []string, err error) {
	if len(args) > 0 {
		found, unknown := lesson.Find(args[0])
		if unknown == nil || len(args) > 1 || !answers {
			return found.Name, args[1:], unknown
		}
	}
	name, err = c.Current()
	return name, args, err
}

func withCourse(act func(lesson.Course) error) error {
	return withLabs(func(e *lab.Engine) error {
		key, err := lesson.PrivateKey(keyFile())
		if err != nil {
			return err
		}
		return act(lesson.Course{Labs: e, Key: key})
	})
}

// keyFile is where the key is that signs results.
func keyFile() string { return cmp.Or(os.Getenv("LINKSPAN_LAB_KEY"), "/etc/linkspan/lab.key") }

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
