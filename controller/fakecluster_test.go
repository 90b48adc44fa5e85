package controller_test

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/controller"
	"github.com/linkspan/linkspan/drivers"
	"github.com/linkspan/linkspan/drivers/bridge"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/ipam"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/store/cluster"
)

// shared stands for a store that hosts share: what store/cluster keeps in etcd,
// in one process's memory.
type shared struct {
	mu        sync.Mutex
	members   []*sharing
	networks  map[linkspan.ID]network.Network
	endpoints map[linkspan.ID]cluster.Endpoint
	claims    map[linkspan.ID]map[netip.Addr]cluster.Endpoint // by network: who has an address, live or held
}

func newShared() *shared {
	return &shared{
		networks: make(map[linkspan.ID]network.Network), endpoints: make(map[linkspan.ID]cluster.Endpoint),
		claims: make(map[linkspan.ID]map[netip.Addr]cluster.Endpoint),
	}
}

// sharing is one host's way to it.
type sharing struct {
	all  *shared
	self cluster.Member
	told chan struct{}

	// guarded by all.mu
	cut       bool
	networks  map[linkspan.ID]network.Network // as seen last
	endpoints map[linkspan.ID]cluster.Endpoint
	left      []cluster.Endpoint // while cut off
	own       map[linkspan.ID]cluster.Endpoint
	news      cluster.Change
}

var _ controller.Cluster = (*sharing)(nil)

func (s *shared) join(name, vtep string) *sharing {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := &sharing{all: s, self: cluster.Member{ID: linkspan.NewID(), Name: name, VTEP: netip.MustParseAddr(vtep)}, told: make(chan struct{}, 1), own: make(map[linkspan.ID]cluster.Endpoint)}
	s.members = append(s.members, m)
	s.tell()
	return m
}

// tell shows everybody who is not cut off what there is. The caller has the lock.
func (s *shared) tell() {
	for _, m := range s.members {
		if !m.cut {
			m.reclaim()
		}
	}
	for _, m := range s.members {
		if !m.cut {
			m.networks, m.endpoints = maps.Clone(s.networks), maps.Clone(s.endpoints)
			m.tell()
		}
	}
}

func (m *sharing) tell() {
	select {
	case m.told <- struct{}{}:
	default:
	}
}

// away cuts a host off, or brings it back.
func (m *sharing) away(cut bool) {
	m.all.mu.Lock()
	defer m.all.mu.Unlock()
	m.cut = cut
	if !cut {
		for _, e := range m.left {
			m.all.leave(e)
		}
		m.left = nil
	}
	m.all.tell()
}

// expire ends the leases of a host that is away: those of its life, and if it is
// away for long those of its claims.
func (m *sharing) expire(claims bool) {
	m.all.mu.Lock()
	defer m.all.mu.Unlock()
	for id, e := range m.all.endpoints {
		if e.Member == m.self.ID {
			delete(m.all.endpoints, id)
		}
	}
	for _, claimed := range m.all.claims {
		maps.DeleteFunc(claimed, func(_ netip.Addr, e cluster.Endpoint) bool { return claims && e.Member == m.self.ID })
	}
	m.all.tell()
}

// reclaim tells the store again what a host has and it has not, or learns who has
// it now.
func (m *sharing) reclaim() {
	for id, e := range m.own {
		if _, there := m.all.endpoints[id]; there {
			continue
		}
		reason := "network " + string(e.Network) + " is gone"
		if claims := m.all.claims[e.Network]; claims != nil {
			holder, taken := claims[e.IPv4.Addr()]
			if !taken || holder.Owner == e.Owner {
				claims[e.IPv4.Addr()], m.all.endpoints[id] = e, e
				continue
			}
			reason = "the address is held by container " + holder.Name
		}
		delete(m.own, id)
		m.news.Lost = append(m.news.Lost, cluster.Lost{Endpoint: e, Reason: reason})
	}
}

