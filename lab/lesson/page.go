package lesson

import (
	"fmt"
	"strings"
)

// Page is a lesson as a page to read (Markdown), with the names and addresses of
// the empty seed.
func (l Lesson) Page() string {
	var seed Seed
	fill := func(text string) string { return seed.fill(l.Name, text) }
	var page strings.Builder
	fmt.Fprintf(&page, "# %s\n\n%s\n\n    linkspan lab start %s\n\n", l.Title, l.About, l.Name)
	fmt.Fprintf(&page, "Work on the lab's machine, in a shell of your own: `linkspan lab exec %s - sh`, or from outside with `ip -n %s …`.\n", l.Name, fill("{LAB}"))
	for i, t := range l.steps(seed) {
		fmt.Fprintf(&page, "\n## Task %d: %s\n\n%s\n\n", i+1, t.kind, fill(t.text))
		for _, hint := range t.hints {
			fmt.Fprintf(&page, "- Hint: %s\n", fill(hint))
		}
		if t.solution != "" {
			fmt.Fprintf(&page, "\nOne solution:\n\n    %s\n", strings.ReplaceAll(fill(t.solution), "\n", "\n    "))
		}
		fmt.Fprintf(&page, "\n    linkspan lab check %s%s\n", l.Name, map[bool]string{true: " ANSWER"}[t.kind == predict])
	}
	fmt.Fprintf(&page, "\nWhen all is done: `linkspan lab stop %s`.\n", l.Name)
	return page.String()
}
