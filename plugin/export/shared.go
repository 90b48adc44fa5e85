package export

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/drivers"
	"github.com/linkspan/linkspan/endpoint"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/plugin/wire"
	"github.com/linkspan/linkspan/store/cluster"
)

// OptionShared names the network of the cluster that an engine's network is this
// host's part of (docker network create --ipam-opt linkspan.shared=lab). An engine
// tells its networks' names to nobody, so the user does; and since it asks for
// pools first, it is said there, and the network is known by its pools then.
const OptionShared = "linkspan.shared"

// LabelMade is on networks of the cluster that were made for an engine, with the
// host's name: they go when the last engine's network does.
const LabelMade = "linkspan.plugin"

// takePart makes this host's part of the network of the cluster that an engine's
// network stands for, and the network itself if there is none of the name.
//
//	network file without a plan ─▶ record in the cluster, kept ─▶ file with the plan ─▶ kernel
//	        └── crash: given up ─────────────┘                        └── crash: done
func (x *Exporter) takePart(ctx context.Context, q wire.CreateNetworkRequest, asked network.Network, pools []*leased) error {
	id, name := q.NetworkID, pools[0].Shared
	driver, kind := x.spanning()
	if asked.Driver != "" && asked.Driver != kind {
		return fmt.Errorf("option %s=%s: network %s of the cluster is of driver %s; leave the option out", OptionDriver, asked.Driver, name, kind)
	}
	delete(asked.Options, OptionDriver)
	wish := asked
	wish.ID, wish.Name, wish.Driver, wish.Scope, wish.Shared = linkspan.NewID(), name, kind, "global", true
	wish.MAC, wish.Created, wish.Attachable = network.RandomMAC(), time.Now(), true
	wish.Labels = map[string]string{LabelMade: x.Cluster.Self().Name}
	for i, announced := range slices.Concat(q.IPv4Data, q.IPv6Data) {
		var err error
		if wish.Pools[i].Range = pools[i].Pool.Range; len(announced.AuxAddresses) > 0 {
			wish.Pools[i].Aux, err = auxiliary(announced.AuxAddresses)
		}
		if err != nil {
			return err
		}
	}
	// With its ID known beforehand, a crash leaves no network that nobody knows of.
	if err := put(x.files, "network", id, record[network.Network]{Value: wish}); err != nil {
		return err
	}
	n, err := x.enter(ctx, driver, wish)
	if err != nil {
		return errors.Join(err, x.abandon(id, wish), x.finishLeaving(ctx))
	}
	if n.ID != wish.ID { // what is there stays when this fails
		if err := put(x.files, "network", id, record[network.Network]{Value: n}); err != nil {
			return err
		}
	}
	if err := x.makePart(ctx, id, n, pools); err != nil {
		return errors.Join(err, x.leave(ctx, id, n))
	}
	return nil
}

func auxiliary(announced map[string]string) (map[string]netip.Addr, error) {
	all := make(map[string]netip.Addr)
	for name, text := range announced {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("auxiliary address %s %q: %w", name, text, err)
		}
		all[name] = prefix.Addr()
	}
	return all, nil
}

// spanning returns the driver whose networks span hosts.
func (x *Exporter) spanning() (drivers.Spanning, string) {
	for _, name := range slices.Sorted(maps.Keys(x.Drivers)) {
		if driver, spans := x.Drivers[name].(drivers.Spanning); spans {
			return driver, name
		}
	}
	return nil, ""
}

// enter returns the network of the cluster that has the name of a wished one,
// made now if there was none, as it is to be on this host.
func (x *Exporter) enter(ctx context.Context, driver drivers.Driver, wish network.Network) (network.Network, error) {
	for {
		n, there, err := x.Cluster.Find(ctx, wish.Name)
		if err != nil {
			return n, err
		}
		if there {
			return here(n, wish)
		}
		n, err = x.Cluster.CreateNetwork(ctx, func(there []network.Network, vni uint32) (network.Network, error) {
			fresh := wish
			fresh.VNI = vni
			if adapter, adapts := driver.(drivers.Adapter); adapts {
				return adapter.Adapt(fresh)
			}
			return fresh, nil
		})
		if !errors.Is(err, linkspan.ErrConflict) { // else another host was quicker to make it
			return n, err
		}
	}
}

