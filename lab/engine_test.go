package lab_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/lab"
)

func TestMain(m *testing.M) { nstest.Main(m) }

// two is two nodes on a switch, and a third behind one of them.
const two = `name: lan
switches:
  sw: {addresses: [10.0.0.254/24]}
nodes:
  a:
    addresses: {eth0: [10.0.0.1/24], eth1: [10.0.1.1/24]}
    sysctls: {net.ipv4.ip_forward: "1"}
  b:
    addresses: {eth0: [10.0.0.2/24]}
    routes: [{to: 10.0.1.0/24, via: 10.0.0.1}]
    run: exec sleep 1000
  c:
    addresses: {eth0: [10.0.1.2/24]}
    routes: [{to: 0.0.0.0/0, via: 10.0.1.1}]
links:
  - [a:eth0, sw]
  - [b:eth0, sw]
  - [a:eth1, c:eth0]
`

func engine(t *testing.T) (*nstest.Machine, *lab.Engine) {
	t.Helper()
	m := nstest.New(t)
	return m, &lab.Engine{Dir: filepath.Join(t.TempDir(), "labs"), Real: m.Host()}
}

func up(t *testing.T, e *lab.Engine, text string) {
	t.Helper()
	if _, err := e.Up(t.Context(), []byte(text), ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { down(t, e) })
}

func down(t *testing.T, e *lab.Engine) {
	t.Helper()
	if err := e.Down(t.Context(), "lan"); err != nil { //nolint:usetesting // it is over before the context ends
		t.Error(err)
	}
}

// run runs a command in a node.
func run(t *testing.T, e *lab.Engine, node string, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	cmd := lab.Command(node, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := e.Exec("lan", node, cmd); err != nil {
		t.Fatal(err)
	}
	err := cmd.Wait()
	return out.String(), err
}

func TestLab(t *testing.T) {
	m, e := engine(t)
	before := m.Dump(t)
	if _, err := e.Up(t.Context(), []byte(two), ""); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ node, target string }{{"a", "10.0.0.2"}, {"b", "10.0.1.2"}, {"c", "10.0.0.2"}, {"b", "10.0.0.254"}} {
		if out, err := run(t, e, test.node, "ping", "-c1", "-W5", test.target); err != nil {
			t.Errorf("%s does not reach %s:\n%s", test.node, test.target, out)
		}
	}
	if out, err := run(t, e, "a", "sh", "-c", "hostname; ls /sys/class/net | tr '\\n' ' '; ls /sys/fs/cgroup | wc -l"); err != nil || !strings.HasPrefix(out, "a\neth0 eth1 lo ") || strings.HasSuffix(out, " 0\n") {
		t.Errorf("node a sees %q, %v", out, err)
	}
	if status, err := e.Status(t.Context(), "lan"); err != nil || status.Difference != nil || len(status.Nodes) != 3 || len(status.Nodes[1].Processes) != 1 {
		t.Errorf("status %+v, err %v", status, err)
	}
	if _, err := e.Up(t.Context(), []byte(two), ""); !errors.Is(err, linkspan.ErrConflict) || !strings.Contains(err.Error(), "lab lan is up already") {
		t.Errorf("up twice: %v", err)
	}
	m.Sh(t, "ip -n lab-lan-a link set eth0 down")
	if status, err := e.Status(t.Context(), "lan"); err != nil || status.Difference == nil || !strings.Contains(status.Difference.Error(), "link eth0 is down") {
		t.Errorf("status does not show what was changed: %+v, %v", status, err)
	}
	if err := e.Reset(t.Context(), "lan"); err != nil {
		t.Fatal(err)
	}
	if out, err := run(t, e, "c", "ping", "-c1", "-W5", "10.0.0.2"); err != nil {
		t.Errorf("after a reset c does not reach b:\n%s", out)
	}
	for range 2 {
		down(t, e)
	}
	if after := m.Dump(t); after != before {
		t.Errorf("the lab left something:\n%s\nbefore:\n%s", after, before)
	}
}

func TestCables(t *testing.T) {
	_, e := engine(t)
	up(t, e, two)
	for _, near := range []string{"b:eth0", "c:eth0"} {
		node, face, _ := strings.Cut(near, ":")
		carrier := func() string {
			out, _ := run(t, e, node, "cat", "/sys/class/net/"+face+"/carrier")
			return strings.TrimSpace(out)
		}
		if err := e.Cut(t.Context(), "lan", near); err != nil {
			t.Fatal(err)
		}
		if !nstest.Until(5*time.Second, func() bool { return carrier() == "0" }) {
			t.Errorf("%s has carrier %q on a cut cable", near, carrier())
		}
		if err := e.Restore(t.Context(), "lan", near); err != nil {
			t.Fatal(err)
		}
		if !nstest.Until(5*time.Second, func() bool { return carrier() == "1" }) {
			t.Errorf("%s has carrier %q on a mended cable", near, carrier())
		}
	}
	if err := e.Cut(t.Context(), "lan", "b:eth7"); !errors.Is(err, linkspan.ErrNotFound) || !strings.Contains(err.Error(), "there are a:eth0, sw") {
		t.Errorf("cut of no cable: %v", err)
	}
}

