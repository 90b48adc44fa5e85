package nftables

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
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
	own := func(name string, parts ...nftables.SetDatatype) set {
		s := set{Set: nftables.Set{Name: name, KeyType: nftables.MustConcatSetType(append([]nftables.SetDatatype{ifname}, parts...)...)}}
		s.decl = "type " + s.KeyType.Name
		return s
	}
	return ruleset{
		table:  &nftables.Table{Name: "linkspan", Family: nftables.TableFamilyBridge},
		family: "bridge",
		sets: []set{
			{nftables.Set{Name: "secured", KeyType: ifname, KeyByteOrder: binaryutil.NativeEndian}, "type ifname"},
			own("macs", nftables.TypeEtherAddr),
			own("stations4", nftables.TypeEtherAddr, nftables.TypeIPAddr), own("stations6", nftables.TypeEtherAddr, nftables.TypeIP6Addr),
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

// guardRules begin with what nearly every frame is, so that it pays for one
// look-up. Fragments have no port to compare, and go the long way.
func guardRules() []rule {
	const link, ip, transport = expr.PayloadBaseLLHeader, expr.PayloadBaseNetworkHeader, expr.PayloadBaseTransportHeader
	iif, accept, drop := load(expr.MetaKeyIIFNAME, 1), []expr.Any{verdict(expr.VerdictAccept)}, []expr.Any{verdict(expr.VerdictDrop)}
	field := func(base expr.PayloadBase, offset, length, register uint32) expr.Any {
		return &expr.Payload{DestRegister: register, Base: base, Offset: offset, Len: length}
	}
	is := func(what expr.Any, data ...byte) []expr.Any {
		return []expr.Any{what, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: data}}
	}
	not := func(what expr.Any, data ...byte) []expr.Any {
		return []expr.Any{what, &expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: data}}
	}
	protocol := load(expr.MetaKeyPROTOCOL, 1)
	arp, ipv4, ipv6 := is(protocol, 0x08, 0x06), is(protocol, 0x08, 0x00), is(protocol, 0x86, 0xdd)
	carries := load(expr.MetaKeyL4PROTO, 1)
	udp, icmpv6 := is(carries, unix.IPPROTO_UDP), is(carries, unix.IPPROTO_ICMPV6)
	port, kind := field(transport, 0, 2, 1), field(transport, 0, 1, 1)
	lookup := func(set string, foreign bool, fields ...expr.Any) []expr.Any {
		return append(append([]expr.Any{iif}, fields...), &expr.Lookup{SourceRegister: 1, SetName: set, Invert: foreign})
	}
	sender := field(link, 6, 6, 2)
	station := func(set string, foreign bool, offset, length uint32) []expr.Any {
		return lookup(set, foreign, sender, field(ip, offset, length, register(6)))
	}
	mask, local := make([]byte, 16), make([]byte, 16)
	mask[0], mask[1], local[0], local[1] = 0xff, 0xc0, 0xfe, 0x80
	linkLocal := []expr.Any{
		field(ip, 8, 16, 1),
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 16, Mask: mask, Xor: make([]byte, 16)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: local},
	}
	all := slices.Concat[[]expr.Any]
	return []rule{
		{"meta protocol ip @th,0,16 != 67 iifname . ether saddr . ip saddr @stations4 accept", "its own address, and no DHCP server's offer", all(ipv4, not(port, 0, 67), station("stations4", false, 12, 4), accept)},
		{"meta protocol ip6 meta l4proto != ipv6-icmp @th,0,16 != 547 iifname . ether saddr . ip6 saddr @stations6 accept", "its own address, no DHCP server's offer, no router", all(ipv6, not(carries, unix.IPPROTO_ICMPV6), not(port, 2, 35), station("stations6", false, 8, 16), accept)},
		{"iifname != @secured accept", "not a port that is guarded", all(lookup("secured", true), accept)},
		{"iifname . ether saddr != @macs drop", "a foreign MAC", all(lookup("macs", true, sender), drop)},
		{"meta protocol arp iifname . arp saddr ether != @macs drop", "an ARP message about a foreign MAC", all(arp, lookup("macs", true, field(ip, 8, 6, 2)), drop)},
		{"meta protocol arp iifname . ether saddr . arp saddr ip != @stations4 drop", "an ARP message about a foreign address", all(arp, station("stations4", true, 14, 4), drop)},
		{"meta protocol ip meta l4proto udp @th,0,16 67 drop", "a DHCP server's offer", all(ipv4, udp, is(port, 0, 67), drop)},
		{"meta protocol ip iifname . ether saddr . ip saddr != @stations4 drop", "a foreign address", all(ipv4, station("stations4", true, 12, 4), drop)},
		{"meta protocol ip6 meta l4proto udp @th,0,16 547 drop", "a DHCP server's offer", all(ipv6, udp, is(port, 2, 35), drop)},
		{"meta protocol ip6 meta l4proto ipv6-icmp @th,0,8 134 drop", "a router's advertisement", all(ipv6, icmpv6, is(kind, 134), drop)},
		{"meta protocol ip6 meta l4proto ipv6-icmp @th,0,8 137 drop", "a router's redirection", all(ipv6, icmpv6, is(kind, 137), drop)},
		{"meta protocol ip6 ip6 saddr fe80::/10 accept", "a link-local address is made from the MAC", all(ipv6, linkLocal, accept)},
		{"meta protocol ip6 iifname . ether saddr . ip6 saddr != @stations6 drop", "a foreign address", all(ipv6, station("stations6", true, 8, 16), drop)},
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

// Do adds the elements, and the table before them if somebody has flushed it.
func (o GuardPort) Do(_ context.Context, h *kernel.Host) error {
	add := func() error {
		return o.each(h, func(conn *nftables.Conn, s *nftables.Set, items []nftables.SetElement) error {
			return conn.SetAddElements(s, items)
		}, func(conn *nftables.Conn, table ruleset) (bool, error) {
			_, err := table.again(conn)
			return true, err
		})
	}
	err := add()
	if isMissing(err) { // it was flushed after we had found it
		err = add()
	}
	if err != nil {
		return fmt.Errorf("guarding port %s: %w", o.Link, err)
	}
	return nil
}

// Undo deletes the elements.
func (o GuardPort) Undo(_ context.Context, h *kernel.Host) error {
	err := o.each(h, func(conn *nftables.Conn, s *nftables.Set, items []nftables.SetElement) error {
		return conn.SetDeleteElements(s, items)
	}, isThere)
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
	}, mustBeThere)
	if err == nil && len(missing) > 0 {
		err = fmt.Errorf("port %s is missing from set %s (see: nft list table bridge linkspan)", o.Link, strings.Join(missing, ", "))
	}
	return err
}

