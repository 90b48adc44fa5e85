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
//	              ┌ to one of the machine's addresses?
//	prerouting ───┤ guarded, allowed   whoever a list of sources leaves out ─▶ drop
//	              │ home…     from the container's own network ─▶ to the socket that holds the port
//	output ───────┘ published, bound, ranges   port ─▶ container
//
//	              │ within    iif . oif ─▶ accept, or drop if ICC is off
//	forward ──────┤ internal  iif or oif in the set ─▶ drop
//	              │           established, related ─▶ accept
//	              │ networks  translated, and oif in the set ─▶ accept
//	              │ into      family . oif ─▶ drop, accept, or what is published of a routed network
//
//	              │ networks  from 127.0.0.1 ─▶ masq.; else translated ─▶ accept
//	postrouting ──┤ within    iif . oif ─▶ accept: no translation inside
//	              │ snat4/6   iif ─▶ source address    ┐ if the source address
//	              │ masq      iif in the set ─▶ masq.  ┘ is in subnets4/6
//
// The names of sets that hold addresses end in 4 or 6. A published port is an
// element of a hash map, so the ten thousandth costs what the first does. A
// range that keeps its numbers is one element of a map of intervals (pipapo,
// which the kernel copies at each change: some microseconds for hundreds of
// ranges). The nat chains see the first packet of a conversation only.
//
// The source address is matched against the subnets of all networks, not that
// of the interface: a pair of address range and name would need a map of
// intervals too. A container that forges a neighbour network's source address is
// thus translated as well, which does no harm. Of what the machine itself sends,
// only packets from 127.0.0.1 to a published port are translated.
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