func (m *sharing) Resume(living, held []cluster.Endpoint) {
	m.all.mu.Lock()
	defer m.all.mu.Unlock()
	m.own = make(map[linkspan.ID]cluster.Endpoint)
	for _, e := range living {
		m.own[e.ID] = e
	}
	for id, e := range m.all.endpoints {
		if _, lives := m.own[id]; e.Member == m.self.ID && !lives {
			m.all.leave(e)
		}
	}
	m.all.tell()
}

func (m *sharing) reachable() error {
	if m.cut {
		return linkspan.Errorf(linkspan.ErrUnavailable, "the cluster's store cannot be reached")
	}
	return nil
}

func (m *sharing) Err() error {
	m.all.mu.Lock()
	defer m.all.mu.Unlock()
	return m.reachable()
}

func (m *sharing) Self() cluster.Member { return m.self }

func (m *sharing) Members() []cluster.Member {
	m.all.mu.Lock()
	defer m.all.mu.Unlock()
	var all []cluster.Member
	for _, other := range m.all.members {
		all = append(all, other.self)
	}
	return all
}

func (m *sharing) Networks() []network.Network {
	m.all.mu.Lock()
	defer m.all.mu.Unlock()
	all := slices.Collect(maps.Values(m.networks))
	slices.SortFunc(all, func(a, b network.Network) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return all
}

func (m *sharing) Endpoints(id linkspan.ID) []cluster.Endpoint {
	m.all.mu.Lock()
	defer m.all.mu.Unlock()
	var all []cluster.Endpoint
	for _, e := range m.endpoints {
		if e.Network == id {
			all = append(all, e)
		}
	}
	slices.SortFunc(all, func(a, b cluster.Endpoint) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return all
}

func (m *sharing) CreateNetwork(_ context.Context, choose func([]network.Network, uint32) (network.Network, error)) (network.Network, error) {
	m.all.mu.Lock()
	there, err := slices.Collect(maps.Values(m.all.networks)), m.reachable()
	m.all.mu.Unlock()
	if err != nil {
		return network.Network{}, err
	}
	n, err := choose(there, uint32(4096+len(there)))
	if err != nil {
		return n, err
	}
	m.all.mu.Lock()
	defer m.all.mu.Unlock()
	m.all.networks[n.ID], m.all.claims[n.ID] = n, make(map[netip.Addr]cluster.Endpoint)
	m.all.tell()
	return n, nil
}

func (m *sharing) RemoveNetwork(_ context.Context, id linkspan.ID) error {
	m.all.mu.Lock()
	defer m.all.mu.Unlock()
	if err := m.reachable(); err != nil {
		return err
	}
	for _, e := range m.all.endpoints {
		if e.Network == id {
			return linkspan.Errorf(linkspan.ErrForbidden, "error while removing network: network %s has active endpoints (name:%q on host %s)", m.all.networks[id].Name, e.Name, m.all.host(e.Member))
		}
	}
	delete(m.all.networks, id)
	delete(m.all.claims, id)
	m.all.tell()
	return nil
}

func (s *shared) host(id linkspan.ID) string {
	for _, m := range s.members {
		if m.self.ID == id {
			return m.self.Name
		}
	}
	return string(id)
}

func (m *sharing) Join(_ context.Context, n network.Network, e cluster.Endpoint) (cluster.Endpoint, error) {
	m.all.mu.Lock()
	defer m.all.mu.Unlock()
	if err := m.reachable(); err != nil {
		return e, err
	}
	claims := m.all.claims[n.ID]
	if claims == nil {
		return e, linkspan.Errorf(linkspan.ErrNotFound, "network %s not found in the cluster", n.Name)
	}
	used := make(ipam.Used)
	for addr, holder := range claims {
		used[addr] = "container " + holder.Name + " on host " + m.all.host(holder.Member)
	}
	for _, family := range []struct {
		on, six bool
		lease   *netip.Prefix
	}{{n.IPv4, false, &e.IPv4}, {n.IPv6, true, &e.IPv6}} {
		pool, ok := n.PoolOf(family.six)
		if !family.on || !ok {
			continue
		}
		if !family.lease.IsValid() {
			addr, err := pool.Take(used)
			if err != nil {
				return e, err
			}
			*family.lease = netip.PrefixFrom(addr, pool.Subnet.Bits())
		}
		if holder, taken := claims[family.lease.Addr()]; taken && holder.Owner != e.Owner {
			return e, linkspan.Errorf(linkspan.ErrConflict, "Address already in use: %s is held by %s", family.lease.Addr(), used[family.lease.Addr()])
		}
	}
	for _, lease := range []netip.Prefix{e.IPv4, e.IPv6} {
		if lease.IsValid() && claims[lease.Addr()].ID != heldID {
			claims[lease.Addr()] = e
		}
	}
	m.all.endpoints[e.ID], m.own[e.ID] = e, e
	m.all.tell()
	return e, nil
}

// heldID is the endpoint of an address that is held, not used.
const heldID = linkspan.ID("held")

func (m *sharing) Leave(_ context.Context, e cluster.Endpoint) error {
	m.all.mu.Lock()
	defer m.all.mu.Unlock()
	delete(m.own, e.ID)
	if m.cut {
		m.left = append(m.left, e)
		return nil
	}
	m.all.leave(e)
	m.all.tell()
	return nil
}

func (s *shared) leave(e cluster.Endpoint) {
	delete(s.endpoints, e.ID)
	maps.DeleteFunc(s.claims[e.Network], func(_ netip.Addr, holder cluster.Endpoint) bool { return holder.ID == e.ID })
}

func (m *sharing) Hold(_ context.Context, n network.Network, e cluster.Endpoint) error {
	m.all.mu.Lock()
	defer m.all.mu.Unlock()
	if err := m.reachable(); err != nil {
		return err
	}
	e.ID = heldID
	for _, lease := range []netip.Prefix{e.IPv4, e.IPv6} {
		if holder, taken := m.all.claims[n.ID][lease.Addr()]; taken && holder.Owner != e.Owner {
			return linkspan.Errorf(linkspan.ErrConflict, "Address already in use: %s is held by container %s on host %s", lease.Addr(), holder.Name, m.all.host(holder.Member))
		}
	}
	for _, lease := range []netip.Prefix{e.IPv4, e.IPv6} {
		if lease.IsValid() {
			m.all.claims[n.ID][lease.Addr()] = e
		}
	}
	return nil
}

func (m *sharing) Release(_ context.Context, network, owner linkspan.ID) error {
	m.all.mu.Lock()
	defer m.all.mu.Unlock()
	if err := m.reachable(); err != nil {
		return err
	}
	maps.DeleteFunc(m.all.claims[network], func(_ netip.Addr, e cluster.Endpoint) bool { return e.Owner == owner && e.ID == heldID })
	return nil
}

func (m *sharing) Follow(ctx context.Context, changed func(cluster.Change)) {
	m.tell()
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.told:
		}
		m.all.mu.Lock()
		change := m.news
		m.news = cluster.Change{}
		m.all.mu.Unlock()
		change.Networks, change.Members, change.Store = true, true, true
		for _, n := range m.Networks() {
			change.Endpoints = append(change.Endpoints, n.ID)
		}
		changed(change)
	}
}

// wide is the bridge driver, as if its networks spanned hosts. Its wires do not,
// but what is decided about them is the same.
type wide struct{ bridge.Driver }

func (wide) Traits() drivers.Traits {
	traits := bridge.Driver{}.Traits()
	traits.Scope = "global"
	return traits
}

// member makes a controller one of a cluster.
func member(m *sharing) func(*controller.Options) {
	return func(o *controller.Options) {
		o.Cluster = m
		o.Drivers["wide"] = wide{}
	}
}

func across(s *controller.NetworkSpec) { s.Driver = "wide" }

// hosts starts controllers that share, each on a machine of its own.
func hosts(t *testing.T, names ...string) ([]*daemon, []*sharing, []*nstest.Machine) {
	t.Helper()
	all := newShared()
	var daemons []*daemon
	var ways []*sharing
	var machines []*nstest.Machine
	for i, name := range names {
		m := nstest.New(t)
		way := all.join(name, netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}).String())
		daemons = append(daemons, start(t, m, newRoots(t), member(way)))
		machines, ways = append(machines, m), append(ways, way)
	}
	return daemons, ways, machines
}
