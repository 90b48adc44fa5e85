package nstest

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { Main(m) }

// recorder is a testing.TB that notes failures instead of failing, for tests of
// what reports them.
type recorder struct {
	testing.TB
	errors   []string
	cleanups []func()
}

func (r *recorder) Helper()          {}
func (r *recorder) Cleanup(f func()) { r.cleanups = append(r.cleanups, f) }
func (r *recorder) Errorf(format string, args ...any) {
	r.errors = append(r.errors, strings.TrimSpace(fmt.Sprintf(format, args...)))
}

func (r *recorder) finish() {
	for _, f := range slices.Backward(r.cleanups) {
		f()
	}
}

const lab = `
ip netns add box
ip link add br0 address 02:00:00:00:00:01 group 27763 type bridge
ip link add v0 address 02:00:00:00:00:02 group 27763 master br0 type veth peer name eth0 address 02:00:00:00:00:03 netns box
ip link set br0 up
ip link set v0 up
bridge link set dev v0 isolated on
ip addr add 10.77.0.1/24 brd + dev br0
ip -n box link set eth0 up
ip -n box addr add 10.77.0.2/24 brd + dev eth0
ip -n box addr add 2001:db8::2/64 dev eth0 nodad
ip -n box route add default via 10.77.0.1
ip -n box neigh add 10.77.0.9 lladdr 02:00:00:00:00:09 dev eth0
nsenter --net=/run/netns/box sysctl -qw net/ipv4/ip_forward=1
nft 'add table inet linkspan; add chain inet linkspan c; add rule inet linkspan c counter accept'
`

const unlab = `ip netns del box; ip link del br0; nft delete table inet linkspan`

func TestMachineIsItsOwn(t *testing.T) {
	outside, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	a, b := New(t), New(t)
	if a.Name() == b.Name() {
		t.Errorf("two machines are called %s", a.Name())
	}
	inside := strings.TrimSpace(a.Sh(t, "readlink /proc/self/ns/net"))
	if inside == outside {
		t.Errorf("a script ran in the network namespace of the test, %s", inside)
	}
	if got := strings.Fields(a.Sh(t, "ls /sys/class/net")); !slices.Equal(got, []string{"lo"}) {
		t.Errorf("a new machine has links %q, want lo alone", got)
	}
	a.Sh(t, "test -d /sys/fs/cgroup && ping -c1 -W1 127.0.0.1")
	a.Sh(t, "ip link add br0 type bridge")
	if out := a.Sh(t, "brctl show"); !strings.Contains(out, "br0") {
		t.Errorf("brctl show lacks the machine's bridge:\n%s", out)
	}
	if out := b.Sh(t, "brctl show"); strings.Contains(out, "br0") {
		t.Errorf("brctl show of one machine lists the bridge of another:\n%s", out)
	}
}

// The tests see a part of each cgroup tree as the whole, and can use it.
func TestCgroupTreesAreOurOwn(t *testing.T) {
	Leaks(t)
	trees, err := cgroupTrees()
	if err != nil {
		t.Fatal(err)
	}
	for _, tree := range trees {
		if strange, _ := filepath.Glob(tree + "/linkspan*"); len(strange) > 0 {
			t.Errorf("there are cgroups of somebody else: %v", strange)
		}
		dir := tree + "/linkspan"
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			if value, err := os.ReadFile(filepath.Join(tree, file)); err == nil {
				if err := os.WriteFile(filepath.Join(dir, file), value, 0); err != nil {
					t.Error(err)
				}
			}
		}
		cmd := exec.Command("sleep", "1000")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dir+"/cgroup.procs", fmt.Append(nil, cmd.Process.Pid), 0); err != nil {
			t.Errorf("a process cannot enter: %v", err)
		}
		cmd.Process.Kill()
		cmd.Wait()
		if !Until(time.Second, func() bool { return removeCgroup(dir) == nil }) {
			t.Errorf("%s stays", dir)
		}
	}
}

func TestScriptThatFails(t *testing.T) {
	m := New(t)
	out, err := m.TrySh("echo said; false; echo unsaid")
	if err == nil || out != "said\n" {
		t.Errorf("TrySh = %q, %v; want the output up to the failure, and an error", out, err)
	}
}

func TestWire(t *testing.T) {
	a, b := New(t), New(t)
	link := Wire(t, a, b, netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("192.0.2.2/24"))
	a.Sh(t, "ping -c1 -W2 192.0.2.2")
	a.Sh(t, "ip link show "+link)
	Wire(t, a, b, netip.MustParsePrefix("2001:db8::1/64"), netip.MustParsePrefix("2001:db8::2/64"))
	b.Sh(t, "ping -c1 -W2 2001:db8::1")
}

func TestStart(t *testing.T) {
	m := New(t)
	stop := m.Start(t, "echo up; sleep 1000 & exec sleep 1000")
	if got := stop(); got != "up\n" && got != "" {
		t.Errorf("printed %q", got)
	}
}

