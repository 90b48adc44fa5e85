// Package nstest gives tests a real kernel to break.
//
// A network namespace is a network stack of its own and costs a fraction of a
// millisecond, so a test need not fake Linux: it takes a throw-away machine.
// By hand:
//
//	unshare --net --mount --uts sh        # nothing done in here is seen outside
//	mount -t tmpfs tmpfs /run             # no pins of anybody else
//	ip netns add m1; ip netns add m2      # two machines
//	ip -n m1 link add e0 type veth peer name e0 netns m2   # a wire between them
//
// A package's tests enter with
//
//	func TestMain(m *testing.M) { nstest.Main(m) }
//
// which runs the test binary again, in namespaces of its own:
//
//	go test ──▶ keeper ──clone(NEWNET, NEWNS, NEWUTS)──▶ the tests
//	             │                                         ├─ Machine "nstest-3f…"  (a namespace, pinned)
//	             └─ reaps and, at the end, kills           └─ Machine "nstest-a0…"
//	                whatever the tests left running
//
// and each test then takes machines with [New], wires them with [Wire], gives
// them commands with [Machine.Sh] and compares them with [Machine.Dump]. A
// machine's clean-up reports everything that the test left behind.
//
// # What machines share
//
// A machine is a network namespace; all machines of a process share its mounts,
// and so the pins under /run/netns, its cgroup trees and its process table.
// (The trees begin at a cgroup of the keeper's own, which it removes.)
// Hence tests that use machines do not run in parallel within a package, and
// two machines that need sandboxes of the same name take turns: do, dump and
// undo on the one, then sh, dump and undo on the other. Only Machine.Sh and
// Machine.Start give their command mounts of its own, for the sake of /sys.
package nstest
