package lesson

import (
	"fmt"
	"time"
)

func loopback(b *bench) error {
	return all(
		func() error { return b.up("{A}", "lo") },
		func() error { return b.address("{A}", "lo", "127.0.0.1/8") },
		func() error { return b.ping("{A}", "127.0.0.1") },
	)
}

func namespaceLesson() Lesson {
	return Lesson{
		Name:  "namespace",
		Title: "1. A network stack of one's own",
		About: "A container is a process with a network stack of its own: its own links, addresses, routes, rules and sockets.\n" +
			"That stack is a network namespace, and a new one holds nothing but a loopback that is down.",
		file: "name: namespace\nnodes: {}\n",
		tasks: []task{
			{
				kind: build,
				text: "Make a network namespace with the name {LAB}-{A}, and see to it that programs in it reach themselves at 127.0.0.1.",
				hints: []string{
					"`ip netns` makes namespaces; a new one's loopback is down.",
					"ip netns add {LAB}-{A}; then bring its lo up",
				},
				solution: "ip netns add {LAB}-{A}; ip -n {LAB}-{A} link set lo up",
				check:    loopback,
			},
			{
				kind: predict,
				text: "The lab's machine is a namespace too. Before you look: how many links does `ip -n {LAB}-{A} link` list, a number?",
				hints: []string{
					"A namespace starts with one link, and you have added none.",
				},
				answer: func(b *bench) (string, error) {
					links, err := b.links("{A}")
					return fmt.Sprint(len(links)), err
				},
			},
			{
				kind: predict,
				text: "The lab's machine has a bridge by now, br9, and {LAB}-{A} has none. In a shell on the machine (linkspan lab exec namespace - sh) you enter\n" +
					"the namespace: `nsenter --net=/run/netns/{LAB}-{A} brctl show`. Which bridge will it list: none, or br9?",
				spoil: "ip link add br9 type bridge",
				hints: []string{
					"brctl does not ask the kernel by netlink: it reads /sys/class/net.",
					"/sys shows the links of the namespace that it was mounted in, and nobody has mounted another. (`ip netns exec` does; so does `linkspan brctl --netns` without.)",
				},
				answer: func(*bench) (string, error) { return "br9", nil },
			},
		},
		faults: []task{
			{
				kind:     mend,
				text:     "A program in {LAB}-{A} cannot connect to 127.0.0.1 any more. Find out why, and mend it.",
				spoil:    "ip -n {LAB}-{A} link set lo down",
				hints:    []string{"What does `ip -n {LAB}-{A} link show lo` say of its state?", "lo is down"},
				solution: "ip -n {LAB}-{A} link set lo up",
				check:    loopback,
			},
			{
				kind:     mend,
				text:     "A program in {LAB}-{A} does not reach 127.0.0.1 any more, and lo is up. Find out why, and mend it.",
				spoil:    "ip -n {LAB}-{A} addr flush dev lo",
				hints:    []string{"What does `ip -n {LAB}-{A} addr show lo` list?", "lo has no address: 127.0.0.1/8 is one that somebody has to give it, which the kernel does when it comes up for the first time."},
				solution: "ip -n {LAB}-{A} addr add 127.0.0.1/8 dev lo",
				check:    loopback,
			},
		},
	}
}

