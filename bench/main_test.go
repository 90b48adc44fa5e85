package bench

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/linkspan/linkspan/internal/nstest"
)

var (
	full = flag.Bool("full", false, "measure, instead of only seeing that it can be measured")
	only = flag.String("only", ".", "cases to run (regular expression)")
)

func TestMain(m *testing.M) { nstest.Main(m) }

// size is how much a case does: the second number with -full.
func size(smoke, measured int) int {
	if *full {
		return measured
	}
	return smoke
}

// TestFigures runs all cases, and prints the table.
func TestFigures(t *testing.T) {
	wanted, err := regexp.Compile(*only)
	if err != nil {
		t.Fatal(err)
	}
	program, err := filepath.Abs("../bin/linkspan")
	if err == nil {
		_, err = os.Stat(program)
	}
	if err != nil {
		t.Fatalf("what is measured is not there (run make build first): %v", err)
	}
	var figures []figure
	for _, c := range []struct {
		name string
		run  func(*testing.T) []figure
	}{
		{"traffic", traffic},
		{"ports", ports},
		{"crowd", crowd},
		{"run", run},
		{"names", names},
		{"lists", lists},
		{"plugin-call", pluginCall},
		{"plugin-joins", pluginJoins},
		{"overlay-traffic", overlayTraffic},
		{"overlay-churn", overlayChurn},
		{"docker", docker},
	} {
		if wanted.MatchString(c.name) {
			t.Run(c.name, func(t *testing.T) {
				figures = append(figures, c.run(t)...)
				if *full {
					t.Logf("load %s\n%s", load(), table(figures))
				}
			})
		}
	}
	if len(figures) == 0 {
		t.Errorf("nothing was measured (-only %s)", *only)
	}
}

// load is what else the machine does.
func load() string {
	out, err := exec.Command("cut", "-d ", "-f1-3", "/proc/loadavg").Output()
	if err != nil {
		return err.Error()
	}
	return string(out[:len(out)-1])
}
