package resolvconf

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Mode is how a sandbox's file relates to the host's.
type Mode uint8

const (
	Internal Mode = iota // names are asked of the resolver at 127.0.0.11
	Legacy               // names are asked of the host's servers, from inside
	HostMode             // the sandbox is the host's namespace
)

// Options say how a sandbox's file differs from the host's. An empty list
// overrides nothing. Check the lists with ParseNameserver, CheckSearch and
// CheckOption when the user gives them: Build leaves out servers that are no
// addresses and takes the other values as they are.
type Options struct {
	Mode    Mode
	Path    string   // of the host's file; for the footer
	IPv6    bool     // the sandbox has IPv6; matters in Legacy
	Servers []string // --dns
	Search  []string // --dns-search; a lone "." leaves none
	Options []string // --dns-option
}

// Upstream is a name server that the resolver at 127.0.0.11 has to ask.
type Upstream struct {
	Addr netip.AddrPort
	Host bool // ask it from the host's namespace, else from the sandbox's
}

// String returns the form of the file's footer.
func (u Upstream) String() string {
	if u.Host {
		return "host(" + u.Addr.Addr().String() + ")"
	}
	return u.Addr.Addr().String()
}

// Result is a sandbox's file and what goes with it.
type Result struct {
	Config    Config     // what the file says
	Text      []byte     // the file, comments included
	Upstreams []Upstream // for the resolver, in order; none but in mode Internal
	NDotsSet  bool       // the host or the user chose ndots; see dns.Config
}

// port is where all name servers listen, RFC 1035, section 4.2.
const port = 53

// resolver is the address of the resolver inside each sandbox of a user network.
func resolver() netip.Addr { return netip.AddrFrom4([4]byte{127, 0, 0, 11}) }

// Build derives a sandbox's file from the host's, by the rules of Docker's
// engine. It keeps no part of its arguments.
func Build(host Config, o Options) Result {
	b := builder{options: o, config: Config{
		Nameservers: slices.Clone(host.Nameservers),
		Search:      slices.Clone(host.Search),
		Options:     slices.Clone(host.Options),
		Other:       slices.Clone(host.Other),
		Invalid:     slices.Clone(host.Invalid),
	}}
	b.override()
	switch o.Mode {
	case Internal:
		b.internal()
	case Legacy:
		b.legacy()
	}
	return Result{
		Config:    b.config,
		Text:      b.text(),
		Upstreams: b.upstreams,
		NDotsSet:  b.ndotsFrom == "host" || b.ndotsFrom == "override",
	}
}

type builder struct {
	options   Options
	config    Config
	upstreams []Upstream
	overrides []string
	ndotsFrom string
	defaults  bool // public servers were put in
}

func (b *builder) override() {
	o := b.options
	if hasNDots(b.config.Options) {
		b.ndotsFrom = "host"
	}
	if len(o.Servers) > 0 {
		b.config.Nameservers = nil
		for _, text := range o.Servers {
			if addr, err := ParseNameserver(text); err == nil {
				b.config.Nameservers = append(b.config.Nameservers, addr)
			} else {
				b.config.Invalid = append(b.config.Invalid, strings.Fields(text)...)
			}
		}
		b.overrides = append(b.overrides, "nameservers")
	}
	if len(o.Search) > 0 {
		b.config.Search = slices.DeleteFunc(slices.Clone(o.Search), func(s string) bool { return s == "." || s == "" })
		b.overrides = append(b.overrides, "search")
	}
	if len(o.Options) > 0 {
		b.config.Options = slices.DeleteFunc(slices.Clone(o.Options), func(s string) bool { return s == "" })
		b.overrides = append(b.overrides, "options")
		b.ndotsFrom = ""
		if hasNDots(b.config.Options) {
			b.ndotsFrom = "override"
		}
	}
}

