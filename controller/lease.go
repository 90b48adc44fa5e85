package controller

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"strconv"
	"strings"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/endpoint"
	"github.com/linkspan/linkspan/ipam"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/store"
)

// optionSerial asks for addresses in serial order (docker network create
// --ipam-opt): the next one after that given last.
const optionSerial = "com.docker.network.ipam.serial"

// leases are the addresses of a network that are held: by live endpoints, and
// by containers that want a static one for as long as they exist. The oldest of
// those that want the same has it. The asking container itself does not count.
//
// They are looked up, not collected, so that the cost of an attachment does not
// grow with the number of them. Networks that share the subnet count too: an
// ip-range each lets them.
type leases struct {
	tables     store.Tables
	network    network.Network
	asking     linkspan.ID
	neighbours []network.Network // that have a subnet of it as well
}

var _ ipam.Holders = leases{}

func leasesOf(t store.Tables, n network.Network, asking linkspan.ID) leases {
	held := leases{tables: t, network: n, asking: asking}
	held.findNeighbours()
	return held
}

func (l *leases) findNeighbours() {
	for _, pool := range l.network.Pools {
		for id, row := range l.tables.By.NetworksBySubnet.All(pool.Subnet) {
			if id != l.network.ID {
				l.neighbours = append(l.neighbours, row.Value)
			}
		}
	}
}

// Holder returns who has an address.
func (l leases) Holder(addr netip.Addr) (who string, taken bool) {
	if who, taken = holderOn(l.tables, l.network, addr, l.asking); taken {
		return who, true
	}
	for _, n := range l.neighbours {
		if who, taken = holderOn(l.tables, n, addr, ""); taken {
			return who, true
		}
		if pool, ok := n.Pool(addr); ok {
			if pool.Gateway == addr {
				return "the gateway of network " + n.Name, true
			}
			for name, aux := range pool.Aux {
				if aux == addr {
					return "auxiliary address " + name + " of network " + n.Name, true
				}
			}
		}
	}
	return "", false
}

func holderOn(t store.Tables, n network.Network, addr netip.Addr, asking linkspan.ID) (who string, taken bool) {
	if row, ok := t.By.EndpointsByAddress.First(store.Address{Network: n.ID, Addr: addr}); ok {
		return "container " + row.Value.Name + " on network " + n.Name, true
	}
	var oldest store.Config
	for _, row := range t.By.ConfigsByAddress.All(addr) {
		if cfg := row.Value; wantsAddress(cfg, n, addr) && (!taken || olderThan(cfg, oldest)) {
			oldest, taken = cfg, true
		}
	}
	if !taken || oldest.Owner == asking {
		return "", false
	}
	return "container " + oldest.Name + " on network " + n.Name, true
}

func olderThan(a, b store.Config) bool {
	return cmp.Or(a.Created.Compare(b.Created), strings.Compare(string(a.Owner), string(b.Owner))) < 0
}

func wantsAddress(cfg store.Config, n network.Network, addr netip.Addr) bool {
	for _, want := range cfg.Attachments {
		if (want.IPv4 == addr || want.IPv6 == addr) && isNetwork(want, n) {
			return true
		}
	}
	return false
}

// NextFree returns the lowest address from addr on that nobody has.
func (l leases) NextFree(addr netip.Addr) netip.Addr {
	for addr.IsValid() {
		free := l.tables.By.Leased.On(l.network.ID).Next(addr)
		for _, n := range l.neighbours {
			if free.IsValid() {
				free = l.tables.By.Leased.On(n.ID).Next(free)
			}
		}
		if free == addr {
			if _, taken := l.Holder(addr); !taken {
				return addr
			}
			free = addr.Next()
		}
		addr = free
	}
	return addr
}

// All returns the addresses that are held.
func (l leases) All() iter.Seq[netip.Addr] {
	return func(yield func(netip.Addr) bool) {
		seen := make(map[netip.Addr]bool)
		for _, n := range append([]network.Network{l.network}, l.neighbours...) {
			for addr := range addressesOn(l.tables, n) {
				if _, held := l.Holder(addr); held && !seen[addr] {
					seen[addr] = true
					if !yield(addr) {
						return
					}
				}
			}
		}
	}
}

// addressesOn returns the addresses on a network that somebody has or wants,
// some of them twice.
func addressesOn(t store.Tables, n network.Network) iter.Seq[netip.Addr] {
	return func(yield func(netip.Addr) bool) {
		for _, row := range t.By.EndpointsByNetwork.All(n.ID) {
			for _, addr := range row.Value.Addrs() {
				if !yield(addr) {
					return
				}
			}
		}
		for addr := range t.By.ConfigsByAddress.Keys() {
			if _, ok := n.Pool(addr); ok && !yield(addr) {
				return
			}
		}
	}
}

