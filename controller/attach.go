package controller

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
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

// reservation is all that a container's start will make, as rows.
type reservation struct {
	config    store.Config
	sandbox   store.Row[sandbox.Sandbox]
	endpoints []store.Row[endpoint.Endpoint]
	links     []link // the endpoints beside their networks
	gateways  store.Row[store.Gateways]
	ports     store.Row[store.Ports]
}

// plan is the whole start as one plan, so that one failure undoes all of it.
func (r reservation) plan() op.Plan {
	plan := append(op.Plan(nil), r.sandbox.Plan...)
	for _, row := range r.endpoints {
		plan = append(plan, row.Plan...)
	}
	return append(append(plan, r.gateways.Plan...), r.ports.Plan...)
}

// answered puts a plan that was carried out, answers and all, back into the rows
// that it is made of.
func (r *reservation) answered(plan op.Plan) {
	cut := func(part *op.Plan) { *part, plan = plan[:len(*part):len(*part)], plan[len(*part):] }
	cut(&r.sandbox.Plan)
	for i := range r.endpoints {
		cut(&r.endpoints[i].Plan)
	}
	cut(&r.gateways.Plan)
	cut(&r.ports.Plan)
}

// put writes all rows with a phase.
func (r reservation) put(t store.Tables, phase store.Phase) {
	id := r.sandbox.Value.ID
	r.sandbox.Phase = phase
	t.Sandboxes.Put(id, r.sandbox)
	for _, row := range r.endpoints {
		row.Phase = phase
		t.Endpoints.Put(row.Value.ID, row)
	}
	if len(r.gateways.Plan) > 0 {
		r.gateways.Phase = phase
		t.Gateways.Put(id, r.gateways)
	}
	if len(r.ports.Value.Ports) > 0 {
		r.ports.Phase = phase
		t.Ports.Put(id, r.ports)
	}
}

