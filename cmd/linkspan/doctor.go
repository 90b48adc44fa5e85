package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/linkspan/linkspan/api"
	"github.com/linkspan/linkspan/doctor"
	"github.com/linkspan/linkspan/kernel"
)

func newDoctor(a *app) *cobra.Command {
	var repair, local bool
	var format string
	cmd := &cobra.Command{
		Use:   "doctor [OPTIONS]",
		Short: "Say what keeps containers from the network, and what to do about it",
		Long: "Say what keeps containers from the network, and what to do about it.\n\n" +
			"Each finding has a name for scripts, what is the case, what follows from it, and a remedy.\n" +
			"The exit status is 1 if packets are lost now.",
		Args: cobra.NoArgs,
	}
	cmd.Flags().BoolVar(&repair, "repair", false, "make again what is Linkspan's own and was spoilt; nothing else is touched")
	cmd.Flags().BoolVar(&local, "local", false, "look at this host without a daemon")
	cmd.Flags().StringVarP(&format, "format", "f", "", "'json' for a line of JSON each")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if repair && local {
			return errors.New("conflicting options: --repair needs the daemon that --local does without")
		}
		if format != "" && format != "json" {
			return fmt.Errorf("invalid --format %q: want json", format)
		}
		found, err := a.findings(cmd, repair, local)
		if err != nil {
			return err
		}
		if err := printFindings(a.out, found, format == "json"); err != nil {
			return err
		}
		for _, f := range found {
			if f.Severity == doctor.Broken {
				return exit{code: 1}
			}
		}
		return nil
	}
	return cmd
}

func (a *app) findings(cmd *cobra.Command, repair, local bool) ([]doctor.Finding, error) {
	if local {
		host, err := kernel.Open()
		if err != nil {
			return nil, err
		}
		defer host.Close() //nolint:errcheck // it was only read from
		seen, err := doctor.Observe(host, nil, nil)
		return doctor.Examine(seen, nil), err
	}
	daemon, err := a.connect(cmd.Context())
	if err != nil {
		return nil, err
	}
	c := call{Method: http.MethodGet, Path: "/linkspan/v1/doctor"}
	if repair {
		c.Method = http.MethodPost
	}
	var answer api.Diagnosis
	err = daemon.do(cmd.Context(), c, &answer)
	return answer.Findings, err
}

func printFindings(w io.Writer, found []doctor.Finding, asJSON bool) error {
	if asJSON {
		encoder := json.NewEncoder(w)
		for _, f := range found {
			if err := encoder.Encode(f); err != nil {
				return err
			}
		}
		return nil
	}
	if len(found) == 0 {
		fmt.Fprintln(w, "Nothing is in the way.")
	}
	for _, f := range found {
		fmt.Fprintf(w, "%s (%s): %s\n  so:     %s\n  remedy: %s\n", f.Severity, f.Reason, f.What, f.So, f.Remedy)
	}
	return nil
}
