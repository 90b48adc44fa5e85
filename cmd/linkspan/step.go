package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/linkspan/linkspan/api"
)

// stepThrough has calls carried out one kernel operation at a time. Each is shown
// with the thing that it changes, and waits for a line on standard input: an empty
// one goes on, q or the end of the input stops, and what was done is undone.
func (a *app) stepThrough(ctx context.Context, calls []call, dialect *dialectFlag) error {
	daemon, err := a.connect(ctx)
	if err != nil {
		return err
	}
	answers := bufio.NewScanner(a.in)
	for _, c := range calls {
		target, start, isRun := strings.Cut(c.Path, "start=1")
		if isRun { // explain's word for a creation and a start
			c.Path = strings.TrimRight(target, "?&") + start
		}
		made, err := a.step(ctx, daemon, c, dialect, answers)
		if err == nil && isRun {
			_, err = a.step(ctx, daemon, call{Method: http.MethodPost, Path: "/containers/" + url.PathEscape(made.ID) + "/start"}, dialect, answers)
		}
		if err != nil {
			return err
		}
		if made.ID != "" {
			fmt.Fprintln(a.out, made.ID)
		}
	}
	return nil
}

// made is what the creation of a thing answers.
type made struct {
	ID      string `json:"Id"`
	Message string `json:"message"` // a refusal's
}

func (a *app) step(ctx context.Context, daemon *engine, c call, dialect *dialectFlag, answers *bufio.Scanner) (made, error) {
	var answer made
	c.Path = "/v" + daemon.ClientVersion() + c.Path
	resp, err := daemon.send(ctx, call{Method: http.MethodPost, Path: dialect.in("/linkspan/v1/steps"), Body: c})
	if err != nil {
		return answer, err
	}
	defer resp.Body.Close()
	lines := json.NewDecoder(resp.Body)
	for {
		var line api.StepLine
		if err := lines.Decode(&line); errors.Is(err, io.EOF) {
			return answer, errors.New("the daemon has ended before the last step")
		} else if err != nil {
			return answer, fmt.Errorf("reading the steps: %w", err)
		}
		switch {
		case line.Status != 0:
			if line.Answer != nil {
				if err := json.Unmarshal(line.Answer, &answer); err != nil {
					return answer, fmt.Errorf("reading the daemon's answer: %w", err)
				}
			}
			if line.Status >= http.StatusBadRequest {
				return answer, &daemonError{status: line.Status, message: answer.Message}
			}
			return answer, nil
		case line.Command != "":
			fmt.Fprint(a.out, stepText(line))
			query := ""
			if !answers.Scan() || strings.HasPrefix(strings.TrimSpace(answers.Text()), "q") {
				query = "?stop=1"
			}
			if err := daemon.acknowledge(ctx, line.ID, query); err != nil {
				return answer, err
			}
		default:
			fmt.Fprint(a.out, resultText(line))
		}
	}
}

func (e *engine) acknowledge(ctx context.Context, id, query string) error {
	resp, err := e.send(ctx, call{Method: http.MethodPost, Path: "/linkspan/v1/steps/" + id + query})
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// stepText is a step that waits.
func stepText(line api.StepLine) string {
	text := "# " + strings.ReplaceAll(line.Why, "\n", "\n# ") + "\n"
	if line.Verb == "undo" {
		text += "# To be undone:\n# " + strings.ReplaceAll(strings.TrimRight(line.Command, "\n"), "\n", "\n# ") + "\n"
	} else {
		text += strings.TrimRight(line.Command, "\n") + "\n"
	}
	return text + indented("before", line.Before) + "  [Enter: go on; q: stop, and undo what was done] "
}

// resultText is what became of it.
func resultText(line api.StepLine) string {
	text := "\n" + indented("after", line.After)
	if line.Error != "" {
		text += indented("FAILED", line.Error)
	}
	return fmt.Sprintf("%s  (%s)\n\n", text, line.Took.Round(time.Microsecond))
}

func indented(title, text string) string {
	return fmt.Sprintf("  %-7s %s\n", title+":", strings.ReplaceAll(text, "\n", "\n          "))
}

// stepFlag is --step of a verb that acts.
func stepFlag(flags *pflag.FlagSet) *bool {
	return flags.Bool("step", false, "wait before each kernel operation, and show what it changes before and after")
}
