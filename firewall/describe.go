package firewall

import (
	"fmt"
	"slices"
	"strings"
)

// Describe says in one sentence what is enforced.
func (n Network) Describe() string {
	var text strings.Builder
	switch {
	case n.Internal:
		fmt.Fprintf(&text, "Internal: nothing is forwarded into or out of %s", n.Bridge)
	case n.Mode4 == n.Mode6:
		text.WriteString(admitted(n.Mode4) + " forwarded into " + n.Bridge)
	default:
		fmt.Fprintf(&text, "%s forwarded into %s over IPv4; over IPv6 %s", admitted(n.Mode4), n.Bridge, lowered(admitted(n.Mode6)))
	}
	if n.Opens(false) || n.Opens(true) {
		text.WriteString("; published ports are open at the containers' own addresses too")
		if !n.Direct {
			text.WriteString(", to what comes in by " + strings.Join(n.Trusted, " or "))
		}
	}
	if slices.ContainsFunc(n.Subnets, n.Masqueraded) {
		text.WriteString("; what leaves it bears the machine's address")
	}
	if !n.ICC {
		text.WriteString(", and none of its containers reaches another")
	}
	text.WriteByte('.')
	return text.String()
}

func admitted(mode Mode) string {
	switch mode {
	case Unprotected:
		return "Everything is"
	case Routed:
		return "Answers, ICMP and published ports are"
	}
	return "Only answers and published ports are"
}

func lowered(sentence string) string { return strings.ToLower(sentence[:1]) + sentence[1:] }