type guardElements struct {
	set   *nftables.Set
	items []nftables.SetElement
}

// isThere tells whether the table is there, for those who have nothing to do in
// one that is missing; to the others mustBeThere is an error.
func isThere(conn *nftables.Conn, table ruleset) (bool, error) { return table.find(conn) }

func mustBeThere(conn *nftables.Conn, table ruleset) (bool, error) {
	found, err := table.find(conn)
	if err == nil && !found {
		err = linkspan.Errorf(linkspan.ErrUnavailable, "table %s is missing: somebody flushed it (see: %s tables)", table.name(), table.list())
	}
	return found, err
}

// each calls fn for every set with what the port has in it, if prepare says so of
// the table.
func (o GuardPort) each(h *kernel.Host, fn func(*nftables.Conn, *nftables.Set, []nftables.SetElement) error, prepare func(*nftables.Conn, ruleset) (bool, error)) error {
	sets, err := o.elements()
	if err != nil {
		return err
	}
	table := guard()
	return h.Transact("", func(conn *nftables.Conn) error {
		found, err := prepare(conn, table)
		if err != nil || !found {
			return err
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
	station := slices.Concat(name, padded(mac))
	table := guard()
	sets := make([]guardElements, len(table.sets))
	for i := range table.sets {
		sets[i].set = &table.sets[i].Set
		sets[i].set.Table = table.table
	}
	sets[0].items = []nftables.SetElement{{Key: name}}
	sets[1].items = []nftables.SetElement{{Key: station}}
	for _, addr := range o.all() {
		at := 3
		if addr.Is4() {
			at = 2
		}
		sets[at].items = append(sets[at].items, nftables.SetElement{Key: slices.Concat(station, addr.AsSlice())})
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
		words = append(words, fmt.Sprintf("stations%s { %q . %s . %s }", digit, o.Link, o.MAC, addr))
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
