package lesson

import "fmt"

func hostDoorLesson() Lesson {
	works := func(b *bench) error {
		return all(
			func() error { return b.address("", "br0", "{NET}.254/24") },
			func() error { return b.ping("{A}", "{NET}.254") },
			func() error { return b.ping("{A}", "{FAR}.1") },
			func() error { return b.ping("{B}", "{FAR}.1") },
		)
	}
	return Lesson{
		Name:  "door",
		Title: "4. The door to the host",
		About: "A bridge is a link of the host too. Give it an address and the host is on the network; name that address as the way\n" +
			"to everything else, and it is the network's gateway.",
		file: `name: door
switches: {br0: {}}
nodes:
  {A}: {addresses: {eth0: [{NET}.1/24]}}
  {B}: {addresses: {eth0: [{NET}.2/24]}}
links: [["{A}:eth0", br0], ["{B}:eth0", br0]]
`,
		tasks: []task{
			{
				kind: build,
				text: "The lab's machine has a second address, {FAR}.1, that is on no wire. Give its bridge br0 the address {NET}.254/24, and see to it that\n" +
					"{A} and {B} reach {FAR}.1 by way of it.",
				spoil: "ip addr add {FAR}.1/32 dev lo",
				hints: []string{
					"A node sends what is on no wire of its own to its default route.",
					"ip addr add {NET}.254/24 dev br0; ip -n {LAB}-{A} route add default via {NET}.254; the same for {B}",
				},
				solution: "ip addr add {NET}.254/24 dev br0; for n in {A} {B}; do ip -n {LAB}-$n route add default via {NET}.254; done",
				check:    works,
			},
			{
				kind:     mend,
				text:     "{B} does not reach {FAR}.1 any more, while {A} does. Find out why, and mend it.",
				spoil:    "ip -n {LAB}-{B} route del default",
				hints:    []string{"Where does `ip -n {LAB}-{B} route get {FAR}.1` lead?", "{B} has no default route"},
				solution: "ip -n {LAB}-{B} route add default via {NET}.254",
				check:    works,
			},
		},
	}
}

// between is two wires with the lab's machine between them: {A} is inside, {C} is
// a neighbour outside that knows nothing of the inside.
const between = `switches:
  br0: {addresses: [{NET}.254/24]}
  br1: {addresses: [{FAR}.254/24]}
nodes:
  {A}: {addresses: {eth0: [{NET}.1/24]}, routes: [{to: 0.0.0.0/0, via: {NET}.254}]%s}
  {C}: {addresses: {eth0: [{FAR}.2/24]}}
links: [["{A}:eth0", br0], ["{C}:eth0", br1]]
`

func outLesson() Lesson {
	works := func(b *bench) error {
		return all(
			func() error { return b.ping("{A}", "{NET}.254") },
			func() error { return b.ping("{A}", "{FAR}.2") },
			func() error { return b.seenAs("{A}", "{C}", "{FAR}.2", "{FAR}.254") },
		)
	}
	return Lesson{
		Name:  "out",
		Title: "5. Out into the world",
		About: "The world has no route back to a container. So the host lends it its own address: it forwards, and it masquerades.",
		file:  "name: out\n" + fmt.Sprintf(between, ""),
		tasks: []task{
			{
				kind: build,
				text: "{A} is to reach {C} at {FAR}.2, outside. {C} has no route to {NET}.0/24 and is not yours to change: it must take {A} for the machine, {FAR}.254.",
				hints: []string{
					"A machine that is to pass packets on must forward: sysctl net.ipv4.ip_forward.",
					"nft: a chain of type nat at hook postrouting, with ip saddr {NET}.0/24 oifname br1 masquerade",
				},
				solution: `sysctl -qw net.ipv4.ip_forward=1
nft add table ip mine; nft add chain ip mine post '{ type nat hook postrouting priority srcnat; }'
nft add rule ip mine post ip saddr {NET}.0/24 oifname br1 masquerade`,
				check: works,
			},
			{
				kind:  mend,
				text:  "{A} does not reach {C} any more. Your rules are as they were. Find out why, and mend it.",
				spoil: "nft add table inet guard; nft add chain inet guard forward '{ type filter hook forward priority 0; policy drop; }'",
				hints: []string{
					"An accept in one chain does not overrule a drop in another: every chain of a hook has its say.",
					"`nft list ruleset` on the lab's machine shows a table that is not yours, with policy drop at hook forward.",
				},
				solution: "nft add rule inet guard forward accept",
				check:    works,
			},
		},
	}
}

func inLesson() Lesson {
	works := func(b *bench) error {
		return all(
			func() error { return b.connect("{A}", "{NET}.1:80", startTime) },
			func() error { return b.connect("{C}", "{FAR}.254:{PORT}", patience) },
		)
	}
	return Lesson{
		Name:  "in",
		Title: "6. A way in: a published port",
		About: "docker run -p is a rule that rewrites where a packet goes: from a port of the host to an address inside.",
		file:  "name: in\n" + fmt.Sprintf(between, ", run: exec python3 -m http.server 80"),
		tasks: []task{
			{
				kind: build,
				text: "{A} has a web server on port 80. Publish it to the outside: {C} is to reach it at {FAR}.254, the lab's machine, port {PORT}.",
				hints: []string{
					"The destination must be rewritten before the kernel decides where the packet goes: hook prerouting.",
					"sysctl net.ipv4.ip_forward=1, and ip daddr {FAR}.254 tcp dport {PORT} dnat to {NET}.1:80",
				},
				solution: `sysctl -qw net.ipv4.ip_forward=1
nft add table ip mine; nft add chain ip mine pre '{ type nat hook prerouting priority dstnat; }'
nft add rule ip mine pre ip daddr {FAR}.254 tcp dport {PORT} dnat to {NET}.1:80`,
				check: works,
			},
			{
				kind:  mend,
				text:  "{C} gets no answer from {FAR}.254:{PORT} any more, though the request reaches {A}. Find out why, and mend it.",
				spoil: "ip -n {LAB}-{A} route del default",
				hints: []string{
					"`linkspan capture --live` or tcpdump in {A}: what comes in, what goes out?",
					"{A} has no route for its answer.",
				},
				solution: "ip -n {LAB}-{A} route add default via {NET}.254",
				check:    works,
			},
		},
	}
}
