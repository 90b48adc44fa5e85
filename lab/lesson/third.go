package lesson

import "net/netip"

func addressesLesson() Lesson {
	works := func(b *bench) error {
		return all(
			func() error { return b.ownAddress("{C}", "eth0", "{NET}.0/29", "{A}", "{B}") },
			func() error { return b.ping("{C}", "{NET}.1") },
			func() error { return b.ping("{C}", "{NET}.2") },
			func() error { return b.ping("{A}", "{NET}.2") },
		)
	}
	return Lesson{
		Name:  "addresses",
		Title: "8. Who has which address",
		About: "An address must be given once only, and no route may lead it elsewhere. That is what an engine's IPAM is for: pools that\n" +
			"overlap nothing, and leases that are held as long as the endpoint lives.",
		file: `name: addresses
switches: {sw: {}}
nodes:
  {A}: {addresses: {eth0: [{NET}.1/29]}}
  {B}: {addresses: {eth0: [{NET}.2/29]}}
  {C}: {}
links: [["{A}:eth0", sw], ["{B}:eth0", sw], ["{C}:eth0", sw]]
`,
		tasks: []task{
			{
				kind: build,
				text: "{A} and {B} have {NET}.1 and {NET}.2 of the subnet {NET}.0/29. Give {C}'s eth0 an address of that subnet that is free.",
				hints: []string{
					"A /29 has eight addresses; the first and the last are not for hosts.",
					"{NET}.3 to {NET}.6 are free, with /29 behind them",
				},
				solution: "ip -n {LAB}-{C} addr add {NET}.3/29 brd + dev eth0",
				check:    works,
			},
			{
				kind:   predict,
				text:   "How many more hosts could this subnet take, with {A}, {B} and {C} on it?",
				hints:  []string{"Eight, without the first, the last, and the three that are given."},
				answer: func(*bench) (string, error) { return "3", nil },
			},
		},
		faults: []task{
			{
				kind: mend,
				text: "Somebody has given {C} the address of {B}: {A} reaches now the one, now the other. Find out, and give {C} an address of its own.",
				spoil: "ip -n {LAB}-{C} addr flush dev eth0; ip -n {LAB}-{C} addr add {NET}.2/29 brd + dev eth0; " +
					"for n in {A} {B} {C}; do ip -n {LAB}-$n neigh flush all; done",
				hints: []string{
					"`ip neigh` in {A} shows the MAC that it has for {NET}.2; flush it, ping again, and look once more.",
					"{C} has {NET}.2 on eth0; it is {B}'s.",
				},
				solution: "ip -n {LAB}-{C} addr flush dev eth0; ip -n {LAB}-{C} addr add {NET}.4/29 brd + dev eth0; for n in {A} {B} {C}; do ip -n {LAB}-$n neigh flush all; done",
				check:    works,
			},
			{
				kind:  mend,
				text:  "{A} has dialled in somewhere, and does not reach {B} since. Nothing on the wire has changed. Find out why, and mend it.",
				spoil: "ip -n {LAB}-{A} route add {NET}.2/31 dev lo",
				hints: []string{
					"Where does `ip -n {LAB}-{A} route get {NET}.2` lead?",
					"A route for {NET}.2/31 is longer than that for {NET}.0/29, and wins.",
				},
				solution: "ip -n {LAB}-{A} route del {NET}.2/31 dev lo",
				check:    works,
			},
		},
	}
}

// ownAddress wants an address of a subnet on a link that no other node has.
func (b *bench) ownAddress(node, name, subnet string, others ...string) error {
	l, err := b.link(node, name)
	if err != nil {
		return err
	}
	pool, err := netip.ParsePrefix(b.fill(subnet))
	if err != nil {
		return err
	}
	var own netip.Addr
	for _, prefix := range l.Addresses {
		if prefix.Masked() == pool {
			own = prefix.Addr()
		}
	}
	if !own.IsValid() {
		return wrong("link %s of %s has no address of %s (see: %s)", name, b.where(node), pool, b.ip(node, "addr show "+name))
	}
	for _, other := range others {
		theirs, err := b.link(other, name)
		if err != nil {
			return err
		}
		for _, prefix := range theirs.Addresses {
			if prefix.Addr() == own {
				return wrong("address %s of %s is that of %s already (see: %s)", own, b.where(node), b.where(other), b.ip(other, "addr show "+name))
			}
		}
	}
	return nil
}
