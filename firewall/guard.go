package firewall

import (
	"net/netip"

	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/op"
)

// Station is a container at a port of a bridge: whom it may claim to be.
type Station struct {
	Link  string // the host's end of its cable
	MAC   string
	Addrs []netip.Addr // of either family
}

// PortGuard is an op that guards one port.
type PortGuard interface {
	op.Op
	Guards() (link string)
}

// Guard plans port security: what a station sends must bear its own MAC and
// addresses, and be neither a router's advertisement nor a DHCP server's offer.
// Otherwise any container with CAP_NET_RAW, which Docker's have, could take a
// neighbour's place, or the gateway's.
type Guard interface {
	// GuardBase plans what all stations share, once per machine.
	GuardBase() op.Plan
	// Station plans the guard of one port. GuardBase must have been done.
	Station(Station) op.Plan

	// MendGuard plans to put back what is missing of GuardBase and of ports that
	// were guarded. It reads what there is once. Nothing missing: an empty plan.
	MendGuard(h *kernel.Host, ports []PortGuard) (op.Plan, error)

	// GuardTables names the tables of nftables whose changes may be about it.
	GuardTables() []string
}
