// Package op makes a change to the kernel a value.
//
// Whoever wires a container by hand types a list of commands:
//
//	ip link add name br-lab group 27763 type bridge
//	ip addr add 10.77.0.1/24 brd + dev br-lab
//	ip link set br-lab up
//
// An Op is one such command: plain data that can be done, undone, checked,
// stored as JSON and printed as the command with the same effect. A Plan is the
// list, each step with a sentence that says why. Drivers make plans; an
// Executor carries them out and is the only place in the module that rolls
// anything back.
//
// Three properties hold for every Op, and package drivers/driverstest proves
// them for every plan:
//
//   - said is done: running String through sh leaves the kernel in the same
//     state as Do;
//   - Undo after Do, after half of Do, or after nothing leaves no trace;
//   - what is there but not ours is left alone, and said so.
package op
