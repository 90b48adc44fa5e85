package compare_test

import (
	"strings"
	"testing"

	"github.com/linkspan/linkspan/firewall/nftables"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/lab/compare"
)

func TestMain(m *testing.M) { nstest.Main(m) }

// byHand is a network that lacks nothing but what nobody thinks of.
const byHand = `
ip netns add web; ip -n web link set lo up
brctl addbr br0; ip addr add 10.77.0.1/24 brd + dev br0; ip link set br0 up
ip link add p1 type veth peer name eth0 netns web
brctl addif br0 p1; ip link set p1 up
ip -n web addr add 10.77.0.2/24 brd + dev eth0; ip -n web link set eth0 up
ip -n web route add default via 10.77.0.1
`

// likeTheEngine is the rest.
const likeTheEngine = `
ip link set br0 group 27763; ip link set br0 address $(cat /sys/class/net/br0/address); ip link set p1 group 27763
sysctl -qw net.ipv4.conf.br0.route_localnet=1 net.ipv6.conf.br0.disable_ipv6=1 net.ipv6.conf.p1.disable_ipv6=1
ip netns exec web sysctl -qw net.ipv6.conf.eth0.disable_ipv6=1
`

func handMade(t *testing.T, script string) compare.Report {
	t.Helper()
	m := nstest.New(t)
	m.Sh(t, byHand+script)
	t.Cleanup(func() {
		m.Sh(t, "ip link del br0 2>/dev/null; ip link del p1 2>/dev/null; ip netns del web 2>/dev/null; true")
	})
	before := m.Dump(t)
	report, err := compare.Bridge(t.Context(), m.Host(), "br0", []string{"web"}, nftables.Backend{})
	if err != nil {
		t.Fatal(err)
	}
	if after := m.Dump(t); after != before {
		t.Errorf("comparing has changed something:\n%s", nstest.Diff(before, after))
	}
	return report
}

// TestEachDifference breaks one thing at a time and finds it named.
func TestEachDifference(t *testing.T) {
	for what, test := range map[string]struct{ script, want string }{
		"nothing":        {"", ""},
		"mark of bridge": {"ip link set br0 group 0", "link br0 lost its mark"},
		"mark of cable":  {"ip link set p1 group 0", "link p1 lost its mark"},
		"bridge down":    {"ip link set br0 down", "link br0 is down"},
		"address":        {"ip addr flush dev br0", "address 10.77.0.1/24 is missing"},
		"localnet":       {"sysctl -qw net.ipv4.conf.br0.route_localnet=0", `sysctl net/ipv4/conf/br0/route_localnet is "0", not "1"`},
		"port":           {"brctl delif br0 p1", "link p1 is no port of bridge br0"},
		"mtu":            {"ip link set p1 mtu 1400", "link p1 has MTU 1400, not 1500"},
		"port down":      {"ip link set p1 down", "link p1 is down"},
		"loopback":       {"ip -n web link set lo down", "link lo is down"},
		"far end":        {"ip -n web link set eth0 down", "link eth0 is down"},
		"route":          {"ip -n web route del default", "the route to 0.0.0.0/0 via 10.77.0.1 is missing"},
		"far IPv6":       {"ip netns exec web sysctl -qw net.ipv6.conf.eth0.disable_ipv6=0", `sysctl net/ipv6/conf/eth0/disable_ipv6 is "0", not "1"`},
	} {
		t.Run(what, func(t *testing.T) {
			report := handMade(t, likeTheEngine+test.script)
			found := ""
			for _, f := range report.Findings {
				if f.Object != "rules" {
					found += strings.Join(append(f.Differences, ""), "\n")
				}
			}
			if !strings.Contains(found, test.want) || test.want == "" && found != "" {
				t.Errorf("differences:\n%s\nwant %q", found, test.want)
			}
		})
	}
}

// TestRulesAndAdoption tells of the rules that are missing, and what the engine
// would do to take the bridge as it is.
func TestRulesAndAdoption(t *testing.T) {
	report := handMade(t, "ip addr flush dev br0")
	text := report.String()
	for _, want := range []string{
		"bridge br0\n  differs  ip link add name br0 address ",
		"cable p1 into web\n  same     ip netns add web\n",
		"rules\n  differs  nft -f - <<'EOF' …\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if report.Same() {
		t.Error("nothing differs")
	}
	if adopting := report.Adopting.String(); !strings.Contains(adopting, "ip addr add 10.77.0.1/24 brd + dev br0") || strings.Contains(adopting, "link add") {
		t.Errorf("adoption:\n%s", adopting)
	}
}

// TestNothingToCompare says what is missing for a comparison.
func TestNothingToCompare(t *testing.T) {
	m := nstest.New(t)
	if _, err := compare.Bridge(t.Context(), m.Host(), "br0", nil, nftables.Backend{}); err == nil || !strings.Contains(err.Error(), "there is no bridge br0") {
		t.Errorf("err = %v", err)
	}
	m.Sh(t, "brctl addbr br0")
	t.Cleanup(func() { m.Sh(t, "brctl delbr br0") })
	if _, err := compare.Bridge(t.Context(), m.Host(), "br0", nil, nftables.Backend{}); err == nil || !strings.Contains(err.Error(), "has an IPv4 address") {
		t.Errorf("err = %v", err)
	}
}