// here returns a network of the cluster as it is on this host, if that is what
// was asked for. What a host may choose for itself is the size of its packets, and
// that nobody there gets out.
func here(n, asked network.Network) (network.Network, error) {
	for _, pool := range asked.Pools {
		ipv6 := pool.Subnet.Addr().Is6()
		has, _ := n.PoolOf(ipv6)
		if has.Subnet != pool.Subnet {
			return n, differs(n, "subnet", pool.Subnet, has.Subnet)
		}
		if has.Gateway.IsValid() && pool.Gateway.IsValid() && has.Gateway != pool.Gateway {
			return n, differs(n, "gateway", pool.Gateway, has.Gateway)
		}
	}
	options := maps.Clone(n.Options)
	for key, value := range asked.Options {
		if has := n.Options[key]; has != value && key != network.OptionMTU {
			return n, differs(n, "option "+key, value, has)
		}
		if options == nil {
			options = make(map[string]string)
		}
		options[key] = value
	}
	n.Options = options
	n.Internal = n.Internal || asked.Internal
	return n, nil
}

func differs(n network.Network, what string, asked, has any) error {
	return linkspan.Errorf(linkspan.ErrConflict, "network %s is in the cluster with %s %v, not %v: create it here with the same, or with that left out; or give another %s", n.Name, what, has, asked, OptionShared)
}

// makePart makes this host's part of a network that is in the cluster.
func (x *Exporter) makePart(ctx context.Context, id string, n network.Network, pools []*leased) error {
	if err := x.checkDriver(n); err != nil {
		return err
	}
	plan, err := x.plan(ctx, n)
	if err != nil {
		return err
	}
	if err := x.stay(ctx, id, n); err != nil {
		return err
	}
	for _, pool := range pools {
		if err := x.bind(ctx, pool, id, n); err != nil {
			return err
		}
	}
	if err := put(x.files, "network", id, record[network.Network]{n, plan}); err != nil {
		return err
	}
	if err := x.executor.Do(ctx, plan); err != nil {
		return err
	}
	x.mu.Lock()
	x.parts[n.ID] = n
	x.mu.Unlock()
	x.followPeers(ctx, n.ID)
	return nil
}

// stay keeps a network, also one that was to be left when the store is back.
func (x *Exporter) stay(ctx context.Context, id string, n network.Network) error {
	x.leaving.Lock()
	defer x.leaving.Unlock()
	for _, other := range x.files.ids("leaving") {
		r, _, err := get[network.Network](x.files, "leaving", other)
		if err != nil {
			return err
		}
		if r.Value.ID == n.ID {
			if err := x.files.drop("leaving", other); err != nil {
				return err
			}
		}
	}
	return x.Cluster.Keep(ctx, n.ID, x.reason(id))
}

// checkDriver refuses a network of the cluster that is of another driver.
func (x *Exporter) checkDriver(n network.Network) error {
	if _, kind := x.spanning(); n.Driver != kind {
		return linkspan.Errorf(linkspan.ErrForbidden, "network %s of the cluster is of driver %s, and only those of %s can have a part here", n.Name, n.Driver, kind)
	}
	return nil
}

// reason says for others why this host needs a network.
func (x *Exporter) reason(id string) string {
	return "a network of its engine is part of it (on that host: docker network rm " + linkspan.ID(id).Short() + ")"
}

// part returns a network that this host has a part of.
func (x *Exporter) part(id linkspan.ID) (network.Network, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	n, there := x.parts[id]
	return n, there
}

