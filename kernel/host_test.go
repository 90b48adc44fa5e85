package kernel_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/kernel"
)

func TestMain(m *testing.M) { nstest.Main(m) }

// inode identifies a namespace.
func inode(t *testing.T, fd int) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestOpenIsTheProcessAndOpenAtTheMachine(t *testing.T) {
	m := nstest.New(t)
	m.Sh(t, "ip link add inner type bridge")
	outer, err := kernel.Open()
	ok(t, err)
	defer outer.Close()
	for _, place := range []struct {
		host *kernel.Host
		want bool
	}{{outer, false}, {m.Host(), true}} {
		links, err := place.host.Links("")
		ok(t, err)
		_, err = links.LinkByName("inner")
		if got := err == nil; got != place.want {
			t.Errorf("the machine's bridge: found is %v, want %v (%v)", got, place.want, err)
		}
	}
}

func TestOpenAtRefusesWhatIsNoNamespace(t *testing.T) {
	nstest.Leaks(t)
	file := filepath.Join(t.TempDir(), "file")
	ok(t, os.WriteFile(file, nil, 0o600))
	for _, path := range []string{file, file + "-missing", "/proc/self/ns/uts"} {
		before := descriptors(t)
		if h, err := kernel.OpenAt(path); err == nil {
			h.Close()
			t.Errorf("OpenAt(%s) succeeded", path)
		} else if !strings.Contains(err.Error(), path) {
			t.Errorf("OpenAt(%s): the error does not name the path: %v", path, err)
		}
		if after := descriptors(t); after != before {
			t.Errorf("OpenAt(%s) left %d descriptors open", path, after-before)
		}
	}
}

func TestPinAndUnpin(t *testing.T) {
	m := nstest.New(t)
	h := m.Host()
	ok(t, h.PinNetns("box"))
	if list := m.Sh(t, "ip netns list"); !strings.Contains(list, "box") {
		t.Errorf("ip netns lists %q, not the pinned box", list)
	}
	m.Sh(t, "ip -n box link set lo up")
	err := h.PinNetns("box")
	if !errors.Is(err, linkspan.ErrConflict) || !strings.Contains(err.Error(), "box") || !strings.Contains(err.Error(), "ip netns") {
		t.Errorf("pinning a taken name: %v; want a conflict that names it and the command that shows it", err)
	}
	ok(t, h.UnpinNetns("box"))
	ok(t, h.UnpinNetns("box")) // gone already
	if list := m.Sh(t, "ip netns list"); strings.Contains(list, "box") {
		t.Errorf("ip netns lists %q after Unpin", list)
	}
	if _, err := h.Links("box"); !errors.Is(err, linkspan.ErrNotFound) {
		t.Errorf("Links of a namespace that is gone: %v, want ErrNotFound", err)
	}
}

// A namespace that ip netns made is one like any other, and the other way round.
func TestPinsAreThoseOfIPNetns(t *testing.T) {
	m := nstest.New(t)
	m.Sh(t, "ip netns add box; ip -n box link add inner type bridge")
	links, err := m.Host().Links("box")
	ok(t, err)
	if _, err := links.LinkByName("inner"); err != nil {
		t.Error(err)
	}
	ok(t, m.Host().UnpinNetns("box"))
	ok(t, m.Host().PinNetns("box"))
	m.Sh(t, "ip netns del box")
	ok(t, m.Host().UnpinNetns("box"))
}

func TestLeftOverPin(t *testing.T) {
	m := nstest.New(t)
	ok(t, os.WriteFile(kernel.Pin("stale"), nil, 0o444))
	before := descriptors(t)
	_, err := m.Host().Links("stale")
	if !errors.Is(err, linkspan.ErrNotFound) || !strings.Contains(err.Error(), "findmnt") {
		t.Errorf("Links of a file that is no namespace: %v", err)
	}
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors were left open", after-before)
	}
	ok(t, m.Host().UnpinNetns("stale"))
	if _, err := os.Stat(kernel.Pin("stale")); err == nil {
		t.Error("the left-over file is still there")
	}
}

