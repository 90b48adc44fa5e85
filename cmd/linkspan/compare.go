package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/linkspan/linkspan/firewall/nftables"
	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/lab/compare"
)

func (a *app) labCompare() *cobra.Command {
	var netns string
	command := &cobra.Command{
		Use:   "compare [--netns NAME] BRIDGE",
		Short: "Set a network that was built by hand beside the one that the engine would have made",
		Long: "Look at a bridge, its ports and what is at their far ends, and say for each step of the engine's plan of such a network whether it is\n" +
			"done, or what is missing. Nothing is changed. At the end, what the engine would do to adopt the bridge as it is.",
		Example: "  linkspan lab compare --netns lab-switch br0",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			host, err := openHost(netns)
			if err != nil {
				return err
			}
			defer host.Close()
			namespaces, err := pinnedBeside(netns)
			if err != nil {
				return err
			}
			report, err := compare.Bridge(cmd.Context(), host, args[0], namespaces, nftables.Backend{})
			if err != nil {
				return err
			}
			fmt.Fprint(a.out, report)
			if report.Same() {
				fmt.Fprintln(a.out, "\nIt is what the engine would have made.")
			}
			if len(report.Adopting) > 0 {
				fmt.Fprintf(a.out, "\nThe engine adopts the bridge as it is; its daemon must run in that namespace:\n  linkspan network create --subnet %s --gateway %s -o com.docker.network.bridge.name=%s NAME\nwhich amounts to\n\n%s",
					report.Subnet, report.Gateway, args[0], report.Adopting)
			}
			return nil
		},
	}
	command.Flags().StringVar(&netns, "netns", "", "the `namespace` that the bridge is in (see: ip netns)")
	return command
}

// pinnedBeside lists the namespaces that ip netns sees, without the one of that
// name and those that are the same under another.
func pinnedBeside(own string) ([]string, error) {
	here := "/proc/self/ns/net"
	if own != "" {
		here = kernel.Pin(own)
	}
	self, err := os.Stat(here)
	if err != nil {
		return nil, fmt.Errorf("looking for namespaces (see: ip netns): %w", err)
	}
	entries, err := os.ReadDir(filepath.Dir(kernel.Pin("x")))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("looking for namespaces (see: ip netns): %w", err)
	}
	var names []string
	for _, entry := range entries {
		if other, err := os.Stat(kernel.Pin(entry.Name())); err == nil && !os.SameFile(self, other) {
			names = append(names, entry.Name())
		}
	}
	return names, nil
}
