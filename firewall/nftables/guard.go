package nftables

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/firewall"
	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/op"
)

var _ firewall.Guard = Backend{}

// GuardBase plans the table "bridge linkspan".
func (Backend) GuardBase() op.Plan {
	return op.Plan{{
		Why: "Port security: a frame that comes out of a container's cable is looked at before the bridge learns from it.",
		Op:  AddGuard{},
	}}
}

// Station plans the elements of one port.
func (Backend) Station(s firewall.Station) op.Plan {
	return op.Plan{{
		Why: "The container may send from its own MAC and addresses only, and be neither router nor DHCP server.",
		Op:  GuardPort{Link: s.Link, MAC: s.MAC, Addrs: s.Addrs},
	}}
}

// AddGuard makes the table "bridge linkspan" in the machine's own namespace: a
// chain before the bridge's own work, and sets of who may send what by which
// port. A port that is in no set is not looked at.
type AddGuard struct{}

// Do makes the table in one transaction.
func (AddGuard) Do(_ context.Context, h *kernel.Host) error { return guard().add(h) }

// Undo deletes the table.
func (AddGuard) Undo(_ context.Context, h *kernel.Host) error { return guard().remove(h) }

// Check compares everything but the elements of sets.
func (AddGuard) Check(_ context.Context, h *kernel.Host) error { return guard().check(h) }

func (AddGuard) String() string { return guard().String() }

func guard() ruleset {
	accept := nftables.ChainPolicyAccept
	ifname := nftables.TypeIFName
	own := func(name string, part nftables.SetDatatype) set {
		s := set{Set: nftables.Set{Name: name, KeyType: nftables.MustConcatSetType(ifname, part)}}
		s.decl = "type " + s.KeyType.Name
		return s
	}
	return ruleset{
		table:  &nftables.Table{Name: "linkspan", Family: nftables.TableFamilyBridge},
		family: "bridge",
		sets: []set{
			{nftables.Set{Name: "secured", KeyType: ifname, KeyByteOrder: binaryutil.NativeEndian}, "type ifname"},
			own("macs", nftables.TypeEtherAddr), own("addrs4", nftables.TypeIPAddr), own("addrs6", nftables.TypeIP6Addr),
		},
		chains: []chain{{
			Chain: nftables.Chain{
				Name: "ports", Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookPrerouting,
				Priority: nftables.ChainPriorityRef(-300), Policy: &accept, // before the bridge's own work, and br_netfilter's
			},
			decl: "type filter hook prerouting priority -300", rules: guardRules(),
		}},
	}
}

