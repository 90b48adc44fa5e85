package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"

	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/lab"
	"github.com/linkspan/linkspan/lab/capture"
	"github.com/linkspan/linkspan/lab/topology"
)

func newCapture(a *app) *cobra.Command {
	var o captureOptions
	var netns, labName string
	command := &cobra.Command{
		Use:   "capture [-w FILE] [--live] [--lab LAB] [CONTAINER | ENDPOINT | LINK | BRIDGE | NODE | NODE:INTERFACE]...",
		Short: "Listen to links: pcapng for Wireshark, or a line a frame",
		Long: "Listen to all links of a container, to a host's end of an endpoint (ID prefix), or to a link or bridge of the host, by name;\n" +
			"without a name to every link of a network. With --lab: to all cables of a node or switch of a lab, or to one, by an end;\n" +
			"without a name to one end of every cable. Ends with ^C, after the number of frames of --count, or when there is no more link\n" +
			"to listen to, and tells what the kernel dropped.",
		Example: "  linkspan capture -w web.pcapng web\n  linkspan capture -w - | wireshark -k -i -\n  linkspan capture --live --count 10 web db\n  linkspan capture --lab lan --live a:eth0",
		RunE: func(cmd *cobra.Command, names []string) error {
			if !o.live && o.file == "" {
				if _, isTerminal := terminal(a.out); isTerminal {
					return errors.New("a capture is no text for a terminal: name a file with -w, or see frames as lines with --live")
				}
				o.file = "-"
			}
			if o.snap < 14 || o.snap > capture.SnapLength {
				return linkspan.Errorf(linkspan.ErrInvalid, "--snaplen %d: want 14, a frame's header, to %d bytes", o.snap, capture.SnapLength)
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, unix.SIGTERM)
			defer stop()
			host, err := openHost(netns)
			if err != nil {
				return err
			}
			defer host.Close()
			targets, stations, err := a.captured(ctx, host, labName, names)
			if err != nil {
				return err
			}
			o.names = stations
			return a.capture(ctx, host, targets, o)
		},
	}
	flags := command.Flags()
	flags.StringVarP(&o.file, "write", "w", "", "write pcapng to `FILE`, - for standard output")
	flags.BoolVar(&o.live, "live", false, "print a line a frame, with who sent it")
	flags.IntVarP(&o.count, "count", "c", 0, "end after `N` frames")
	flags.IntVarP(&o.snap, "snaplen", "s", capture.SnapLength, "keep `BYTES` of each frame")
	flags.StringVar(&labName, "lab", "", "listen to cables of a `LAB`; needs no daemon")
	flags.StringVar(&netns, "netns", "", "the `namespace` that the daemon runs in, if it is not that of this command")
	return command
}

// captured finds what is to be listened to, and who is there: in a lab, or among
// the daemon's containers.
func (a *app) captured(ctx context.Context, host *kernel.Host, labName string, names []string) ([]capture.Target, capture.Names, error) {
	if labName != "" {
		labs := &lab.Engine{Dir: labDir, Real: host}
		ends, err := labs.Ends(labName, names...)
		if err != nil {
			return nil, nil, err
		}
		stations, err := labs.Stations(labName)
		var targets []capture.Target
		for _, end := range ends {
			targets = append(targets, capture.Target{Namespace: end.Netns, Link: end.Face, Title: end.Node + " " + end.Face})
		}
		return targets, stations, err
	}
	daemon, err := a.connect(ctx)
	if err != nil {
		return nil, nil, err
	}
	known, err := daemon.known(ctx)
	if err != nil {
		return nil, nil, err
	}
	picture, err := topology.Gather(host, known)
	if err != nil {
		return nil, nil, err
	}
	targets, err := daemon.targets(ctx, picture, names)
	return targets, namesIn(picture), err
}

type captureOptions struct {
	file        string
	live        bool
	count, snap int
	names       capture.Names
}