// TestHostileHost puts a lab up where every forwarded packet is dropped and
// bridges ask iptables, as a host with Docker on it does.
func TestHostileHost(t *testing.T) {
	m, e := engine(t)
	m.Sh(t, `iptables-nft -P FORWARD DROP; ip6tables-nft -P FORWARD DROP
test ! -e /proc/sys/net/bridge/bridge-nf-call-iptables || sysctl -qw net.bridge.bridge-nf-call-iptables=1 net.bridge.bridge-nf-call-arptables=1
ip link add br0 type bridge; ip link set br0 up
for n in x y; do ip netns add $n; ip link add v$n master br0 type veth peer name eth0 netns $n; ip link set v$n up; ip -n $n link set eth0 up; done
ip -n x addr add 10.0.0.1/24 dev eth0; ip -n y addr add 10.0.0.2/24 dev eth0`)
	defer m.Sh(t, "ip netns del x; ip netns del y; ip link del br0; iptables-nft -P FORWARD ACCEPT; ip6tables-nft -P FORWARD ACCEPT")
	_, filtered := os.Stat("/proc/sys/net/bridge/bridge-nf-call-iptables")
	if out, err := m.TrySh("nsenter --net=/run/netns/x ping -c1 -W1 10.0.0.2"); filtered == nil && err == nil {
		t.Fatalf("the host is not hostile: what every course begins with works on it:\n%s", out)
	}
	up(t, e, two)
	for _, test := range []struct{ node, target string }{{"a", "10.0.0.2"}, {"c", "10.0.0.2"}} {
		if out, err := run(t, e, test.node, "ping", "-c1", "-W5", test.target); err != nil {
			t.Errorf("%s does not reach %s:\n%s", test.node, test.target, out)
		}
	}
}

// TestQuiet counts what was sent on every link since it was made. IPv6 is off on
// links without an address of it.
func TestQuiet(t *testing.T) {
	m, e := engine(t)
	up(t, e, strings.NewReplacer("links:\n", "links:\n  - [sw, r]\n", "switches:\n", "switches:\n  r: {}\n").Replace(two))
	// Solicitations and reports come within the first four seconds, if at all
	// (RFC 4861 section 6.3.7, RFC 3810 section 9.11).
	time.Sleep(5 * time.Second)
	for _, ns := range []string{"lab-lan", "lab-lan-a", "lab-lan-b", "lab-lan-c"} {
		out := m.Sh(t, "ip -n "+ns+" -json -stats link show")
		var links []struct {
			Name  string `json:"ifname"`
			Stats struct {
				TX struct{ Packets int }
				RX struct{ Packets int }
			} `json:"stats64"`
		}
		if err := json.Unmarshal([]byte(out), &links); err != nil {
			t.Fatal(err)
		}
		if len(links) < 2 {
			t.Errorf("%s has only the links %s", ns, out)
		}
		for _, l := range links {
			if l.Stats.TX.Packets+l.Stats.RX.Packets > 0 {
				t.Errorf("%s of %s sent %d frames and got %d that nobody caused", l.Name, ns, l.Stats.TX.Packets, l.Stats.RX.Packets)
			}
		}
	}
}

// TestIdle: a lab that nobody uses has no process of ours, and its nodes' own sleep.
func TestIdle(t *testing.T) {
	_, e := engine(t)
	up(t, e, two)
	var status lab.Status
	var pids []int
	if !nstest.Until(10*time.Second, func() bool { // the shell's helpers go
		var err error
		status, err = e.Status(t.Context(), "lan")
		must(t, err)
		pids = nil
		for _, node := range status.Nodes {
			pids = append(pids, node.Processes...)
		}
		return len(pids) == 1 && status.Nodes[1].Running == pids[0]
	}) {
		t.Fatalf("in the lab are the processes %v, not only what b runs: %+v", pids, status.Nodes)
	}
	proc := fmt.Sprintf("/proc/%d/", pids[0])
	if !nstest.Until(10*time.Second, func() bool { // until it has become what it was told to run
		comm, _ := os.ReadFile(proc + "comm")
		stat, _ := os.ReadFile(proc + "stat")
		return string(comm) == "sleep\n" && strings.Contains(string(stat), ") S ")
	}) {
		t.Fatal("b does not sleep")
	}
	used := func() string {
		stat, _ := os.ReadFile(proc + "schedstat") // ns on a CPU, ns waiting for one, times on one
		return string(stat)
	}
	before := used()
	time.Sleep(2 * time.Second)
	if after := used(); after != before || after == "" {
		t.Errorf("an idle lab used a CPU: %q, then %q", before, after)
	}
}

