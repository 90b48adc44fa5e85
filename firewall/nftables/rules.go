package nftables

import (
	"fmt"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan/firewall"
)

func baseSets() []set {
	ifname := nftables.TypeIFName
	host := binaryutil.NativeEndian // or nft would list names back to front
	sets := []set{
		{nftables.Set{Name: "networks", KeyType: ifname, KeyByteOrder: host}, "type ifname"},
		{nftables.Set{Name: "within", IsMap: true, KeyType: nftables.MustConcatSetType(ifname, ifname), DataType: nftables.TypeVerdict}, "type ifname . ifname : verdict"},
		{nftables.Set{Name: "internal", KeyType: ifname, KeyByteOrder: host}, "type ifname"},
		{nftables.Set{Name: "into", IsMap: true, KeyType: nftables.MustConcatSetType(nftables.TypeNFProto, ifname), DataType: nftables.TypeVerdict}, "type nf_proto . ifname : verdict"},
		{nftables.Set{Name: "trusted", KeyType: nftables.MustConcatSetType(ifname, ifname)}, "type ifname . ifname"},
		{nftables.Set{Name: "masq", KeyType: ifname, KeyByteOrder: host}, "type ifname"},
		{nftables.Set{Name: "snat4", IsMap: true, KeyType: ifname, DataType: nftables.TypeIPAddr, KeyByteOrder: host}, "type ifname : ipv4_addr"},
		{nftables.Set{Name: "snat6", IsMap: true, KeyType: ifname, DataType: nftables.TypeIP6Addr, KeyByteOrder: host}, "type ifname : ipv6_addr"},
		{nftables.Set{Name: "subnets4", Interval: true, KeyType: nftables.TypeIPAddr, KeyByteOrder: binaryutil.BigEndian}, "type ipv4_addr; flags interval"},
		{nftables.Set{Name: "subnets6", Interval: true, KeyType: nftables.TypeIP6Addr, KeyByteOrder: binaryutil.BigEndian}, "type ipv6_addr; flags interval"},
	}
	return append(append(sets, portSets("4", nftables.TypeIPAddr)...), portSets("6", nftables.TypeIP6Addr)...)
}

// portSets returns the sets and maps of published ports of an address family.
func portSets(family string, addr nftables.SetDatatype) []set {
	proto, port := nftables.TypeInetProto, nftables.TypeInetService
	hashed := func(name string, key ...nftables.SetDatatype) set {
		s := set{Set: nftables.Set{Name: name + family, KeyType: nftables.MustConcatSetType(key...)}}
		s.decl = "type " + s.KeyType.Name
		return s
	}
	leads := func(s set, to ...nftables.SetDatatype) set {
		s.IsMap, s.DataType = true, to[0]
		if len(to) > 1 {
			s.DataType = nftables.MustConcatSetType(to...)
		}
		s.decl += " : " + s.DataType.Name
		return s
	}
	intervals := func(s set) set {
		s.Interval, s.Concatenation = true, true
		s.decl += "; flags interval"
		return s
	}
	ifname := nftables.TypeIFName
	return []set{
		hashed("home", ifname, proto, port),
		hashed("homebound", ifname, addr, proto, port),
		intervals(hashed("homeranges", ifname, addr, proto, port)),
		leads(hashed("published", proto, port), addr, port),
		leads(hashed("bound", addr, proto, port), addr, port),
		intervals(leads(hashed("ranges", addr, proto, port), addr)),
		intervals(hashed("guarded", addr, proto, port)),
		intervals(hashed("allowed", addr, addr, proto, port)),
		intervals(hashed("linked", addr, addr, proto, port)),
		hashed("open", addr, proto, port),
		intervals(hashed("openfrom", addr, addr, proto, port)),
	}
}

// loopbackRules: the host reaches containers from 127.0.0.1, for which the
// bridges have route_localnet, which lets such addresses in as well.
func loopbackRules() []rule {
	sent := func(offset uint32, field string) rule {
		exprs := append(field4(offset, 1), &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{127}}, load(expr.MetaKeyIIFNAME, 1), in("networks"), verdict(expr.VerdictDrop))
		return rule{"ip " + field + " 127.0.0.0/8 iifname @networks drop", "127.0.0.1 is the machine's alone", exprs}
	}
	return []rule{sent(16, "daddr"), sent(12, "saddr")}
}