func (r reservation) drop(t store.Tables) {
	if id := r.sandbox.Value.ID; id != "" {
		t.Sandboxes.Delete(id)
		t.Gateways.Delete(id)
		t.Ports.Delete(id)
	}
	for _, row := range r.endpoints {
		t.Endpoints.Delete(row.Value.ID)
	}
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
	err = c.whenFree(ctx, func() error {
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
		return Attachment{}, setUpError(errors.Join(err, c.drop(r)))
	}
	attachment.Ports = r.ports.Value.Ports
	plan, err := c.executor.Ask(ctx, r.plan())
	r.answered(plan)
	if err == nil {
		if err = c.completeAll(ctx, &r); err != nil {
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
	}
	c.announceNames(owner)
	c.refreshLinkers(owner)
	c.startAnnouncing(r.links)
	for _, row := range r.endpoints {
		c.emit("connect", row.Value)
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
		return errors.Join(err, c.drop(r))
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

func (c *Controller) drop(r reservation) error {
	return c.o.Store.Defer(func(t store.Tables) error {
		r.drop(t)
		return nil
	})
}

// donor returns the live sandbox that a container borrows, or nil if it has
// one of its own.
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
		ref := strings.TrimPrefix(row.Value.Mode, "container:")
		cfg, known := findConfig(t, ref)
		switch {
		case !known:
			err = linkspan.Errorf(linkspan.ErrNotFound, "joining network namespace of container: No such container: %s", ref)
		case cfg.Owner == owner:
			err = linkspan.Errorf(linkspan.ErrInvalid, "cannot join own network namespace")
		default:
			if live, ok := sandboxOf(t, cfg.Owner); ok && live.Phase == store.Ready {
				donor = &live.Value
				return
			}
			err = linkspan.Errorf(linkspan.ErrConflict, "cannot join network namespace of a non running container: container %s is exited", cfg.Name)
		}
	})
	return donor, err
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

// reserveStart is the pure part of a start.
func (c *Controller) reserveStart(t store.Tables, owner linkspan.ID, host hostFiles, space portSpace) (reservation, error) {
	r, err := c.reserveSandbox(t, owner, host)
	if err != nil {
		return r, err
	}
	r.put(t, store.Creating)
	r.ports, err = c.reservePorts(t, owner, r.sandbox.Value.ID, space)
	return r, err
}

// reserveSandbox plans a sandbox and its endpoints.
func (c *Controller) reserveSandbox(t store.Tables, owner linkspan.ID, host hostFiles) (reservation, error) {
	var r reservation
	config, ok := t.Configs.Get(owner)
	if !ok {
		return r, noContainer(owner)
	}
	r.config = config.Value
	if old, exists := sandboxOf(t, owner); exists {
		return r, linkspan.Errorf(linkspan.ErrForbidden, "container %s is already present in sandbox %s (%s)", r.config.Name, old.Value.ID.Short(), old.Phase)
	}
	if err := checkLinks(t, r.config); err != nil {
		return r, err
	}
	id := linkspan.NewID()
	s := sandbox.Sandbox{ID: id, Owner: owner, Dir: filepath.Join(c.o.ExecRoot, "sandboxes", id.Short())}
	s.Container = sandbox.Container{Labels: r.config.Labels, Exposed: r.config.Exposed, Publish: r.config.Ports}
	s.OfHost = c.traitsOf(r.config.Mode).Borrows == drivers.Host
	taken, err := chosenInterfaces(r.config)
	if err != nil {
		return r, err
	}
	var links []link
	for _, want := range r.config.Attachments {
		row, n, failed := c.reserveEndpoint(t, r.config, s, want, taken)
		if failed != nil {
			return r, failed
		}
		taken[row.Value.Interface] = true
		r.endpoints = append(r.endpoints, row)
		links = append(links, link{row.Value, n})
		s.Resolver = s.Resolver || c.named(n)
	}
	r.links = links
	remember(t, owner, links...)
	byPriority(links)
	r.gateways.Value, r.gateways.Plan = c.gateways(s, links)
	files, err := c.files(t, r.config, s, links, host)
	if err != nil {
		return r, err
	}
	r.sandbox = store.Row[sandbox.Sandbox]{Value: s, Plan: c.sandboxPlan(s, files)}
	return r, nil
}

func (c *Controller) sandboxPlan(s sandbox.Sandbox, files sandbox.Files) op.Plan {
	if s.OfHost {
		return s.FilesPlan(files)
	}
	plan := s.Plan(files)
	if s.Resolver {
		plan = append(plan, c.o.Firewall.Resolver(s.Netns(), resolverPort, resolverPort)...)
	}
	return plan
}

// reserveEndpoint is the pure part of an attachment: lease, MAC, names, plan.
func (c *Controller) reserveEndpoint(t store.Tables, cfg store.Config, s sandbox.Sandbox, want endpoint.Config, taken map[string]bool) (store.Row[endpoint.Endpoint], network.Network, error) {
	var none store.Row[endpoint.Endpoint]
	row, err := findAttached(t, want)
	if err != nil {
		return none, network.Network{}, err
	}
	n := row.Value
	if row.Phase != store.Ready {
		return none, n, linkspan.Errorf(linkspan.ErrNotFound, "network %s not found: it is being removed", n.Name)
	}
	if err := checkFree(row); err != nil {
		return none, n, err
	}
	if n.ConfigOnly {
		return none, n, linkspan.Errorf(linkspan.ErrForbidden, "cannot create endpoint on configuration-only network: %s lends its settings to others (see: linkspan network create --config-from %s)", n.Name, n.Name)
	}
	driver, err := c.driver(n.Driver)
	if err != nil {
		return none, n, err
	}
	e := endpoint.Endpoint{
		ID: linkspan.NewID(), Network: n.ID, Sandbox: s.ID, Owner: cfg.Owner, Name: cfg.Name, Config: want,
		MAC: want.MAC, HostMAC: n.PortMAC(), DNSNames: c.dnsNames(cfg, n, want),
	}
	if err = checkNeighbours(t, n, e); err != nil {
		return none, n, err
	}
	_, asks := driver.(drivers.Asker)
	if e.MAC == "" && !asks {
		e.MAC = want.Last.MAC
	}
	traits := driver.Traits()
	if traits.SharedMAC && e.MAC != "" {
		return none, n, linkspan.Errorf(linkspan.ErrInvalid, "%s interfaces do not support custom mac address assignment", n.Driver)
	}
	for !asks && !traits.SharedMAC && (e.MAC == "" || macHolder(t, n, e.MAC) != "") {
		e.MAC = network.RandomMAC()
	}
	e.Interface = interfaceName(n, want, taken)
	if addresses := c.addresses(n); addresses != nil {
		leased, plan, failed := addresses.Endpoint(n, e, nil)
		return store.Row[endpoint.Endpoint]{Value: leased, Phase: store.Creating, Plan: plan}, n, failed
	}
	if traits.Addresses {
		if e, err = lease(t, n, e, cfg); err != nil {
			return none, n, err
		}
	}
	if asks {
		e.Gateway4, e.Gateway6 = netip.Addr{}, netip.Addr{} // it says itself which way is out
	}
	plan, err := driver.Endpoint(n, e, s)
	return store.Row[endpoint.Endpoint]{Value: e, Phase: store.Creating, Plan: c.guarded(driver, n, e, plan)}, n, err
}

// findAttached finds the network of an attachment: by the ID that its name
// resolved to when it was made, else by name.
func findAttached(t store.Tables, want endpoint.Config) (store.Row[network.Network], error) {
	if want.NetworkID != "" {
		if row, ok := t.Networks.Get(want.NetworkID); ok && row.Phase != store.Creating {
			return row, nil
		}
	}
	return findNetwork(t, want.Network)
}

// checkNeighbours refuses a second endpoint of one name, and a MAC that another
// endpoint of the network has.
func checkNeighbours(t store.Tables, n network.Network, e endpoint.Endpoint) error {
	for _, other := range t.By.EndpointsByName.All(store.Member{Network: n.ID, Name: e.Name}) {
		if other.Phase == store.Deleting {
			continue // what is left of an earlier run
		}
		return linkspan.Errorf(linkspan.ErrForbidden, "endpoint with name %s already exists in network %s", e.Name, n.Name)
	}
	if who := macHolder(t, n, e.MAC); e.MAC != "" && who != "" {
		return linkspan.Errorf(linkspan.ErrForbidden, "MAC address %s is in use: it is held by container %s on network %s", e.MAC, who, n.Name)
	}
	return nil
}

func macHolder(t store.Tables, n network.Network, mac string) string {
	row, _ := t.By.EndpointsByMAC.First(store.Hardware{Network: n.ID, MAC: mac})
	return row.Value.Name
}

// Detach undoes all that Attach made. It goes on past errors; what could not be
// undone stays, as Deleting, and is tried again.
func (c *Controller) Detach(ctx context.Context, owner linkspan.ID) error {
	var r reservation
	found := false
	err := c.o.Store.Defer(func(t store.Tables) error {
		if r, found = liveOf(t, owner); found {
			r.put(t, store.Deleting)
		}
		return nil
	})
	if err != nil || !found {
		return err
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

func (c *Controller) finishSandbox(ctx context.Context, r reservation) error {
	c.silence(r)
	undone, err := c.takeAway(ctx, r)
	c.refreshLinkers(r.sandbox.Value.Owner)
	for _, row := range undone {
		c.emit("disconnect", row.Value)
	}
	return err
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
// that are gone.
func (c *Controller) takeAway(ctx context.Context, r reservation) ([]store.Row[endpoint.Endpoint], error) {
	var undone reservation
	var errs []error
	own := errors.Join(c.executor.Undo(ctx, r.ports.Plan), c.executor.Undo(ctx, r.gateways.Plan))
	for i := len(r.endpoints) - 1; i >= 0; i-- {
		err := c.executor.Undo(ctx, r.endpoints[i].Plan)
		if err == nil {
			undone.endpoints = append(undone.endpoints, r.endpoints[i])
		}
		errs = append(errs, err)
	}
	own = errors.Join(own, c.executor.Undo(ctx, r.sandbox.Plan))
	if own == nil {
		undone.sandbox = r.sandbox
	}
	return undone.endpoints, errors.Join(append(errs, own, c.drop(undone))...)
}

func (c *Controller) emit(action string, e endpoint.Endpoint) {
	var n network.Network
	c.o.Store.View(func(t store.Tables) {
		row, _ := t.Networks.Get(e.Network)
		n = row.Value
	})
	c.o.Events(Event{Action: action, Network: e.Network, Name: n.Name, Driver: n.Driver, Container: e.Owner})
}