// TestStart runs commands to their end before the lab is up, in their order.
func TestStart(t *testing.T) {
	m, e := engine(t)
	before := m.Dump(t)
	const text = `name: lan
nodes:
  a:
    start: [ip link add d0 type bridge, ip link set d0 up, 'echo "$(hostname) $(ls /sys/class/net | tr "\\n" " ")"']
    run: echo running; exec sleep 1000
  b: {run: "true"}
`
	up(t, e, text)
	status, err := e.Status(t.Context(), "lan")
	must(t, err)
	log, err := os.ReadFile(status.Nodes[0].Log)
	must(t, err)
	if !strings.HasPrefix(string(log), "a d0 lo \n") {
		t.Errorf("the log of a is %q", log)
	}
	if status.Nodes[0].Running == 0 {
		t.Errorf("a is not alive: %+v", status.Nodes[0])
	}
	if !nstest.Until(10*time.Second, func() bool {
		status, err = e.Status(t.Context(), "lan")
		return err == nil && len(status.Nodes[1].Processes) == 0
	}) || status.Nodes[1].Running != 0 {
		t.Errorf("b has not ended: %+v", status.Nodes[1])
	}
	down(t, e)
	_, err = e.Up(t.Context(), []byte("name: lan\nnodes: {a: {start: ['echo not that; exit 3']}, b: {run: sleep 1000}}\n"), "")
	if err == nil || !strings.Contains(err.Error(), `start command "echo not that; exit 3" of node a: exit status 3: not that`) {
		t.Errorf("err = %v", err)
	}
	if diff := nstest.Diff(before, m.Dump(t)); diff != "" {
		t.Errorf("a lab whose start failed was left:\n%s", diff)
	}
}

// TestSpanningTree joins three switches in a ring, which one of them cuts.
func TestSpanningTree(t *testing.T) {
	m, e := engine(t)
	up(t, e, `name: lan
switches:
  q: {stp: true, settings: {priority: 4096, forward_delay: 200}}
  r: {stp: true, settings: {forward_delay: 200}}
  s: {stp: true, settings: {forward_delay: 200}}
nodes:
  a: {addresses: {eth0: [10.0.0.1/24]}}
  b: {addresses: {eth0: [10.0.0.2/24]}}
links:
  - [q, r]
  - ["r:up", "s:side"]
  - [s, q]
  - ["a:eth0", r]
  - ["b:eth0", s]
`)
	if !nstest.Until(time.Minute, func() bool { // the ports listen and learn before they pass anything on
		_, err := run(t, e, "a", "ping", "-c1", "-W1", "10.0.0.2")
		return err == nil
	}) {
		t.Error("a does not reach b")
	}
	// The tree has just changed, which is no setting of anybody's.
	if text, lost, err := e.Save("lan"); err != nil || len(lost) > 0 || strings.Contains(string(text), "ageing_time") {
		t.Errorf("saved as (%q, %v):\n%s", lost, err, text)
	}
	out := m.Sh(t, "bridge -n lab-lan -d link")
	if n := strings.Count(out, "state blocking"); n != 1 {
		t.Errorf("%d ports are blocked, not one:\n%s", n, out)
	}
}

func TestForeignNamespaceIsSpared(t *testing.T) {
	m, e := engine(t)
	m.Sh(t, "ip netns add lab-lan-b")
	defer m.Sh(t, "ip netns del lab-lan-b")
	if _, err := e.Up(t.Context(), []byte(two), ""); !errors.Is(err, linkspan.ErrConflict) || !strings.Contains(err.Error(), "lab-lan-b is there already") {
		t.Errorf("err = %v", err)
	}
	down(t, e)
	m.Sh(t, "ip -n lab-lan-b link show lo")
}

func TestNameOf(t *testing.T) {
	_, e := engine(t)
	path := filepath.Join(t.TempDir(), "lan.yaml")
	if err := os.WriteFile(path, []byte(two), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Up(t.Context(), []byte(two), path); err != nil {
		t.Fatal(err)
	}
	defer down(t, e)
	// The file may have been edited since, or be gone.
	if err := os.WriteFile(path, []byte("name: ["), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, arg := range []string{"lan", path} {
		if name, err := e.NameOf(arg); err != nil || name != "lan" {
			t.Errorf("NameOf(%s) = %q, %v", arg, name, err)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if name, err := e.NameOf(path); err != nil || name != "lan" {
		t.Errorf("NameOf of a file that is gone = %q, %v", name, err)
	}
	if _, err := e.NameOf("/no/where.yaml"); !errors.Is(err, linkspan.ErrNotFound) {
		t.Errorf("err = %v", err)
	}
}