// preroutingRules translate what arrives, and outputRules what the machine
// itself sends. The kernel asks them about the first packet of a conversation.
func preroutingRules() []rule {
	linkLocal := make([]byte, 16)
	mask := make([]byte, 16)
	linkLocal[0], linkLocal[1], mask[0], mask[1] = 0xfe, 0x80, 0xff, 0xc0
	rules := []rule{
		notLocal(),
		{"ip daddr 127.0.0.0/8 accept", "the loopback's ports are the machine's own", append(field4(16, 1), &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{127}}, verdict(expr.VerdictAccept))},
		{"ip6 saddr fe80::/10 accept", "a link-local asker cannot be answered from another link", append(field6(8, 16),
			&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 16, Mask: mask, Xor: make([]byte, 16)},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: linkLocal}, verdict(expr.VerdictAccept))},
	}
	for _, f := range families() {
		exprs := f.load("daddr", "proto", "dport")
		exprs = append(exprs, in("guarded"+f.digit))
		exprs = append(exprs, f.load("saddr", "daddr", "proto", "dport")[2:]...)
		exprs = append(exprs, &expr.Lookup{SourceRegister: 1, SetName: "allowed" + f.digit, Invert: true}, verdict(expr.VerdictDrop))
		rules = append(rules, rule{
			f.words("daddr", "proto", "dport") + " @guarded" + f.digit + " " + f.words("saddr", "daddr", "proto", "dport") + " != @allowed" + f.digit + " drop",
			"a port with a list of sources is for those alone", exprs,
		})
	}
	for _, f := range families() {
		for _, home := range []struct {
			set    string
			fields []string
		}{
			{"home", []string{"iif", "proto", "dport"}},
			{"homebound", []string{"iif", "daddr", "proto", "dport"}},
			{"homeranges", []string{"iif", "daddr", "proto", "dport"}},
		} {
			text, exprs := f.words(home.fields...), f.load(home.fields...)
			if home.set == "home" {
				text = "meta nfproto " + f.protocol + " " + text
			}
			rules = append(rules, rule{text + " @" + home.set + f.digit + " accept", "a container's own network asks its shim", append(exprs, in(home.set+f.digit), verdict(expr.VerdictAccept))})
		}
	}
	return append(rules, rule{"goto published", "the first packet of a conversation", []expr.Any{&expr.Verdict{Kind: expr.VerdictGoto, Chain: "published"}}})
}

func outputRules() []rule {
	loopback := make([]byte, 16)
	loopback[15] = 1
	return []rule{
		notLocal(),
		{"ip6 daddr ::1 accept", "nothing leaves the machine from ::1", append(field6(24, 16), &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: loopback}, verdict(expr.VerdictAccept))},
		{"goto published", "the first packet of a conversation", []expr.Any{&expr.Verdict{Kind: expr.VerdictGoto, Chain: "published"}}},
	}
}

func notLocal() rule {
	return rule{"fib daddr type != local accept", "ports are published at the machine's own addresses", []expr.Any{
		&expr.Fib{Register: 1, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
		verdict(expr.VerdictAccept),
	}}
}

func publishedRules() []rule {
	var rules []rule
	for _, f := range families() {
		dnat := func(exprs []expr.Any, text, table string, port uint32) rule {
			nat := &expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(f.number), RegAddrMin: 1, RegAddrMax: 1}
			if port != 0 {
				nat.RegProtoMin, nat.RegProtoMax, nat.Specified = port, port, true
			}
			exprs = append(exprs, &expr.Lookup{SourceRegister: 1, DestRegister: 1, IsDestRegSet: true, SetName: table + f.digit}, nat)
			return rule{text + " map @" + table + f.digit, "", exprs}
		}
		to := "dnat " + f.name + " to "
		anywhere := dnat(f.load("proto", "dport"), "meta nfproto "+f.protocol+" "+to+f.words("proto", "dport"), "published", f.afterAddr)
		anywhere.why = "at every address of the machine"
		bound := dnat(f.load("daddr", "proto", "dport"), to+f.words("daddr", "proto", "dport"), "bound", f.afterAddr)
		bound.why = "at one address"
		ranges := dnat(f.load("daddr", "proto", "dport"), to+f.words("daddr", "proto", "dport"), "ranges", 0)
		ranges.why = "ranges that keep their numbers"
		rules = append(rules, anywhere, bound, ranges)
	}
	return rules
}

// routedRules decide about packets straight to an address of a routed network.
func routedRules() []rule {
	isProtocol := func(number byte) []expr.Any {
		return []expr.Any{load(expr.MetaKeyL4PROTO, 1), &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{number}}, verdict(expr.VerdictAccept)}
	}
	return []rule{
		{"meta l4proto icmp accept", "a routed container answers pings", isProtocol(unix.IPPROTO_ICMP)},
		{"meta l4proto ipv6-icmp accept", "a routed container answers pings", isProtocol(unix.IPPROTO_ICMPV6)},
		{"goto direct", "whatever else", []expr.Any{&expr.Verdict{Kind: expr.VerdictGoto, Chain: "direct"}}},
	}
}

