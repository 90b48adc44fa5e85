package controller_test

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/internal/nstest"
)

// A daemon with another data root takes away what a dead one has left, unless
// somebody lives on it. The first one, back again, does the same.
func TestTakeOver(t *testing.T) {
	m := nstest.New(t)
	first, second := newRoots(t), newRoots(t)
	d := start(t, m, first)
	d.network(t, "lab", subnet("10.77.0.0/24"))
	a := d.run(t, spec("web", "lab"))
	d.stop(t)

	lives := exec.Command("nsenter", "--net="+a.Netns, "sleep", "1000")
	must(t, lives.Start())
	before := m.Sh(t, "ip -o link; nft list ruleset")
	there := func() bool {
		return m.Sh(t, "readlink /proc/"+fmt.Sprint(lives.Process.Pid)+"/ns/net") != m.Sh(t, "readlink /proc/self/ns/net")
	}
	if !nstest.Until(20*time.Second, there) {
		t.Fatal("the process does not enter the namespace")
	}
	e := opened(t, m, second)
	err := e.Recover(t.Context())
	if !errors.Is(err, linkspan.ErrConflict) || !strings.Contains(err.Error(), fmt.Sprintf("process %d (sleep)", lives.Process.Pid)) {
		t.Errorf("with a container that lives: %v", err)
	}
	if after := m.Sh(t, "ip -o link; nft list ruleset"); after != before {
		t.Errorf("what lives was touched:\n%s\nbefore it was\n%s", after, before)
	}
	e.stop(t)
	must(t, lives.Process.Kill())
	lives.Wait() //nolint:errcheck // it was killed

	e = start(t, m, second)
	if list := m.Sh(t, "ip -o link; nft list ruleset"); strings.Contains(list, "br-") || !strings.Contains(list, "linkspan0") {
		t.Errorf("what is left after somebody else took over:\n%s", list)
	}
	e.network(t, "other", subnet("10.77.0.0/24"))
	e.stop(t)

	d = start(t, m, first)
	d.network(t, "more", subnet("10.78.0.0/24"))
	d.clear(t)
	e = start(t, m, second)
	e.clear(t)
}
