// Package lab builds small networks from a file, to learn on and to break.
//
// A lab is a machine of its own. Its root is a network namespace that stands
// for the machine, with the switches in it; each node is a further namespace;
// cables are veth pairs between them:
//
//	lab-lan (root)         lab-lan-a        lab-lan-b
//	┌───────────────┐      ┌──────┐         ┌──────┐
//	│ sw ═ port0 ───┼──────┤ eth0 │         │      │
//	│    ═ port1 ───┼──────┼──────┼─────────┤ eth0 │
//	└───────────────┘      └──────┘         └──────┘
//
// Nothing in it passes the real machine's firewall, whose rules and sysctls
// belong to another namespace: the first exercise of every course, two hosts and
// a bridge, works on a host that has Docker's FORWARD policy and br_netfilter
// too. The wires are quiet: no frame is on them that nobody caused.
//
// A lab is an op.Plan, stored before its first step, so that it can be explained,
// and taken down whatever happened since.
package lab
