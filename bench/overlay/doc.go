// Package overlay simulates many hosts that share networks, and measures what
// that costs them and their store.
//
//	make bench BENCH=overlay        # 100 hosts with 100 endpoints each: some minutes
//
// Each host is the real control plane (package store/cluster) with a connection of
// its own to a real etcd; what is left out is the kernel: no bridge, no tunnel, no
// container. All of them share this machine's processors with etcd, where real
// hosts have their own, so the times are those of a much busier host.
//
// What the figures say of a thousand hosts is in docs/overlay-scale.md.
package overlay
