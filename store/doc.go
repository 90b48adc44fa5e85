// Package store keeps what the daemon knows, as rows of {value, phase, plan}.
//
// A row that is not Ready is an open intent, so the journal is the state:
//
//	Creating ──plan done──▶ Ready ──delete asked──▶ Deleting ──plan undone──▶ (no row)
//
// There are two lifetimes, each a file of its own (bbolt):
//
//   - durable, under --data-root: networks and what containers want of them.
//     A change is on the disk (fdatasync, shared by all that wait) when Update
//     returns.
//   - volatile, under --exec-root, which is a tmpfs: live sandboxes and
//     endpoints, and every plan. It survives kill -9 without any fsync, and is
//     void when the machine has booted or its network namespace is another one.
//     Only what its plans owe to programs, such as plugins, is durable too: they
//     may have kept what the kernel has lost. It comes back as a row that is
//     Deleting.
//
// Look into either with: bbolt keys FILE BUCKET.
//
// All rows are in memory as well. View reads them under a shared lock; Update
// runs a pure function on them, with no I/O but one write to the page cache
// under the lock, and takes all of its changes or none.
package store
