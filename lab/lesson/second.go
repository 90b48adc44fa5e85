package lesson

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan/kernel"
)

func hostDoorLesson() Lesson {
	works := func(b *bench) error {
		return all(
			func() error { return b.address("", "br0", "{NET}.254/24") },
			func() error { return b.routed("", "{NET}.1") },
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
				kind: predict,
				text: "Every machine that passes a packet on takes one from its TTL, which begins at 64. With what TTL does the answer of {FAR}.1 reach {A}?",
				hints: []string{
					"Who answers for {FAR}.1? Does anybody pass the packet on?",
					"{FAR}.1 is an address of the machine itself: the bridge is a link of it. (`ip netns exec {LAB}-{A} ping -c1 {FAR}.1`)",
				},
				answer: func(*bench) (string, error) { return "64", nil },
			},
		},
		faults: []task{
			{
				kind:     mend,
				text:     "Neither {A} nor {B} gets an answer from the machine any more, though their requests reach it. Find out why, and mend it.",
				spoil:    "ip route del {NET}.0/24 dev br0",
				hints:    []string{"The answer has to find its way as well: where does `ip -n {LAB} route get {NET}.1` lead?", "The machine's route to {NET}.0/24 by br0 is missing. The kernel adds it with the address, if nobody forbids it."},
				solution: "ip route add {NET}.0/24 dev br0 src {NET}.254",
				check:    works,
			},
			{
				kind:     mend,
				text:     "{B} does not reach {FAR}.1 any more, while {A} does. Find out why, and mend it.",
				spoil:    "ip -n {LAB}-{B} route flush via {NET}.254",
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
			b.forwards,
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
				kind: predict,
				text: "{A} sends a packet with TTL 64. With what TTL does it reach {C}?",
				hints: []string{
					"The machine is a router now: it passes the packet on from one network to another.",
					"`ip netns exec {LAB}-{C} tcpdump -nv icmp` shows it, while {A} pings {FAR}.2.",
				},
				answer: func(*bench) (string, error) { return "63", nil },
			},
		},
		faults: []task{
			{
				kind:  mend,
				text:  "{A} does not reach {C} any more, while it reaches the machine. No rule has changed. Find out why, and mend it.",
				spoil: "sysctl -qw net.ipv4.ip_forward=0",
				hints: []string{
					"`ip netns exec {LAB}-{C} tcpdump -n icmp`: nothing arrives. What must a machine be told before it passes packets on?",
					"Some program has set net.ipv4.ip_forward of the machine to 0.",
				},
				solution: "sysctl -qw net.ipv4.ip_forward=1",
				check:    works,
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

// webServer is python3 -m http.server without the look-up of its own name, for
// which it would wait where there is no resolver.
const webServer = `'exec python3 -c "import http.server as h, socketserver as s; s.ThreadingTCPServer((\"\", 80), h.SimpleHTTPRequestHandler).serve_forever()"'`

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
		file:  "name: in\n" + fmt.Sprintf(between, ", run: "+webServer),
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
				kind: predict,
				text: "{C}, which is {FAR}.2, opens a connection to {FAR}.254:{PORT}. From which address does the server on {A} see it come?",
				hints: []string{
					"Your rule rewrites one of the two addresses of a packet. Which?",
					"`ip netns exec {LAB}-{A} tcpdump -n tcp port 80` shows it, while {C} connects.",
				},
				answer: func(b *bench) (string, error) { return b.fill("{FAR}.2"), nil },
			},
			{
				kind: build,
				text: "{A} itself cannot use its own published port: a request to {FAR}.254:{PORT} comes back to it from its own address, and it does not believe it.\n" +
					"See to it that {A} reaches {FAR}.254:{PORT} as {C} does.",
				hints: []string{
					"The machine must put itself in between, so that the answer comes back by way of it: a chain at hook postrouting.",
					"ip saddr {NET}.0/24 ip daddr {NET}.0/24 masquerade; and where br_netfilter is loaded, br0 must send a frame back to where it came from: brctl hairpin br0 port0 on",
				},
				solution: `nft add table ip loop; nft add chain ip loop post '{ type nat hook postrouting priority srcnat; }'
nft add rule ip loop post ip saddr {NET}.0/24 ip daddr {NET}.0/24 masquerade
brctl hairpin br0 port0 on`,
				check: func(b *bench) error {
					return all(func() error { return works(b) }, func() error { return b.hairpin("br0", "port0") }, func() error { return b.connect("{A}", "{FAR}.254:{PORT}", patience) })
				},
			},
		},
		faults: []task{
			{
				kind: mend,
				text: "The machine has a second address outside, {FAR}.253, that is for its administrator only, and {C} gets {A}'s web server there, too.\n" +
					"Find out why, and mend it; {FAR}.254:{PORT} must go on working.",
				spoil: `ip addr add {FAR}.253/24 dev br1 2>/dev/null || true
nft add table ip wide; nft add chain ip wide pre '{ type nat hook prerouting priority dstnat - 1; }'
nft add rule ip wide pre tcp dport {PORT} dnat to {NET}.1:80`,
				hints: []string{
					"`nft list ruleset` on the lab's machine: which rules say to which address a packet must have been sent?",
					"The rule of table wide names no address: it publishes the port on all of them. Delete it, or let it say ip daddr {FAR}.254.",
				},
				solution: "nft delete table ip wide",
				check: func(b *bench) error {
					return all(func() error { return works(b) }, func() error { return b.refuses("{C}", "{FAR}.253:{PORT}") })
				},
			},
			{
				kind:  mend,
				text:  "{C} gets no answer from {FAR}.254:{PORT} any more, though the request reaches {A}. Find out why, and mend it.",
				spoil: "ip -n {LAB}-{A} route flush via {NET}.254",
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

// forwards wants the lab's machine to pass packets on.
func (b *bench) forwards() error {
	value, err := b.root.ReadSysctl("", "net/ipv4/ip_forward")
	if err == nil && strings.TrimSpace(value) != "1" {
		err = wrong("net.ipv4.ip_forward of the lab's machine is %s: it passes nothing on (see: ip netns exec %s sysctl net.ipv4.ip_forward)", strings.TrimSpace(value), b.fill("{LAB}"))
	}
	return err
}

// routed wants a node to have a route to an address.
func (b *bench) routed(node, to string) error {
	target, err := netip.ParseAddr(b.fill(to))
	if err != nil {
		return err
	}
	links, err := b.root.Links(b.netns(node))
	if err != nil {
		return err
	}
	if _, err = links.RouteGet(target.AsSlice()); errors.Is(err, unix.ENETUNREACH) {
		return wrong("%s has no route to %s (see: %s)", b.where(node), target, b.ip(node, "route get "+target.String()))
	}
	return err
}

// refuses wants a node not to get a connection.
func (b *bench) refuses(node, to string) error {
	target := b.fill(to)
	err := b.root.Inside(b.netns(node), func() error {
		conn, err := dialHere(target)
		if err == nil {
			conn.Close()
		}
		return err
	})
	if err != nil {
		return nil //nolint:nilerr // no connection is what is wanted
	}
	return wrong("%s can connect to %s (see: nft list ruleset, on the lab's machine)", b.where(node), target)
}

// hairpin wants a port to send frames back to where they came from, if the bridge
// rewrites addresses itself: without br_netfilter the machine does, as a router.
func (b *bench) hairpin(bridge, port string) error {
	value, err := b.root.ReadSysctl("", "net/bridge/bridge-nf-call-iptables")
	if kernel.IsGone(err) || strings.TrimSpace(value) == "0" {
		return nil
	}
	bridges, err := b.root.Bridges("")
	for _, br := range bridges {
		for _, p := range br.Ports {
			if br.Name == bridge && p.Name == port && !p.Hairpin {
				return wrong("port %s of bridge %s sends no frame back to where it came from (see: linkspan brctl --netns %s showstp %s)", port, bridge, b.fill("{LAB}"), bridge)
			}
		}
	}
	return err
}
