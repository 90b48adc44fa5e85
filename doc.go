// Package linkspan holds the vocabulary that every other package of the
// module shares: identifiers and the kinds of error.
//
// The Container Network Model has three nouns. A network is a switch, an
// endpoint is a cable, a sandbox is a network stack:
//
//	sandbox (a netns)          sandbox (a netns)
//	  eth0 ─┐                    eth0 ─┐
//	        │ endpoint (veth)          │ endpoint (veth)
//	  ══════╧════ network (bridge) ════╧══════
//
// A tour of the code, from the kernel upwards:
//
//   - kernel opens the doors to Linux: netlink sockets per namespace, threads
//     that enter a namespace and are thrown away, pinned namespaces.
//   - op makes every change to the kernel a value that can be done, undone,
//     checked, stored and printed as the shell command with the same effect.
//   - network, endpoint and sandbox are plain records.
//   - drivers turn records into plans; they never act.
//   - store keeps rows of {value, phase, plan}: the journal is the state.
//   - controller is the only package that knows more than one kind of record:
//     it reserves, acts and commits.
//   - runtime launches processes inside sandboxes; dns answers their questions.
//   - api serves all that in the shape of the Docker Engine API, and
//     cmd/linkspan wires it together.
package linkspan
