package lab

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/op"
)

// far returns the op that has the far end of a cable up, so that whoever holds
// the near end sees the carrier go when it is undone.
func (f File) far(near string) (op.SetUp, error) {
	for i, l := range f.Links {
		j := slices.Index(l[:], near)
		if j < 0 {
			continue
		}
		other := l.end(1 - j)
		if _, isSwitch := f.Switches[other.node]; isSwitch {
			return op.SetUp{Link: portName(i)}, nil
		}
		return op.SetUp{NS: Netns(f.Name, other.node), Link: other.face}, nil
	}
	var ends []string
	for _, l := range f.Links {
		ends = append(ends, l[0], l[1])
	}
	return op.SetUp{}, linkspan.Errorf(linkspan.ErrNotFound, "lab %s has no cable at %s: there are %s", f.Name, near, strings.Join(ends, ", "))
}

// Cut takes the carrier from an end, node:interface, as a pulled plug does: the
// far end goes down.
func (e *Engine) Cut(ctx context.Context, name, near string) error {
	return e.onCable(name, near, func(x *op.Executor, far op.SetUp) error { return x.Undo(ctx, op.Plan{{Op: far}}) })
}

// Restore undoes Cut.
func (e *Engine) Restore(ctx context.Context, name, near string) error {
	return e.onCable(name, near, func(x *op.Executor, far op.SetUp) error {
		return x.Do(ctx, op.Plan{{Why: "The cable is plugged in again.", Op: far}})
	})
}

func (e *Engine) onCable(name, near string, act func(*op.Executor, op.SetUp) error) error {
	s, err := e.known(name)
	if err != nil {
		return err
	}
	f, _, err := Parse([]byte(s.Text))
	if err != nil {
		return err
	}
	far, err := f.far(near)
	if err != nil {
		return err
	}
	unlock, err := e.lock(name)
	if err != nil {
		return err
	}
	defer unlock()
	root, err := e.open(name)
	if err != nil {
		return err
	}
	defer root.Close()
	return act(e.executor(root), far)
}

// NodeStatus is a node as it is.
type NodeStatus struct {
	Name      string
	Netns     string // for ip -n
	Processes []int  // process IDs
}

// Status is a lab as it is.
type Status struct {
	Name  string
	Path  string
	Nodes []NodeStatus
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
	plan, err := op.NewCodec().Unmarshal(s.Plan)
	if err != nil {
		return Status{}, fmt.Errorf("lab %s: %w", name, err)
	}
	status := Status{Name: name, Path: s.Path}
	for _, node := range sorted(f.Nodes) {
		pids, lookErr := processes(Netns(name, node))
		if lookErr != nil {
			return status, fmt.Errorf("looking for the processes of node %s: %w", node, lookErr)
		}
		status.Nodes = append(status.Nodes, NodeStatus{node, Netns(name, node), pids})
	}
	root, err := e.open(name)
	if err != nil {
		status.Difference = err
		return status, nil
	}
	defer root.Close()
	status.Difference = e.executor(root).Check(ctx, plan)
	return status, nil
}