func guardRules() []rule {
	iif, drop := load(expr.MetaKeyIIFNAME, 1), verdict(expr.VerdictDrop)
	protocol := func(ethertype uint16) []expr.Any {
		return []expr.Any{load(expr.MetaKeyPROTOCOL, 1), &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(ethertype)}}
	}
	transport := func(number byte) []expr.Any {
		return []expr.Any{load(expr.MetaKeyL4PROTO, 1), &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{number}}}
	}
	field := func(base expr.PayloadBase, offset, length, register uint32) expr.Any {
		return &expr.Payload{DestRegister: register, Base: base, Offset: offset, Len: length}
	}
	foreign := func(base expr.PayloadBase, offset, length uint32, table string) []expr.Any {
		return []expr.Any{iif, field(base, offset, length, 2), &expr.Lookup{SourceRegister: 1, SetName: table, Invert: true}, drop}
	}
	begins := func(data ...byte) []expr.Any {
		return []expr.Any{field(expr.PayloadBaseTransportHeader, 0, uint32(len(data)), 1), &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: data}}
	}
	join := func(parts ...[]expr.Any) (all []expr.Any) {
		for _, part := range parts {
			all = append(all, part...)
		}
		return all
	}
	const link, ip = expr.PayloadBaseLLHeader, expr.PayloadBaseNetworkHeader
	const arp, ipv4, ipv6 = unix.ETH_P_ARP, unix.ETH_P_IP, unix.ETH_P_IPV6
	mask := make([]byte, 16)
	mask[0], mask[1] = 0xff, 0xc0
	local := make([]byte, 16)
	local[0], local[1] = 0xfe, 0x80
	linkLocal := []expr.Any{
		field(ip, 8, 16, 1),
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 16, Mask: mask, Xor: make([]byte, 16)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: local},
		verdict(expr.VerdictAccept),
	}
	ours := []expr.Any{verdict(expr.VerdictDrop)}
	return []rule{
		{"iifname != @secured accept", "not a port that is guarded", []expr.Any{iif, &expr.Lookup{SourceRegister: 1, SetName: "secured", Invert: true}, verdict(expr.VerdictAccept)}},
		{"iifname . ether saddr != @macs drop", "a foreign MAC", foreign(link, 6, 6, "macs")},
		{"meta protocol arp iifname . arp saddr ether != @macs drop", "an ARP message about a foreign MAC", join(protocol(arp), foreign(ip, 8, 6, "macs"))},
		{"meta protocol arp iifname . arp saddr ip != @addrs4 drop", "an ARP message about a foreign address", join(protocol(arp), foreign(ip, 14, 4, "addrs4"))},
		{"meta protocol ip meta l4proto udp @th,0,16 67 drop", "a DHCP server's offer", join(protocol(ipv4), transport(unix.IPPROTO_UDP), begins(0, 67), ours)},
		{"meta protocol ip iifname . ip saddr != @addrs4 drop", "a foreign address", join(protocol(ipv4), foreign(ip, 12, 4, "addrs4"))},
		{"meta protocol ip6 meta l4proto udp @th,0,16 547 drop", "a DHCP server's offer", join(protocol(ipv6), transport(unix.IPPROTO_UDP), begins(2, 35), ours)},
		{"meta protocol ip6 meta l4proto ipv6-icmp @th,0,8 134 drop", "a router's advertisement", join(protocol(ipv6), transport(unix.IPPROTO_ICMPV6), begins(134), ours)},
		{"meta protocol ip6 meta l4proto ipv6-icmp @th,0,8 137 drop", "a router's redirection", join(protocol(ipv6), transport(unix.IPPROTO_ICMPV6), begins(137), ours)},
		{"meta protocol ip6 ip6 saddr fe80::/10 accept", "a link-local address is made from the MAC", join(protocol(ipv6), linkLocal)},
		{"meta protocol ip6 iifname . ip6 saddr != @addrs6 drop", "a foreign address", join(protocol(ipv6), foreign(ip, 8, 16, "addrs6"))},
	}
}

// GuardPort guards one port of a bridge, in one transaction.
type GuardPort struct {
	Link  string // the host's end of the container's cable
	MAC   string
	Addrs []netip.Addr
}

// Guards implements firewall.PortGuard.
func (o GuardPort) Guards() string { return o.Link }

// Do adds the elements. It fails with linkspan.ErrUnavailable if the table is
// missing.
func (o GuardPort) Do(_ context.Context, h *kernel.Host) error {
	err := o.each(h, func(conn *nftables.Conn, s *nftables.Set, items []nftables.SetElement) error {
		return conn.SetAddElements(s, items)
	}, true)
	if err != nil {
		return fmt.Errorf("guarding port %s: %w", o.Link, err)
	}
	return nil
}

// Undo deletes the elements.
func (o GuardPort) Undo(_ context.Context, h *kernel.Host) error {
	err := o.each(h, func(conn *nftables.Conn, s *nftables.Set, items []nftables.SetElement) error {
		return conn.SetDeleteElements(s, items)
	}, false)
	if isMissing(err) { // some are gone: the others go one by one
		err = errors.Join(o.removeSingly(h)...)
	}
	if err != nil && !kernel.IsGone(err) {
		return fmt.Errorf("guarding port %s no more: %w", o.Link, err)
	}
	return nil
}

func (o GuardPort) removeSingly(h *kernel.Host) (errs []error) {
	sets, err := o.elements()
	if err != nil {
		return nil
	}
	for _, one := range sets {
		for _, item := range one.items {
			err := h.Transact("", func(conn *nftables.Conn) error { return conn.SetDeleteElements(one.set, []nftables.SetElement{item}) })
			if err != nil && !isMissing(err) {
				errs = append(errs, err)
			}
		}
	}
	return errs
}

