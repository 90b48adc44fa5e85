package resolvconf

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Where hosts keep the file. A host that runs systemd-resolved shows its stub
// at the first path and the servers behind it at the second.
const (
	Path           = "/etc/resolv.conf"
	PathBehindStub = "/run/systemd/resolve/resolv.conf"
)

// Config is the content of a resolv.conf file.
type Config struct {
	Nameservers []netip.Addr
	Search      []string // of the last search or domain line, as resolv.conf(5) has it
	Options     []string // of all options lines
	Other       []string // whole lines that begin with an unknown word
	Invalid     []string // values of nameserver lines that are no addresses
}

// Parse reads a resolv.conf file. Any content parses: what makes no sense is
// kept in Other or Invalid, since the C library ignores it as well.
func Parse(content []byte) Config {
	var c Config
	for line := range strings.Lines(string(content)) {
		line = strings.TrimSpace(line)
		if line == "" || comment(line) {
			continue
		}
		words := strings.Fields(line)
		if i := slices.IndexFunc(words, comment); i > 0 {
			words = words[:i]
		}
		key, values := words[0], words[1:]
		switch {
		case key == "nameserver" && len(values) > 0:
			if addr, err := netip.ParseAddr(values[0]); err == nil {
				c.Nameservers = append(c.Nameservers, addr)
			} else {
				c.Invalid = append(c.Invalid, values[0])
			}
		case key == "domain" && len(values) > 0:
			c.Search = values[:1]
		case key == "search":
			c.Search = values
		case key == "options":
			c.Options = append(c.Options, values...)
		case key != "nameserver" && key != "domain":
			c.Other = append(c.Other, line)
		}
	}
	if len(c.Search) == 0 {
		c.Search = nil
	}
	return c
}

func comment(word string) bool { return word[0] == '#' || word[0] == ';' }

// Source returns the host's file that sandboxes in a namespace of their own
// start from, and its path: the one behind the stub, if the stub of
// systemd-resolved is all that the usual one names. Without a file the content
// is empty, as it is for the C library. (A sandbox in the host's namespace
// reaches the stub and starts from Path itself.)
func Source(readFile func(path string) ([]byte, error)) (path string, content []byte, err error) {
	content, err = readFile(Path)
	if errors.Is(err, fs.ErrNotExist) {
		return Path, nil, nil
	}
	if err != nil {
		return "", nil, fmt.Errorf("reading the host's name servers: %w", err)
	}
	stub := netip.AddrFrom4([4]byte{127, 0, 0, 53})
	if servers := Parse(content).Nameservers; len(servers) != 1 || servers[0] != stub {
		return Path, content, nil
	}
	behind, err := readFile(PathBehindStub)
	if errors.Is(err, fs.ErrNotExist) {
		return Path, content, nil
	}
	if err != nil {
		return "", nil, fmt.Errorf("reading the host's name servers: %w", err)
	}
	return PathBehindStub, behind, nil
}

// validNDots reports whether an option is "ndots:N" with a number.
func validNDots(option string) bool {
	value, ok := strings.CutPrefix(option, "ndots:")
	if !ok {
		return false
	}
	n, err := strconv.Atoi(value)
	return err == nil && n >= 0
}

// isNDots reports whether an option means to set ndots, whatever its value.
func isNDots(option string) bool {
	return option == "ndots" || strings.HasPrefix(option, "ndots:")
}

func hasNDots(options []string) bool {
	return slices.ContainsFunc(options, validNDots)
}
