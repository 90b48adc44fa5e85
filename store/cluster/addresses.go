package cluster

import (
	"errors"
	"iter"
	"math/rand/v2"
	"net/netip"
	"strconv"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/ipam"
	"github.com/linkspan/linkspan/network"
)

// optionSerial is the ipam option for the serial order.
const optionSerial = "com.docker.network.ipam.serial"

func serial(n network.Network) bool {
	on, err := strconv.ParseBool(n.IPAMOptions[optionSerial])
	return on && err == nil
}

// occupied is who has which address of a network, as far as this host knows.
type occupied struct {
	c       *Cluster
	network network.Network
	inOwn   bool // addresses of this host's own block may be given
}

// around returns the block that an address is in and its host, if that keeps
// others out.
func (o occupied) around(addr netip.Addr) (netip.Prefix, block, bool) {
	s := o.c.mirror.on[o.network.ID]
	if s == nil || len(s.blocks) == 0 {
		return netip.Prefix{}, block{}, false
	}
	pool, ok := o.network.Pool(addr)
	if !ok {
		return netip.Prefix{}, block{}, false
	}
	r, ok := reserveOf(pool)
	if !ok {
		return netip.Prefix{}, block{}, false
	}
	prefix := r.around(addr)
	b, taken := s.blocks[prefix]
	if !taken || o.inOwn && b.value.Member == o.c.o.Self.ID {
		return netip.Prefix{}, block{}, false
	}
	return prefix, b.value, true
}

// Holder returns who has an address.
func (o occupied) Holder(addr netip.Addr) (string, bool) {
	if w, wanted := o.c.own.wants[o.c.keys.claim(o.network.ID, addr)]; wanted {
		return o.c.describe(w), true
	}
	if s := o.c.mirror.on[o.network.ID]; s != nil {
		if other, taken := s.claims[addr]; taken {
			return other.value.String(), true
		}
	}
	if _, b, taken := o.around(addr); taken {
		return "the reserve of host " + b.Host, true
	}
	return "", false
}

// describe names the owner of something that this host wants.
func (c *Cluster) describe(w wanted) string {
	return claim{Host: c.o.Self.Name, Owner: w.owner, Endpoint: w.endpoint, Name: w.name}.String()
}

// NextFree returns the lowest address from addr on that nobody has.
func (o occupied) NextFree(addr netip.Addr) netip.Addr {
	s, mine := o.c.mirror.on[o.network.ID], o.c.own.addrs[o.network.ID]
	for addr.IsValid() {
		from := addr
		if s != nil {
			addr = s.taken.Next(addr)
		}
		if mine[addr] {
			addr = addr.Next()
		}
		if prefix, _, taken := o.around(addr); taken {
			addr = offset(prefix.Addr(), 1<<(prefix.Addr().BitLen()-prefix.Bits()))
		}
		if addr == from {
			return addr
		}
	}
	return addr
}

// All returns the addresses that somebody has.
func (o occupied) All() iter.Seq[netip.Addr] {
	return func(yield func(netip.Addr) bool) {
		s := o.c.mirror.on[o.network.ID]
		if s != nil {
			for addr := range s.claims {
				if !yield(addr) {
					return
				}
			}
		}
		for addr := range o.c.own.addrs[o.network.ID] {
			if s != nil {
				if _, told := s.claims[addr]; told {
					continue
				}
			}
			if !yield(addr) {
				return
			}
		}
	}
}

// taken is Holders with some more addresses taken.
type taken struct {
	occupied
	also map[netip.Addr]bool
}

func (t taken) Holder(addr netip.Addr) (string, bool) {
	if t.also[addr] {
		return "a join that was quicker", true
	}
	return t.occupied.Holder(addr)
}

func (t taken) NextFree(addr netip.Addr) netip.Addr {
	for addr = t.occupied.NextFree(addr); t.also[addr]; {
		addr = t.occupied.NextFree(addr.Next())
	}
	return addr
}

// families are the ways in which an endpoint has addresses.
func families(n network.Network, e *Endpoint) []family {
	var all []family
	for _, f := range []family{{"IPv4", false, &e.IPv4}, {"IPv6", true, &e.IPv6}} {
		_, pooled := n.PoolOf(f.ipv6)
		on := n.IPv4 && !f.ipv6 || n.IPv6 && f.ipv6
		if f.lease.IsValid() || on && pooled {
			all = append(all, f)
		}
	}
	return all
}

type family struct {
	name  string
	ipv6  bool
	lease *netip.Prefix
}

// claimable tells whether an endpoint's owner may have an address that it asks
// for, as far as the network and this host's own wishes go.
func (c *Cluster) claimable(n network.Network, e Endpoint, addr netip.Addr) (netip.Prefix, error) {
	pool, err := ipam.Containing(addr, n.Pools...)
	if err != nil {
		return netip.Prefix{}, err
	}
	if err = pool.Claim(addr, nil); err != nil {
		return netip.Prefix{}, err
	}
	w, ours := c.own.wants[c.keys.claim(n.ID, addr)]
	if ours && w.endpoint != e.ID && (w.owner != e.Owner || w.endpoint != "") {
		if _, lives := c.own.endpoints[w.endpoint]; !lives && w.endpoint != "" {
			return netip.Prefix{}, linkspan.Errorf(linkspan.ErrConflict, "Address already in use: %s is being asked for by %s", addr, c.describe(w))
		}
		return netip.Prefix{}, &conflict{addr, c.describe(w)}
	}
	return netip.PrefixFrom(addr, pool.Subnet.Bits()), nil
}

// pick returns an address that nobody has: the lowest, or in the serial order the
// next. When others were quicker tries times it skips some at random, so that
// hosts that join at the same time do not meet again and again.
func (c *Cluster) pick(n network.Network, f family, tries int) (netip.Prefix, error) {
	var last netip.Addr
	if serial(n) {
		at := c.mirror.cursors[n.ID].value
		last = at.IPv4
		if f.ipv6 {
			last = at.IPv6
		}
	}
	for _, inOwn := range []bool{false, true} {
		held := taken{occupied{c, n, inOwn}, make(map[netip.Addr]bool)}
		skip := 0
		if tries > 1 {
			skip = rand.IntN(min(1<<tries, 64))
		}
		for _, pool := range n.Pools {
			if pool.Subnet.Addr().Is6() != f.ipv6 {
				continue
			}
			for ; ; skip-- {
				addr, err := pool.TakeAfter(last, held)
				switch {
				case errors.Is(err, ipam.ErrExhausted) && len(held.also) > 0:
					clear(held.also) // there are not so many: take the first
					skip = 0
					continue
				case errors.Is(err, ipam.ErrExhausted):
				case err != nil:
					return netip.Prefix{}, err
				case skip > 0:
					held.also[addr] = true
					continue
				default:
					return netip.PrefixFrom(addr, pool.Subnet.Bits()), nil
				}
				break
			}
		}
	}
	return netip.Prefix{}, c.full(n, f)
}

// full says who has all addresses.
func (c *Cluster) full(n network.Network, f family) error {
	hosts := make(map[string]bool)
	claims, blocks := 0, 0
	if s := c.mirror.on[n.ID]; s != nil {
		claims, blocks = len(s.claims), len(s.blocks)
		for _, other := range s.claims {
			hosts[other.value.Host] = true
		}
	}
	return linkspan.Errorf(linkspan.ErrUnavailable, "no available %s addresses on this network's address pools: %s (%s), containers on %d hosts have %d, and %d hosts keep some in reserve (see: linkspan network inspect %s)",
		f.name, n.Name, n.ID, len(hosts), claims, blocks, n.Name)
}
