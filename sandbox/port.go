package sandbox

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/linkspan/linkspan"
)

// The protocols whose ports can be published.
const (
	TCP  = "tcp"
	UDP  = "udp"
	SCTP = "sctp"
)

// Wish is what a user wants published: a port of the container, or several in a
// row. It outlives the container's runs.
type Wish struct {
	Protocol string
	Port     uint16     // of the container; the first of Count
	Count    uint16     // at least 1
	Host     netip.Addr `json:",omitzero"` // address of the host; zero: the network's default

	// First and Last are the host's ports. With Count 1, any one of them will
	// do, and 0 and 0 leave the choice to the engine. With more, the n-th port
	// of the host leads to the n-th of the container.
	First, Last uint16 `json:",omitempty"`

	// Sources are who may use the port; none: everybody who reaches it.
	Sources []netip.Prefix `json:",omitempty"`
}

// Port is a published port as used, or several in a row: the n-th port of the
// host leads to the n-th of the container.
type Port struct {
	Protocol string
	Host     netip.Addr     // an address of the host; unspecified: all of its family
	First    uint16         // of the host
	Count    uint16         // at least 1
	To       netip.AddrPort // the container's address, and the first of its ports

	// Routed says that nothing is translated: the ports are open at the
	// container's own address, and Host and First mean nothing.
	Routed bool `json:",omitempty"`

	// Direct says that a port that is translated is open at the container's own
	// address too, as far as the network lets anybody ask there.
	Direct bool `json:",omitempty"`

	Sources []netip.Prefix `json:",omitempty"` // see Wish
	Limit   Limit          `json:",omitzero"`
}

// Limit is the place for bounds on what passes a published port. Nothing sets
// or enforces them yet.
type Limit struct {
	In, Out uint64 `json:",omitempty"` // bytes per second; 0: none
}

// Last returns the last port of the host.
func (p Port) Last() uint16 { return p.First + p.Count - 1 }

// Relayed tells whether address translation cannot help, because the two ends
// are of different families: the container's shim passes the bytes on.
func (p Port) Relayed() bool { return !p.Routed && p.Host.Is4() != p.To.Addr().Is4() }

// String returns the port as docker port prints it: 0.0.0.0:8080->80/tcp.
func (p Port) String() string {
	inside := span(p.To.Port(), p.Count) + "/" + p.Protocol
	if p.Routed {
		return p.To.Addr().String() + " " + inside
	}
	return p.Address() + "->" + inside
}

// Address returns the host's side of the port: [::1]:8000-8010.
func (p Port) Address() string {
	if p.Host.Is6() {
		return "[" + p.Host.String() + "]:" + span(p.First, p.Count)
	}
	return p.Host.String() + ":" + span(p.First, p.Count)
}

func span(first, count uint16) string {
	if count <= 1 {
		return strconv.Itoa(int(first))
	}
	return fmt.Sprintf("%d-%d", first, int(first)+int(count)-1)
}

// Overlaps tells whether two published ports claim the same port of the host.
// An unspecified address stands for every address of its family.
func (p Port) Overlaps(q Port) bool {
	sameAddress := p.Host == q.Host || p.Host.Is4() == q.Host.Is4() && (p.Host.IsUnspecified() || q.Host.IsUnspecified())
	return !p.Routed && !q.Routed && p.Protocol == q.Protocol && sameAddress && p.First <= q.Last() && q.First <= p.Last()
}

// Merge joins ports that follow each other on both sides, so that a range that
// a client spelled out port by port is one again.
func Merge(ports []Port) []Port {
	ports = slices.Clone(ports)
	slices.SortFunc(ports, func(a, b Port) int {
		return cmp.Or(
			strings.Compare(a.Protocol, b.Protocol), a.Host.Compare(b.Host), a.To.Addr().Compare(b.To.Addr()),
			// Ports with the same distance from the container's side by side.
			cmp.Compare(int(a.First)-int(a.To.Port()), int(b.First)-int(b.To.Port())), cmp.Compare(a.To.Port(), b.To.Port()),
		)
	})
	var merged []Port
	for _, p := range ports {
		if n := len(merged) - 1; n >= 0 && merged[n].continues(p) {
			merged[n].Count += p.Count
			continue
		}
		merged = append(merged, p)
	}
	return merged
}

