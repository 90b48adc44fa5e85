// Package dns is the resolver that answers at 127.0.0.11 inside each sandbox
// of a user network. It knows names, not networks: nothing here opens a
// namespace, a link or a rule.
//
// A resolver is two sockets and a table. The question is one datagram; the
// answer is the same datagram with a bit turned over and a few records
// appended. Inside a container one would type:
//
//	cat /etc/resolv.conf                # nameserver 127.0.0.11
//	dig @127.0.0.11 web A               # the table: no other program is asked
//	dig @127.0.0.11 -x 10.77.0.2        # the table, backwards
//	dig @127.0.0.11 example.org         # not in the table: asked of the host's servers
//
// The table of one network is a Zone, shared by the resolvers of all sandboxes
// on that network; what one sandbox sees of the zones is its Config:
//
//	 sandbox A                sandbox B
//	┌───────────────┐        ┌───────────────┐
//	│ Resolver      │        │ Resolver      │
//	│  Config ──────┼─┐   ┌──┼── Config      │
//	│  127.0.0.11:53│ │   │  │ 127.0.0.11:53 │
//	└───────┬───────┘ ▼   ▼  └───────┬───────┘
//	        │     Zone "lab"         │
//	        └── not in the table ────┴──► Upstream servers
//
// What the table knows it answers at once and never asks of another server,
// not even for a family of address that the name lacks: a dead upstream cannot
// delay a local name. Everything else is forwarded, at most Limits.InFlight
// questions at a time, so that one busy sandbox starves nobody.
//
// Answers follow RFC 1035, with EDNS(0) of RFC 6891; which names exist and in
// what order they are tried follows Docker's embedded server.
//
// The sockets outlive the resolver. They are opened inside the sandbox by its
// shim, which keeps duplicates: Close gives up this process's descriptors and
// never shuts the sockets down, so questions queue in the kernel until the next
// daemon takes up the same sockets with Start.
//
// Two neighbours of the resolver live here as well: HostsFile renders
// /etc/hosts, and package resolvconf reads the host's resolv.conf and writes
// the sandbox's.
package dns