// Equal deeds give equal dumps, whatever the indices, and everything that is
// changed afterwards shows.
func TestDumpShowsEveryChange(t *testing.T) {
	a := New(t)
	empty := a.Dump(t)
	a.Sh(t, lab)
	first := a.Dump(t)
	a.Sh(t, unlab)
	if diff := Diff(empty, a.Dump(t)); diff != "" {
		t.Errorf("all is undone, but the dumps differ:\n%s", diff)
	}

	b := New(t)
	b.Sh(t, "ip link add waste type bridge; ip link del waste") // shifts the indices
	b.Sh(t, lab)
	defer b.Sh(t, unlab)
	second := b.Dump(t)
	if diff := Diff(first, second); diff != "" {
		t.Errorf("two machines went the same way, but their dumps differ:\n%s", diff)
	}
	for _, change := range []struct{ do, undo, want string }{
		{"bridge link set dev v0 isolated off", "bridge link set dev v0 isolated on", "isolated"},
		{"ip link set br0 address 02:00:00:00:00:07", "ip link set br0 address 02:00:00:00:00:01", "address"},
		{"ip link set v0 group 5", "ip link set v0 group 27763", "group 5"},
		{"ip link set v0 nomaster", "ip link set v0 master br0; bridge link set dev v0 isolated on", "master"},
		{"ip link set v0 mtu 1400", "ip link set v0 mtu 1500", "mtu"},
		{"ip -n box link set eth0 name eth7", "ip -n box link set eth7 name eth0", "eth7"},
		{"ip link set br0 type bridge stp_state 1", "ip link set br0 type bridge stp_state 0", "stp_state"},
		{"ip addr add 10.77.0.5/24 dev br0", "ip addr del 10.77.0.5/24 dev br0", "10.77.0.5"},
		{"ip -n box addr add fe80::1/64 dev eth0", "ip -n box addr del fe80::1/64 dev eth0", "fe80::1"},
		{"ip -n box route add 192.0.2.0/24 via 10.77.0.1", "ip -n box route del 192.0.2.0/24", "192.0.2.0/24"},
		{"ip -n box -6 route add default via 2001:db8::1", "ip -n box -6 route del default", "default"},
		{"ip rule add pref 100 lookup 100", "ip rule del pref 100", "100"},
		{"ip -n box neigh del 10.77.0.9 dev eth0", "ip -n box neigh add 10.77.0.9 lladdr 02:00:00:00:00:09 dev eth0", "10.77.0.9"},
		{"bridge fdb add 02:00:00:00:00:0a dev v0 master static", "bridge fdb del 02:00:00:00:00:0a dev v0 master", "02:00:00:00:00:0a"},
		{"nft add chain inet linkspan d", "nft delete chain inet linkspan d", "chain d"},
		{"sysctl -qw net/ipv4/conf/v0/proxy_arp=1", "sysctl -qw net/ipv4/conf/v0/proxy_arp=0", "proxy_arp"},
		{"sysctl -qw net/ipv4/ip_forward=1", "sysctl -qw net/ipv4/ip_forward=0; sysctl -qw net/ipv4/conf/all/accept_redirects=1", "ip_forward"},
		{"ip netns add other", "ip netns del other", "other"},
	} {
		b.Sh(t, change.do)
		if diff := Diff(second, b.Dump(t)); !strings.Contains(diff, change.want) {
			t.Errorf("after %q the difference lacks %q:\n%s", change.do, change.want, diff)
		}
		b.Sh(t, change.undo)
		if diff := Diff(second, b.Dump(t)); diff != "" {
			t.Errorf("after %q and %q there is still a difference:\n%s", change.do, change.undo, diff)
		}
	}
}

func TestEveryLeakIsReported(t *testing.T) {
	rec := &recorder{TB: t}
	m := New(rec)
	m.Sh(t, lab+"sleep 1000 & echo $! > /tmp/"+m.Name())
	defer os.Remove("/tmp/" + m.Name())
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	trees, err := cgroupTrees()
	if err != nil || len(trees) == 0 {
		t.Fatalf("no cgroup trees to leave something in: %v", err)
	}
	group := trees[len(trees)-1] + "/linkspan/inner"
	if err := os.MkdirAll(group, 0o755); err != nil {
		t.Fatal(err)
	}
	rec.finish()
	if err := removeCgroup(trees[len(trees)-1] + "/linkspan"); err != nil {
		t.Fatal(err)
	}
	if err := unix.Unmount(dir, 0); err != nil {
		t.Fatal(err)
	}
	New(t).Sh(t, "ip netns del box; kill $(cat /tmp/"+m.Name()+")")
	for _, want := range []string{"link br0 (marked)", "link v0 (marked)", "nft table inet linkspan", "network namespace box (pinned)", "mount on " + dir, "cgroup " + group, "(sleep)"} {
		if !slices.ContainsFunc(rec.errors, func(e string) bool { return strings.Contains(e, want) }) {
			t.Errorf("nobody reported %q, only:\n%s", want, strings.Join(rec.errors, "\n"))
		}
	}
}
