// Package driverstest holds drivers to their contract, on the real kernel.
//
// A driver's plan promises the reader that he could have typed it himself:
//
//	ip netns add m1 && ip netns add m2
//	sh plan.sh                              # in m2, what the driver does in m1
//	diff <(dump m1) <(dump m2)              # must be empty
//
// [Run] tries that, and what else every plan for a network and two endpoints
// must keep, on throw-away machines:
//
//   - plans are pure, and survive being stored as JSON;
//   - said is done: the printed script leaves the kernel as Do does;
//   - undone is gone: in order, out of order, twice, or after somebody else
//     removed the namespaces;
//   - a failure at any step leaves nothing;
//   - a crash before any step, or in the midst of an undo, is mended by undoing
//     the whole stored plan through a new Host;
//   - what has the name but not the mark stays as it is;
//   - frames pass between the endpoints, or do not, as the network says.
//
// A driver's own test is a TestMain with nstest.Main and one call of Run for
// each set of options:
//
//	driverstest.Run(t, driverstest.Local(bridge.Driver{}, nil))
package driverstest
