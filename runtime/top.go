package runtime

import (
	"context"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"

	"github.com/linkspan/linkspan"
)

// Top lists the container's processes as ps(1) of the host does with the given
// arguments ("" is -ef); its output must have a PID column.
func (r *Runtime) Top(ctx context.Context, ref, args string) (container.TopResponse, error) {
	var top container.TopResponse
	e, err := r.find(ref)
	if err != nil {
		return top, err
	}
	c := e.get()
	if isStatus(c, container.StateRestarting) {
		return top, errRestarting(ref)
	}
	if !c.State.Running() {
		return top, errNotRunning(c)
	}
	if args == "" {
		args = "-ef"
	}
	command := exec.CommandContext(ctx, "ps", strings.Fields(args)...)
	command.Env = append(os.Environ(), "LC_ALL=C")
	out, err := command.Output()
	if err != nil {
		return top, linkspan.Errorf(linkspan.ErrInvalid, "ps %s: %w", args, err)
	}
	top, err = selectProcesses(string(out), r.cgroups.Group(c.group()).Pids())
	if err == nil {
		r.event(c, "top")
	}
	return top, err
}

// selectProcesses keeps the rows of a ps output whose PID is among the given.
func selectProcesses(out string, pids []int) (container.TopResponse, error) {
	var top container.TopResponse
	head, rest, _ := strings.Cut(out, "\n")
	top.Titles = strings.Fields(head)
	column := slices.Index(top.Titles, "PID")
	if column < 0 {
		return top, linkspan.Errorf(linkspan.ErrInvalid, "Couldn't find PID field in ps output")
	}
	top.Processes = [][]string{}
	for line := range strings.Lines(rest) {
		fields := strings.Fields(line)
		if len(fields) <= column {
			continue
		}
		pid, err := strconv.Atoi(fields[column])
		if err != nil || !slices.Contains(pids, pid) {
			continue
		}
		if n := len(top.Titles); len(fields) > n { // the command has blanks
			fields = append(fields[:n-1], strings.Join(fields[n-1:], " "))
		}
		top.Processes = append(top.Processes, fields)
	}
	return top, nil
}
