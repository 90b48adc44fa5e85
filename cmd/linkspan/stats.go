package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

// usageRow is a line of stats: texts, under the names that Docker's templates
// have for them.
type usageRow struct {
	Container, ID, Name string
	CPUPerc             string
	MemUsage, MemPerc   string
	NetIO, BlockIO      string
	PIDs                string
}

func usageListing() listing {
	return listing{
		head: header{
			"Container": "CONTAINER", "ID": "CONTAINER ID", "Name": "NAME", "CPUPerc": "CPU %", "MemUsage": "MEM USAGE / LIMIT", "MemPerc": "MEM %",
			"NetIO": "NET I/O", "BlockIO": "BLOCK I/O", "PIDs": "PIDS",
		},
		table: "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}",
	}
}

func newStats(a *app) *cobra.Command {
	var all, once, noTrunc bool
	var format string
	cmd := &cobra.Command{
		Use:   "stats [OPTIONS] [CONTAINER...]",
		Short: "Display what containers use: processor, memory, network and block I/O",
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "show all containers (default shows just running)")
	cmd.Flags().BoolVar(&once, "no-stream", false, "print one result instead of one every second")
	cmd.Flags().BoolVar(&noTrunc, "no-trunc", false, "do not truncate output")
	cmd.Flags().StringVar(&format, "format", "", "format output: 'table', 'table TEMPLATE', 'json' or a Go `template`")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		daemon, err := a.connect(cmd.Context())
		if err != nil {
			return err
		}
		_, onTerminal := terminal(a.out)
		for {
			rows, err := daemon.usage(cmd.Context(), args, all, noTrunc)
			if err != nil {
				return err
			}
			if onTerminal && !once {
				fmt.Fprint(a.out, "\x1b[H\x1b[2J") // to the corner, clear (ECMA-48)
			}
			if err := print(a.out, usageListing(), format, false, rows); err != nil || once {
				return err
			}
		}
	}
	return cmd
}

// usage samples the named containers, or all, side by side. Each takes a
// second, as shares of the processor need two samples.
func (e *engine) usage(ctx context.Context, names []string, all, whole bool) ([]usageRow, error) {
	if len(names) == 0 {
		listed, err := e.ContainerList(ctx, client.ContainerListOptions{All: all})
		if err != nil {
			return nil, err
		}
		for _, item := range listed.Items {
			names = append(names, item.ID)
		}
	}
	rows, failed := make([]usageRow, len(names)), make([]error, len(names))
	var sampling sync.WaitGroup
	for i, name := range names {
		sampling.Go(func() {
			answer, err := e.ContainerStats(ctx, name, client.ContainerStatsOptions{IncludePreviousSample: true})
			if err != nil {
				failed[i] = err
				return
			}
			defer answer.Body.Close()
			var s container.StatsResponse
			if failed[i] = json.NewDecoder(answer.Body).Decode(&s); failed[i] == nil {
				rows[i] = usageOf(s, name, whole)
			}
		})
	}
	sampling.Wait()
	slices.SortStableFunc(rows, func(a, b usageRow) int { return cmp.Compare(a.Name, b.Name) })
	return rows, errors.Join(failed...)
}

func usageOf(s container.StatsResponse, name string, whole bool) usageRow {
	used := s.MemoryStats.Usage
	for _, key := range []string{"total_inactive_file", "inactive_file"} { // the page cache that could go, by version 1 and 2
		if cache, there := s.MemoryStats.Stats[key]; there {
			used -= min(cache, used)
			break
		}
	}
	row := usageRow{
		Container: name, ID: shortID(s.ID, whole), Name: strings.TrimPrefix(s.Name, "/"), PIDs: fmt.Sprint(s.PidsStats.Current),
		CPUPerc: fmt.Sprintf("%.2f%%", processorShare(s)), MemPerc: fmt.Sprintf("%.2f%%", percent(used, s.MemoryStats.Limit)),
		MemUsage: units.BytesSize(float64(used)) + " / " + units.BytesSize(float64(s.MemoryStats.Limit)),
	}
	var received, sent, read, written uint64
	for _, link := range s.Networks {
		received, sent = received+link.RxBytes, sent+link.TxBytes
	}
	for _, entry := range s.BlkioStats.IoServiceBytesRecursive {
		switch strings.ToLower(entry.Op) {
		case "read":
			read += entry.Value
		case "write":
			written += entry.Value
		}
	}
	pair := func(a, b uint64) string {
		return units.HumanSizeWithPrecision(float64(a), 3) + " / " + units.HumanSizeWithPrecision(float64(b), 3)
	}
	row.NetIO, row.BlockIO = pair(received, sent), pair(read, written)
	return row
}

// processorShare is in percent of one processor.
func processorShare(s container.StatsResponse) float64 {
	used, before := s.CPUStats.CPUUsage.TotalUsage, s.PreCPUStats.CPUUsage.TotalUsage
	passed, start := s.CPUStats.SystemUsage, s.PreCPUStats.SystemUsage
	if used < before || passed <= start {
		return 0
	}
	return percent(used-before, passed-start) * float64(s.CPUStats.OnlineCPUs)
}

func percent(part, whole uint64) float64 {
	if whole == 0 {
		return 0
	}
	return 100 * float64(part) / float64(whole)
}

// updateVerb takes the limits of run, and changes those that are given.
func updateVerb() verb {
	o := containerOptions{swappiness: -1}
	cmd := &cobra.Command{
		Use:   "update [OPTIONS] CONTAINER [CONTAINER...]",
		Short: "Change the limits and the restart policy of one or more containers",
		Args:  cobra.MinimumNArgs(1),
	}
	o.bindResources(cmd.Flags())
	cmd.Flags().StringVar(&o.restart, "restart", "", "restart policy to apply when a container exits")
	return verb{cmd, func(_ *cobra.Command, args []string) ([]call, error) {
		resources, err := o.resources()
		if err != nil {
			return nil, err
		}
		body := container.UpdateConfig{Resources: resources}
		if o.restart != "" {
			if body.RestartPolicy, err = restartPolicy(o.restart); err != nil {
				return nil, err
			}
		}
		calls, err := callEach(args, "POST", "/containers/", "/update", nil)
		for i := range calls {
			calls[i].Body = body
		}
		return calls, err
	}}
}

func newUpdate(a *app) *cobra.Command { return a.acted(updateVerb()) }
