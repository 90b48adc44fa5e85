package doctor

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/linkspan/linkspan/firewall"
	"github.com/linkspan/linkspan/ipam"
	"github.com/linkspan/linkspan/kernel"
)

func pools(subnets ...string) (all []ipam.Pool) {
	for _, s := range subnets {
		all = append(all, ipam.Pool{Subnet: netip.MustParsePrefix(s)})
	}
	return all
}

func TestExamine(t *testing.T) {
	healthy := Observation{Forward4: true, Forward6: true, IPv6: true}
	lab := Subject{Name: "lab", IPv4: true, Routed: true, Pools: pools("10.77.0.0/24")}
	six := Subject{Name: "six", IPv6: true, Routed: true, Pools: pools("fd77::/64")}
	inner := Subject{Name: "inner", IPv4: true, IPv6: true, Pools: pools("10.78.0.0/24")}
	policy := firewall.Obstacle{Chain: "chain FORWARD of iptables-legacy", Rule: "its policy is DROP", Show: "iptables-legacy -S FORWARD", Remedy: "let them pass"}
	route := func(to string) kernel.Route { return kernel.Route{To: netip.MustParsePrefix(to), Link: "tun0"} }
	for name, c := range map[string]struct {
		change   func(*Observation)
		subjects []Subject
		want     []string // severity, reason, and a word of the text
	}{
		"healthy":                  {func(*Observation) {}, []Subject{lab, six, inner}, nil},
		"no IPv4 forwarding":       {func(o *Observation) { o.Forward4 = false }, []Subject{lab, six}, []string{"broken ip-forward lab"}},
		"no IPv6 forwarding":       {func(o *Observation) { o.Forward6 = false }, []Subject{lab, six}, []string{"broken ipv6-forwarding six"}},
		"nobody needs forwarding":  {func(o *Observation) { o.Forward4, o.Forward6 = false, false }, []Subject{inner}, nil},
		"no daemon, no forwarding": {func(o *Observation) { o.Forward4 = false }, nil, []string{"note ip-forward net.ipv4.ip_forward"}},
		"no IPv6 at all":           {func(o *Observation) { o.IPv6, o.Forward6 = false, false }, []Subject{lab}, nil},
		"a drop policy":            {func(o *Observation) { o.Obstacles = []firewall.Obstacle{policy} }, nil, []string{"warning foreign-drop-policy let them pass"}},
		"bridges filtered":         {func(o *Observation) { o.BridgeFilter = []string{"net.bridge.x"} }, nil, []string{"note br-netfilter net.bridge.x=0"}},
		"bridges filtered by a policy": {
			func(o *Observation) {
				o.BridgeFilter, o.Obstacles = []string{"net.bridge.x"}, []firewall.Obstacle{policy}
			}, nil, []string{"warning foreign-drop-policy FORWARD", "warning br-netfilter drops even"},
		},
		"strict, one uplink":  {func(o *Observation) { o.Uplinks, o.Strict = []string{"a"}, []string{"a"} }, nil, nil},
		"strict, two uplinks": {func(o *Observation) { o.Uplinks, o.Strict = []string{"a", "b"}, []string{"b"} }, nil, []string{"warning rp-filter conf.b.rp_filter=2"}},
		"a feature":           {func(o *Observation) { o.Missing = []kernel.Feature{{Name: "vxlan", For: "far"}} }, nil, []string{"warning missing-feature modprobe vxlan"}},
		"a wider route": {func(o *Observation) {
			o.Routes = []kernel.Route{route("10.0.0.0/8"), route("0.0.0.0/0"), route("0.0.0.0/1")}
		}, []Subject{lab}, []string{"broken pool-on-route behind tun0"}},
		"a longer route": {func(o *Observation) { o.Routes = []kernel.Route{route("10.77.0.128/25"), route("10.99.0.0/16")} }, []Subject{lab, inner}, []string{"broken pool-on-route goes out by tun0"}},
	} {
		o := healthy
		c.change(&o)
		var got []string
		for i, f := range Examine(o, c.subjects) {
			got = append(got, string(f.Severity)+" "+f.Reason)
			word := ""
			if i < len(c.want) {
				word = strings.SplitN(c.want[i], " ", 3)[2]
			}
			if text := f.What + "\n" + f.So + "\n" + f.Remedy; !strings.Contains(text, word) || f.Remedy == "" || f.So == "" {
				t.Errorf("%s: no %q in %q", name, word, text)
			}
		}
		var want []string
		for _, w := range c.want {
			want = append(want, strings.Join(strings.SplitN(w, " ", 3)[:2], " "))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}
