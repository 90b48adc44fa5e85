package cluster

import (
	"context"
	"math/rand/v2"
	"net/netip"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/ipam"
)

// A host with endpoints on a network keeps a block of its addresses in reserve,
// from which its joins are served while the store does not answer. Others stay
// out of it. To leave the low addresses to those that ask for the lowest, blocks
// are in the upper half of what a pool hands out:
//
//	10.0.0.0/24      .0 ─────────── .127 .128 ──────── .255
//	                 joins, upwards      16 blocks of 8
//
// They are a luxury. When addresses become scarce every host gives its own back.

// blockBits bounds the size of a block, reserveBits that of the area which
// blocks are in, half of which they may have.
const (
	minBlockBits = 2
	maxBlockBits = 6
	reserveBits  = 16
)

// reserve is where the blocks of a pool are.
type reserve struct {
	area netip.Prefix // its upper half
	bits int          // host bits of a block
}

// reserveOf returns where the blocks of a pool are, and false if it is too small
// for any. All hosts must agree on it.
func reserveOf(p ipam.Pool) (reserve, bool) {
	block := p.Subnet.Masked()
	if p.Range.IsValid() && p.Range.Bits() > p.Subnet.Bits() {
		block = p.Range.Masked()
	}
	length := block.Addr().BitLen()
	host := min(length-block.Bits(), reserveBits)
	bits := min(host-5, maxBlockBits)
	if bits < minBlockBits {
		return reserve{}, false
	}
	upper := offset(block.Addr(), 1<<(host-1))
	return reserve{netip.PrefixFrom(upper, length-host+1), bits}, true
}

// blocks returns how many there are.
func (r reserve) blocks() int {
	return 1 << (r.area.Addr().BitLen() - r.area.Bits() - r.bits)
}

// block returns one of them.
func (r reserve) block(i int) netip.Prefix {
	return netip.PrefixFrom(offset(r.area.Addr(), i<<r.bits), r.area.Addr().BitLen()-r.bits)
}

// around returns the block that an address is in, or the zero Prefix.
func (r reserve) around(addr netip.Addr) netip.Prefix {
	if !r.area.Contains(addr) {
		return netip.Prefix{}
	}
	return netip.PrefixFrom(addr, addr.BitLen()-r.bits).Masked()
}

// offset returns the address that is n behind another one.
func offset(addr netip.Addr, n int) netip.Addr {
	raw := addr.AsSlice()
	for i := len(raw) - 1; i >= 0 && n > 0; i-- {
		n += int(raw[i])
		raw[i] = byte(n)
		n >>= 8
	}
	sum, _ := netip.AddrFromSlice(raw)
	return sum
}

// blockOf returns the block that an address of a known network is in, or the zero
// Prefix.
func (c *Cluster) blockOf(network linkspan.ID, addr netip.Addr) netip.Prefix {
	pool, ok := c.mirror.networks[network].value.Pool(addr)
	if !ok {
		return netip.Prefix{}
	}
	if r, ok := reserveOf(pool); ok {
		return r.around(addr)
	}
	return netip.Prefix{}
}

// ownBlocks returns the blocks of this host on a network that the store is sure
// to have.
func (c *Cluster) ownBlocks(network linkspan.ID) []netip.Prefix {
	s := c.mirror.on[network]
	if s == nil {
		return nil
	}
	var blocks []netip.Prefix
	for prefix := range s.own {
		if !c.mirror.doubtful[c.keys.block(network, prefix)] {
			blocks = append(blocks, prefix)
		}
	}
	return blocks
}

// room returns how many addresses a pool has and about how many of them nobody
// has, those of blocks being had. It is asked after each change, so nothing in it
// grows with the network.
func (c *Cluster) room(network linkspan.ID, pool ipam.Pool) (all, free int) {
	r, _ := reserveOf(pool)
	all = 2 << (r.area.Addr().BitLen() - r.area.Bits())
	s := c.mirror.on[network]
	if s == nil {
		return all, all
	}
	counts := s.counts[familyOf(pool.Subnet.Addr())]
	return all, all - counts.claims - counts.blocks<<r.bits
}

