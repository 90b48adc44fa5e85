// Package api serves the daemon over HTTP, in the shape of the Docker Engine
// API, so that clients that nobody here wrote work with it unchanged.
//
// An engine is a web server on a unix socket. By hand:
//
//	curl --unix-socket /run/linkspan/linkspan.sock http://d/_ping
//	curl --unix-socket /run/linkspan/linkspan.sock http://d/v1.44/networks
//	curl --unix-socket /run/linkspan/linkspan.sock http://d/networks/create \
//	     -H 'Content-Type: application/json' -d '{"Name":"lab"}'
//
// A request passes these stations, each in a file of its own:
//
//	Server ─ version ─ routes ─ handler ─▶ controller   networks
//	  │        │         │         └─────▶ Runtime      containers
//	  │        │         └ method and path: one table
//	  │        └ /v1.44 in front of the path is taken off and remembered
//	  └ recovers panics, counts streams, shuts down
//
// Answers come in the types of github.com/moby/moby/api, never in copies of
// our own. What an older client expects beside them is in legacy.go. An error
// becomes a status by its kind, in errors.go and nowhere else.
//
// Three requests outlive their answer's header: a wait, a stream of events or
// of logs, and an attachment, which turns the connection into the process's
// standard streams:
//
//	client ──POST /containers/web/attach, Upgrade: tcp──▶
//	       ◀──101 UPGRADED──
//	       ══ raw bytes both ways; our side in frames of 8 + n unless on a terminal ══
//
// openapi.yaml describes all of it, and is served. A new route is described there:
// a test compares the two.
//
// What Docker does not have lives under /linkspan/v1/: explain prints the plan
// of a request without carrying it out, commands the plan that was, networks
// changes one in place, and doctor says what is in the way.
//
// [New] makes a [Server], [Listen] opens its socket, [Networks] lets the
// launcher of containers use the controller, and [Events] is what both report
// to.
package api
