// Package doctor says what on a host keeps containers from reaching each other
// or the world, and what to do about it.
//
// Networks of containers live among settings that belong to others: a sysctl
// that a hardening script has written, a firewall that drops what it does not
// know, a VPN that has taken the subnet. The packets then just do not arrive,
// and nothing says why. By hand one would look at
//
//	sysctl net.ipv4.ip_forward               # does the host pass packets on at all
//	nft list ruleset; iptables-legacy -S     # a chain of somebody's with policy drop
//	sysctl net.bridge.bridge-nf-call-iptables  # do such chains see what a bridge carries
//	ip route                                 # who else has the network's addresses
//
// [Observe] looks, and changes nothing. [Examine] is pure: from what was
// observed, and what networks there are, it makes [Finding]s, each with a name
// that never changes, its consequence, and a command that ends it. What is
// wrong with the engine's own things comes from the controller, which knows
// what they should be like.
package doctor
