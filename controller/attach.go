package controller

import (
	"context"
	"errors"
	"os"
	"strings"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/drivers"
	"github.com/linkspan/linkspan/endpoint"
	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/sandbox"
	"github.com/linkspan/linkspan/store"
)

// Attachment is what a container finds when it starts.
type Attachment struct {
	Netns                       string // path of its namespace; empty: the host's own
	Hosts, ResolvConf, Hostname string // files to bind over those in /etc
	// Keep are sockets that must live as long as the container: the resolver's.
	// The caller closes its copies.
	Keep []*os.File
	// Ports are what is published, and Holds the sockets that hold those that
	// are not routed, in order; the same goes for them.
	Ports []sandbox.Port
	Holds kernel.Sockets
}

// close gives up sockets that nobody will get.
func (a Attachment) close() {
	for _, file := range a.Keep {
		file.Close() //nolint:errcheck // nothing was sent by it
	}
	a.Holds.Close()
}

func attachmentOf(s sandbox.Sandbox) Attachment {
	a := Attachment{Hosts: s.Hosts(), ResolvConf: s.ResolvConf(), Hostname: s.HostnameFile()}
	if !s.OfHost {
		a.Netns = kernel.Pin(s.Netns())
	}
	return a
}

// Attach makes the sandbox of a container that starts, with all its endpoints.
// When it returns, the network works.
func (c *Controller) Attach(ctx context.Context, owner linkspan.ID) (Attachment, error) {
	donor, err := c.donor(owner)
	if donor != nil || err != nil {
		return donorAttachment(donor), setUpError(err)
	}
	host, err := c.readHostFiles()
	if err == nil {
		err = c.wakeFor(ctx, owner)
	}
	if err != nil {
		return Attachment{}, setUpError(err)
	}
	space, err := c.portSpaceOf(owner)
	if err != nil {
		return Attachment{}, setUpError(err)
	}
	var r reservation
	err = c.withParts(ctx, func() error {
		return c.o.Store.Defer(func(t store.Tables) (err error) {
			r, err = c.reserveStart(t, owner, host, space)
			return err
		})
	})
	if err != nil {
		return Attachment{}, setUpError(err)
	}
	attachment := attachmentOf(r.sandbox.Value)
	if r.ports, _, attachment.Holds, err = c.hold(owner, r.sandbox.Value.ID, r.ports, space, nil); err != nil {
		return Attachment{}, setUpError(errors.Join(err, c.drop(ctx, r)))
	}
	attachment.Ports = r.ports.Value.Ports
	plan, err := c.executor.Ask(ctx, r.plan())
	r.answered(plan)
	if err == nil {
		if err = c.completeAll(ctx, &r); err == nil {
			err = c.publishAnswered(ctx, &r, &attachment, space)
		}
		if err != nil {
			err = errors.Join(err, leftOf(c.executor.Undo(ctx, r.plan())))
		}
	}
	if err != nil {
		attachment.close()
		return Attachment{}, setUpError(c.abandon(ctx, r, err))
	}
	if r.sandbox.Value.Resolver {
		attachment.Keep, err = c.startResolver(r.sandbox.Value, nil)
	}
	if err == nil {
		c.readyToAnnounce(r.links)
		err = c.o.Store.Defer(func(t store.Tables) error {
			if row, ok := t.Sandboxes.Get(r.sandbox.Value.ID); !ok || row.Phase != store.Creating {
				return linkspan.Errorf(linkspan.ErrConflict, "container %s was stopped while it started", r.config.Name)
			}
			r.put(t, store.Ready)
			return nil
		})
	}
	if err != nil {
		c.silence(r)
		attachment.close()
		return Attachment{}, setUpError(c.abandon(ctx, r, errors.Join(err, leftOf(c.executor.Undo(ctx, r.plan())))))
	}
	if c.anyStaged(r) {
		// The answers have changed what follows from the endpoints.
		if err := c.settle(ctx, owner, host); err != nil {
			attachment.close()
			return Attachment{}, setUpError(errors.Join(err, c.Detach(context.WithoutCancel(ctx), owner)))
		}
		c.describe(ctx, r.endpoints...)
	}
	if err := c.followTargets(ctx, owner); err != nil {
		attachment.close()
		return Attachment{}, setUpError(errors.Join(err, c.Detach(context.WithoutCancel(ctx), owner)))
	}
	c.announceNames(owner)
	c.refreshLinkers(owner)
	c.startAnnouncing(r.links)
	for _, row := range r.endpoints {
		c.emit("connect", row.Value)
	}
	for _, event := range c.impliedEvents("connect", r.sandbox.Value) {
		c.o.Events(event)
	}
	return attachment, nil
}

