package nftables

import (
	"bytes"
	"context"
	"errors"
	"slices"

	"github.com/google/nftables"

	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/op"
)

// ChangeGuard makes a guard of the same port another one: what it may send from
// more is let through first, what it may no more is forbidden then.
type ChangeGuard struct{ From, To GuardPort }

// Do makes the change. What is done already is passed over.
func (o ChangeGuard) Do(ctx context.Context, h *kernel.Host) error {
	return o.From.become(ctx, h, o.To)
}

// Undo goes back. A table that is gone needs none.
func (o ChangeGuard) Undo(ctx context.Context, h *kernel.Host) error {
	if o.From.absent(h) {
		return nil
	}
	return o.To.become(ctx, h, o.From)
}

// Check looks for what the new guard lets through.
func (o ChangeGuard) Check(ctx context.Context, h *kernel.Host) error { return o.To.Check(ctx, h) }

func (o ChangeGuard) String() string {
	kept := o.To.words()
	return script(kept, slices.DeleteFunc(o.From.words(), func(element string) bool { return slices.Contains(kept, element) }))
}

// become adds before it takes away.
func (o GuardPort) become(ctx context.Context, h *kernel.Host, to GuardPort) error {
	if err := to.Do(ctx, h); err != nil {
		return err
	}
	old, err := o.elements()
	if err != nil {
		return err
	}
	fresh, err := to.elements()
	if err != nil {
		return err
	}
	var errs []error
	for i, one := range old {
		for _, item := range one.items {
			if slices.ContainsFunc(fresh[i].items, func(kept nftables.SetElement) bool { return bytes.Equal(kept.Key, item.Key) }) {
				continue
			}
			err := h.Transact("", func(conn *nftables.Conn) error { return conn.SetDeleteElements(one.set, []nftables.SetElement{item}) })
			if err != nil && !isMissing(err) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

func (o GuardPort) absent(h *kernel.Host) bool {
	table, there := guard(), false
	err := h.Transact("", func(conn *nftables.Conn) (err error) {
		there, err = table.find(conn)
		return err
	})
	return err == nil && !there
}

// Thing names the port.
func (o GuardPort) Thing() string { return "guard of port " + o.Link }

// Into changes what the port may send from.
func (o GuardPort) Into(to op.Op) ([]op.Op, bool) {
	fresh, ok := to.(GuardPort)
	return []op.Op{ChangeGuard{From: o, To: fresh}}, ok
}
