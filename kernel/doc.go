// Package kernel is the only door to Linux.
//
// A network namespace (network_namespaces(7)) is a private copy of the whole
// network stack: links, addresses, routes, rules, sockets. By hand:
//
//	ip netns add lab          # unshare(CLONE_NEWNET), then pin it by a bind mount
//	ip -n lab link            # one netlink socket opened inside
//	ip netns del lab          # unpin; the kernel frees it when nobody is left in it
//
// A Host is one machine: the namespace that it was opened in (named "") and
// the namespaces that it pins under /run/netns, where ip-netns(8) finds them.
// It hands out netlink sockets per namespace, runs functions inside one, and
// reaps links whose deletion nobody should have to wait for.
//
// # What the kernel does, and the experiment that shows it
//
//   - A netlink socket stays in the namespace that it was opened in: open one
//     with ip netns exec, pass it out, and it still lists the inner links.
//     Hence handles per namespace, and no thread that moves about.
//   - A thread that entered a namespace cannot be cleaned: it is thrown away
//     (a goroutine that ends locked takes its thread along). The main thread
//     must never be that thread, since /proc/self is its view.
//   - A child with Pdeathsig dies with the thread that started it, not with the
//     process: never start one from such a thread.
//   - /proc/sys/net follows the thread (cat it under nsenter --net), but
//     /sys/class/net follows whoever mounted that sysfs: brctl show in a new
//     namespace without its own sysfs lists the host's bridges.
//   - The kernel's cache of names holds an entry /proc/sys/net/ipv4 for every
//     namespace that was looked into, all under one name, and compares them one by
//     one (perf top, with a thousand namespaces: proc_sys_compare). A procfs of
//     one's own, mounted nowhere, has a cache of its own.
//   - Closing a packet socket waits for an RCU grace period, 10 ms and more
//     (strace -T arping -c 1): nobody should wait for it.
//   - A dump may be interrupted by a change (NLM_F_DUMP_INTR): Dump asks again.
//   - operstate is set by a work queue some time after the link is up: nothing
//     here decides on it.
//   - A bridge takes the lowest MAC of its ports unless it was given one
//     (ip link add br0 type bridge; add ports; watch its address change).
//   - A link that changes namespace loses its addresses and routes.
//   - A link name has at most 15 bytes (IFNAMSIZ - 1); a bridge has at most
//     1,023 ports ("exchange full").
//   - An alias sent with RTM_NEWLINK is silently ignored; the link group in the
//     same message is honoured. Hence Mark is a group.
//   - Deleting a bridge or veth waits 30 ms and more for RCU grace periods,
//     whoever asks, but any number of links of one group share the wait.
//   - Closing an nftables socket after a delete waits for its destroy work:
//     one socket stays open as long as its Host.
package kernel
