// Package plugin is the engine's side of the plugin protocol: it finds network
// and IPAM drivers that are programs of their own, and talks to them.
//
// A plugin is a program that listens on a socket and answers JSON over HTTP. By
// hand, with one at /run/docker/plugins/lab.sock:
//
//	ls /run/docker/plugins /etc/docker/plugins /usr/lib/docker/plugins
//	curl -sS --unix-socket /run/docker/plugins/lab.sock -X POST http://plugin/Plugin.Activate
//	linkspan plugin inspect lab
//
// A [Directory] looks for plugins by name and holds a [Line] to each. Nothing
// is asked before it is needed. What can go wrong with a program at the other
// end, and what is done about it:
//
//	not there, not listening    wait a little (it may be starting), then refuse
//	silent                      a deadline for every call
//	away or silent              the line is cut: further calls are refused at once,
//	                            and the line asks by itself until there is an answer
//	died in mid-call            the error says that it is not known whether the call
//	                            took effect (InDoubt): whoever called takes it back
//	hangs up on one call        if it answers others, only that call has failed
//	another process answers     it is activated again, and told what it wants to hear
//	                            first (Options.Meet), before the next call
//	answers what is no answer   an error that names plugin, method and cause
//
// No lock is held over a call: a plugin may call our API inside its own answer.
//
//	          call fails to reach it, or no answer in time
//	┌────────┐ ──────────────────────────────────────────▶ ┌──────┐
//	│ talking│                                             │ cut  │ asks Plugin.Activate, ever less often
//	└────────┘ ◀────────────────────────────────────────── └──────┘
//	               an answer: told to Options.Up
package plugin