// continues tells whether q begins where p ends, and is like it otherwise.
func (p Port) continues(q Port) bool {
	next := p
	next.First, next.Count = p.First+p.Count, q.Count
	if p.Routed {
		next.First = q.First
	}
	next.To = netip.AddrPortFrom(p.To.Addr(), p.To.Port()+p.Count)
	return int(p.To.Port())+int(p.Count) <= 65535 && slices.Equal(p.Sources, q.Sources) && equalButSources(next, q)
}

func equalButSources(p, q Port) bool {
	return p.Protocol == q.Protocol && p.Host == q.Host && p.First == q.First && p.Count == q.Count &&
		p.To == q.To && p.Routed == q.Routed && p.Direct == q.Direct && p.Limit == q.Limit
}

// ParseWish reads one published port as users type it:
//
//	80  8080:80  8000-8010:80  8000-8010:8000-8010/udp  127.0.0.1:8080:80  127.0.0.1::80  [::1]:8080:80/tcp
//
// The error is of kind linkspan.ErrInvalid.
func ParseWish(text string) (Wish, error) {
	w := Wish{Protocol: TCP, Count: 1}
	rest, protocol, given := strings.Cut(text, "/")
	if given {
		w.Protocol = strings.ToLower(protocol)
	}
	if !KnownProtocol(w.Protocol) {
		return w, refuse(text, "protocol %q is not tcp, udp or sctp", w.Protocol)
	}
	host, inside := "", rest
	if i := strings.LastIndexByte(rest, ':'); i >= 0 {
		host, inside = rest[:i], rest[i+1:]
	}
	first, last, err := ParseRange(inside)
	if err != nil {
		return w, refuse(text, "the container's port: %w", err)
	}
	w.Port, w.Count = first, last-first+1
	if host == "" && strings.HasPrefix(rest, ":") {
		return w, refuse(text, "the host's port is empty")
	}
	if i := strings.LastIndexByte(host, ':'); i >= 0 {
		address := host[:i]
		host = host[i+1:]
		if strings.HasPrefix(address, "[") && strings.HasSuffix(address, "]") {
			address = address[1 : len(address)-1]
		}
		if address != "" {
			if w.Host, err = netip.ParseAddr(address); err != nil {
				return w, refuse(text, "invalid IP address: %w", err)
			}
		}
	}
	if host == "" {
		if w.Count > 1 {
			return w, refuse(text, "a range of container ports needs a range of host ports")
		}
		return w, nil
	}
	if w.First, w.Last, err = ParseRange(host); err != nil {
		return w, refuse(text, "the host's port: %w", err)
	}
	if w.Count > 1 && w.Last-w.First+1 != w.Count {
		return w, refuse(text, "ranges of %d host ports and %d container ports do not match", w.Last-w.First+1, w.Count)
	}
	return w, nil
}

func refuse(text, format string, args ...any) error {
	return linkspan.Errorf(linkspan.ErrInvalid, "invalid port specification: %q: "+format, append([]any{text}, args...)...)
}

// KnownProtocol tells whether ports of a protocol can be published.
func KnownProtocol(name string) bool { return name == TCP || name == UDP || name == SCTP }

// ParseRange reads 80 or 8000-8010.
func ParseRange(text string) (first, last uint16, err error) {
	from, to, isRange := strings.Cut(text, "-")
	if first, err = parsePort(from); err != nil || !isRange {
		return first, first, err
	}
	if last, err = parsePort(to); err != nil {
		return first, last, err
	}
	if last < first {
		return first, last, linkspan.Errorf(linkspan.ErrInvalid, "invalid port range: %d-%d", first, last)
	}
	return first, last, nil
}

func parsePort(text string) (uint16, error) {
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil || port == 0 {
		return 0, linkspan.Errorf(linkspan.ErrInvalid, "invalid port %q: a port is a number from 1 to 65535", text)
	}
	return uint16(port), nil
}

// Served tells whether the socket that holds the port must be answered by the
// container's shim: for askers whom translation cannot help. Those are the host
// itself at ::1, whose packets no route leads out of lo, containers of the same
// network, and everybody if the families differ (see Relayed).
func (p Port) Served() bool { return p.Protocol != SCTP && !p.Routed }

// ParseSource reads who may use a port: 192.0.2.0/24, or one address.
func ParseSource(text string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(text); err == nil {
		return addr.Unmap().Prefix(addr.Unmap().BitLen())
	}
	source, err := netip.ParsePrefix(text)
	if err != nil {
		return source, linkspan.Errorf(linkspan.ErrInvalid, "invalid source %q: want a prefix such as 192.0.2.0/24, or an address", text)
	}
	return source.Masked(), nil
}
