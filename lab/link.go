package lab

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/op"
)

// find returns the link that has an end of this name, node:interface or
// switch:port, and which of its ends that is. A switch alone will do if it has
// one cable.
func (f File) find(near string) (i, j int, err error) {
	var found [][2]int
	var all []string
	for i, l := range f.Links {
		for j := range l.Ends {
			whole := end{l.end(j).node, f.face(i, j)}.String()
			all = append(all, whole)
			if near == whole || near == l.Ends[j] {
				found = append(found, [2]int{i, j})
			}
		}
	}
	switch len(found) {
	case 0:
		return 0, 0, linkspan.Errorf(linkspan.ErrNotFound, "lab %s has no cable at %s: there are %s", f.Name, near, strings.Join(all, ", "))
	case 1:
		return found[0][0], found[0][1], nil
	}
	return 0, 0, linkspan.Errorf(linkspan.ErrInvalid, "lab %s has %d cables at %s: name one by its other end, or by its port", f.Name, len(found), near)
}

// raise brings an end of a link up.
func (f File) raise(i, j int) op.SetUp {
	ns, link := f.at(i, j)
	return op.SetUp{NS: ns, Link: link, Adopted: true}
}

// Cut takes the carrier from an end, node:interface, as a pulled plug does: the
// far end goes down.
func (e *Engine) Cut(ctx context.Context, name, near string) error {
	return e.onCable(name, near, func(c cable) error {
		return e.executor(c.root).Undo(ctx, op.Plan{{Op: c.file.raise(c.i, 1-c.j)}})
	})
}

// Impair makes a cable as bad as is wanted, each way, in place of what was wrong
// with it before.
func (e *Engine) Impair(ctx context.Context, name, near string, bad Impairment) error {
	return e.onCable(name, near, func(c cable) error {
		netem, err := kernel.LacksQueue("netem")
		if err != nil {
			return err
		}
		steps, err := c.file.impair(c.i, bad, !netem)
		if err != nil {
			return err
		}
		return e.replace(ctx, c, steps)
	})
}

// Restore makes a cable as good as new: both ends up, with the addresses and routes
// that the lab wants there and that went when the link did, and no impairment.
func (e *Engine) Restore(ctx context.Context, name, near string) error {
	return e.onCable(name, near, func(c cable) error {
		if err := e.replace(ctx, c, nil); err != nil {
			return err
		}
		x := e.executor(c.root)
		for j := range c.file.Links[c.i].Ends {
			if err := x.Do(ctx, op.Plan{{Why: "The cable is plugged in again.", Op: c.file.raise(c.i, j)}}); err != nil {
				return err
			}
		}
		for _, step := range c.plan {
			if c.file.hangsOn(c.i, step.Op) && step.Op.Check(ctx, c.root) != nil {
				if err := x.Do(ctx, op.Plan{step}); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// hangsOn tells whether an op is undone by the kernel when an end of the i-th link
// goes down.
func (f File) hangsOn(i int, o op.Op) bool {
	var at [2]string
	switch o := o.(type) {
	case op.AddAddress:
		at = [2]string{o.NS, o.Link}
	case op.AddRoute:
		at = [2]string{o.NS, o.Link}
	default:
		return false
	}
	return f.hasEnd(i, at)
}

// replace undoes what impairs a cable and does other steps instead. The stored
// plan holds both meanwhile, so that whoever comes after a crash undoes both. If
// the new cannot be had the old is as before.
func (e *Engine) replace(ctx context.Context, c cable, steps op.Plan) error {
	rest := slices.DeleteFunc(slices.Clone(c.plan), func(step op.Step) bool { return c.file.impairs(c.i, step.Op) })
	old := slices.DeleteFunc(slices.Clone(c.plan), func(step op.Step) bool { return !c.file.impairs(c.i, step.Op) })
	if len(old) == 0 && len(steps) == 0 {
		return nil
	}
	if err := e.store(c.file.Name, c.state, slices.Concat(c.plan, steps)); err != nil {
		return err
	}
	x := e.executor(c.root)
	if err := x.Undo(ctx, old); err != nil {
		return err
	}
	if err := x.Do(ctx, steps); err != nil {
		return errors.Join(err, x.Do(ctx, old), e.store(c.file.Name, c.state, c.plan))
	}
	return e.store(c.file.Name, c.state, append(rest, steps...))
}

// cable is one of a lab that is up, for as long as its lock is held.
type cable struct {
	file  File
	i, j  int // which link, and which of its ends was named
	state state
	plan  op.Plan // of the lab
	root  *kernel.Host
}

func (e *Engine) onCable(name, near string, act func(cable) error) error {
	unlock, err := e.lock(name)
	if err != nil {
		return err
	}
	defer unlock()
	c := cable{}
	if c.state, err = e.known(name); err != nil {
		return err
	}
	if c.file, _, err = Parse([]byte(c.state.Text)); err != nil {
		return err
	}
	if c.plan, err = c.state.plan(name); err != nil {
		return err
	}
	if c.i, c.j, err = c.file.find(near); err != nil {
		return err
	}
	if c.root, err = e.open(name); err != nil {
		return err
	}
	defer c.root.Close()
	return act(c)
}