// Check looks for each element.
func (o GuardPort) Check(_ context.Context, h *kernel.Host) error {
	var missing []string
	err := o.each(h, func(conn *nftables.Conn, s *nftables.Set, items []nftables.SetElement) error {
		dump, err := conn.GetSetElements(s)
		if err == nil && !holdsAll(dump, items) {
			missing = append(missing, s.Name)
		}
		return err
	}, true)
	if err == nil && len(missing) > 0 {
		err = fmt.Errorf("port %s is missing from set %s (see: nft list table bridge linkspan)", o.Link, strings.Join(missing, ", "))
	}
	return err
}

type guardElements struct {
	set   *nftables.Set
	items []nftables.SetElement
}

// each calls fn for every set with what the port has in it.
func (o GuardPort) each(h *kernel.Host, fn func(*nftables.Conn, *nftables.Set, []nftables.SetElement) error, needed bool) error {
	sets, err := o.elements()
	if err != nil {
		return err
	}
	table := guard()
	return h.Transact("", func(conn *nftables.Conn) error {
		found, err := table.find(conn)
		if err != nil {
			return err
		}
		if !found && needed {
			return linkspan.Errorf(linkspan.ErrUnavailable, "table %s is missing: somebody flushed it (see: %s tables)", table.name(), table.list())
		}
		if !found {
			return nil
		}
		var errs []error
		for _, s := range sets {
			if len(s.items) > 0 {
				errs = append(errs, fn(conn, s.set, s.items))
			}
		}
		return errors.Join(errs...)
	})
}

func (o GuardPort) elements() ([]guardElements, error) {
	name := make([]byte, unix.IFNAMSIZ)
	copy(name, o.Link)
	mac, err := net.ParseMAC(o.MAC)
	if err != nil || len(o.Link) >= unix.IFNAMSIZ {
		return nil, linkspan.Errorf(linkspan.ErrInvalid, "guarding port %q with MAC %q: %w", o.Link, o.MAC, err)
	}
	key := func(part []byte) nftables.SetElement {
		padded := make([]byte, (len(part)+3)/4*4)
		copy(padded, part)
		return nftables.SetElement{Key: append(append([]byte(nil), name...), padded...)}
	}
	table := guard()
	sets := make([]guardElements, len(table.sets))
	for i := range table.sets {
		sets[i].set = &table.sets[i].Set
		sets[i].set.Table = table.table
	}
	sets[0].items = []nftables.SetElement{{Key: name}}
	sets[1].items = []nftables.SetElement{key(mac)}
	for _, addr := range o.all() {
		at := 3
		if addr.Is4() {
			at = 2
		}
		sets[at].items = append(sets[at].items, key(addr.AsSlice()))
	}
	return sets, nil
}

// all are the addresses, and what a station bears that has none yet.
func (o GuardPort) all() []netip.Addr {
	return append(append([]netip.Addr(nil), o.Addrs...), netip.IPv4Unspecified(), netip.IPv6Unspecified())
}

func (o GuardPort) String() string { return script(o.words(), nil) }

// words are the elements as nft writes them, each behind its set.
func (o GuardPort) words() []string {
	words := []string{fmt.Sprintf("secured { %q }", o.Link), fmt.Sprintf("macs { %q . %s }", o.Link, o.MAC)}
	for _, addr := range o.all() {
		digit := "6"
		if addr.Is4() {
			digit = "4"
		}
		words = append(words, fmt.Sprintf("addrs%s { %q . %s }", digit, o.Link, addr))
	}
	return words
}

func script(add, remove []string) string {
	var text strings.Builder
	text.WriteString("nft -f - <<'EOF'\n")
	for _, element := range add {
		text.WriteString("add element bridge linkspan " + element + "\n")
	}
	for _, element := range remove {
		text.WriteString("delete element bridge linkspan " + element + "\n")
	}
	text.WriteString("EOF")
	return text.String()
}
