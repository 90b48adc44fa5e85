package nftables

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/sandbox"
)

// Ports plans elements of the maps that translate, in one transaction. A single
// port is one element of a hash map, whose cost does not depend on the others.
// A range that keeps its numbers is one element of a map of intervals; one that
// shifts them is an element a port, because nftables does not add numbers.
func (Backend) Ports(bridge string, ports []sandbox.Port) op.Plan {
	var elements []Element
	var words []string
	for _, p := range ports {
		if p.Relayed() {
			continue
		}
		elements = append(elements, portElements(bridge, p)...)
		words = append(words, p.String())
	}
	if elements == nil {
		return nil
	}
	bySet(elements)
	return op.Plan{{
		Why: "Published: " + strings.Join(words, ", ") + ".",
		Op:  AddElements{elements},
	}}
}

// Links plans elements of the sets of who may ask whom.
func (Backend) Links(_ string, links []sandbox.Link) op.Plan {
	if len(links) == 0 {
		return nil
	}
	elements, words := make([]Element, len(links)), make([]string, len(links))
	for i, l := range links {
		elements[i] = Element{Set: "linked" + family(l.To.Addr()), Key: []string{l.From.String(), l.To.Addr().String(), l.Protocol, span(l.To.Port(), l.Count)}}
		words[i] = l.String()
	}
	bySet(elements)
	return op.Plan{{Why: "Linked: " + strings.Join(words, ", ") + ".", Op: AddElements{elements}}}
}

// bySet puts elements of one set side by side: they fit into one message.
func bySet(elements []Element) {
	slices.SortStableFunc(elements, func(a, b Element) int { return strings.Compare(a.Set, b.Set) })
}

func portElements(bridge string, p sandbox.Port) []Element {
	addr, fam := p.To.Addr().String(), family(p.To.Addr())
	everybody := netip.PrefixFrom(unspecified(p.To.Addr()), 0).String()
	if p.Routed {
		return openElements(p, addr, fam, everybody)
	}
	host := p.Host.String()
	if p.Host.IsUnspecified() {
		host = everybody
	}
	var elements []Element
	if p.Direct {
		elements = openElements(p, addr, fam, everybody)
	}
	for _, from := range sources(p) {
		elements = append(elements, Element{Set: "allowed" + fam, Key: []string{from, host, p.Protocol, span(p.First, p.Count)}})
	}
	if p.Sources != nil {
		elements = append(elements, Element{Set: "guarded" + fam, Key: []string{host, p.Protocol, span(p.First, p.Count)}})
	}
	if p.Count > 1 {
		elements = append(elements, Element{Set: "homeranges" + fam, Key: []string{bridge, host, p.Protocol, span(p.First, p.Count)}})
	}
	if p.Count > 1 && p.First == p.To.Port() {
		return append(elements, Element{Set: "ranges" + fam, Key: []string{host, p.Protocol, span(p.First, p.Count)}, Value: addr})
	}
	home, published, at := "home"+fam, "published"+fam, []string{p.Protocol}
	if !p.Host.IsUnspecified() {
		home, published, at = "homebound"+fam, "bound"+fam, []string{host, p.Protocol}
	}
	for i := range int(p.Count) {
		key := append(slices.Clone(at), strconv.Itoa(int(p.First)+i))
		if p.Count == 1 {
			elements = append(elements, Element{Set: home, Key: append([]string{bridge}, key...)})
		}
		elements = append(elements, Element{Set: published, Key: key, Value: addr + " . " + strconv.Itoa(int(p.To.Port())+i)})
	}
	return elements
}

// openElements opens ports at the container's own address.
func openElements(p sandbox.Port, addr, fam, everybody string) []Element {
	if p.Count == 1 && p.Sources == nil {
		return []Element{{Set: "open" + fam, Key: []string{addr, p.Protocol, strconv.Itoa(int(p.To.Port()))}}}
	}
	from := sources(p)
	if p.Sources == nil {
		from = []string{everybody}
	}
	var elements []Element
	for _, source := range from {
		elements = append(elements, Element{Set: "openfrom" + fam, Key: []string{source, addr, p.Protocol, span(p.To.Port(), p.Count)}})
	}
	return elements
}

// sources returns those of a port's sources that are of its family.
func sources(p sandbox.Port) []string {
	var words []string
	for _, source := range p.Sources {
		if source.Addr().Is4() == p.To.Addr().Is4() {
			words = append(words, source.Masked().String())
		}
	}
	return words
}

func unspecified(addr netip.Addr) netip.Addr {
	if addr.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

func span(first, count uint16) string {
	if count == 1 {
		return strconv.Itoa(int(first))
	}
	return fmt.Sprintf("%d-%d", first, int(first)+int(count)-1)
}
