package lab

import (
	"context"
	"fmt"
	"strings"

	"github.com/linkspan/linkspan/kernel"
)

// NodeStatus is a node as it is.
type NodeStatus struct {
	Name      string
	Netns     string // for ip -n
	Gone      bool   // its namespace is
	Processes []int  // process IDs, all that is in it
	Run       string // the command that the lab left running, if it has one
	Running   int    // its process ID; 0 if it has ended
	Log       string // what it said, and the start commands before it
}

// LinkStatus is a cable as it is.
type LinkStatus struct {
	Link  string // as in the file: a:eth0 - sw
	State string // "up", or what is not
	Bad   string // what impairs it; empty if nothing does
}

// Status is a lab as it is.
type Status struct {
	Name  string
	Path  string
	Nodes []NodeStatus
	Links []LinkStatus
	// Difference is nil if the kernel is as the lab's plan left it, else all that
	// somebody changed since.
	Difference error
}

// Status looks at a lab.
func (e *Engine) Status(ctx context.Context, name string) (Status, error) {
	s, err := e.known(name)
	if err != nil {
		return Status{}, err
	}
	f, _, err := Parse([]byte(s.Text))
	if err != nil {
		return Status{}, err
	}
	plan, err := s.plan(name)
	if err != nil {
		return Status{}, err
	}
	status := Status{Name: name, Path: s.Path}
	for _, node := range sorted(f.Nodes) {
		pids, lookErr := processes(Netns(name, node))
		if lookErr != nil {
			return status, fmt.Errorf("looking for the processes of node %s: %w", node, lookErr)
		}
		status.Nodes = append(status.Nodes, NodeStatus{
			Name: node, Netns: Netns(name, node), Processes: pids,
			Run: f.Nodes[node].Run, Running: e.running(name, node, pids), Log: e.logFile(name, node),
		})
	}
	root, err := e.open(name)
	if err != nil {
		status.Difference = err
		return status, nil
	}
	defer root.Close()
	status.Difference = e.executor(root).Check(ctx, plan)
	views, err := f.look(root)
	if err != nil {
		return status, err
	}
	for i, node := range status.Nodes {
		status.Nodes[i].Gone = views[node.Netns] == nil
	}
	for i, link := range f.Links {
		state, bad := f.linkStatus(i, views)
		status.Links = append(status.Links, LinkStatus{link.String(), state, bad})
	}
	return status, nil
}

// view is what the kernel has in one of a lab's namespaces.
type view struct {
	links  map[string]kernel.Link
	queues map[string]kernel.Queue
	losses map[string]kernel.Loss
}

// look reads a lab's machine, "", and its nodes. Those that are gone are left out.
func (f File) look(root *kernel.Host) (map[string]*view, error) {
	names := []string{""}
	for _, node := range sorted(f.Nodes) {
		names = append(names, Netns(f.Name, node))
	}
	views := map[string]*view{}
	for _, ns := range names {
		links, err := root.Survey(ns)
		if kernel.IsGone(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		v := &view{links: make(map[string]kernel.Link, len(links))}
		for _, link := range links {
			v.links[link.Name] = link
		}
		if v.queues, err = root.Queues(ns); err != nil {
			return nil, err
		}
		if v.losses, err = root.Losses(ns); err != nil {
			return nil, err
		}
		views[ns] = v
	}
	return views, nil
}

// linkStatus words what state a cable is in.
func (f File) linkStatus(i int, views map[string]*view) (state, bad string) {
	var faults, words []string
	var lost uint64
	for j := range f.Links[i].Ends {
		ns, name := f.at(i, j)
		called := end{f.Links[i].end(j).node, f.face(i, j)}.String()
		v := views[ns]
		if v == nil || v.links[name].Name == "" {
			faults = append(faults, called+" is gone")
			continue
		}
		if !v.links[name].Up {
			faults = append(faults, called+" is down")
		}
		lost += v.losses[name].Lost
		words = append(words, v.impairment(name).String())
	}
	state = "up"
	if len(faults) > 0 {
		state = strings.Join(faults, ", ")
	}
	if len(words) == 2 && words[0] == words[1] {
		bad = words[0]
	} else {
		for j, word := range words {
			if word != "" {
				bad += fmt.Sprintf("; %s at %s", word, f.Links[i].Ends[j])
			}
		}
		bad = strings.TrimPrefix(bad, "; ")
	}
	if lost > 0 {
		bad += fmt.Sprintf(" (%d lost)", lost)
	}
	return state, bad
}

// impairment is what a link's queue and what its ingress do to frames.
func (v *view) impairment(link string) Impairment {
	queue := v.queues[link]
	return Impairment{Rate: Rate(queue.Rate), Loss: Share(max(queue.Loss, v.losses[link].Share)), Delay: Delay(queue.Delay)}
}
