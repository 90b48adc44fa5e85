package topology

import (
	"encoding/xml"
	"fmt"
	"strings"
)

// Sizes of the drawing, in SVG's user units.
const (
	boxWidth   = 420
	lineHeight = 22
	padding    = 12
	gap        = 90 // between the columns: cables run there
)

// spot is where a link is drawn: the middle of its line's left and right edge.
type spot struct{ left, right, y int }

// SVG draws the machine's own namespace on the left and the others below each
// other on the right, with a line for each cable.
func SVG(p Picture) string {
	spots := map[End]spot{}
	var boxes strings.Builder
	heights := [2]int{padding, padding}
	for _, ns := range p.Namespaces {
		column := 1
		if ns.Name == "" {
			column = 0
		}
		x := padding + column*(boxWidth+gap)
		height := drawBox(&boxes, ns, x, heights[column], spots)
		heights[column] += height + padding
	}
	var lines strings.Builder
	for _, e := range p.edges() {
		drawLine(&lines, spots[e.From], spots[e.To])
	}
	width := 2*padding + 2*boxWidth + gap
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="monospace" font-size="13">
%s%s</svg>
`, width, max(heights[0], heights[1]), &lines, &boxes)
}

// drawBox draws a namespace and returns its height.
func drawBox(out *strings.Builder, ns Namespace, x, y int, spots map[End]spot) int {
	height := lineHeight*(len(ns.Links)+len(ns.Rules)+1) + padding
	fmt.Fprintf(out, `<rect x="%d" y="%d" width="%d" height="%d" rx="6" fill="#f7f7f4" stroke="#555"/>`+"\n", x, y, boxWidth, height)
	fmt.Fprintf(out, `<text x="%d" y="%d" font-weight="bold">%s</text>`+"\n", x+padding, y+lineHeight-4, escape(ns.Title()))
	for i, l := range ns.Links {
		line := y + lineHeight*(i+2) - 4
		fmt.Fprintf(out, `<text x="%d" y="%d">%s</text>`+"\n", x+padding, line, escape(describe(l)))
		spots[End{ns.Name, l.Name}] = spot{x, x + boxWidth, line - 4}
	}
	for i, chain := range ns.Rules {
		line := y + lineHeight*(len(ns.Links)+i+2) - 4
		fmt.Fprintf(out, `<text x="%d" y="%d" font-size="11" fill="#555">%s</text>`+"\n", x+padding, line, escape(chain))
	}
	return height
}

// drawLine joins two links: straight across the gap, or by an arc beside a box
// that holds both.
func drawLine(out *strings.Builder, a, b spot) {
	if a.left == b.left {
		fmt.Fprintf(out, `<path d="M %d %d C %d %d, %d %d, %d %d" fill="none" stroke="#999"/>`+"\n",
			a.right, a.y, a.right+gap/3, a.y, a.right+gap/3, b.y, b.right, b.y)
		return
	}
	if a.left > b.left {
		a, b = b, a
	}
	fmt.Fprintf(out, `<line x1="%d" y1="%d" x2="%d" y2="%d" stroke="#1a6"/>`+"\n", a.right, a.y, b.left, b.y)
}

func escape(text string) string {
	var out strings.Builder
	xml.EscapeText(&out, []byte(text)) //nolint:errcheck // a strings.Builder takes everything
	return out.String()
}