// A second namespace of the same name is another namespace, whoever removed
// the first: the door must not lead to the old one.
func TestDoorOfARecreatedNamespace(t *testing.T) {
	m := nstest.New(t)
	h := m.Host()
	for _, way := range []struct {
		name   string
		remake func()
	}{
		{"by ourselves", func() { ok(t, h.UnpinNetns("box")); ok(t, h.PinNetns("box")) }},
		{"by ip netns", func() { m.Sh(t, "ip netns del box; ip netns add box") }},
	} {
		t.Run(way.name, func(t *testing.T) {
			ok(t, h.PinNetns("box"))
			defer h.UnpinNetns("box")
			m.Sh(t, "ip -n box link add old type bridge")
			links, err := h.Links("box")
			ok(t, err)
			if _, err := links.LinkByName("old"); err != nil {
				t.Fatal(err)
			}
			way.remake()
			m.Sh(t, "ip -n box link add new type bridge")
			if links, err = h.Links("box"); err != nil {
				t.Fatal(err)
			}
			if _, err := links.LinkByName("new"); err != nil {
				t.Errorf("the door leads elsewhere: %v", err)
			}
			if _, err := links.LinkByName("old"); err == nil {
				t.Error("the door leads to the namespace that is gone")
			}
		})
	}
}

func TestInsideIsInside(t *testing.T) {
	m := nstest.New(t)
	h := m.Host()
	ok(t, h.PinNetns("box"))
	defer h.UnpinNetns("box")
	fd, err := h.FD("box")
	ok(t, err)
	ok(t, h.Inside("box", func() error {
		here, err := os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
		if err != nil {
			return err
		}
		defer here.Close()
		if inode(t, int(here.Fd())) != inode(t, fd) {
			t.Error("the thread is in another namespace")
		}
		return nil
	}))
	boom := errors.New("boom")
	if err := h.Inside("box", func() error { return boom }); !errors.Is(err, boom) {
		t.Errorf("Inside returned %v, want the function's error", err)
	}
	if err := h.Inside("nowhere", func() error { return nil }); !errors.Is(err, linkspan.ErrNotFound) {
		t.Errorf("Inside of no namespace: %v", err)
	}
}

