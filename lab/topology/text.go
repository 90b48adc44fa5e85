package topology

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/linkspan/linkspan"
)

// Formats are the names that Write knows.
func Formats() []string { return []string{"text", "mermaid", "dot", "svg", "json"} }

// Write prints a picture in one of the Formats.
func Write(w io.Writer, format string, p Picture) error {
	switch format {
	case "", "text":
		_, err := io.WriteString(w, Text(p))
		return err
	case "mermaid":
		_, err := io.WriteString(w, Mermaid(p))
		return err
	case "dot":
		_, err := io.WriteString(w, Dot(p))
		return err
	case "svg":
		_, err := io.WriteString(w, SVG(p))
		return err
	case "json":
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		return encoder.Encode(p)
	}
	return linkspan.Errorf(linkspan.ErrInvalid, "unknown format %q: there are %s", format, strings.Join(Formats(), ", "))
}

// branch is a line of the tree and what hangs from it.
type branch struct {
	text string
	sub  []branch
}

// Text draws the chains of rules, each bridge with its ports and what is at the far
// end of each, and all other links.
func Text(p Picture) string {
	var out strings.Builder
	for _, ns := range p.Namespaces {
		root := p.tree(ns)
		if len(root.sub) == 0 {
			continue
		}
		fmt.Fprintln(&out, root.text)
		writeBranches(&out, "", root.sub)
	}
	return out.String()
}

func writeBranches(out *strings.Builder, indent string, branches []branch) {
	for i, b := range branches {
		joint, below := "├─ ", "│  "
		if i == len(branches)-1 {
			joint, below = "└─ ", "   "
		}
		fmt.Fprintf(out, "%s%s%s\n", indent, joint, b.text)
		writeBranches(out, indent+below, b.sub)
	}
}

// tree is a namespace as a tree. A namespace without rules of which every link is
// already in another's tree, at the far end of a cable to one of its bridges, is
// empty.
func (p Picture) tree(ns Namespace) branch {
	root := branch{text: p.heading(ns)}
	if len(ns.Rules) > 0 {
		rules := branch{text: "rules"}
		for _, chain := range ns.Rules {
			rules.sub = append(rules.sub, branch{text: chain})
		}
		root.sub = append(root.sub, rules)
	}
	for _, l := range ns.Links {
		if l.Master != "" || l.Name == "lo" && ns.Name != "" || p.drawnElsewhere(End{ns.Name, l.Name}) {
			continue
		}
		b := branch{text: describe(l)}
		for _, port := range ns.Links {
			if port.Master == l.Name {
				b.sub = append(b.sub, branch{text: p.cable(ns, port)})
			}
		}
		if l.Kind != "bridge" {
			b.text = p.cable(ns, l)
		}
		root.sub = append(root.sub, b)
	}
	return root
}

func (p Picture) heading(ns Namespace) string {
	if ns.Name == "" || ns.Container == "" {
		return ns.Title()
	}
	return fmt.Sprintf("%s  (netns %s)", ns.Container, ns.Name)
}

// drawnElsewhere tells whether the link is drawn in another namespace, at the far
// end of a cable.
func (p Picture) drawnElsewhere(end End) bool {
	for _, far := range p.others(end) {
		if _, l, _ := p.link(far); far.Namespace != end.Namespace && (l.Master != "" || far.Namespace == "") {
			return true
		}
	}
	return false
}

// cable describes a link and what is at the other ends.
func (p Picture) cable(ns Namespace, l Link) string {
	text := describe(l)
	for _, far := range p.others(End{ns.Name, l.Name}) {
		other, link, known := p.link(far)
		switch {
		case !known:
		case other.Name == ns.Name:
			text += " ── " + link.Name
		default:
			text += fmt.Sprintf(" ── %s: %s", other.Title(), describe(link))
			if len(other.Ports) > 0 {
				text += "  published " + strings.Join(other.Ports, ", ")
			}
		}
	}
	return text
}

// describe is a link in one line.
func describe(l Link) string {
	words := []string{l.Name}
	if !slices.Contains([]string{"veth", "device"}, l.Kind) {
		words = append(words, l.Kind)
	}
	for _, address := range l.Addresses {
		if !address.Addr().IsLinkLocalUnicast() {
			words = append(words, address.String())
		}
	}
	if l.Network != "" {
		words = append(words, "network "+l.Network)
	}
	if l.MTU != 1500 && l.Name != "lo" {
		words = append(words, fmt.Sprintf("mtu %d", l.MTU))
	}
	if !l.Up {
		words = append(words, "DOWN")
	}
	return strings.Join(words, " ")
}
