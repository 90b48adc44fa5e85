// Package ipam is address arithmetic: which subnet a new network gets, and
// which address a new endpoint gets in it.
//
// An address is nothing but a promise not to use it twice. On one wire the
// kernel does not keep that promise: two stacks may be given the same address
//
//	ip -n web   address add 10.77.0.2/24 dev eth0
//	ip -n probe address add 10.77.0.2/24 dev eth0
//	ip -n web   neighbour show            # whoever answered last wins
//
// and it is not kept between wires either: a bridge whose subnet lies inside
// a route of the host takes that route's traffic away, since the longer
// prefix wins:
//
//	ip address add 10.8.1.1/24 dev br-lab
//	ip route get 10.8.1.7                 # no longer through the VPN
//
// So somebody has to do the sums beforehand. There are two of them.
//
// A [Base] is a large block that is cut into subnets of one size. [Choose]
// takes the lowest subnet that overlaps no [Holding], whether that is another
// network, a route of the host or a name server.
//
// A [Pool] is one subnet of one network. [Pool.Take] gives the lowest free
// address, [Pool.Claim] a wanted one:
//
//	10.77.0.0/24            the Subnet
//	├─ .0                   reserved: the network address
//	├─ .1                   the Gateway
//	├─ .2 … .127            Claim may give these
//	├─ .128/25              the Range: Take keeps to it
//	└─ .255                 reserved: the broadcast address
//
// Nothing here has state. What is taken is handed in, computed by the caller
// from the records that hold it ([Runs] is how to find a free address among
// many), so that a lease cannot outlive its owner and no counter can be wrong.
// All functions are pure, safe for concurrent use as
// long as nobody changes their arguments meanwhile, and cost the same in a
// /112 as in a /8: only what is taken counts.
//
// IPv4 and IPv6 are one code path. The differences are few: IPv6 has no
// broadcast address, and its first address always belongs to the routers
// (the Subnet-Router anycast address, RFC 4291 section 2.6.1), while an IPv4
// /31 (RFC 3021) or /32 reserves nothing.
//
// Refusals carry the words by which Docker's clients know them, and then name
// the holder.
package ipam