func cableLesson() Lesson {
	both := func(b *bench) error {
		return all(
			func() error { return b.address("{A}", "eth0", "{NET}.1/24") },
			func() error { return b.address("{B}", "eth0", "{NET}.2/24") },
			func() error { return b.up("{A}", "eth0") },
			func() error { return b.up("{B}", "eth0") },
			func() error { return b.differ("{A}", "{B}", "eth0") },
			func() error { return b.ping("{A}", "{NET}.2") },
			func() error { return b.ping("{B}", "{NET}.1") },
		)
	}
	return Lesson{
		Name:  "cable",
		Title: "2. A cable between two stacks",
		About: "A veth pair is a cable: what goes in at one end comes out at the other, and each end may be in a namespace of its own.\n" +
			"Every container's eth0 is one end of such a cable.",
		file: "name: cable\nnodes: {{A}: {}, {B}: {}}\n",
		tasks: []task{
			{
				kind: build,
				text: "Join nodes {A} and {B} by a cable: eth0 in {LAB}-{A} with address {NET}.1/24, eth0 in {LAB}-{B} with {NET}.2/24. Each must reach the other.",
				hints: []string{
					"ip link add … type veth peer name …: each end can be made in a namespace by `netns`.",
					"ip -n {LAB}-{A} link add eth0 type veth peer name eth0 netns {LAB}-{B}; then addresses, then both ends up",
				},
				solution: `ip -n {LAB}-{A} link add eth0 type veth peer name eth0 netns {LAB}-{B}
ip -n {LAB}-{A} addr add {NET}.1/24 dev eth0; ip -n {LAB}-{B} addr add {NET}.2/24 dev eth0
ip -n {LAB}-{A} link set eth0 up; ip -n {LAB}-{B} link set eth0 up`,
				check: both,
			},
			{
				kind:  predict,
				text:  "What is the name of the link at which a frame arrives in {B} that {A} sends out of eth0?",
				hints: []string{"`ip -n {LAB}-{A} -d link show eth0` shows the other end's index behind @if."},
				answer: func(b *bench) (string, error) {
					l, err := b.link("{B}", "eth0")
					return l.Name, err
				},
			},
		},
		faults: []task{
			{
				kind:     mend,
				text:     "{A} and {B} do not reach each other any more, and neither has changed its address. Find out why, and mend it.",
				spoil:    "ip -n {LAB}-{B} link set eth0 down",
				hints:    []string{"A cable carries frames if both its ends are up: what do `ip -br link` of both nodes say?", "eth0 of {B} is down; eth0 of {A} has NO-CARRIER for that"},
				solution: "ip -n {LAB}-{B} link set eth0 up",
				check:    both,
			},
			{
				kind:     mend,
				text:     "{A} and {B} do not reach each other any more, though both ends are up and have their addresses. Find out why, and mend it.",
				spoil:    "m=$(ip -n {LAB}-{A} -br link show eth0 | awk '{print $3}'); ip -n {LAB}-{B} link set eth0 address $m; for n in {A} {B}; do ip -n {LAB}-$n neigh flush all; done",
				hints:    []string{"Compare `ip link show eth0` of both nodes line by line.", "Both have the same MAC: neither takes a frame from itself."},
				solution: "ip -n {LAB}-{B} link set eth0 address 02:00:00:00:00:07; for n in {A} {B}; do ip -n {LAB}-$n neigh flush all; done",
				check:    both,
			},
		},
	}
}

// differ wants different MACs in two nodes.
func (b *bench) differ(one, two, name string) error {
	first, err := b.link(one, name)
	if err != nil {
		return err
	}
	second, err := b.link(two, name)
	if err == nil && first.MAC == second.MAC {
		err = wrong("link %s of %s and of %s have the same MAC, %s (see: %s)", first.Name, b.where(one), b.where(two), first.MAC, b.ip(one, "link show "+first.Name))
	}
	return err
}

