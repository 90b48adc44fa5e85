package dns

import (
	"net/netip"
	"strings"
	"unicode"

	"github.com/linkspan/linkspan"
)

// HostsFile is the content of a sandbox's /etc/hosts, hosts(5). The C library
// reads it before it asks any resolver.
type HostsFile struct {
	IPv6  bool       // the sandbox has IPv6: its fixed lines are written
	Extra []HostLine // --add-host, in the order given
	Links []HostLine // legacy links of the default bridge: alias, host name, name
	Own   []HostLine // the sandbox itself: for each endpoint its IPv4, then its IPv6 line
}

// HostLine is one line: an address and the names that lead to it.
type HostLine struct {
	Addr  netip.Addr
	Names []string
}

// Bytes renders the file: a tab after the address, spaces between names.
func (h HostsFile) Bytes() []byte {
	s := new(strings.Builder)
	s.WriteString("127.0.0.1\tlocalhost\n")
	if h.IPv6 {
		s.WriteString("::1\tlocalhost ip6-localhost ip6-loopback\n" +
			"fe00::\tip6-localnet\n" +
			"ff00::\tip6-mcastprefix\n" +
			"ff02::1\tip6-allnodes\n" +
			"ff02::2\tip6-allrouters\n")
	}
	for _, lines := range [][]HostLine{h.Extra, h.Links, h.Own} {
		for _, line := range lines {
			s.WriteString(line.Addr.String())
			s.WriteByte('\t')
			s.WriteString(strings.Join(line.Names, " "))
			s.WriteByte('\n')
		}
	}
	return []byte(s.String())
}

// OwnLines returns the lines by which a sandbox knows itself under its host
// name, for the addresses of its endpoints in order. A host name with a dot, or
// with a domain, is followed by its first label.
func OwnLines(hostname, domainname string, addrs []netip.Addr) []HostLine {
	names := []string{hostname}
	if domainname != "" {
		names[0] += "." + domainname
	}
	if short, _, ok := strings.Cut(names[0], "."); ok {
		names = append(names, short)
	}
	lines := make([]HostLine, 0, len(addrs))
	for _, addr := range addrs {
		lines = append(lines, HostLine{Addr: addr, Names: names})
	}
	return lines
}

// HostGateway stands, in place of an address, for the host as the sandbox
// reaches it.
const HostGateway = "host-gateway"

// ExtraHost is one value of --add-host.
type ExtraHost struct {
	Name    string
	Addr    netip.Addr // invalid if Gateway
	Gateway bool       // HostGateway was given
}

// ParseExtraHost reads "name:address" or "name=address". An IPv6 address may
// stand in brackets and need not. The texts of its refusals are Docker's.
func ParseExtraHost(s string) (ExtraHost, error) {
	i := strings.IndexAny(s, ":=")
	if i <= 0 || !plainHostName(s[:i]) {
		return ExtraHost{}, linkspan.Errorf(linkspan.ErrInvalid, "bad format for add-host: %q", s)
	}
	name, value := s[:i], s[i+1:]
	if value == HostGateway {
		return ExtraHost{Name: name, Gateway: true}, nil
	}
	inner, bracket := strings.CutPrefix(value, "[")
	if bracket {
		inner, bracket = strings.CutSuffix(inner, "]")
		if !bracket || !strings.Contains(inner, ":") {
			inner = "" // half a pair, or brackets around IPv4
		}
	}
	addr, err := netip.ParseAddr(inner)
	if err != nil || addr.Zone() != "" {
		return ExtraHost{}, linkspan.Errorf(linkspan.ErrInvalid, "invalid IP address in add-host: %q", value)
	}
	return ExtraHost{Name: name, Addr: addr}, nil
}

// String returns the form of the Docker Engine API, field ExtraHosts.
func (e ExtraHost) String() string {
	if e.Gateway {
		return e.Name + ":" + HostGateway
	}
	return e.Name + ":" + e.Addr.String()
}

// ExtraLines turns parsed values into lines, in order. A value with
// HostGateway becomes one line for each of the gateways.
func ExtraLines(hosts []ExtraHost, gateways []netip.Addr) ([]HostLine, error) {
	var lines []HostLine
	for _, h := range hosts {
		if !h.Gateway {
			lines = append(lines, HostLine{Addr: h.Addr, Names: []string{h.Name}})
			continue
		}
		if len(gateways) == 0 {
			return nil, linkspan.Errorf(linkspan.ErrInvalid, "unable to derive the IP value for host-gateway")
		}
		for _, g := range gateways {
			lines = append(lines, HostLine{Addr: g, Names: []string{h.Name}})
		}
	}
	return lines, nil
}

// plainHostName refuses what would end the line, the field, or begin a comment.
func plainHostName(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '#' || unicode.IsSpace(r) })
}
