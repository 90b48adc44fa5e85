// Package runtime launches processes in namespaces of their own and looks after
// them: it is what `linkspan run` runs on.
//
// A container is no kernel object. It is a process that sees other namespaces,
// another root directory and fewer rights than its parent. By hand, nearly:
//
//	mount -t overlay -o lowerdir=/,upperdir=up,workdir=work none root
//	unshare --mount --uts --ipc --pid --cgroup --fork --root=root --mount-proc sh
//	ip netns exec NAME …          # and a network stack that somebody else made
//
// Each container has a shim, a small process of its own that is the parent of
// the container's PID 1 (see package launch):
//
//	daemon ── unix socket ── shim ── PID 1 of the container ── …
//	  │                       │
//	  records, verbs          stdio, log, exit status, kept descriptors
//
// Containers, their output and exit codes do not depend on the daemon being up:
// a daemon that comes back finds its shims by their sockets ([Runtime.Recover]).
//
// What must survive a reboot is under the data root, what dies with the kernel's
// state under the exec root:
//
//	DATA/containers/ID/container.json   the record, durable before Create returns
//	DATA/containers/ID/state.json       the last known state
//	DATA/containers/ID/ID-json.log      output, in Docker's format
//	DATA/containers/ID/upper, work      what the container wrote (overlayfs)
//	EXEC/containers/ID/                 exists while anything of a run exists
//	EXEC/containers/ID/shim.sock, exit  the shim's door, and what it leaves behind
//
// The states, with the directory under the exec root as the open intent:
//
//	created ──Start──▶ running ◀─Pause/Unpause─▶ paused
//	   │                 │ exit ─ ─ by the restart policy ─ ─▶ restarting ──▶ running
//	   │                 ▼
//	   └──Remove──▶ removing ◀──Remove── exited ──Start──▶ running
//
// Verbs on one container wait for each other; verbs on different ones do not,
// and no lock is held over kernel, disk or network work of another container.
package runtime