// trustedRules decide about packets straight to an address of a network that
// trusts some of the machine's links.
func trustedRules() []rule {
	return []rule{
		{"iifname . oifname @trusted goto direct", "from a link that the network trusts", []expr.Any{
			load(expr.MetaKeyIIFNAME, 1), load(expr.MetaKeyOIFNAME, 2), in("trusted"), &expr.Verdict{Kind: expr.VerdictGoto, Chain: "direct"},
		}},
		{"drop", "nothing else enters a network", []expr.Any{verdict(expr.VerdictDrop)}},
	}
}

// apartRules decide about packets between containers that are kept apart.
func apartRules() []rule {
	rules := []rule{
		{"ct state established,related accept", "answers pass", append(conntrack(expr.CtKeySTATE, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED), verdict(expr.VerdictAccept))},
	}
	for _, f := range families() {
		rules = append(rules, rule{f.words("saddr", "daddr", "proto", "dport") + " @linked" + f.digit + " accept", "who has a link", append(f.load("saddr", "daddr", "proto", "dport"), in("linked"+f.digit), verdict(expr.VerdictAccept))})
	}
	return append(rules, rule{"drop", "containers of this network are kept apart", []expr.Any{verdict(expr.VerdictDrop)}})
}

// directRules let in what is published, at the container's own address.
func directRules() []rule {
	var rules []rule
	for _, f := range families() {
		rules = append(rules,
			rule{f.words("daddr", "proto", "dport") + " @open" + f.digit + " accept", "published", append(f.load("daddr", "proto", "dport"), in("open"+f.digit), verdict(expr.VerdictAccept))},
			rule{f.words("saddr", "daddr", "proto", "dport") + " @openfrom" + f.digit + " accept", "published, in ranges or to some", append(f.load("saddr", "daddr", "proto", "dport"), in("openfrom"+f.digit), verdict(expr.VerdictAccept))})
	}
	return append(rules, rule{"drop", "nothing else enters a network", []expr.Any{verdict(expr.VerdictDrop)}})
}

// forwardRules: internal comes before established, so that a conversation that
// was begun while the rules were missing does not outlive their return.
func forwardRules(accept firewall.Mark) []rule {
	iif, oif := load(expr.MetaKeyIIFNAME, 1), load(expr.MetaKeyOIFNAME, 1)
	rules := []rule{
		{"iifname . oifname vmap @within", "one network: accept, unless its containers are kept apart", []expr.Any{iif, load(expr.MetaKeyOIFNAME, 2), verdictOf("within")}},
		{"iifname @internal drop", "nothing leaves an internal network", []expr.Any{iif, in("internal"), verdict(expr.VerdictDrop)}},
		{"oifname @internal drop", "nothing enters an internal network", []expr.Any{oif, in("internal"), verdict(expr.VerdictDrop)}},
		{"ct state established,related accept", "answers pass", append(conntrack(expr.CtKeySTATE, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED), verdict(expr.VerdictAccept))},
		{"ct status dnat oifname @networks accept", "published ports", append(translated(), oif, in("networks"), verdict(expr.VerdictAccept))},
	}
	if accept != (firewall.Mark{}) {
		text := fmt.Sprintf("meta mark & %#x == %#x", accept.Mask, accept.Value)
		if accept.Mask == 0xffffffff {
			text = fmt.Sprintf("meta mark %#x", accept.Value)
		}
		rules = append(rules, rule{
			text + " oifname @networks accept", "somebody of this machine has marked it",
			append(marked(accept), oif, in("networks"), verdict(expr.VerdictAccept)),
		})
	}
	return append(rules, rule{"meta nfproto . oifname vmap @into", "whatever else wants to enter a network", []expr.Any{load(expr.MetaKeyNFPROTO, 1), load(expr.MetaKeyOIFNAME, 9), verdictOf("into")}})
}

func postroutingRules() []rule {
	iif, oif := load(expr.MetaKeyIIFNAME, 1), load(expr.MetaKeyOIFNAME, 1)
	snat := func(table string, family uint32) []expr.Any {
		return []expr.Any{
			iif, &expr.Lookup{SourceRegister: 1, DestRegister: 1, IsDestRegSet: true, SetName: table},
			&expr.NAT{Type: expr.NATTypeSourceNAT, Family: family, RegAddrMin: 1, RegAddrMax: 1},
		}
	}
	masquerade := func(rest []expr.Any) []expr.Any {
		return append(append([]expr.Any{iif, in("masq")}, rest...), &expr.Masq{})
	}
	source4, source6 := append(field4(12, 4), in("subnets4")), append(field6(8, 16), in("subnets6"))
	return []rule{
		{"ct status dnat ip saddr 127.0.0.0/8 oifname @networks masquerade", "a container cannot answer to 127.0.0.1", append(append(translated(), field4(12, 1)...), &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{127}}, oif, in("networks"), &expr.Masq{})},
		{"ct status dnat oifname @networks accept", "who asks for a published port is seen as who he is", append(translated(), oif, in("networks"), verdict(expr.VerdictAccept))},
		{"iifname . oifname vmap @within", "one network: no translation", []expr.Any{iif, load(expr.MetaKeyOIFNAME, 2), verdictOf("within")}},
		{"ip saddr @subnets4 snat ip to iifname map @snat4", "a source address of the network's own", append(source4, snat("snat4", unix.NFPROTO_IPV4)...)},
		{"ip6 saddr @subnets6 snat ip6 to iifname map @snat6", "a source address of the network's own", append(source6, snat("snat6", unix.NFPROTO_IPV6)...)},
		{"iifname @masq ip saddr @subnets4 masquerade", "the machine's address", masquerade(source4)},
		{"iifname @masq ip6 saddr @subnets6 masquerade", "the machine's address", masquerade(source6)},
	}
}

