package lab_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/lab"
)

// whose are the lines of a dump that say by whom a link was made, and how the kernel
// numbers the ports of a bridge.
var whose = regexp.MustCompile(`(?m)^link .* (group|info_slave_data (designated_port|id|no)) .*\n`)

// TestSave changes a lab by hand, saves it, and builds it again of the file.
func TestSave(t *testing.T) {
	for _, test := range []struct{ name, change string }{
		{"nothing", ""},
		{"addresses", "ip -n lab-lan-a addr del 10.0.1.1/24 dev eth1; ip -n lab-lan-a addr add 10.0.3.1/24 brd + dev eth1; ip -n lab-lan-b addr add 10.9.9.9/32 dev lo; ip -n lab-lan addr add 10.0.5.1/24 brd + dev sw"},
		{"routes", "ip -n lab-lan-b route del 10.0.1.0/24; ip -n lab-lan-b route add default via 10.0.0.1 dev eth0; ip -n lab-lan-b route add 10.7.0.0/16 dev eth0; ip -n lab-lan-a route add 10.8.0.0/16 via 10.0.1.2 dev eth1"},
		{"sysctls", "for n in b c; do nsenter --net=/run/netns/lab-lan-$n sysctl -qw net.ipv4.ip_forward=1; done; nsenter --net=/run/netns/lab-lan-a sysctl -qw net.ipv4.conf.eth0.rp_filter=2 net.ipv4.ip_default_ttl=9 net.ipv4.ping_group_range='0 5'"},
		{"no forwarding", "nsenter --net=/run/netns/lab-lan-a sysctl -qw net.ipv4.ip_forward=0"},
		{"a switch by brctl", "nsenter --net=/run/netns/lab-lan unshare -m sh -euc 'mount -t sysfs s /sys; brctl stp sw on; brctl setbridgeprio sw 4096; brctl setageing sw 100; brctl delif sw port0; brctl addif sw port0'"},
		{"a switch more", "ip -n lab-lan link add r address 02:00:00:00:00:77 type bridge mcast_snooping 0; nsenter --net=/run/netns/lab-lan sysctl -qw net.ipv6.conf.r.disable_ipv6=1; ip -n lab-lan link set r up; ip -n lab-lan link set port1 master r"},
		{"a cable less", "ip -n lab-lan link del port0"},
		{"a cable more", `ip -n lab-lan link add plug address 02:00:00:00:00:78 type veth peer name eth7 address 02:00:00:00:00:79 netns lab-lan-c
nsenter --net=/run/netns/lab-lan sysctl -qw net.ipv6.conf.plug.disable_ipv6=1; nsenter --net=/run/netns/lab-lan-c sysctl -qw net.ipv6.conf.eth7.disable_ipv6=1
ip -n lab-lan link set plug master sw; ip -n lab-lan link set plug up; ip -n lab-lan-c link set eth7 up; ip -n lab-lan-c addr add 10.0.0.7/24 brd + dev eth7`},
		{"names and MACs", "ip -n lab-lan-c link set eth0 down; ip -n lab-lan-c link set eth0 name up0 address 02:00:00:00:00:42; ip -n lab-lan-c link set up0 up; ip -n lab-lan link set port1 down; ip -n lab-lan link set port1 name side address 02:00:00:00:00:43; ip -n lab-lan link set side up; ip -n lab-lan link set sw address 02:00:00:00:00:44"},
		{"sizes", "ip -n lab-lan-a link set eth1 mtu 1400; ip -n lab-lan-c link set eth0 mtu 1400"},
		{"down", "ip -n lab-lan-b link set eth0 down; ip -n lab-lan link set port0 down"},
		{"IPv6", "nsenter --net=/run/netns/lab-lan-a sysctl -qw net.ipv6.conf.eth1.disable_ipv6=0 net.ipv6.conf.eth1.accept_ra=0 net.ipv6.conf.eth1.accept_dad=0; nsenter --net=/run/netns/lab-lan-a sysctl -qw net.ipv6.conf.all.forwarding=1; ip -n lab-lan-a addr add fd00::1/64 nodad dev eth1; ip -n lab-lan-a -6 route add default via fd00::2 dev eth1"},
		{"impaired", "tc -n lab-lan-b qdisc add dev eth0 root handle 6c73: tbf rate 2mbit burst 3036 limit 28036; tc -n lab-lan qdisc add dev port1 root handle 6c73: tbf rate 2mbit burst 3036 limit 28036"},
	} {
		t.Run(test.name, func(t *testing.T) {
			m, e := engine(t)
			_, err := e.Up(t.Context(), []byte(two), "")
			must(t, err)
			defer down(t, e)
			unchanged, _, err := e.Save("lan")
			must(t, err)
			m.Sh(t, test.change)
			want := whose.ReplaceAllString(m.Dump(t), "")
			text, lost, err := e.Save("lan")
			must(t, err)
			if len(lost) > 0 {
				t.Errorf("lost: %q", lost)
			}
			if test.change != "" && string(text) == string(unchanged) {
				t.Errorf("the change is not in the file:\n%s", text)
			}
			down(t, e)
			if _, err = e.Up(t.Context(), text, ""); err != nil {
				t.Fatalf("%v\n%s", err, text)
			}
			if diff := nstest.Diff(want, whose.ReplaceAllString(m.Dump(t), "")); diff != "" {
				t.Errorf("what was saved is not what was there (- was, + is):\n%s\nfile:\n%s", diff, text)
			}
			if again, _, err := e.Save("lan"); err != nil || string(again) != string(text) {
				t.Errorf("saved twice, it reads differently (%v):\n%s\nfirst:\n%s", err, again, text)
			}
		})
	}
}

