package nftables

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan/firewall"
	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/op"
)

var _ op.Native = AddResolver{}

// AddResolver makes the table "ip linkspan-dns" in a sandbox's namespace, which
// turns port 53 of 127.0.0.11 into the port that the resolver listens on, and
// back in its answers:
//
//	program ──▶ 127.0.0.11:53 ──output──▶ 127.0.0.11:UDP or TCP ──▶ resolver
//	program ◀── 127.0.0.11:53 ◀──output── 127.0.0.11:UDP or TCP ◀── resolver
//
// Each packet is rewritten by itself, in the raw chain of the output hook, where
// both directions of a conversation over lo pass. No state is kept, so nothing
// switches connection tracking on in the sandbox, and nothing is there to go
// stale. Packets that do not leave by lo pay one comparison. The kernel keeps
// the checksum right: on lo it is still to be computed (CHECKSUM_PARTIAL), and
// covers the header as rewritten. A UDP packet may also come without one (RFC
// 768), and must not get the difference of two.
//
// A program may still bind port 53 of every address (0.0.0.0): what is sent to
// 127.0.0.11 does not reach it, everything else does. The ports must not be 53.
type AddResolver struct {
	NS       string
	UDP, TCP uint16 // where the resolver listens
}

// Do makes the table in one transaction.
func (o AddResolver) Do(_ context.Context, h *kernel.Host) error { return o.ruleset().add(h) }

// Undo deletes the table; a namespace that is gone took it along.
func (o AddResolver) Undo(_ context.Context, h *kernel.Host) error { return o.ruleset().remove(h) }

// Home implements op.Native: no table leaves its namespace.
func (o AddResolver) Home() (ns string) { return o.NS }

// Check compares the table with the kernel's.
func (o AddResolver) Check(_ context.Context, h *kernel.Host) error { return o.ruleset().check(h) }

func (o AddResolver) String() string { return o.ruleset().String() }

func (o AddResolver) ruleset() ruleset {
	accept := nftables.ChainPolicyAccept
	loopback := make([]byte, unix.IFNAMSIZ)
	copy(loopback, "lo")
	rules := []rule{{`oifname != "lo" accept`, "only loopback is of interest", []expr.Any{
		load(expr.MetaKeyOIFNAME, 1),
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: loopback},
		verdict(expr.VerdictAccept),
	}}}
	for _, p := range []transport{
		{name: "udp", number: unix.IPPROTO_UDP, checksum: 6, port: o.UDP},
		{name: "udp", number: unix.IPPROTO_UDP, checksum: 6, absent: true, port: o.UDP},
		{name: "tcp", number: unix.IPPROTO_TCP, checksum: 16, port: o.TCP},
	} {
		rules = append(rules, p.rule("a question", 16, 2, 53, p.port), p.rule("an answer", 12, 0, p.port, 53))
	}
	return ruleset{
		ns:     o.NS,
		table:  &nftables.Table{Name: "linkspan-dns", Family: nftables.TableFamilyIPv4},
		family: "ip",
		chains: []chain{{
			Chain: nftables.Chain{Name: "output", Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityRaw, Policy: &accept},
			decl:  "type filter hook output priority raw", rules: rules,
		}},
	}
}

// transport is a protocol with ports at offsets 0 (source) and 2 (destination)
// of its header (RFC 768, RFC 9293).
type transport struct {
	name     string
	number   byte
	checksum uint32 // offset in the header
	absent   bool   // of UDP packets that have no checksum: must not get half of one
	port     uint16 // the resolver's
}

// rule changes a port, at an offset in the transport header, of packets that
// have the resolver's address at an offset in the IPv4 header (RFC 791).
func (p transport) rule(why string, addr, port uint32, from, to uint16) rule {
	resolver := netip.MustParseAddr(firewall.ResolverAddress).As4()
	sides := map[uint32]string{16: "daddr", 12: "saddr", 2: "dport", 0: "sport"}
	text := fmt.Sprintf("ip %s %s %s %s %d", sides[addr], firewall.ResolverAddress, p.name, sides[port], from)
	exprs := []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: addr, Len: 4},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: resolver[:]},
		load(expr.MetaKeyL4PROTO, 1),
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{p.number}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: port, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(from)},
	}
	write := &expr.Payload{
		OperationType: expr.PayloadWrite, SourceRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: port, Len: 2,
		CsumType: expr.CsumTypeInet, CsumOffset: p.checksum,
	}
	field := p.name + " " + sides[port]
	if p.number == unix.IPPROTO_UDP {
		compare, word := expr.CmpOpNeq, " udp checksum != 0"
		if p.absent {
			// The port by its place: nft(8) then leaves the checksum alone.
			compare, word, field = expr.CmpOpEq, " udp checksum 0", fmt.Sprintf("@th,%d,16", port*8)
			write.CsumType, write.CsumOffset = expr.CsumTypeNone, 0
			why += " without a checksum"
		}
		text += word
		exprs = append(exprs,
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: p.checksum, Len: 2},
			&expr.Cmp{Op: compare, Register: 1, Data: make([]byte, 2)})
	}
	exprs = append(exprs, &expr.Immediate{Register: 1, Data: binaryutil.BigEndian.PutUint16(to)}, write)
	return rule{fmt.Sprintf("%s %s set %d", text, field, to), why, exprs}
}
