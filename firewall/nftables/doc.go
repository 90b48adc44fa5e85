// Package nftables is the firewall as nftables rules (nft(8)), sent over
// netlink: one transaction a change, which takes effect whole or not at all.
//
// nftables keeps rules in chains, chains in tables, and beside the chains sets
// and maps that rules look things up in. A table belongs to whoever made it,
// which is why everything here is in a table of its own:
//
//	nft list table inet linkspan
//	nft add element inet linkspan into '{ "br-lab" : drop }'
//	nft delete table inet linkspan
//
// The rules of table "inet linkspan" are fixed. A network is a handful of
// elements, found by hashing or in a balanced tree, so that neither a packet
// nor a change pays for the networks that exist already:
//
//	              │ within    iif . oif ─▶ accept, or drop if ICC is off
//	forward ──────┤ internal  iif or oif in the set ─▶ drop
//	              │           established, related ─▶ accept
//	              │ into      oif ─▶ drop
//
//	              │ within    iif . oif ─▶ accept: no translation inside
//	postrouting ──┤ snat4/6   iif ─▶ source address    ┐ if the source address
//	              │ masq      iif in the set ─▶ masq.  ┘ is in subnets4/6
//
// The source address is matched against the subnets of all networks, not that
// of the interface: a pair of address range and name would need a pipapo set,
// which the kernel copies whole at each change. A container that forges a
// neighbour network's source address is thus translated as well, which does no
// harm. Packets that the machine itself sends are never translated.
//
// A packet bridged within a network passes these hooks only if br_netfilter is
// loaded and on, and then with the bridge as both interfaces in forward, and
// with none as the input interface in postrouting.
//
// # The mark
//
// A table of ours has a set "owner" with the one element kernel.Mark, the
// number that marks our links too. (The natural place, a comment on the table,
// is out of the client library's reach.) A table of the same name without it is
// somebody else's: it is reported and left alone.
//
// # The resolver's port
//
// In a sandbox, table "ip linkspan-dns" rewrites ports of packets to and from
// 127.0.0.11 with no connection tracking: see AddResolver.
package nftables