// internal moves the servers to the resolver and puts it in their place.
func (b *builder) internal() {
	fromHost := len(b.options.Servers) == 0
	for _, addr := range b.config.Nameservers {
		// From inside, the resolver would ask itself. A host's 127.0.0.11 is
		// another resolver: this engine runs in a container.
		if !fromHost && addr.Unmap() == resolver() {
			continue
		}
		b.upstreams = append(b.upstreams, Upstream{Addr: netip.AddrPortFrom(addr, port), Host: fromHost})
	}
	b.config.Nameservers = []netip.Addr{resolver()}
	b.config.Options = slices.DeleteFunc(b.config.Options, func(o string) bool {
		return isNDots(o) && !validNDots(o)
	})
	if b.ndotsFrom == "" {
		// Without it the C library would try the search list before asking
		// for a short name as it stands, and leave the sandbox to do so.
		b.config.Options = append(b.config.Options, "ndots:0")
		b.ndotsFrom = "internal"
	}
}

// legacy drops the host's servers that cannot be reached from inside. Those
// that the user names are the user's affair.
func (b *builder) legacy() {
	if len(b.options.Servers) > 0 {
		return
	}
	b.config.Nameservers = slices.DeleteFunc(b.config.Nameservers, func(a netip.Addr) bool {
		return a.Unmap().IsLoopback() || a.Is6() && !b.options.IPv6
	})
	if len(b.config.Nameservers) > 0 {
		return
	}
	b.defaults = true
	b.config.Nameservers = []netip.Addr{netip.MustParseAddr("8.8.8.8"), netip.MustParseAddr("8.8.4.4")}
	if b.options.IPv6 {
		b.config.Nameservers = append(b.config.Nameservers,
			netip.MustParseAddr("2001:4860:4860::8888"), netip.MustParseAddr("2001:4860:4860::8844"))
	}
}

// header is Docker's to the letter: programs look for it to tell whether the
// file is an engine's.
const header = `# Generated by Docker Engine.
# This file can be edited; Docker Engine will not make further changes once it
# has been modified.

`

func (b *builder) text() []byte {
	s := new(strings.Builder)
	s.WriteString(header)
	s.Write(b.config.Bytes())
	fmt.Fprintf(s, "\n# Based on host file: '%s'%s\n", b.options.Path,
		map[Mode]string{Internal: " (internal resolver)", Legacy: " (legacy)"}[b.options.Mode])
	if b.defaults {
		s.WriteString("# Used default nameservers.\n")
	}
	if len(b.upstreams) > 0 {
		fmt.Fprintf(s, "# ExtServers: %v\n", b.upstreams)
	} else if b.options.Mode == Internal {
		s.WriteString("# NO EXTERNAL NAMESERVERS DEFINED\n")
	}
	if len(b.config.Invalid) > 0 {
		fmt.Fprintf(s, "# Invalid nameservers: %v\n", b.config.Invalid)
	}
	fmt.Fprintf(s, "# Overrides: %v\n", b.overrides)
	if b.ndotsFrom != "" {
		fmt.Fprintf(s, "# Option ndots from: %s\n", b.ndotsFrom)
	}
	return []byte(s.String())
}

// Bytes returns the file without comments. Parse reads the same Config back,
// but for Invalid, which is not written.
func (c Config) Bytes() []byte {
	s := new(strings.Builder)
	for _, addr := range c.Nameservers {
		fmt.Fprintf(s, "nameserver %s\n", addr)
	}
	if len(c.Search) > 0 {
		fmt.Fprintf(s, "search %s\n", strings.Join(c.Search, " "))
	}
	if len(c.Options) > 0 {
		fmt.Fprintf(s, "options %s\n", strings.Join(c.Options, " "))
	}
	for _, line := range c.Other {
		fmt.Fprintf(s, "%s\n", line)
	}
	return []byte(s.String())
}

// Sum returns the digest by which a file that the user has edited is told from
// one as it was written: a file whose Sum is not the one kept is left alone.
func Sum(text []byte) string {
	sum := sha256.Sum256(text)
	return "sha256:" + hex.EncodeToString(sum[:])
}