// Threads that entered a namespace never come back to run other goroutines.
func TestInsideLeavesNoThread(t *testing.T) {
	m := nstest.New(t)
	h := m.Host()
	ok(t, h.PinNetns("box"))
	defer h.UnpinNetns("box")
	var group sync.WaitGroup
	for worker := range 10 {
		group.Go(func() {
			for i := range 100 {
				if err := h.Inside([]string{"", "box"}[(worker+i)%2], func() error { return nil }); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	for range 200 { // the netlink and nft libraries move threads to open a socket
		h.Transact("box", func(*nftables.Conn) error { return errors.New("so that another is opened") })
	}
	own, err := os.Readlink("/proc/self/ns/net")
	ok(t, err)
	var strays []string
	alone := nstest.Until(3*time.Second, func() bool { // a thread takes a moment to end
		strays = nil
		tasks, err := filepath.Glob("/proc/self/task/*/ns/net")
		ok(t, err)
		for _, task := range tasks {
			if ns, err := os.Readlink(task); err == nil && ns != own {
				strays = append(strays, task+" is in "+ns)
			}
		}
		return len(strays) == 0
	})
	if !alone {
		t.Errorf("threads were left in other namespaces than %s:\n%s", own, strings.Join(strays, "\n"))
	}
}

// descriptors counts what the process has open.
func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	ok(t, err)
	return len(entries)
}

func TestDescriptorsDoNotLeak(t *testing.T) {
	m := nstest.New(t)
	h := m.Host()
	use := func() {
		ok(t, h.PinNetns("box"))
		_, err := h.Links("box")
		ok(t, err)
		ok(t, h.Transact("box", func(c *nftables.Conn) error {
			c.AddTable(&nftables.Table{Name: "t", Family: nftables.TableFamilyINet})
			return nil
		}))
		h.Transact("box", func(c *nftables.Conn) error { return errors.New("fails") })
		ok(t, h.UnpinNetns("box"))
	}
	use()
	before := descriptors(t)
	start := time.Now()
	for range 500 {
		use()
	}
	t.Logf("pin, use and unpin: %v each", time.Since(start)/500)
	after := 0
	if !nstest.Until(10*time.Second, func() bool { after = descriptors(t); return after <= before }) {
		t.Errorf("%d descriptors are open, %d were before", after, before)
	}
}

func TestHostsDoNotLeakDescriptors(t *testing.T) {
	m := nstest.New(t)
	before := descriptors(t)
	for range 50 {
		h, err := kernel.OpenAt(kernel.Pin(m.Name()))
		ok(t, err)
		ok(t, h.Transact("", func(*nftables.Conn) error { return nil }))
		ok(t, h.Close())
	}
	if after := descriptors(t); after > before {
		t.Errorf("%d descriptors are open, %d were before", after, before)
	}
}

func TestTransactIsAllOrNothing(t *testing.T) {
	m := nstest.New(t)
	h := m.Host()
	table := &nftables.Table{Name: "t", Family: nftables.TableFamilyINet}
	boom := errors.New("boom")
	for _, bad := range []struct {
		name string
		fn   func(*nftables.Conn) error
	}{
		{"function fails after queueing", func(c *nftables.Conn) error { c.AddTable(table); return boom }},
		{"kernel refuses the second", func(c *nftables.Conn) error {
			c.AddTable(table)
			c.DelTable(&nftables.Table{Name: "missing", Family: nftables.TableFamilyINet})
			return nil
		}},
	} {
		t.Run(bad.name, func(t *testing.T) {
			if err := h.Transact("", bad.fn); err == nil {
				t.Error("no error")
			}
			if rules := m.Sh(t, "nft list ruleset"); rules != "" {
				t.Errorf("something was done:\n%s", rules)
			}
			ok(t, h.Transact("", func(c *nftables.Conn) error {
				c.AddTable(&nftables.Table{Name: "good", Family: nftables.TableFamilyINet})
				return nil
			}))
			if rules := m.Sh(t, "nft list ruleset; nft flush ruleset"); !strings.Contains(rules, "good") || strings.Contains(rules, "table inet t ") {
				t.Errorf("the transaction after the failed one left:\n%s", rules)
			}
		})
	}
}

func TestTransactionsAreSerialised(t *testing.T) {
	m := nstest.New(t)
	var group sync.WaitGroup
	for i := range 20 {
		group.Go(func() {
			err := m.Host().Transact("", func(c *nftables.Conn) error {
				c.AddTable(&nftables.Table{Name: fmt.Sprintf("t%d", i), Family: nftables.TableFamilyINet})
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if got := strings.Count(m.Sh(t, "nft list tables"), "table"); got != 20 {
		t.Errorf("%d tables, want 20", got)
	}
}

func TestSysctls(t *testing.T) {
	m := nstest.New(t)
	h := m.Host()
	ok(t, h.PinNetns("box"))
	defer h.UnpinNetns("box")
	m.Sh(t, "ip link add a.b type bridge")
	for _, s := range []struct{ ns, key, value string }{
		{"", "net.ipv4.ip_forward", "1"},
		{"box", "net/ipv4/ip_forward", "1"},
		{"", "net/ipv4/conf/a.b/rp_filter", "2"},
	} {
		was, err := h.ReadSysctl(s.ns, s.key)
		ok(t, err)
		if was == s.value {
			t.Fatalf("%s is %s already: the test shows nothing", s.key, was)
		}
		ok(t, h.WriteSysctl(s.ns, s.key, s.value))
		if now, err := h.ReadSysctl(s.ns, s.key); err != nil || now != s.value {
			t.Errorf("%s in %q = %q, %v; want %q", s.key, s.ns, now, err, s.value)
		}
	}
	outside, err := os.ReadFile("/proc/sys/net/ipv4/ip_forward")
	ok(t, err)
	if strings.TrimSpace(string(outside)) != "0" {
		t.Error("a sysctl was set in the process's own namespace")
	}
	if _, err := h.ReadSysctl("box", "net/nonsense"); !kernel.IsGone(err) || !strings.Contains(err.Error(), "net/nonsense") {
		t.Errorf("reading a sysctl that does not exist: %v", err)
	}
}