func switchLesson() Lesson {
	works := func(b *bench) error {
		return all(
			func() error { return b.bridge("br0") },
			func() error { return b.up("", "br0") },
			func() error { return b.port("br0", "p1") }, func() error { return b.up("", "p1") },
			func() error { return b.port("br0", "p2") }, func() error { return b.up("", "p2") },
			func() error { return b.port("br0", "p3") }, func() error { return b.up("", "p3") },
			func() error { return b.forwarding("br0") },
			func() error { return b.ping("{A}", "{NET}.2") },
			func() error { return b.ping("{B}", "{NET}.3") },
			func() error { return b.ping("{C}", "{NET}.1") },
		)
	}
	return Lesson{
		Name:  "switch",
		Title: "3. A switch for many cables",
		About: "A bridge is an Ethernet switch in software. It learns from each frame behind which port its sender is,\n" +
			"and floods what it has not learnt. Every bridge network of a container engine is one.",
		file: "name: switch\nnodes: {{A}: {}, {B}: {}, {C}: {}}\n",
		tasks: []task{
			{
				kind: build,
				text: "On the lab's machine, {LAB}, make a bridge br0 with three ports: p1, p2 and p3, each the near end of a cable to eth0 in {A}, {B} and {C}\n" +
					"with the addresses {NET}.1/24, {NET}.2/24 and {NET}.3/24. All must reach all.",
				hints: []string{
					"Frames pass a bridge only if it is up, and its port, and the far end.",
					"brctl addbr br0, three veth pairs, brctl addif br0 p1 p2 p3, and everything up",
				},
				solution: `ip link add br0 type bridge; ip link set br0 up
i=0; for n in {A} {B} {C}; do i=$((i+1))
	ip link add p$i type veth peer name eth0 netns {LAB}-$n
	ip link set p$i master br0 up; ip -n {LAB}-$n addr add {NET}.$i/24 dev eth0; ip -n {LAB}-$n link set eth0 up
done`,
				check: works,
			},
			{
				kind:  predict,
				text:  "{A} has talked to {B}. What is the number of the port behind which `brctl showmacs br0` shows the MAC of {A}'s eth0?",
				hints: []string{"A bridge numbers its ports in the order in which they were plugged in.", "`brctl showstp br0` shows the number of each port in brackets."},
				answer: func(b *bench) (string, error) {
					return b.portNumber("br0", "p1")
				},
			},
			{
				kind: predict,
				text: "Unless it was given one of its own, a bridge borrows its MAC. Whose does br0 bear: that of p1, p2 or p3, or that of none?",
				hints: []string{
					"`ip -br link show type veth` and `ip -br link show br0`: which are equal?",
					"It takes the lowest of its ports', and changes it when a lower one comes: then all that have the old one in their tables talk to nobody. So an engine gives it one.",
				},
				answer: func(b *bench) (string, error) { return b.lender("br0") },
			},
		},
		faults: []task{
			{
				kind:     mend,
				text:     "{X} is cut off from the others. Find out why, and mend it.",
				spoil:    "ip link set p{I} nomaster",
				hints:    []string{"Which ports does `brctl show br0` list?", "p{I} is no port of br0"},
				solution: "brctl addif br0 p{I}",
				check:    works,
			},
			{
				kind:     mend,
				text:     "{X} is cut off from the others, though every port is in br0 and up. Find out why, and mend it.",
				spoil:    "bridge link set dev p{I} state 0",
				hints:    []string{"A port of a bridge has a state of its own: `brctl showstp br0`.", "p{I} is in state disabled: a port must be in state forwarding. It gets there by itself when it is brought down and up."},
				solution: "ip link set p{I} down; ip link set p{I} up",
				check:    works,
			},
			{
				kind: mend,
				text: "Nobody reaches anybody any more, though br0 is as it was. A firewall was loaded on the machine that this bridge is on. Find out why, and mend it.",
				spoil: `nft add table inet guard; nft add chain inet guard forward '{ type filter hook forward priority 0; policy drop; }'
if [ -e /proc/sys/net/bridge/bridge-nf-call-iptables ]; then sysctl -qw net.bridge.bridge-nf-call-iptables=1
else nft add table bridge guard; nft add chain bridge guard forward '{ type filter hook forward priority 0; policy drop; }'; fi`,
				hints: []string{
					"A switch should not look into packets. `nft list ruleset` and `sysctl net.bridge` on the lab's machine: who makes it?",
					"With br_netfilter, bridged packets pass the hook forward of IPv4, as if they were routed: sysctl net.bridge.bridge-nf-call-iptables. (Without it, here: a table of family bridge.)",
				},
				solution: `if [ -e /proc/sys/net/bridge/bridge-nf-call-iptables ]; then sysctl -qw net.bridge.bridge-nf-call-iptables=0
else nft delete table bridge guard; fi; nft delete table inet guard`,
				check: works,
			},
		},
	}
}

// lender finds the port whose MAC a bridge has.
func (b *bench) lender(bridge string) (string, error) {
	links, err := b.links("")
	if err != nil {
		return "", err
	}
	of, err := b.link("", bridge)
	if err != nil {
		return "", err
	}
	for _, l := range links {
		if l.Master == bridge && l.MAC == of.MAC {
			return l.Name, nil
		}
	}
	return "none", nil
}

// forwarding wants every port of a bridge on the lab's machine to let frames
// pass. A port takes a moment to notice that its far end is up.
func (b *bench) forwarding(bridge string) error {
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		bridges, err := b.root.Bridges("")
		if err != nil {
			return err
		}
		var blocked error
		for _, br := range bridges {
			for _, p := range br.Ports {
				if br.Name == bridge && p.State.String() != "forwarding" {
					blocked = wrong("port %s of bridge %s is in state %s (see: linkspan brctl --netns %s showstp %s)", p.Name, bridge, p.State, b.fill("{LAB}"), bridge)
				}
			}
		}
		if blocked == nil || time.Now().After(deadline) {
			return blocked
		}
	}
}

// bridge wants a bridge on the lab's machine.
func (b *bench) bridge(name string) error {
	l, err := b.link("", name)
	if err == nil && l.Kind != "bridge" {
		err = wrong("link %s is no bridge but %s (see: %s)", name, l.Kind, b.ip("", "-d link show "+name))
	}
	return err
}

func (b *bench) portNumber(bridge, port string) (string, error) {
	bridges, err := b.root.Bridges("")
	if err != nil {
		return "", err
	}
	for _, br := range bridges {
		for _, p := range br.Ports {
			if br.Name == bridge && p.Name == port {
				return fmt.Sprint(p.Number), nil
			}
		}
	}
	return "", wrong("link %s is no port of bridge %s (see: linkspan brctl --netns %s show)", port, bridge, b.fill("{LAB}"))
}
