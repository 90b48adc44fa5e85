package sandbox

import "net/netip"

// Link is what one container may ask of another on a network that keeps its
// containers apart: ports in a row.
type Link struct {
	From     netip.Addr // who asks
	Protocol string
	To       netip.AddrPort // the first port
	Count    uint16         // at least 1
}

// String returns the link as ports are printed: 10.77.0.3 -> 10.77.0.2 80/tcp.
func (l Link) String() string {
	return l.From.String() + " -> " + l.To.Addr().String() + " " + span(l.To.Port(), l.Count) + "/" + l.Protocol
}
