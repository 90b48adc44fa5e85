// Package firewall says which packets may cross the machine on their way from,
// to and between networks, and whose address they bear.
//
// A bridge is a switch, but the machine that it lives in is a router: with
// net.ipv4.ip_forward=1 it passes packets between all of its links. Left alone
// it would let every network reach every other, let the LAN reach any
// container by a static route, and send packets with private source addresses
// to neighbours who cannot answer them. By hand, for one network on br-lab:
//
//	nft add rule inet t forward ct state established,related accept
//	nft add rule inet t forward oifname br-lab iifname != br-lab drop
//	nft add rule inet t postrouting ip saddr 10.77.0.0/24 oifname != br-lab masquerade
//
// What is wanted is a Network, a plain value; a Backend plans the operations
// that bring it about. The cost of a network does not depend on how many there
// are: it is a few elements of sets and maps, never a rule of its own.
//
// # What is enforced
//
//   - Nothing is forwarded into a network from anywhere but itself, unless it
//     belongs to a conversation that was begun inside: neither from another
//     network, nor from the LAN by a static route (Docker Engine, gateway mode
//     "nat").
//   - Nothing at all is forwarded out of or into an internal network. Its
//     containers and the machine's own address on the bridge still reach each
//     other, as with Docker: that traffic is not forwarded.
//   - Packets that leave a network for elsewhere bear the machine's address.
//   - Between containers of one network nothing is in the way. With ICC off the
//     driver isolates the bridge ports, and the firewall shuts the way around:
//     by the gateway, which would route a packet back out of the same bridge.
//
// Accepting is only ever our own opinion: another table, or a FORWARD policy of
// drop, may still refuse, and is left alone.
//
// The table has no chain before connection tracking. Docker needs one, because
// its accept rule for a published port matches the container's address, so a
// packet sent straight to that address would pass too. Here nothing is accepted
// by address: what was not begun inside and not translated by us is dropped in
// the forward chain, where a dropped packet leaves no conntrack entry behind
// either.
package firewall