func setUpError(err error) error {
	if err == nil {
		return nil
	}
	for _, kind := range []error{
		linkspan.ErrNotFound, linkspan.ErrInvalid, linkspan.ErrConflict, linkspan.ErrForbidden,
		linkspan.ErrUnavailable, linkspan.ErrUnsupported,
	} {
		if errors.Is(err, kind) {
			return linkspan.Errorf(kind, "failed to set up container networking: %w", err)
		}
	}
	return linkspan.Errorf(errUnexpected, "failed to set up container networking: %w", err)
}

// errUnexpected is no kind that a client could act on.
var errUnexpected = errors.New("unexpected")

// leftOf marks the failure of an undo.
func leftOf(err error) error {
	if err == nil {
		return nil
	}
	return op.Left(err)
}

// abandon drops the rows of a start that failed and was undone. If something is
// left, they stay, and it is undone later.
func (c *Controller) abandon(ctx context.Context, r reservation, err error) error {
	if !errors.Is(err, op.ErrLeft) {
		return errors.Join(err, c.drop(ctx, r))
	}
	putErr := c.o.Store.Defer(func(t store.Tables) error {
		r.put(t, store.Deleting)
		return nil
	})
	if putErr == nil {
		_, putErr = c.takeAway(ctx, r)
	}
	return errors.Join(err, putErr)
}

// drop drops the rows of what is undone.
func (c *Controller) drop(ctx context.Context, r reservation) error {
	err := c.o.Store.Defer(func(t store.Tables) error {
		r.drop(t)
		return nil
	})
	for _, row := range r.endpoints {
		c.retire(ctx, row.Value.Network)
	}
	return err
}

// donor returns the live sandbox that a container borrows, or nil if it has
// one of its own. A lender may be a borrower itself.
func (c *Controller) donor(owner linkspan.ID) (donor *sandbox.Sandbox, err error) {
	c.o.Store.View(func(t store.Tables) {
		row, ok := t.Configs.Get(owner)
		if !ok {
			err = noContainer(owner)
			return
		}
		if c.traitsOf(row.Value.Mode).Borrows != drivers.Container {
			return
		}
		var lender store.Config
		if lender, err = c.lender(t, row.Value); err != nil {
			return
		}
		if live, ok := sandboxOf(t, lender.Owner); ok && live.Phase == store.Ready {
			donor = &live.Value
			return
		}
		err = linkspan.Errorf(linkspan.ErrConflict, "cannot join network namespace of a non running container: container %s is exited", lender.Name)
	})
	return donor, err
}

// lender is the container at the end of the line of those that borrow from each
// other, which has a stack of its own.
func (c *Controller) lender(t store.Tables, cfg store.Config) (store.Config, error) {
	for seen := map[linkspan.ID]bool{}; c.traitsOf(cfg.Mode).Borrows == drivers.Container; {
		seen[cfg.Owner] = true
		ref := strings.TrimPrefix(cfg.Mode, "container:")
		next, known := findConfig(t, ref)
		switch {
		case !known:
			return cfg, linkspan.Errorf(linkspan.ErrNotFound, "joining network namespace of container: No such container: %s", ref)
		case seen[next.Owner]:
			return cfg, linkspan.Errorf(linkspan.ErrInvalid, "cannot join own network namespace")
		}
		cfg = next
	}
	return cfg, nil
}

func donorAttachment(donor *sandbox.Sandbox) Attachment {
	if donor == nil {
		return Attachment{}
	}
	return attachmentOf(*donor)
}

// findConfig finds a container by full ID, name, or unique prefix of its ID.
func findConfig(t store.Tables, ref string) (store.Config, bool) {
	if row, ok := t.Configs.Get(linkspan.ID(ref)); ok {
		return row.Value, true
	}
	if row, ok := t.By.ConfigsByName.First(ref); ok {
		return row.Value, true
	}
	var byPrefix []store.Config
	for id, row := range t.Configs.All() {
		if ref != "" && strings.HasPrefix(string(id), ref) {
			byPrefix = append(byPrefix, row.Value)
		}
	}
	if len(byPrefix) == 1 {
		return byPrefix[0], true
	}
	return store.Config{}, false
}