// isNetwork tells whether an attachment means a network.
func isNetwork(want endpoint.Config, n network.Network) bool {
	if want.NetworkID != "" {
		return want.NetworkID == n.ID
	}
	return want.Network == n.Name || want.Network == string(n.ID)
}

// lease gives an endpoint an address of each of its network's families.
func lease(t store.Tables, n network.Network, e endpoint.Endpoint, cfg store.Config) (endpoint.Endpoint, error) {
	if n.IPAMDriver == ipamNull {
		return e, nil
	}
	held := leasesOf(t, n, cfg.Owner)
	cursor, _ := t.Cursors.Get(n.ID)
	for _, family := range []struct {
		on, ipv6 bool
		want     netip.Addr
		kept     netip.Addr
		last     *netip.Addr
		lease    *netip.Prefix
		gateway  *netip.Addr
	}{
		{n.IPv4, false, e.Config.IPv4, e.Config.Last.IPv4, &cursor.Value.IPv4, &e.IPv4, &e.Gateway4},
		{n.IPv6 && !cfg.NoIPv6, true, e.Config.IPv6, e.Config.Last.IPv6, &cursor.Value.IPv6, &e.IPv6, &e.Gateway6},
	} {
		if !family.on {
			if family.want.IsValid() && (!family.ipv6 || !cfg.NoIPv6) {
				return e, linkspan.Errorf(linkspan.ErrInvalid, "invalid endpoint settings:\nno configured subnet contains IP address %s", family.want)
			}
			continue
		}
		want := family.want
		if !want.IsValid() && free(n, family.kept, held) {
			want = family.kept
		}
		pool, addr, err := leaseFrom(n, family.ipv6, want, *family.last, held)
		if err != nil {
			return e, err
		}
		if serial(n) && !family.want.IsValid() {
			*family.last = addr
		}
		*family.lease = netip.PrefixFrom(addr, pool.Subnet.Bits())
		*family.gateway = offered(n, *family.lease)
	}
	if serial(n) {
		cursor.Phase = store.Ready
		t.Cursors.Put(n.ID, cursor)
	}
	return e, nil
}

// free tells whether a container can have an address again that it had before:
// nobody holds it, and the network would still give it to somebody.
func free(n network.Network, addr netip.Addr, held leases) bool {
	pool, there := n.Pool(addr)
	return there && !serial(n) && (!pool.Range.IsValid() || pool.Range.Contains(addr)) && pool.Claim(addr, held) == nil
}

// offered returns the gateway that a network offers to whoever has a lease.
func offered(n network.Network, lease netip.Prefix) netip.Addr {
	pool, ok := n.Pool(lease.Addr())
	if !ok || n.Internal {
		return netip.Addr{}
	}
	for name, addr := range pool.Aux {
		if name == network.AuxGateway4 && addr.Is4() || name == network.AuxGateway6 && addr.Is6() {
			return addr
		}
	}
	return pool.Gateway
}

// only returns an address if it is asked for.
func only(asked bool, addr netip.Addr) netip.Addr {
	if asked {
		return addr
	}
	return netip.Addr{}
}

func serial(n network.Network) bool {
	on, err := strconv.ParseBool(n.IPAMOptions[optionSerial])
	return on && err == nil
}

// leaseFrom finds an address: the wanted one, else the next one after last.
// That is zero unless the network's order is serial.
func leaseFrom(n network.Network, ipv6 bool, want, last netip.Addr, held leases) (ipam.Pool, netip.Addr, error) {
	if want.IsValid() {
		pool, err := ipam.Containing(want, n.Pools...)
		if err != nil {
			return pool, want, linkspan.Errorf(linkspan.ErrInvalid, "invalid endpoint settings:\n%s", outsideOf(n, want))
		}
		return pool, want, pool.Claim(want, held)
	}
	family := "IPv4"
	if ipv6 {
		family = "IPv6"
	}
	for _, pool := range n.Pools {
		if pool.Subnet.Addr().Is6() != ipv6 {
			continue
		}
		addr, err := pool.TakeAfter(last, held)
		if err == nil || !errors.Is(err, ipam.ErrExhausted) {
			return pool, addr, err
		}
	}
	return ipam.Pool{}, netip.Addr{}, linkspan.Errorf(linkspan.ErrUnavailable, "no available %s addresses on this network's address pools: %s (%s), %d containers are on it (see: linkspan network inspect %s)",
		family, n.Name, n.ID, held.tables.By.EndpointsByNetwork.Len(n.ID), n.Name)
}

func subnets(n network.Network) string {
	text := ""
	for i, pool := range n.Pools {
		if i > 0 {
			text += ", "
		}
		text += fmt.Sprint(pool.Subnet)
	}
	return text
}
