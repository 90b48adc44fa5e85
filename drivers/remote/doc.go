// Package remote plans networks whose driver, and addresses whose allocator, is
// a program of its own: a plugin.
//
// The plugin makes a link and says what it is called; the engine puts it into
// the sandbox. By hand, with a plugin at /run/docker/plugins/lab.sock:
//
//	alias lab='curl -fsS --unix-socket /run/docker/plugins/lab.sock'
//	lab -d '{"NetworkID":"n1"}'                    http://plugin/NetworkDriver.CreateNetwork
//	lab -d '{"NetworkID":"n1","EndpointID":"e1"}'  http://plugin/NetworkDriver.CreateEndpoint
//	lab -d '{"NetworkID":"n1","EndpointID":"e1","SandboxKey":"/run/netns/SANDBOX"}' http://plugin/NetworkDriver.Join
//	    {"InterfaceName":{"SrcName":"lab7","DstPrefix":"eth"},"Gateway":"10.77.0.1"}
//	ip link set lab7 netns SANDBOX name eth0
//	ip -n SANDBOX addr add 10.77.0.2/24 brd + dev eth0
//	ip -n SANDBOX link set eth0 up
//	ip -n SANDBOX route add default via 10.77.0.1 dev eth0
//
// Each call is an op like any other: it can be undone (CreateEndpoint by
// DeleteEndpoint, RequestAddress by ReleaseAddress, …), stored, and printed as
// the curl line with the same effect. What the plugin answered is part of the op
// once it was done, so that a plan that is stored knows what to give back.
//
// Since the rest of a plan depends on answers, it is made in stages:
//
//	Addresses.Endpoint   RequestAddress …            ──▶ the leases
//	Driver.Endpoint      CreateEndpoint, Join        ──▶ link, name, gateway, routes
//	Driver.Answered      move, rename, address, route
//
// A plugin that is away when something is to be undone makes that undo fail, and
// whoever holds the plan tries again later. One that answers that it will not, or
// knows of nothing, is believed, as Docker does: the removal goes on.
package remote