// sandboxOf returns the live sandbox of a container.
func sandboxOf(t store.Tables, owner linkspan.ID) (store.Row[sandbox.Sandbox], bool) {
	return t.By.SandboxesByOwner.First(owner)
}

// Detach undoes all that Attach made. It goes on past errors; what could not be
// undone stays, as Deleting, and is tried again.
func (c *Controller) Detach(ctx context.Context, owner linkspan.ID) error {
	tell, err := c.Release(ctx, owner)
	tell()
	return err
}

// Release is Detach for a caller that has an event of its own to tell first:
// who watches hears of the networks that were left when tell is called. It is
// never nil.
func (c *Controller) Release(ctx context.Context, owner linkspan.ID) (tell func(), err error) {
	var r reservation
	found := false
	err = c.o.Store.Defer(func(t store.Tables) error {
		if r, found = liveOf(t, owner); found {
			r.put(t, store.Deleting)
		}
		return nil
	})
	if err != nil || !found {
		return func() {}, err
	}
	return c.finishSandbox(ctx, r)
}

// liveOf collects the live rows of a container.
func liveOf(t store.Tables, owner linkspan.ID) (r reservation, found bool) {
	r.sandbox, found = sandboxOf(t, owner)
	if !found {
		return r, false
	}
	id := r.sandbox.Value.ID
	for _, row := range t.By.EndpointsBySandbox.All(id) {
		r.endpoints = append(r.endpoints, row)
	}
	r.gateways, _ = t.Gateways.Get(id)
	r.ports, _ = t.Ports.Get(id)
	return r, true
}

func (c *Controller) finishSandbox(ctx context.Context, r reservation) (tell func(), err error) {
	c.silence(r)
	c.note("taking the links of container "+r.sandbox.Value.Owner.Short()+" back", c.followTargets(ctx, r.sandbox.Value.Owner))
	undone, err := c.takeAway(ctx, r)
	c.refreshLinkers(r.sandbox.Value.Owner)
	var left []Event
	for _, row := range undone {
		if event := c.eventOf("disconnect", row.Value); event.Name != gatewayNetwork {
			left = append(left, event)
		}
	}
	left = append(left, c.impliedEvents("disconnect", r.sandbox.Value)...)
	return func() {
		for _, event := range left {
			c.o.Events(event)
		}
	}, err
}

// silence ends all that a container's network says to others: answers, names,
// announcements.
func (c *Controller) silence(r reservation) {
	c.stopResolver(r.sandbox.Value.ID)
	for _, row := range r.endpoints {
		c.forgetNames(row.Value)
		c.hush(row.Value.ID)
	}
}

// takeAway undoes the plans of a sandbox one by one, and drops the rows of those
// that it could: an endpoint that cannot be undone, since its plugin is away,
// stays behind alone, and the container may start again. It returns the endpoints
// that are gone, or are only owed to a plugin.
func (c *Controller) takeAway(ctx context.Context, r reservation) ([]store.Row[endpoint.Endpoint], error) {
	var undone reservation
	var gone []store.Row[endpoint.Endpoint]
	var errs []error
	own := errors.Join(c.executor.Undo(ctx, r.ports.Plan), c.executor.Undo(ctx, r.gateways.Plan))
	for i := len(r.endpoints) - 1; i >= 0; i-- {
		row := r.endpoints[i]
		err := c.undoEndpoint(ctx, row)
		if err == nil {
			undone.endpoints = append(undone.endpoints, row)
		}
		if err = c.leave("disconnecting container "+row.Value.Name, err); err == nil {
			gone = append(gone, row)
		}
		errs = append(errs, err)
	}
	own = errors.Join(own, c.executor.Undo(ctx, r.sandbox.Plan))
	if own == nil {
		undone.sandbox = r.sandbox
	}
	return gone, errors.Join(append(errs, own, c.drop(ctx, undone))...)
}

// emit tells of a container that came to a network or went. The gateway network is
// not one that anybody is told of.
func (c *Controller) emit(action string, e endpoint.Endpoint) {
	if event := c.eventOf(action, e); event.Name != gatewayNetwork {
		c.o.Events(event)
	}
}

func (c *Controller) eventOf(action string, e endpoint.Endpoint) Event {
	var n network.Network
	c.o.Store.View(func(t store.Tables) {
		row, _ := t.Networks.Get(e.Network)
		n = row.Value
	})
	return Event{Action: action, Network: e.Network, Name: n.Name, Driver: n.Driver, Container: e.Owner}
}
