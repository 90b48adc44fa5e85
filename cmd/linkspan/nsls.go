package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

// namespaceKinds are the kinds of namespace of namespaces(7) that Linux has had since
// 4.6, in the order of that page, and the eighth, time, if this kernel has it: it
// came with 5.6, and nobody gives a container one.
func namespaceKinds() []string {
	kinds := []string{"cgroup", "ipc", "net", "mnt", "pid", "user", "uts"}
	if _, err := os.Readlink("/proc/self/ns/time"); err == nil {
		kinds = append(kinds, "time")
	}
	return kinds
}

func newNsls(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "nsls [CONTAINER...]",
		Short: "List the namespaces of containers, as /proc/PID/ns shows them",
		Long: "List the seven kinds of namespace of each running container by their inode numbers, and time where the kernel has it, as /proc/PID/ns shows them.\n" +
			"Two processes are in the same namespace if the numbers are equal; = stands for the number of this command's own.",
		RunE: func(cmd *cobra.Command, names []string) error {
			daemon, err := a.connect(cmd.Context())
			if err != nil {
				return err
			}
			if len(names) == 0 {
				running, err := daemon.ContainerList(cmd.Context(), client.ContainerListOptions{})
				if err != nil {
					return err
				}
				for _, c := range running.Items {
					names = append(names, c.ID)
				}
			}
			own := namespacesOf("self")
			table := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
			fmt.Fprintf(table, "CONTAINER\tPID\t%s\n", strings.ToUpper(strings.Join(namespaceKinds(), "\t")))
			fmt.Fprintf(table, "(here)\t%d\t%s\n", os.Getpid(), strings.Join(own, "\t"))
			for _, name := range names {
				found, err := daemon.ContainerInspect(cmd.Context(), name, client.ContainerInspectOptions{})
				if err != nil {
					return err
				}
				state := found.Container.State
				if state == nil || state.Pid == 0 {
					return fmt.Errorf("container %s is not running: it has no namespaces (see: linkspan ps -a)", name)
				}
				theirs := namespacesOf(fmt.Sprint(state.Pid))
				for i := range theirs {
					if theirs[i] == own[i] {
						theirs[i] = "="
					}
				}
				fmt.Fprintf(table, "%s\t%d\t%s\n", strings.TrimPrefix(found.Container.Name, "/"), state.Pid, strings.Join(theirs, "\t"))
			}
			return table.Flush()
		},
	}
}

// namespacesOf returns the inode numbers of a process's namespaces, "-" where it
// cannot be read.
func namespacesOf(pid string) []string {
	var numbers []string
	for _, kind := range namespaceKinds() {
		target, err := os.Readlink(filepath.Join("/proc", pid, "ns", kind))
		_, number, ok := strings.Cut(strings.TrimSuffix(target, "]"), "[")
		if err != nil || !ok {
			number = "-"
		}
		numbers = append(numbers, number)
	}
	return numbers
}
