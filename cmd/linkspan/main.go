// Command linkspan joins containers to networks. With the word daemon it
// serves the Docker Engine API on a unix socket; with any other word it is a
// client of such a daemon, in docker's grammar.
//
//	linkspan network create --subnet 10.77.0.0/24 lab
//	linkspan run -d --name web --network lab --rootfs / -- python3 -m http.server 80
//	linkspan explain run --network lab --rootfs / -- true
//
// A container needs no image: --rootfs DIR takes any folder, and / runs the
// host's own tools copy-on-write over the host's root.
//
// Most verbs have the same inside: flags fill an options struct, a function
// turns it into calls of the API (no daemon needed, so a table tests it), and
// one place sends them. The word explain in front sends the same calls to a
// route that answers with the shell commands of the same effect.
//
// Exit status: that of the container for run, start -a, attach and exec; 125
// when run failed before its command could start, 126 when the command cannot
// be executed, 127 when there is none; else 0 or 1.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// version is written by the linker: see the Makefile.
var version = "dev" //nolint:gochecknoglobals // -ldflags -X takes nothing else

func main() {
	a := &app{in: os.Stdin, out: os.Stdout, err: os.Stderr, getenv: os.LookupEnv}
	os.Exit(a.run(context.Background(), os.Args[1:]))
}

// app is what the commands share: the ends of the terminal and where the
// daemon is. Tests fill it with buffers.
type app struct {
	in       io.Reader
	out, err io.Writer
	getenv   func(string) (string, bool)
	host     string // of -H; "" when not given
}

// exit is an error that ends the program with a status of its own. A nil err
// is a status that needs no words, such as a container's.
type exit struct {
	code int
	err  error
}

func (e exit) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.code)
	}
	return e.err.Error()
}

func (e exit) Unwrap() error { return e.err }

// run executes one command line and returns the exit status.
func (a *app) run(ctx context.Context, args []string) int {
	root := newRoot(a)
	root.SetArgs(args)
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	status := exit{code: 1, err: err}
	if special := (exit{}); errors.As(err, &special) {
		status = special
	}
	if status.err != nil {
		fmt.Fprintln(a.err, "linkspan:", oneLine(status.err.Error()))
	}
	return status.code
}

// oneLine joins the lines of a message: a script that reads stderr line by
// line gets one error a line.
func oneLine(message string) string {
	var joined strings.Builder
	for line := range strings.Lines(message) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		switch before := joined.String(); {
		case before == "":
		case strings.HasSuffix(before, ":"):
			joined.WriteString(" ")
		default:
			joined.WriteString("; ")
		}
		joined.WriteString(line)
	}
	return joined.String()
}

func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:           "linkspan",
		Short:         "Join containers to networks",
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return cmd.Help()
		},
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
	}
	root.PersistentFlags().StringVarP(&a.host, "host", "H", "", "daemon's `socket` (default $LINKSPAN_HOST, then "+defaultHost+")")
	// The version flag must not take -v away from run.
	root.Flags().Bool("version", false, "print the version of this command")
	root.AddCommand(
		newNetwork(a), newRun(a), newCreate(a), newStart(a), newStop(a), newRestart(a), newKill(a), newRm(a),
		newPs(a), newExec(a), newAttach(a), newLogs(a), newInspect(a), newPort(a), newFirewall(a), newWait(a), newRename(a),
		newBrctl(a), newTopology(a), newNsls(a), newCapture(a), newHistory(a), newScript(a), newLab(a), newPause(a), newUnpause(a), newUpdate(a), newTop(a), newStats(a), newEvents(a), newInfo(a), newVersion(a), newExplain(a), newDoctor(a),
		newImage(a), newImages(a), newImport(a), newLoad(a), newPull(a), newPush(a), newSave(a), newTag(a), newRmi(a),
		newVolume(a), newCp(a), newExport(a), newDiff(a), newCommit(a),
		newDaemon(a), newPlugin(a),
	)
	return root
}

// terminal returns the descriptor of a stream that is a terminal.
func terminal(stream any) (fd int, ok bool) {
	file, ok := stream.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return 0, false
	}
	return int(file.Fd()), true
}

// eachOf does one thing to each name, goes on past errors and reports them
// together. On success it prints the name as it was given.
func (a *app) eachOf(names []string, do func(name string) error) error {
	var failed []error
	for _, name := range names {
		if err := do(name); err != nil {
			failed = append(failed, err)
			continue
		}
		fmt.Fprintln(a.out, name)
	}
	return errors.Join(failed...)
}

// parseFilters reads values of -f: key=value each.
func parseFilters(values []string) (client.Filters, error) {
	if len(values) == 0 {
		return nil, nil
	}
	filters := client.Filters{}
	for _, value := range values {
		key, match, ok := strings.Cut(value, "=")
		if !ok {
			return nil, fmt.Errorf("invalid filter %q: want key=value", value)
		}
		filters.Add(strings.ToLower(strings.TrimSpace(key)), strings.TrimSpace(match))
	}
	return filters, nil
}

// ambient returns what a command line may draw in from around it.
func (a *app) ambient() ambient { return ambient{getenv: a.getenv, readFile: os.ReadFile} }