// TestSaveNamesWhatItCannot: each thing that no file can say is told of.
func TestSaveNamesWhatItCannot(t *testing.T) {
	m, e := engine(t)
	up(t, e, strings.Replace(two, "  c:\n", "  c:\n    start: [ip link set lo up]\n", 1))
	m.Sh(t, `ip -n lab-lan-a link add d0 type bridge
ip -n lab-lan-b neigh add 10.0.0.77 lladdr 02:00:00:00:00:77 dev eth0
ip -n lab-lan-b rule add from 10.0.0.2 table 77 priority 77; ip -n lab-lan-b route add 10.77.0.0/24 dev eth0 table 77
nsenter --net=/run/netns/lab-lan-c nft 'table inet mine { chain x { type filter hook input priority 0; }; }'
nsenter --net=/run/netns/lab-lan sysctl -qw net.ipv4.ip_forward=1
ip -n lab-lan route add 10.99.0.0/24 via 10.0.0.1
ip -n lab-lan-c link set eth0 mtu 1300
ip -n lab-lan link set port0 nomaster
tc -n lab-lan-b qdisc add dev eth0 root handle 1: htb`)
	text, lost, err := e.Save("lan")
	must(t, err)
	for _, want := range []string{
		`^start command "ip link set lo up" of node c: `,
		`^link d0 of node a, of kind bridge$`,
		`^neighbour of node b that was set by hand: 10\.0\.0\.77 dev eth0 lladdr 02:00:00:00:00:77$`,
		`^routing rule of node b: .*77`,
		`^route of node b: .*10\.77\.0\.0/24`,
		`^nftables' table inet mine of node c$`,
		`^sysctl net/ipv4/ip_forward=1 of the lab's machine$`,
		`^route of the lab's machine: .*10\.99\.0\.0/24`,
		`^cable a:eth1 - c:eth0: its ends have MTUs of their own, 1500 and 1300$`,
		`^cable a:eth0 - port0: port0 is a port of no switch of the lab$`,
		`^queueing discipline htb of b:eth0$`,
	} {
		if !slices.ContainsFunc(lost, func(line string) bool { return regexp.MustCompile(want).MatchString(line) }) {
			t.Errorf("nothing like %s in %q", want, lost)
		}
	}
	if strings.Count(string(text), "# Not saved: ") != len(lost) {
		t.Errorf("what is lost is not in the file's comment:\n%s", text)
	}
	if _, _, err := lab.Parse(text); err != nil {
		t.Error(err)
	}
}
