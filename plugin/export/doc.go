// Package export offers drivers of ours, and our IPAM, to another engine as a
// plugin: the other side of package plugin.
//
// A driver plans an endpoint straight into a sandbox. As a plugin it must leave a
// link for the engine to take. So the sandbox is one of its own that lasts for
// the length of a Join:
//
//	CreateNetwork    firewall plan, driver's network plan
//	Join             ip netns add waiting
//	                 driver's endpoint plan, into namespace waiting
//	                 ip -n waiting link set eth0 netns HOST name lks0123456
//	                 ip netns del waiting
//	DeleteEndpoint   the endpoint plan is undone
//
// Docker announces a network once in its life, so what was made is kept in files,
// plan and all, and is repaired at the next start. Plans are the same as in a
// daemon of ours, and so are the marks on what they make.
package export
