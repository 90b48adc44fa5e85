package lesson

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// resolver starts a resolver in node {A} that knows {B} by the address that it
// has, and takes further options.
const resolver = `address=$(ip -n {LAB}-{B} -4 -br addr show eth0 | awk '{sub("/.*", "", $3); print $3}')
ip netns exec {LAB}-{A} dnsmasq -C /dev/null -u root --pid-file --no-resolv --no-hosts --bind-interfaces \
	--listen-address=127.0.0.11 --server={NET}.3 --host-record={B}.lan,$address`

// stop ends whatever listens on port 53 in node {A}, and waits until that is free.
const stop = `ip netns exec {LAB}-{A} ss -Hlntup 'sport = :53' | grep -o 'pid=[0-9]*' | cut -d= -f2 | sort -u | xargs -r kill
while ip netns exec {LAB}-{A} ss -Hlntu 'sport = :53' | grep -q .; do sleep 0.05; done
`

func namesLesson() Lesson {
	return Lesson{
		Name:  "names",
		Title: "7. Names",
		About: "Programs in a container ask a resolver at 127.0.0.11: it answers for the neighbours itself and hands other names on.\n" +
			"What it knows of them must be true at every moment, and what it need not ask anybody it must not ask.",
		file: `name: names
switches: {br0: {}}
nodes:
  {A}: {addresses: {eth0: [{NET}.1/24]}}
  {B}: {addresses: {eth0: [{NET}.2/24]}}
  {C}: {addresses: {eth0: [{NET}.3/24]}, run: "exec dnsmasq -k -C /dev/null -u root --pid-file --no-resolv --no-hosts --address=/www.example.org/192.0.2.7 --address=/#/"}
links: [["{A}:eth0", br0], ["{B}:eth0", br0], ["{C}:eth0", br0]]
`,
		tasks: []task{
			{
				kind: build,
				text: "Run a resolver in {A}, at 127.0.0.11 port 53. It is to answer {B}.lan with {B}'s address, and to hand other names on to the\n" +
					"server on {C}, {NET}.3, which knows www.example.org.",
				hints: []string{
					"A small resolver is dnsmasq: it need not read /etc/resolv.conf nor /etc/hosts, and listens where --listen-address says.",
					"ip netns exec {LAB}-{A} dnsmasq -C /dev/null --pid-file --no-resolv --no-hosts --bind-interfaces --listen-address=127.0.0.11, with --host-record={B}.lan,{NET}.2 and --server={NET}.3",
				},
				solution: resolver,
				check:    resolves,
			},
			{
				kind: predict,
				text: "A program in {A} that connects to {B}.lan asks for an IPv6 address (AAAA) as well, and {B} has none. Does that question go on to {C}, yes or no?\n" +
					"(Look afterwards: `ip netns exec {LAB}-{C} tcpdump -n udp port 53`, and `dig @127.0.0.11 {B}.lan AAAA` in {A}.)",
				hints: []string{"The resolver was told an IPv4 address of {B}.lan. Was it told that there is nothing else?"},
				answer: func(b *bench) (string, error) {
					leaks, err := b.leaks("{B}.lan", typeAAAA)
					return map[bool]string{true: "yes", false: "no"}[leaks], err
				},
			},
		},
		faults: []task{
			{
				kind: mend,
				text: "{C} is a stranger, slow and at times dead, and then every program in {A} that connects to its neighbour {B}.lan waits for it:\n" +
					"for the AAAA, which nobody has. See to it that questions about {B}.lan never leave {A}.",
				spoil: stop + resolver,
				hints: []string{
					"`dig @127.0.0.11 {B}.lan AAAA` in {A}, while tcpdump runs in {C}: what arrives there?",
					"A resolver that is told that a whole domain is its own asks nobody about it: dnsmasq --local=/lan/.",
				},
				solution: stop + resolver + " --local=/lan/",
				check: func(b *bench) error {
					return all(func() error { return resolves(b) }, func() error {
						if leaks, err := b.leaks("{B}.lan", typeAAAA); err != nil || !leaks {
							return err
						}
						return wrong("the question for the AAAA of %s reaches %s (see: ip netns exec %s tcpdump -n udp port 53)", b.fill("{B}.lan"), b.where("{C}"), b.netns("{C}"))
					})
				},
			},
			{
				kind:  mend,
				text:  "{B} was made anew. Programs in {A} that go by its name {B}.lan do not reach it any more. Find out why, and mend it.",
				spoil: "ip -n {LAB}-{B} addr flush dev eth0; ip -n {LAB}-{B} addr add {NET}.20/24 brd + dev eth0",
				hints: []string{
					"Compare what `dig +short @127.0.0.11 {B}.lan` says in {A} with `ip -n {LAB}-{B} addr`.",
					"The resolver's record is of the {B} that is gone: it must be told of the new address, or be started anew.",
				},
				solution: stop + resolver,
				check:    resolves,
			},
			{
				kind: mend,
				text: "{A} was put to sleep and woken again. The resolver runs, and yet no name is found in {A}. Find out why, and mend it.",
				spoil: `ip netns exec {LAB}-{A} nft -f - <<'EOF'
table ip sleeper {
	chain out {
		type nat hook output priority -100
		ip daddr 127.0.0.11 udp dport 53 redirect to :40053
		ip daddr 127.0.0.11 tcp dport 53 redirect to :40053
	}
}
EOF`,
				hints: []string{
					"`ip netns exec {LAB}-{A} ss -lun` shows who listens; `dig` shows that nobody answers. What is between the two?",
					"`ip netns exec {LAB}-{A} nft list ruleset`: rules lead port 53 to a port at which nobody listens any more.",
				},
				solution: "ip netns exec {LAB}-{A} nft delete table ip sleeper",
				check:    resolves,
			},
		},
	}
}

// resolves wants a resolver in node {A} that knows {B} by UDP and TCP, and other
// names by way of {C}.
func resolves(b *bench) error {
	// The server on {C} is the lab's own: it is only still starting.
	if _, err := b.ask("{A}", "{NET}.3:53", "www.example.org", typeA, startTime); err != nil {
		return err
	}
	neighbour, err := b.link("{B}", "eth0")
	if err != nil {
		return err
	}
	var own []netip.Addr
	for _, prefix := range neighbour.Addresses {
		own = append(own, prefix.Addr())
	}
	for _, protocol := range []string{"udp", "tcp"} {
		if err := b.answers(protocol, "{B}.lan", own...); err != nil {
			return err
		}
	}
	return all(
		func() error { return b.answers("udp", "www.example.org", netip.MustParseAddr("192.0.2.7")) },
		func() error { return b.ping("{A}", own[0].String()) },
	)
}

// answers wants the resolver in node {A} to give for a name what is its address,
// or some of its addresses, and nothing else.
func (b *bench) answers(protocol, name string, right ...netip.Addr) error {
	server := "127.0.0.11:53"
	reply, err := b.askBy(protocol, "{A}", server, name, typeA, patience)
	if err != nil {
		return err
	}
	stale := func(a netip.Addr) bool { return !slices.Contains(right, a) }
	if len(reply.addresses) > 0 && !slices.ContainsFunc(reply.addresses, stale) {
		return nil
	}
	said := strings.Trim(fmt.Sprint(reply.addresses), "[]")
	if said == "" {
		said = "no address (" + reply.status + ")"
	}
	return wrong("the resolver at %s of %s answers %s with %s, and not with %s (see: ip netns exec %s dig @127.0.0.11 %s)",
		server, b.where("{A}"), b.fill(name), said, strings.Trim(fmt.Sprint(right), "[]"), b.netns("{A}"), b.fill(name))
}
