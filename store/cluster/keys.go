package cluster

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"

	"github.com/linkspan/linkspan"
)

// layout makes the names of keys. All of them begin with the root, such as
// /linkspan/v1/:
//
//	networks/ID               the record of a network
//	names/NAME                the ID of the network that has the name
//	vnis/NUMBER               the same of a VXLAN network identifier
//	guard                     changes whenever a network comes or goes
//	cursors/NETWORK           the address that was given last, for the serial order
//	members/ID                a host                                on its life
//	endpoints/NETWORK/ID      an endpoint                           on its life
//	claims/NETWORK/ADDRESS    who has an address                    on its claim
//	keepers/NETWORK/ID        a host that needs the network         on its claim
//	blocks/NETWORK/ADDRESS    which host keeps a block in reserve   on its claim
//
// An address is ipv4/0a000005: its octets in hexadecimal digits, whose order is
// that of addresses, so that a block of them is a range of keys.
type layout struct{ root string }

func (l layout) network(id linkspan.ID) string { return l.root + "networks/" + string(id) }
func (l layout) networks() string              { return l.root + "networks/" }
func (l layout) name(name string) string       { return l.root + "names/" + name }
func (l layout) vni(vni uint32) string         { return fmt.Sprintf("%svnis/%08d", l.root, vni) }
func (l layout) guard() string                 { return l.root + "guard" }
func (l layout) cursor(id linkspan.ID) string  { return l.root + "cursors/" + string(id) }
func (l layout) member(id linkspan.ID) string  { return l.root + "members/" + string(id) }

func (l layout) endpoints(network linkspan.ID) string {
	return l.root + "endpoints/" + string(network) + "/"
}

func (l layout) endpoint(network, id linkspan.ID) string {
	return l.endpoints(network) + string(id)
}

func (l layout) claims(network linkspan.ID) string { return l.root + "claims/" + string(network) + "/" }

func (l layout) claim(network linkspan.ID, addr netip.Addr) string {
	return l.claims(network) + digits(addr)
}

func (l layout) blocks(network linkspan.ID) string { return l.root + "blocks/" + string(network) + "/" }

func (l layout) block(network linkspan.ID, block netip.Prefix) string {
	return l.blocks(network) + digits(block.Addr())
}

func (l layout) keepers(network linkspan.ID) string {
	return l.root + "keepers/" + string(network) + "/"
}

func (l layout) keeper(network, member linkspan.ID) string {
	return l.keepers(network) + string(member)
}

// kind is the first part of a key behind the root.
type kind string

const (
	kindNetwork  kind = "networks"
	kindGuard    kind = "guard"
	kindCursor   kind = "cursors"
	kindMember   kind = "members"
	kindEndpoint kind = "endpoints"
	kindClaim    kind = "claims"
	kindBlock    kind = "blocks"
	kindKeeper   kind = "keepers"
)

// parse takes a key apart: its kind, the network or host that it belongs to, and
// what is left.
func (l layout) parse(key string) (k kind, id linkspan.ID, rest string) {
	first, tail, _ := strings.Cut(strings.TrimPrefix(key, l.root), "/")
	owner, rest, _ := strings.Cut(tail, "/")
	return kind(first), linkspan.ID(owner), rest
}

func digits(addr netip.Addr) string {
	family := "ipv4/"
	if addr.Is6() {
		family = "ipv6/"
	}
	return family + hex.EncodeToString(addr.AsSlice())
}

// fromDigits is the reverse of digits; the zero Addr if there is none.
func fromDigits(text string) netip.Addr {
	_, octets, _ := strings.Cut(text, "/")
	raw, err := hex.DecodeString(octets)
	if err != nil {
		return netip.Addr{}
	}
	addr, _ := netip.AddrFromSlice(raw)
	return addr
}
