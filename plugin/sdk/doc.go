// Package sdk is for authors of network and IPAM drivers: programs that a
// container engine asks for links and addresses. It works with any engine that
// speaks Docker's plugin protocol.
//
// A driver is a struct of functions, one for each call that it cares for; what is
// left out is answered as the protocol says. Serve listens where engines look:
//
//	err := sdk.Plugin{Network: &sdk.Network{
//		CreateNetwork: func(ctx context.Context, q wire.CreateNetworkRequest) error { … },
//		Join:          func(ctx context.Context, q wire.JoinRequest) (wire.JoinResponse, error) { … },
//	}}.Serve(ctx, "/run/docker/plugins/lab.sock")
//
// What the functions get and give are the messages of package wire. An error is
// the answer that the call is refused; the engine shows its text to the user and
// takes back what came before. See the example for a whole driver, and try yours
// with
//
//	linkspan plugin check /run/docker/plugins/lab.sock
//
// # What an engine expects
//
//   - Functions run side by side; guard what they share.
//   - An engine may ask to delete what it never saw made, after a crash: that is
//     no error.
//   - Networks are announced once. A driver keeps them over its own restart.
//     (Linkspan announces a network again to a driver that refuses an endpoint of
//     it after a restart; others do not.)
//   - The link that Join names must be in the engine's own network namespace. It
//     comes back under its own name before Leave, unless its sandbox died first.
//   - A function may call the engine's API: no lock is held there.
package sdk
