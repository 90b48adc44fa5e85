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
//     belongs to a conversation that was begun inside or was sent to a published
//     port: neither from another network, nor from the LAN by a static route
//     (Docker Engine, gateway mode "nat"; see Mode for the others).
//   - Nothing at all is forwarded out of or into an internal network. Its
//     containers and the machine's own address on the bridge still reach each
//     other, as with Docker: that traffic is not forwarded.
//   - Packets that leave a network for elsewhere bear the machine's address.
//   - Between containers of one network nothing is in the way. With ICC off the
//     driver isolates the bridge ports, and the firewall shuts the way around:
//     by the gateway, which would route a packet back out of the same bridge. It
//     is the way of those that have a link (see Linker).
//
// Accepting is only ever our own opinion: another table, or a FORWARD policy of
// drop, may still refuse, and is left alone.
//
// # Published ports
//
// A published port is a translation of the destination: what arrives at port
// 8080 of the machine goes on to port 80 of a container. By hand:
//
//	nft add rule ip t prerouting fib daddr type local tcp dport 8080 dnat to 10.77.0.2:80
//	nft add rule ip t output     fib daddr type local tcp dport 8080 dnat to 10.77.0.2:80
//
// Docker needs a chain before connection tracking, because its accept rule for
// a published port matches the container's address, so a packet sent straight to
// that address would pass too. Here nothing is accepted by address (but in mode
// Routed): what was not begun inside and not translated is dropped in the forward
// chain, where a dropped packet leaves no conntrack entry behind either.
//
// Whoever asks for a published port is seen as who he is, except where the
// answer would not find back: the machine itself asking from 127.0.0.1 bears the
// gateway's address. A container that asks for a port of its own network, or of
// its own, is not translated at all: with br_netfilter on, the kernel would
// translate its packet while it is still in the bridge, and a bridge sends nothing
// back out of the port that it came from, nor from one isolated port to another.
// It reaches the socket that holds the port instead, whose owner, the container's
// shim, relays the bytes.
package firewall
