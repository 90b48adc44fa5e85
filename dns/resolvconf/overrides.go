package resolvconf

import (
	"net/netip"
	"strings"

	"github.com/linkspan/linkspan"
)

// ParseNameserver reads one value of --dns.
func ParseNameserver(s string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(strings.TrimSpace(s))
	if err != nil {
		return netip.Addr{}, linkspan.Errorf(linkspan.ErrInvalid, "IP address is not correctly formatted: %s", s)
	}
	return addr, nil
}

// CheckSearch refuses a value of --dns-search that is not a domain name, or
// "." for none at all. Anything else could add lines to the file.
func CheckSearch(domain string) error {
	if domain == "." {
		return nil
	}
	name := strings.TrimSuffix(domain, ".")
	if name == "" || len(name) > 253 {
		return badSearch(domain)
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || strings.ContainsFunc(label, func(r rune) bool { return r <= ' ' || r == '#' || r == ';' || r >= 0x7f }) {
			return badSearch(domain)
		}
	}
	return nil
}

func badSearch(domain string) error {
	return linkspan.Errorf(linkspan.ErrInvalid, "%q is not a valid search domain: give a name such as corp.example, or \".\" for none", domain)
}

// CheckOption refuses a value of --dns-option that is not one word.
func CheckOption(option string) error {
	if option == "" || strings.ContainsFunc(option, func(r rune) bool { return r <= ' ' || r >= 0x7f }) || comment(option) {
		return linkspan.Errorf(linkspan.ErrInvalid, "%q is not a valid resolver option: give one word, such as ndots:1 (see resolv.conf(5))", option)
	}
	return nil
}