func (a *app) capture(ctx context.Context, host *kernel.Host, targets []capture.Target, o captureOptions) error {
	options := capture.Options{
		SnapLength: o.snap,
		Gone:       func(t capture.Target) { fmt.Fprintf(a.err, "%s is gone\n", t.Title) },
	}
	session, err := capture.Open(host, targets, options)
	if err != nil {
		return err
	}
	var sinks []capture.Sink
	finish := func([]capture.Count) error { return nil }
	if o.file != "" {
		out := a.out
		if o.file != "-" {
			created, createErr := os.Create(o.file)
			if createErr != nil {
				return errors.Join(fmt.Errorf("writing a capture: %w", createErr), session.Close())
			}
			defer created.Close()
			out = created
		}
		file, beginErr := capture.NewFile(out, targets, options)
		if beginErr != nil {
			return errors.Join(beginErr, session.Close())
		}
		sinks, finish = append(sinks, file.Write), file.Finish
	}
	if o.live {
		lines := a.out
		if o.file == "-" {
			lines = a.err
		}
		sinks = append(sinks, capture.Live(lines, targets, o.names))
	}
	for _, target := range targets {
		fmt.Fprintf(a.err, "listening to %s\n", target.Title)
	}
	err = session.Run(ctx, o.count, func(f capture.Frame) error {
		for _, sink := range sinks {
			if err := sink(f); err != nil {
				return err
			}
		}
		return nil
	})
	if errors.Is(err, unix.EPIPE) || errors.Is(err, io.ErrClosedPipe) {
		return nil // the reader has seen enough
	}
	if err == nil {
		err = finish(session.Counts())
	}
	a.printCounts(targets, session.Counts())
	return err
}

// printCounts tells how many frames there were, and where some are missing.
func (a *app) printCounts(targets []capture.Target, counts []capture.Count) {
	var all capture.Count
	for i, count := range counts {
		all.Seen += count.Seen
		all.Dropped += count.Dropped
		if count.Dropped > 0 && len(targets) > 1 {
			fmt.Fprintf(a.err, "%s: %d frames dropped by the kernel\n", targets[i].Title, count.Dropped)
		}
	}
	fmt.Fprintf(a.err, "%d frames, %d dropped by the kernel\n", all.Seen, all.Dropped)
}

// targets turns names into links: a container's, the host's end of an endpoint, or
// one of the host's by its own name. Without names it is each port of a network.
func (e *engine) targets(ctx context.Context, picture topology.Picture, names []string) ([]capture.Target, error) {
	var targets []capture.Target
	if len(names) == 0 {
		for _, l := range picture.Namespaces[0].Links {
			if l.Master != "" {
				targets = append(targets, target(picture.Namespaces[0], l))
			}
		}
		if len(targets) == 0 {
			return nil, errors.New("there is nothing to listen to: no container is on a network (see: linkspan topology)")
		}
	}
	for _, name := range names {
		found, err := e.targetsOf(ctx, picture, name)
		if err != nil {
			return nil, err
		}
		targets = append(targets, found...)
	}
	return targets, nil
}

func (e *engine) targetsOf(ctx context.Context, picture topology.Picture, name string) ([]capture.Target, error) {
	host := picture.Namespaces[0]
	for _, l := range host.Links {
		if l.Name == name || len(name) >= 7 && l.Name == "veth"+name[:7] {
			return []capture.Target{target(host, l)}, nil
		}
	}
	found, err := e.ContainerInspect(ctx, name, client.ContainerInspectOptions{})
	if err != nil {
		return nil, fmt.Errorf("%s is no container, endpoint, link or bridge (see: linkspan topology): %w", name, err)
	}
	var targets []capture.Target
	for _, ns := range picture.Namespaces[1:] {
		if found.Container.NetworkSettings == nil || ns.Name != filepath.Base(found.Container.NetworkSettings.SandboxKey) {
			continue
		}
		for _, l := range ns.Links {
			if l.Name != "lo" {
				targets = append(targets, target(ns, l))
			}
		}
	}
	if len(targets) == 0 {
		return nil, fmt.Errorf("container %s has no interface of its own to listen to (see: linkspan inspect %s)", name, name)
	}
	return targets, nil
}

func target(ns topology.Namespace, l topology.Link) capture.Target {
	return capture.Target{Namespace: ns.Name, Link: l.Name, Title: ns.Title() + " " + l.Name}
}

// namesIn maps MACs and addresses to the namespaces that have them.
func namesIn(picture topology.Picture) capture.Names {
	names := capture.Names{}
	for _, ns := range picture.Namespaces {
		for _, l := range ns.Links {
			if l.Master != "" {
				continue // a port's own MAC sends nothing
			}
			names[strings.ToLower(l.MAC)] = ns.Title()
			for _, address := range l.Addresses {
				if !address.Addr().IsLoopback() {
					names[address.Addr().String()] = ns.Title()
				}
			}
		}
	}
	delete(names, "00:00:00:00:00:00")
	delete(names, "")
	return names
}
