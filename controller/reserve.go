package controller

import (
	"net/netip"
	"path/filepath"
	"slices"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/drivers"
	"github.com/linkspan/linkspan/endpoint"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/sandbox"
	"github.com/linkspan/linkspan/store"
)

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
	if !r.ports.Value.Empty() {
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

// reserveStart is the pure part of a start.
func (c *Controller) reserveStart(t store.Tables, owner linkspan.ID, host hostFiles, space portSpace) (reservation, error) {
	r, err := c.reserveSandbox(t, owner, host)
	if err != nil {
		return r, err
	}
	r.put(t, store.Creating)
	if slices.ContainsFunc(r.links, func(l link) bool { return c.staged(l.network) }) {
		return r, nil // there is nowhere to lead a port to before the answers are there
	}
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
	s.Container = sandbox.Container{Labels: r.config.Labels, Exposed: r.config.Exposed, Publish: r.config.Ports, Servers: r.config.Servers}
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
	if n.Shared && c.o.Cluster == nil {
		return none, n, noCluster(n)
	}
	if n.Shared && row.Plan == nil {
		return none, n, partless{n}
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
	if err = c.checkNeighbours(t, n, e); err != nil {
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
	for !asks && !traits.SharedMAC && (e.MAC == "" || c.macHolder(t, n, e.MAC) != "") {
		e.MAC = network.RandomMAC()
	}
	e.Interface = interfaceName(n, want, taken)
	if lessor := c.lessor(n); lessor != nil {
		asked := n
		asked.IPv6 = n.IPv6 && !cfg.NoIPv6
		leased, plan, failed := lessor.Endpoint(asked, e, nil)
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
func (c *Controller) checkNeighbours(t store.Tables, n network.Network, e endpoint.Endpoint) error {
	for _, other := range t.By.EndpointsByName.All(store.Member{Network: n.ID, Name: e.Name}) {
		if other.Phase == store.Deleting {
			continue // what is left of an earlier run
		}
		return linkspan.Errorf(linkspan.ErrForbidden, "endpoint with name %s already exists in network %s", e.Name, n.Name)
	}
	if who := c.macHolder(t, n, e.MAC); e.MAC != "" && who != "" {
		return linkspan.Errorf(linkspan.ErrForbidden, "MAC address %s is in use: it is held by container %s on network %s", e.MAC, who, n.Name)
	}
	return nil
}

func (c *Controller) macHolder(t store.Tables, n network.Network, mac string) string {
	for _, e := range c.elsewhere(n) {
		if e.MAC == mac {
			return e.Name + " on host " + c.hostOf(e)
		}
	}
	row, _ := t.By.EndpointsByMAC.First(store.Hardware{Network: n.ID, MAC: mac})
	return row.Value.Name
}
