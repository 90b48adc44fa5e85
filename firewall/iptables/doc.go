// Package iptables is the firewall as iptables rules (iptables(8)), for
// machines whose other rules are of that kind: a packet that a FORWARD policy
// of DROP would stop can be let pass by a rule of the same chain only.
//
// iptables keeps rules in chains, chains in tables, and has neither sets nor
// maps: a network is some rules, and so is a published port. They are in
// chains of our own:
//
//	iptables-save | grep LINKSPAN
//	iptables -A LINKSPAN-OUT -i br-lab -j ACCEPT
//
// What each chain is for, and from where it is reached:
//
//	filter  FORWARD ──┬─ LINKSPAN-USER      yours: made empty, never touched again
//	                  └─ LINKSPAN-FORWARD ──┬─ INTERNAL   nothing into or out of internal networks
//	                                        ├─ KNOWN      answers pass
//	                                        ├─ INTO       what may enter a network: by itself, published, routed (OPEN)
//	                                        └─ OUT        whatever leaves one
//	        INPUT ────── LINKSPAN-GUARD     ports with a list of sources
//	nat     PREROUTING, OUTPUT ── LINKSPAN-PORTS   published ports, unless sent from the network itself
//	        POSTROUTING ─┬─ LINKSPAN-TRANSLATED    published ports: the source stays, but for 127.0.0.1
//	                     └─ LINKSPAN-MASQUERADE    what leaves a network
//	raw     PREROUTING ── LINKSPAN-LOOPBACK        127.0.0.1 is the machine's alone
//
// A change is one run of iptables-restore --noflush for each address family,
// which takes effect whole or not at all for each table. A range of ports is
// one rule, whether it keeps its numbers or shifts them.
//
// # What it costs
//
// Rules are looked through one by one. The first packet of a conversation
// passes those of all published ports; every forwarded packet, two rules of
// each network. ipset(8) would make them few, but is one more program and
// kernel module that a machine must have; whoever has so many networks or ports
// that it matters is better served by package nftables.
//
// # Two programs of one name
//
// iptables-nft keeps its rules in nftables, iptables-legacy in tables of its
// own, and the kernel asks both. Which of the two the command iptables is
// depends on the machine; see Choose.
package iptables
