// Package wire holds the messages of the plugin protocol: what a container
// engine and a network or IPAM driver that is a program of its own say to each
// other, in JSON over HTTP on a socket.
//
// By hand, with a driver at /run/docker/plugins/lab.sock:
//
//	curl -sS --unix-socket /run/docker/plugins/lab.sock -X POST http://plugin/Plugin.Activate
//	curl -sS --unix-socket /run/docker/plugins/lab.sock -d '{"NetworkID":"1","EndpointID":"2"}' http://plugin/NetworkDriver.Leave
//
// Every message is a POST. The engine speaks first, the plugin answers. The
// field names are the protocol: they are those that drivers for Docker read and
// write, and never change. Fields that Docker does not have are marked as
// extensions: an old plugin ignores them, and leaves them out of its answers.
//
// The types are used by both sides: package plugin (the engine), package
// plugin/sdk (a driver), and package plugin/check (the tester).
package wire
