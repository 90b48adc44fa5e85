package nftables

import (
	"context"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan/kernel"
)

// AddTable makes the table "inet linkspan" in the machine's own namespace, with
// its rules and its empty sets and maps.
type AddTable struct{}

// Do makes the table in one transaction. It fails with linkspan.ErrConflict if
// there is one of that name, ours or not.
func (AddTable) Do(_ context.Context, h *kernel.Host) error { return base().add(h) }

// Undo deletes the table with all networks' elements.
func (AddTable) Undo(_ context.Context, h *kernel.Host) error { return base().remove(h) }

// Check compares everything but the elements of sets and maps.
func (AddTable) Check(_ context.Context, h *kernel.Host) error { return base().check(h) }

func (AddTable) String() string { return base().String() }

// base returns the table of the package comment.
func base() ruleset {
	accept := nftables.ChainPolicyAccept
	return ruleset{
		table:  &nftables.Table{Name: "linkspan", Family: nftables.TableFamilyINet},
		family: "inet",
		sets:   baseSets(),
		chains: []chain{
			{
				Chain: nftables.Chain{Name: "forward", Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter, Policy: &accept},
				decl:  "type filter hook forward priority filter", rules: forwardRules(),
			},
			{
				Chain: nftables.Chain{Name: "postrouting", Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource, Policy: &accept},
				decl:  "type nat hook postrouting priority srcnat", rules: postroutingRules(),
			},
		},
	}
}

func baseSets() []set {
	ifname := nftables.TypeIFName
	host := binaryutil.NativeEndian // or nft would list names back to front
	return []set{
		{nftables.Set{Name: "within", IsMap: true, KeyType: nftables.MustConcatSetType(ifname, ifname), DataType: nftables.TypeVerdict}, "type ifname . ifname : verdict"},
		{nftables.Set{Name: "internal", KeyType: ifname, KeyByteOrder: host}, "type ifname"},
		{nftables.Set{Name: "into", IsMap: true, KeyType: ifname, DataType: nftables.TypeVerdict, KeyByteOrder: host}, "type ifname : verdict"},
		{nftables.Set{Name: "masq", KeyType: ifname, KeyByteOrder: host}, "type ifname"},
		{nftables.Set{Name: "snat4", IsMap: true, KeyType: ifname, DataType: nftables.TypeIPAddr, KeyByteOrder: host}, "type ifname : ipv4_addr"},
		{nftables.Set{Name: "snat6", IsMap: true, KeyType: ifname, DataType: nftables.TypeIP6Addr, KeyByteOrder: host}, "type ifname : ipv6_addr"},
		{nftables.Set{Name: "subnets4", Interval: true, KeyType: nftables.TypeIPAddr, KeyByteOrder: binaryutil.BigEndian}, "type ipv4_addr; flags interval"},
		{nftables.Set{Name: "subnets6", Interval: true, KeyType: nftables.TypeIP6Addr, KeyByteOrder: binaryutil.BigEndian}, "type ipv6_addr; flags interval"},
	}
}

// forwardRules: internal comes before established, so that a conversation that
// was begun while the rules were missing does not outlive their return.
func forwardRules() []rule {
	iif, oif := load(expr.MetaKeyIIFNAME, 1), load(expr.MetaKeyOIFNAME, 1)
	established := binaryutil.NativeEndian.PutUint32(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED)
	return []rule{
		{"iifname . oifname vmap @within", "one network: accept, or drop if its containers are kept apart", []expr.Any{iif, load(expr.MetaKeyOIFNAME, 2), verdictOf("within")}},
		{"iifname @internal drop", "nothing leaves an internal network", []expr.Any{iif, in("internal"), verdict(expr.VerdictDrop)}},
		{"oifname @internal drop", "nothing enters an internal network", []expr.Any{oif, in("internal"), verdict(expr.VerdictDrop)}},
		{"ct state established,related accept", "answers pass", []expr.Any{
			&expr.Ct{Register: 1, Key: expr.CtKeySTATE},
			&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: established, Xor: make([]byte, 4)},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
			verdict(expr.VerdictAccept),
		}},
		{"oifname vmap @into", "nothing else enters a network", []expr.Any{oif, verdictOf("into")}},
	}
}

func postroutingRules() []rule {
	iif := load(expr.MetaKeyIIFNAME, 1)
	snat := func(table string, family uint32) []expr.Any {
		return []expr.Any{
			iif, &expr.Lookup{SourceRegister: 1, DestRegister: 1, IsDestRegSet: true, SetName: table},
			&expr.NAT{Type: expr.NATTypeSourceNAT, Family: family, RegAddrMin: 1, RegAddrMax: 1},
		}
	}
	masquerade := func(rest []expr.Any) []expr.Any {
		return append(append([]expr.Any{iif, in("masq")}, rest...), &expr.Masq{})
	}
	source4, source6 := source(unix.NFPROTO_IPV4, 12, 4, "subnets4"), source(unix.NFPROTO_IPV6, 8, 16, "subnets6")
	return []rule{
		{"iifname . oifname vmap @within", "one network: no translation", []expr.Any{iif, load(expr.MetaKeyOIFNAME, 2), verdictOf("within")}},
		{"ip saddr @subnets4 snat ip to iifname map @snat4", "a source address of the network's own", append(source4, snat("snat4", unix.NFPROTO_IPV4)...)},
		{"ip6 saddr @subnets6 snat ip6 to iifname map @snat6", "a source address of the network's own", append(source6, snat("snat6", unix.NFPROTO_IPV6)...)},
		{"iifname @masq ip saddr @subnets4 masquerade", "the machine's address", masquerade(source4)},
		{"iifname @masq ip6 saddr @subnets6 masquerade", "the machine's address", masquerade(source6)},
	}
}

// source matches a packet of one family whose source address, at an offset in
// the network header, is in a set.
func source(family byte, offset, length uint32, set string) []expr.Any {
	return []expr.Any{
		load(expr.MetaKeyNFPROTO, 1),
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{family}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length},
		in(set),
	}
}

// load puts a fact about the packet into a register of 16 bytes.
func load(key expr.MetaKey, register uint32) expr.Any {
	return &expr.Meta{Key: key, Register: register}
}

func in(set string) expr.Any { return &expr.Lookup{SourceRegister: 1, SetName: set} }

func verdictOf(table string) expr.Any {
	return &expr.Lookup{SourceRegister: 1, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true, SetName: table}
}

func verdict(kind expr.VerdictKind) expr.Any { return &expr.Verdict{Kind: kind} }
