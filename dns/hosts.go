package dns

import (
	"bytes"
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

	// The sandbox itself: one line for each address. A name with a dot, of its
	// own or from the domain, is followed by its first label.
	Hostname   string
	Domainname string       // may be empty
	Own        []netip.Addr // for each endpoint its IPv4, then its IPv6 address
}

// HostLine is one line: an address and the names that lead to it.
type HostLine struct {
	Addr  netip.Addr
	Names []string
}

// Render returns the file: a tab after the address, spaces between names.
func (h HostsFile) Render() []byte {
	s := new(strings.Builder)
	s.WriteString("127.0.0.1\tlocalhost\n")
	if h.IPv6 {
		s.WriteString("::1\tlocalhost ip6-localhost ip6-loopback\n" +
			"fe00::\tip6-localnet\n" +
			"ff00::\tip6-mcastprefix\n" +
			"ff02::1\tip6-allnodes\n" +
			"ff02::2\tip6-allrouters\n")
	}
	for _, lines := range [][]HostLine{h.Extra, h.Links, h.ownLines()} {
		for _, line := range lines {
			s.WriteString(line.Addr.String())
			s.WriteByte('\t')
			s.WriteString(strings.Join(line.Names, " "))
			s.WriteByte('\n')
		}
	}
	return []byte(s.String())
}

func (h HostsFile) ownLines() []HostLine {
	names := []string{h.Hostname}
	if h.Domainname != "" {
		names[0] += "." + h.Domainname
	}
	if short, _, ok := strings.Cut(names[0], "."); ok {
		names = append(names, short)
	}
	lines := make([]HostLine, 0, len(h.Own))
	for _, addr := range h.Own {
		lines = append(lines, HostLine{Addr: addr, Names: names})
	}
	return lines
}

// HostGateway stands, in place of an address, for the host as the sandbox
// reaches it.
const HostGateway = "host-gateway"

// ParseExtraHost reads one value of --add-host, "name:address" or
// "name=address", into lines for HostsFile.Extra. An IPv6 address may stand in
// brackets and need not. HostGateway in place of the address makes one line for
// each of the gateways. The texts of its refusals are Docker's.
func ParseExtraHost(s string, gateways []netip.Addr) ([]HostLine, error) {
	i := strings.IndexAny(s, ":=")
	if i <= 0 || !plainHostName(s[:i]) {
		return nil, linkspan.Errorf(linkspan.ErrInvalid, "bad format for add-host: %q", s)
	}
	names, value := []string{s[:i]}, s[i+1:]
	if value == HostGateway {
		if len(gateways) == 0 {
			return nil, linkspan.Errorf(linkspan.ErrInvalid, "unable to derive the IP value for host-gateway")
		}
		lines := make([]HostLine, 0, len(gateways))
		for _, g := range gateways {
			lines = append(lines, HostLine{Addr: g, Names: names})
		}
		return lines, nil
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
		return nil, linkspan.Errorf(linkspan.ErrInvalid, "invalid IP address in add-host: %q", value)
	}
	return []HostLine{{Addr: addr, Names: names}}, nil
}

// plainHostName refuses what would end the line, the field, or begin a comment.
func plainHostName(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '#' || unicode.IsSpace(r) })
}

// MergeHosts applies to a hosts file that somebody has edited what has changed
// between two texts of ours: lines that fell away go, if they are there as they
// were, and new ones are appended. Everything else stays as it is.
func MergeHosts(edited, was, text []byte) []byte {
	old, fresh := lineSet(was), lineSet(text)
	var out []byte
	for line := range bytes.Lines(edited) {
		bare := string(bytes.TrimSuffix(line, []byte("\n")))
		if old[bare] && !fresh[bare] {
			continue
		}
		out = append(out, line...)
		delete(fresh, bare) // it need not be appended
	}
	if len(out) > 0 && out[len(out)-1] != '\n' {
		out = append(out, '\n')
	}
	for line := range bytes.Lines(text) {
		bare := string(bytes.TrimSuffix(line, []byte("\n")))
		if fresh[bare] && !old[bare] {
			out = append(out, bare...)
			out = append(out, '\n')
			delete(fresh, bare)
		}
	}
	return out
}

func lineSet(text []byte) map[string]bool {
	set := make(map[string]bool)
	for line := range bytes.Lines(text) {
		set[string(bytes.TrimSuffix(line, []byte("\n")))] = true
	}
	return set
}
