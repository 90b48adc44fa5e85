package topology

import (
	"fmt"
	"strings"
)

// node is an identifier without characters that Mermaid or dot would take for
// their own.
func node(end End) string {
	var id strings.Builder
	id.WriteByte('n')
	for _, r := range end.Namespace + "/" + end.Link {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			id.WriteRune(r)
		} else {
			fmt.Fprintf(&id, "_%x", r)
		}
	}
	return id.String()
}

// label is a link's description without quotes, which end a label.
func label(l Link) string { return strings.NewReplacer(`"`, "'", "\n", " ").Replace(describe(l)) }

// edges are the lines between links: cables, and ports to their bridges.
func (p Picture) edges() []Cable {
	edges := append([]Cable(nil), p.Cables...)
	for _, ns := range p.Namespaces {
		for _, l := range ns.Links {
			if l.Master != "" {
				edges = append(edges, Cable{End{ns.Name, l.Name}, End{ns.Name, l.Master}})
			}
		}
	}
	return edges
}

// Mermaid draws a flowchart with a box a namespace (https://mermaid.js.org).
func Mermaid(p Picture) string {
	var out strings.Builder
	out.WriteString("flowchart LR\n")
	for i, ns := range p.Namespaces {
		fmt.Fprintf(&out, "  subgraph ns%d[\"%s\"]\n", i, strings.ReplaceAll(ns.Title(), `"`, "'"))
		for _, l := range ns.Links {
			fmt.Fprintf(&out, "    %s[\"%s\"]\n", node(End{ns.Name, l.Name}), label(l))
		}
		if len(ns.Rules) > 0 {
			fmt.Fprintf(&out, "    rules%d[\"%s\"]\n", i, strings.ReplaceAll(strings.Join(ns.Rules, "<br/>"), `"`, "'"))
		}
		out.WriteString("  end\n")
	}
	for _, e := range p.edges() {
		fmt.Fprintf(&out, "  %s --- %s\n", node(e.From), node(e.To))
	}
	return out.String()
}

// Dot draws a graph with a cluster a namespace (https://graphviz.org/doc/info/lang.html).
func Dot(p Picture) string {
	var out strings.Builder
	out.WriteString("graph topology {\n  rankdir=LR; node [shape=box];\n")
	for i, ns := range p.Namespaces {
		fmt.Fprintf(&out, "  subgraph cluster_%d {\n    label=%q;\n", i, ns.Title())
		for _, l := range ns.Links {
			fmt.Fprintf(&out, "    %s [label=%q];\n", node(End{ns.Name, l.Name}), label(l))
		}
		if len(ns.Rules) > 0 {
			fmt.Fprintf(&out, "    rules%d [shape=note,label=%q];\n", i, strings.Join(ns.Rules, "\n"))
		}
		out.WriteString("  }\n")
	}
	for _, e := range p.edges() {
		fmt.Fprintf(&out, "  %s -- %s;\n", node(e.From), node(e.To))
	}
	out.WriteString("}\n")
	return out.String()
}
