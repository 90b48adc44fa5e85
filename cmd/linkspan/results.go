package main

import (
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/linkspan/linkspan/lab/lesson"
)

// resultVerbs are the verbs of `linkspan lab` for teachers.
func (a *app) resultVerbs() []*cobra.Command {
	var format, public string
	report := &cobra.Command{
		Use: "report", Short: "Print what was done of each lesson", Args: cobra.NoArgs,
		Long: "Print what was done of each lesson. With a teacher's key in /etc/linkspan/lab.key, or where LINKSPAN_LAB_KEY says, each\n" +
			"result is signed as it comes to be, and the JSON form can be verified by whoever has the other half of the key.",
		RunE: func(*cobra.Command, []string) error {
			return withCourse(func(c lesson.Course) error {
				all, err := c.Report()
				if err != nil {
					return err
				}
				return a.printResults(all, format)
			})
		},
	}
	verify := &cobra.Command{
		Use: "verify --key KEY.pub FILE...", Short: "Verify the results that lab report printed, and print those that are as they were signed",
		Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, files []string) error {
			key, err := lesson.PublicKey(public)
			if err != nil {
				return err
			}
			var good []lesson.Progress
			var failed []error
			for _, file := range files {
				text, err := os.ReadFile(file)
				if err != nil {
					failed = append(failed, fmt.Errorf("reading results: %w", err))
					continue
				}
				all, err := lesson.ReadResults(text)
				if err != nil {
					failed = append(failed, fmt.Errorf("%s: %w", file, err))
				}
				for _, p := range all {
					if err := p.Verify(key); err != nil {
						failed = append(failed, fmt.Errorf("%s: %w", file, err))
						continue
					}
					good = append(good, p)
				}
			}
			return errors.Join(a.printResults(good, format), errors.Join(failed...))
		},
	}
	for _, command := range []*cobra.Command{report, verify} {
		command.Flags().StringVar(&format, "format", "json", "`format`: json or csv")
	}
	verify.Flags().StringVar(&public, "key", "/etc/linkspan/lab.key.pub", "`file` of the public half of the key")
	key := &cobra.Command{
		Use: "key FILE", Short: "Make a teacher's key, which signs results, and its public half in FILE.pub, which verifies them", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return lesson.NewKeys(args[0]) },
	}
	return []*cobra.Command{report, verify, key}
}

func (a *app) printResults(all []lesson.Progress, format string) error {
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
