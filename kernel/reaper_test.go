package kernel_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/kernel"
)

// gone waits until a machine has only lo.
func gone(t *testing.T, m *nstest.Machine) {
	t.Helper()
	var links string
	if !nstest.Until(3*time.Second, func() bool { links = m.Sh(t, "ls /sys/class/net"); return strings.TrimSpace(links) == "lo" }) {
		t.Errorf("links are left: %s", strings.Join(strings.Fields(links), " "))
	}
}

func TestDoomFreesNamesAtOnce(t *testing.T) {
	m := nstest.New(t)
	h := m.Host()
	ok(t, h.PinNetns("box"))
	defer h.UnpinNetns("box")
	const lab = `ip link add br0 group 27763 type bridge
ip link add v0 group 27763 master br0 type veth peer name eth0 netns box
ip link set br0 up; ip link set v0 up; ip -n box link set eth0 up`
	m.Sh(t, lab)
	start := time.Now()
	ok(t, h.Doom("v0", "box"))
	veth := time.Since(start)
	ok(t, h.Doom("br0", ""))
	t.Logf("cutting off a veth took %v, a bridge %v", veth, time.Since(start)-veth)
	m.Sh(t, lab) // all three names are free, reaped or not
	ok(t, h.Doom("v0", "box"))
	ok(t, h.Doom("br0", ""))
	gone(t, m)
	if links := m.Sh(t, "ip -n box -br link"); strings.Contains(links, "eth0") || strings.Contains(links, "doomed") {
		t.Errorf("far ends are left:\n%s", links)
	}
}

func TestDoomLeavesOthersAlone(t *testing.T) {
	m := nstest.New(t)
	m.Sh(t, "ip link add br0 group 5 type bridge; ip link set br0 up")
	before := m.Dump(t)
	err := m.Host().Doom("br0", "")
	if !errors.Is(err, linkspan.ErrConflict) || !strings.Contains(err.Error(), "br0") || !strings.Contains(err.Error(), "ip -d link show") {
		t.Errorf("dooming a link of somebody else: %v; want a conflict that names it and how to see it", err)
	}
	if diff := nstest.Diff(before, m.Dump(t)); diff != "" {
		t.Errorf("it was changed:\n%s", diff)
	}
	ok(t, m.Host().Doom("missing", ""))
	ok(t, m.Host().Doom("missing", "nowhere"))
}

// The reaper takes every doomed link in one request: a hundred take no longer
// than the grace periods of a few.
func TestReaperDeletesByGroup(t *testing.T) {
	m := nstest.New(t)
	for _, count := range []int{1, 100} {
		m.Sh(t, fmt.Sprintf("for i in $(seq %d); do echo link add v$i group 27763 type veth peer name p$i; done | ip -batch -", count))
		m.Sh(t, "ip link add keep type bridge")
		start := time.Now()
		for i := range count {
			ok(t, m.Host().Doom(fmt.Sprintf("v%d", i+1), ""))
		}
		cut := time.Since(start)
		start = time.Now()
		ok(t, m.Host().Reap())
		t.Logf("%d veth pairs: cutting off %v, reaping %v", count, cut, time.Since(start))
		if links := strings.Fields(m.Sh(t, "ls /sys/class/net")); len(links) != 2 {
			t.Errorf("after Reap there are %v, want keep and lo", links)
		}
		m.Sh(t, "ip link del keep")
	}
}

func TestReapWithNothingToDo(t *testing.T) {
	m := nstest.New(t)
	ok(t, m.Host().Reap())
}

// What an earlier process cut off and did not live to reap is reaped by the next.
func TestReapAfterACrash(t *testing.T) {
	m := nstest.New(t)
	m.Sh(t, fmt.Sprintf("ip link add doomed7 group %d type bridge", kernel.Doomed))
	ok(t, m.Host().Reap())
	gone(t, m)
}

func TestCloseWaitsForTheReaper(t *testing.T) {
	m := nstest.New(t)
	for range 10 {
		h, err := kernel.OpenAt(kernel.Pin(m.Name()))
		ok(t, err)
		m.Sh(t, "ip link add br0 group 27763 type bridge")
		ok(t, h.Doom("br0", ""))
		ok(t, h.Close())
		if links := m.Sh(t, "ls /sys/class/net"); strings.TrimSpace(links) != "lo" {
			t.Fatalf("Close returned before the reaper was done: %v", strings.Fields(links))
		}
	}
}

func TestDoomInParallel(t *testing.T) {
	m := nstest.New(t)
	const count = 40
	m.Sh(t, fmt.Sprintf("for i in $(seq %d); do echo link add b$i group 27763 type bridge; done | ip -batch -", count))
	var group sync.WaitGroup
	for i := range count {
		for range 2 { // twice each: the second finds it gone, or doomed
			group.Go(func() {
				if err := m.Host().Doom(fmt.Sprintf("b%d", i+1), ""); err != nil {
					t.Error(err)
				}
			})
		}
	}
	group.Wait()
	gone(t, m)
}