// surplus returns the keys of blocks that this host is to give back: of networks
// that it has nothing on, and of those whose addresses are scarce.
func (c *Cluster) surplus() []string {
	var keys []string
	for id, s := range c.mirror.on {
		for prefix := range s.own {
			spare := c.own.resumed && !c.own.on(id)
			if pool, ok := c.mirror.networks[id].value.Pool(prefix.Addr()); ok && !spare {
				all, free := c.room(id, pool)
				spare = free < all/8
			}
			if spare {
				keys = append(keys, c.keys.block(id, prefix))
			}
		}
	}
	return keys
}

// wish is a block that this host lacks.
type wish struct {
	network linkspan.ID
	pool    ipam.Pool
}

// wishes returns the blocks that this host could do with: one in the first pool
// of each family of the networks that it has endpoints on.
func (c *Cluster) wishes() []wish {
	var wishes []wish
	for id := range c.own.addrs {
		n, known := c.mirror.networks[id]
		if !known {
			continue
		}
		for _, ipv6 := range []bool{false, true} {
			pool, ok := n.value.PoolOf(ipv6)
			if !ok {
				continue
			}
			r, ok := reserveOf(pool)
			if !ok || c.hasBlock(id, r) {
				continue
			}
			if all, free := c.room(id, pool); free-(1<<r.bits) >= all/4 {
				wishes = append(wishes, wish{id, pool})
			}
		}
	}
	return wishes
}

func (c *Cluster) hasBlock(network linkspan.ID, r reserve) bool {
	for _, prefix := range c.ownBlocks(network) {
		if r.area.Overlaps(prefix) {
			return true
		}
	}
	return false
}

// fulfil takes a block, if there is a free one.
func (c *Cluster) fulfil(ctx context.Context, w wish) error {
	r, _ := reserveOf(w.pool)
	for range attempts {
		c.mu.Lock()
		prefix := c.freeBlock(w.network, r)
		c.mu.Unlock()
		if !prefix.IsValid() {
			return nil
		}
		key, value := c.keys.block(w.network, prefix), encode(block{c.o.Self.ID, c.o.Self.Name, prefix.Bits()})
		first, end := c.keys.claim(w.network, prefix.Addr()), clientv3.GetPrefixRangeEnd(c.keys.claim(w.network, offset(prefix.Addr(), 1<<r.bits-1)))
		look := []clientv3.Op{
			clientv3.OpGet(key), clientv3.OpGet(first, clientv3.WithRange(end)), clientv3.OpGet(c.keys.network(w.network)),
		}
		var answer *clientv3.TxnResponse
		err := c.ask(ctx, func(ctx context.Context, client *clientv3.Client) (err error) {
			answer, err = client.Txn(ctx).If(
				clientv3.Compare(clientv3.CreateRevision(c.keys.network(w.network)), ">", 0),
				clientv3.Compare(clientv3.CreateRevision(key), "=", 0),
				clientv3.Compare(clientv3.CreateRevision(first).WithRange(end), "=", 0),
			).Then(clientv3.OpPut(key, value, clientv3.WithLease(c.claim.id))).Else(look...).Commit()
			return err
		})
		if err != nil {
			return err
		}
		c.mu.Lock()
		if answer.Succeeded {
			c.mirror.put(key, value, answer.Header.Revision)
		} else {
			c.learn(look, answer)
		}
		_, known := c.mirror.networks[w.network]
		_, mine := c.mirror.mine[key]
		c.mu.Unlock()
		if mine || !known {
			return nil
		}
	}
	return nil // in a crowd like this there will be none left
}

// freeBlock returns a block that nobody has or has an address in, at random so
// that hosts which look at the same time do not meet.
func (c *Cluster) freeBlock(network linkspan.ID, r reserve) netip.Prefix {
	s := c.mirror.segment(network)
	start, n := rand.IntN(r.blocks()), r.blocks()
	for i := range n {
		prefix := r.block((start + i) % n)
		if _, taken := s.blocks[prefix]; taken {
			continue
		}
		empty := true
		for j := 0; j < 1<<r.bits && empty; j++ {
			addr := offset(prefix.Addr(), j)
			_, taken := s.claims[addr]
			empty = !taken && !c.own.addrs[network][addr]
		}
		if empty {
			return prefix
		}
	}
	return netip.Prefix{}
}
