package lesson

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the pages of docs/labs anew")

// TestPages compares the pages with the lessons; TestLessons runs every
// solution that is on them.
func TestPages(t *testing.T) {
	for _, l := range Lessons() {
		name := filepath.Join("..", "..", "docs", "labs", l.Name+".md")
		if *update {
			if err := os.WriteFile(name, []byte(l.Page()), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		page, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(page), l.Page()); diff != "" {
			t.Errorf("%s is not what the lesson says (- page, + lesson; make golden writes it anew):\n%s", name, diff)
		}
	}
}