// leave takes this host off a network of the cluster, whose part here is undone
// or never was.
func (x *Exporter) leave(ctx context.Context, id string, n network.Network) error {
	x.mu.Lock()
	delete(x.parts, n.ID)
	x.mu.Unlock()
	x.peers.Drop(n.ID)
	if err := errors.Join(x.unbind(ctx, n.ID), x.abandon(id, n)); err != nil {
		return err
	}
	return x.finishLeaving(ctx)
}

// abandon notes that a network is to be left: it may take until the store is back.
func (x *Exporter) abandon(id string, n network.Network) error {
	if err := put(x.files, "leaving", id, record[network.Network]{Value: n}); err != nil {
		return err
	}
	return x.files.drop("network", id)
}

// finishLeaving gives up the networks that are left. One that was made for an
// engine goes from the cluster unless another host needs it, who then removes it
// in its turn; one that a daemon made is the daemons' to remove.
func (x *Exporter) finishLeaving(ctx context.Context) error {
	x.leaving.Lock()
	defer x.leaving.Unlock()
	var errs []error
	for _, id := range x.files.ids("leaving") {
		r, known, err := get[network.Network](x.files, "leaving", id)
		if !known || err != nil {
			errs = append(errs, err)
			continue
		}
		n := r.Value
		err = x.Cluster.Forgo(ctx, n.ID)
		if _, made := n.Labels[LabelMade]; made && err == nil {
			err = x.Cluster.RemoveNetwork(ctx, n.ID)
		}
		switch {
		case errors.Is(err, linkspan.ErrUnavailable):
			x.Logf("network %s is left when the cluster store answers: %v", n.Name, err)
			continue
		case errors.Is(err, linkspan.ErrForbidden):
			x.Logf("network %s stays in the cluster: %v", n.Name, err)
		case err != nil && !errors.Is(err, linkspan.ErrNotFound):
			errs = append(errs, err)
			continue
		}
		errs = append(errs, x.files.drop("leaving", id))
	}
	return errors.Join(errs...)
}

// createShared makes an endpoint known to the other hosts, with the addresses that
// are held for it.
func (x *Exporter) createShared(ctx context.Context, n network.Network, e endpoint.Endpoint) error {
	id := string(e.ID)
	if r, known, err := get[endpoint.Endpoint](x.files, "endpoint", id); known || err != nil {
		e = r.Value // asked again
		if err != nil {
			return err
		}
	} else {
		if err := x.checkMAC(n, e.MAC, e.ID); err != nil {
			return err
		}
		if e.Owner, err = x.ownerOf(n.ID, e.Addrs()); err != nil {
			return err
		}
		if e.Name != "" {
			e.DNSNames = []string{e.Name}
		} else {
			e.Name = e.MAC
		}
		if err := put(x.files, "endpoint", id, record[endpoint.Endpoint]{Value: e}); err != nil {
			return err
		}
	}
	if err := x.publish(ctx, n, e); err != nil {
		return errors.Join(err, x.files.drop("endpoint", id))
	}
	return nil
}

// publish makes an endpoint known to the other hosts. It has the addresses that its
// engine wanted, which need not be of all families that the network has.
func (x *Exporter) publish(ctx context.Context, n network.Network, e endpoint.Endpoint) error {
	n.IPv4, n.IPv6 = e.IPv4.IsValid(), e.IPv6.IsValid()
	_, err := x.Cluster.Join(ctx, n, x.inCluster(e))
	return err
}

func (x *Exporter) hostOf(e cluster.Endpoint) string {
	for _, m := range x.Cluster.Members() {
		if m.ID == e.Member {
			return m.String()
		}
	}
	return "host " + e.Member.Short()
}

// inCluster is what the cluster knows of an endpoint.
func (x *Exporter) inCluster(e endpoint.Endpoint) cluster.Endpoint {
	return cluster.Endpoint{
		ID: e.ID, Network: e.Network, Owner: e.Owner, Name: e.Name,
		IPv4: e.IPv4, IPv6: e.IPv6, MAC: e.MAC, DNSNames: e.DNSNames,
	}
}