// addressFamily is what differs between IPv4 and IPv6 in the rules.
type addressFamily struct {
	digit, name, protocol string
	number                byte
	source, dest, length  uint32 // offsets and length of addresses in the header
	addrRegisters         uint32 // of four bytes, that an address takes
	afterAddr             uint32 // the register after an address in register 1
}

func families() []addressFamily {
	return []addressFamily{
		{"4", "ip", "ipv4", unix.NFPROTO_IPV4, 12, 16, 4, 1, 9},
		{"6", "ip6", "ipv6", unix.NFPROTO_IPV6, 8, 24, 16, 4, 2},
	}
}

// load checks the family and puts fields side by side into registers, for a
// look-up in a set with a key of several parts.
func (f addressFamily) load(fields ...string) []expr.Any {
	exprs := []expr.Any{load(expr.MetaKeyNFPROTO, 1), &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{f.number}}}
	word := uint32(0) // registers of four bytes so far
	for _, field := range fields {
		at := register(word)
		word++
		switch field {
		case "iif":
			exprs = append(exprs, load(expr.MetaKeyIIFNAME, at))
			word += 3
		case "saddr", "daddr":
			offset := f.source
			if field == "daddr" {
				offset = f.dest
			}
			exprs = append(exprs, &expr.Payload{DestRegister: at, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: f.length})
			word += f.addrRegisters - 1
		case "proto":
			exprs = append(exprs, load(expr.MetaKeyL4PROTO, at))
		case "dport":
			exprs = append(exprs, &expr.Payload{DestRegister: at, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2})
		}
	}
	return exprs
}

// register returns the name of the register that begins after a number of
// words of four bytes: the kernel has two names for some of them, and lists the
// one for sixteen bytes.
func register(word uint32) uint32 {
	if word%4 == 0 {
		return unix.NFT_REG_1 + word/4
	}
	return unix.NFT_REG32_00 + word
}

func (f addressFamily) words(fields ...string) string {
	words := make([]string, len(fields))
	for i, field := range fields {
		switch field {
		case "iif":
			words[i] = "iifname"
		case "proto":
			words[i] = "meta l4proto"
		case "dport":
			words[i] = "th dport"
		default:
			words[i] = f.name + " " + field
		}
	}
	return strings.Join(words, " . ")
}

// field4 loads the first bytes of a field of an IPv4 header.
func field4(offset, length uint32) []expr.Any { return header(unix.NFPROTO_IPV4, offset, length) }

// field6 loads the first bytes of a field of an IPv6 header.
func field6(offset, length uint32) []expr.Any { return header(unix.NFPROTO_IPV6, offset, length) }

func header(family byte, offset, length uint32) []expr.Any {
	return []expr.Any{
		load(expr.MetaKeyNFPROTO, 1),
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{family}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length},
	}
}

// destinationTranslated is the bit of conversations whose destination was translated
// (IPS_DST_NAT in nf_conntrack_common.h).
const destinationTranslated = 1 << 5

func translated() []expr.Any { return conntrack(expr.CtKeySTATUS, destinationTranslated) }

func conntrack(key expr.CtKey, bits uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Register: 1, Key: key},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	}
}

// marked matches the mark of a packet. A full mask is none, as nft(8) has it.
func marked(m firewall.Mark) []expr.Any {
	exprs := []expr.Any{load(expr.MetaKeyMARK, 1)}
	if m.Mask != 0xffffffff {
		exprs = append(exprs, &expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(m.Mask), Xor: make([]byte, 4)})
	}
	return append(exprs, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(m.Value)})
}

// load puts a fact about the packet into a register.
func load(key expr.MetaKey, register uint32) expr.Any {
	return &expr.Meta{Key: key, Register: register}
}

func in(set string) expr.Any { return &expr.Lookup{SourceRegister: 1, SetName: set} }

func verdictOf(table string) expr.Any {
	return &expr.Lookup{SourceRegister: 1, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true, SetName: table}
}

func verdict(kind expr.VerdictKind) expr.Any { return &expr.Verdict{Kind: kind} }
