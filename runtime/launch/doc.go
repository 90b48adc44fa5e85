// Package launch is what runs inside the shim: it turns a [Spec] into a
// process in namespaces of its own, is that process's parent, moves its bytes
// and keeps its exit status.
//
// The kernel's side of a container, as one would type it:
//
//	unshare --mount --uts --ipc --cgroup --pid --fork   # the namespaces
//	mount -t overlay -o lowerdir=/,upperdir=u,workdir=w none m
//	cd m && pivot_root . . && umount -l .               # a root of its own
//	mount -t proc proc /proc                            # PIDs of its own
//	setpriv --bounding-set … --reuid … -- PROGRAM       # fewer rights
//
// Namespaces, capabilities, credentials and seccomp filters belong to a
// thread, not to a process. So one goroutine locks itself to a thread, walks
// into the container with it, and ends without unlocking, which makes the Go
// runtime throw the thread away; the rest of the shim never leaves the host.
// Only what must happen as PID 1 (procfs shows the PID namespace of whoever
// mounts it; credentials must not touch the thread that still works) is left
// to the child, as a list of raw system calls: after clone the child is a copy
// of one thread of a Go program, in which no Go code that may allocate, grow
// its stack or be preempted is allowed to run.
//
// The daemon speaks to the shim over a unix socket in its exec-root, in frames
// of one type byte, four bytes of length (big endian) and a payload. Each
// connection carries one request; see [Request]. Nothing of encoding/json,
// fmt or net is used here: every container has a shim in memory.
package launch
