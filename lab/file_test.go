package lab_test

import (
	"errors"
	"regexp"
	"strings"
	"testing"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/lab"
)

// bad are files that no lab can be built of, and what is said of each.
var bad = []struct{ name, text, want string }{
	{"no YAML", "name: [", "[1:7] "},
	{"a tab", "name: lan\nnodes:\n\ta: {}\n", "[3:1] "},
	{"nothing", "", "[1:1] the file is empty"},
	{"comments only", "# later\n", "[1:1] the file is empty"},
	{"no map", "- lan\n", "[1:1] sequence was used where mapping is expected"},
	{"two documents", "name: lan\nnodes: {}\n---\nname: wan\n", "[4:5] a second document"},
	{"unknown key", head + "nodes:\n  a: {}\nwires: []\n", `[4:1] unknown field "wires"`},
	{"unknown key of a node", head + "nodes:\n  a: {adresses: {}}\n", `[3:7] unknown field "adresses"`},
	{"unknown key of a switch", head + "nodes: {}\nswitches:\n  s: {spt: true}\n", `[4:7] unknown field "spt"`},
	{"unknown key of a link", head + pair + "links:\n  - {ends: [a:eth0, b:eth0], lost: 5%}\n", `[4:30] unknown field "lost"`},
	{"unknown key of a route", head + "nodes:\n  a: {routes: [{to: default, gateway: 10.0.0.1}]}\n", `[3:30] unknown field "gateway"`},
	{"key twice", head + "name: wan\n", `[2:1] mapping key "name" already defined at [1:1]`},
	{"node twice", head + "nodes:\n  a: {}\n  b: {}\n  a: {}\n", `[5:3] mapping key "a" already defined at [3:3]`},
	{"no name", "nodes: {}\n", `[1:1] name ""`},
	{"bad name", "nodes: {}\nname: ../x\n", `[2:1] name "../x"`},
	{"long name", "name: a-very-long-name-of-a-lab\nnodes: {}\n", `[1:1] name "a-very-long-name-of-a-lab"`},
	{"bad node", head + "nodes:\n  A b: {}\n", `[3:3] node "A b"`},
	{"bad switch", head + "nodes: {}\nswitches:\n  Sw: {}\n", `[4:3] switch "Sw"`},
	{"switch lo", head + "nodes: {}\nswitches:\n  lo: {}\n", `[4:3] switch lo`},
	{"node and switch", head + "switches:\n  a: {}\nnodes:\n  a: {}\n", "[3:3] a is a node and a switch"},
	{"nodes as a list", head + "nodes: [a, b]\n", "[2:8] "},
	{"link of three", head + pair + "links:\n  - [a:eth0, b:eth0, a:eth1]\n", "[4:5] a link has two ends, not 3"},
	{"link of one", head + pair + "links:\n  - ends: [a:eth0]\n", "[4:11] a link has two ends, not 1"},
	{"link that is a word", head + pair + "links:\n  - a:eth0\n", "[4:5] "},
	{"link without ends", head + pair + "links:\n  - {mtu: 1400}\n", "[4:5] link  - : there is no node or switch \"\""},
	{"dangling link", head + "nodes:\n  a: {}\nlinks:\n  - [a:eth0, b:eth0]\n", `[5:5] link a:eth0 - b:eth0: there is no node or switch "b"`},
	{"link without interface", head + pair + "links:\n  - [a, b:eth0]\n", `[4:5] link a - b:eth0: "a" names no interface`},
	{"link by lo", head + pair + "links:\n  - [a:lo, b:eth0]\n", `[4:5] link a:lo - b:eth0: "a:lo" names no interface`},
	{"interface with a long name", head + pair + "links:\n  - [a:eth0123456789abc, b:eth0]\n", `[4:5] `},
	{"interface twice", head + "switches: {s: {}}\nnodes:\n  a: {}\nlinks:\n  - [a:eth0, s]\n  - [a:eth0, s]\n", "[7:5] link a:eth0 - s: a:eth0 has a cable already"},
	{"cable to itself", head + pair + "links:\n  - [a:eth0, a:eth0]\n", "[4:5] link a:eth0 - a:eth0: a:eth0 has a cable already"},
	{"switch to itself", head + "nodes: {}\nswitches: {s: {}}\nlinks:\n  - [s, s]\n", "[5:5] link s - s: a cable from a switch to itself"},
	{"port named twice", head + pair + "switches: {s: {}}\nlinks:\n  - [a:eth0, s:port1]\n  - [b:eth0, s]\n", "[6:5] link b:eth0 - s: s has a cable already"},
	{"ports of two switches", head + pair + "switches: {s: {}, r: {}}\nlinks:\n  - [a:eth0, s:up]\n  - [b:eth0, r:up]\n", "[6:5] link b:eth0 - r:up: port up of switch r has the name of a port of switch s"},
	{"port with a switch's name", head + pair + "switches: {s: {}, r: {}}\nlinks:\n  - [a:eth0, s:r]\n", "[5:5] link a:eth0 - s:r: port r of switch s has the name of switch r"},
	{"mtu", head + pair + "links:\n  - {ends: [a:eth0, b:eth0], mtu: 10}\n", "[4:30] mtu 10: want 68 to 65535"},
	{"rate", head + pair + "links:\n  - {ends: [a:eth0, b:eth0], rate: 5}\n", `[4:36] "5" is no rate`},
	{"loss", head + pair + "links:\n  - {ends: [a:eth0, b:eth0], loss: 101%}\n", `[4:36] "101%" is no share of frames`},
	{"delay", head + pair + "links:\n  - {ends: [a:eth0, b:eth0], delay: -1ms}\n", `[4:37] "-1ms" is no delay`},
	{"down at no end", head + pair + "links:\n  - {ends: [a:eth0, b:eth0], down: [b:eth1]}\n", "[4:37] down: b:eth1 is no end of link a:eth0 - b:eth0"},
	{"setting", head + "nodes: {}\nswitches:\n  s: {settings: {speed: 1}}\n", `[4:18] unknown setting "speed"`},
	{"setting out of range", head + "nodes: {}\nswitches:\n  s: {settings: {hello_time: 1}}\n", `[4:18] hello_time 1: want 100 to 1000`},
	{"MAC of a switch", head + "nodes: {}\nswitches:\n  s: {mac: x}\n", `[4:7] "x" is no MAC`},
	{"MAC of no port", head + "nodes: {}\nswitches:\n  s: {macs: {port0: \"02:00:00:00:00:01\"}}\n", `[4:14] s has no interface port0`},
	{"MAC of no interface", head + "nodes:\n  a: {macs: {eth0: \"02:00:00:00:00:01\"}}\n", `[3:14] a has no interface eth0`},
	{"multicast MAC", head + "switches: {s: {}}\nnodes:\n  a: {macs: {eth0: \"01:00:5e:00:00:01\"}}\nlinks: [[a:eth0, s]]\n", `[4:14] "01:00:5e:00:00:01" is no MAC that an interface can have`},
	{"address on no interface", head + "nodes:\n  a: {addresses: {eth0: [10.0.0.1/24]}}\n", "[3:19] node a has no interface eth0"},
	{"address twice", head + "switches: {s: {}}\nnodes:\n  a: {addresses: {eth0: [10.0.0.1/24]}}\n  b: {addresses: {eth0: [10.0.0.1/24]}}\nlinks:\n  - [a:eth0, s]\n  - [b:eth0, s]\n", "[5:26] address 10.0.0.1 of b:eth0 is that of a:eth0 already"},
	{"address of a switch twice", head + "switches: {s: {addresses: [10.0.0.1/24]}}\nnodes:\n  a: {addresses: {lo: [10.0.0.1/32]}}\n", "[4:24] address 10.0.0.1 of a:lo is that of s already"},
	{"no address", head + "nodes:\n  a: {addresses: {eth0: [10.0.0.256/24]}}\n", "[3:26] "},
	{"no length", head + "nodes:\n  a: {addresses: {eth0: [10.0.0.1]}}\n", "[3:26] "},
	{"address of a subnet", head + "nodes:\n  a: {addresses: {lo: [10.0.0.0/24]}}\n", "[3:24] address 10.0.0.0/24 of a:lo is that of the subnet itself"},
	{"broadcast address", head + "nodes:\n  a: {addresses: {lo: [10.0.0.255/24]}}\n", "[3:24] address 10.0.0.255/24 of a:lo is the subnet's broadcast address"},
	{"multicast address", head + "nodes:\n  a: {addresses: {lo: [224.0.0.1/24]}}\n", "[3:24] address 224.0.0.1 of a:lo is no host's"},
	{"route of two families", head + "nodes:\n  a: {routes: [{to: 0.0.0.0/0, via: \"fd00::1\"}]}\n", "[3:32] route to 0.0.0.0/0: via must be an address of the same family"},
	{"route to a host of a subnet", head + "nodes:\n  a: {routes: [{to: 10.0.0.1/24, via: 10.1.0.1}]}\n", "[3:17] route to 10.0.0.1/24: that is an address in 10.0.0.0/24"},
	{"route to nothing", head + "nodes:\n  a: {routes: [{via: 10.1.0.1}]}\n", "[3:16] a route needs to"},
	{"route by nothing", head + "nodes:\n  a: {routes: [{to: default}]}\n", "[3:16] route to 0.0.0.0/0: want via, a gateway, or dev, an interface"},
	{"route by no interface", head + "nodes:\n  a: {routes: [{to: default, dev: eth0}]}\n", "[3:30] node a has no interface eth0"},
	{"gateway on no wire", head + "nodes:\n  a: {routes: [{to: 0.0.0.0/0, via: 10.0.0.1}]}\n", "[3:32] node a: no interface has an address in one subnet with 10.0.0.1"},
	{"two default routes", head + pair2 + "  a: {addresses: {eth0: [10.0.0.1/24]}, routes: [{to: default, via: 10.0.0.2}, {to: 0.0.0.0/0, via: 10.0.0.3}]}\n", "[5:80] node a has two routes to 0.0.0.0/0"},
	{"sysctl of the machine", head + "nodes:\n  a: {sysctls: {kernel.panic: \"1\"}}\n", "[3:17] sysctl kernel.panic is not the node's own: only net.* belong"},
	{"sysctl out of its tree", head + "nodes:\n  a: {sysctls: {net.x/../../kernel/panic: \"1\"}}\n", "[3:17] sysctl net.x/../../kernel/panic is not the node's own"},
	{"empty start command", head + "nodes:\n  a: {start: [\"\"]}\n", "[3:15] an empty command"},
}

const (
	head  = "name: lan\n"
	pair  = "nodes: {a: {}, b: {}}\n"
	pair2 = "links: [[a:eth0, b:eth0]]\nnodes:\n  b: {}\n" // a follows, on line 5
)

func TestRefusals(t *testing.T) {
	m, e := engine(t)
	before := m.Dump(t)
	placed := regexp.MustCompile(`^lab file: \[\d+:\d+\] [^\n]+$`)
	for _, test := range bad {
		t.Run(test.name, func(t *testing.T) {
			_, err := e.Up(t.Context(), []byte(test.text), "")
			if !errors.Is(err, linkspan.ErrInvalid) || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("err = %v, want %q in it", err, test.want)
			}
			if !placed.MatchString(err.Error()) {
				t.Errorf("%q is not one line with its place", err)
			}
		})
	}
	if diff := nstest.Diff(before, m.Dump(t)); diff != "" {
		t.Errorf("a refused file built something:\n%s", diff)
	}
	if names, err := e.Names(); err != nil || len(names) > 0 {
		t.Errorf("refused files are labs: %v, %v", names, err)
	}
}

func TestWarnings(t *testing.T) {
	const switches = "name: lan\nswitches: {s: {}, r: {}, q: {}, p: {stp: true}}\nnodes: {a: {}, b: {}}\n"
	for _, test := range []struct {
		name, links string
		want        []string
	}{
		{"none", "[[a:eth0, s], [b:eth0, r], [s, r], [r, q], [s, p], [p, q]]", nil},
		{"a triangle", "[[s, r], [r, q], [q, s]]", []string{"[4:25] link q - s closes a cycle of switches without a spanning tree"}},
		{"two trunks", "[[s, r], [r, s]]", []string{"[4:17] link r - s closes a cycle"}},
		{"a node twice", "[[a:eth0, s], [a:eth1, s]]", []string{"[4:22] node a has two cables to switch s"}},
		{"a node twice with a spanning tree", "[[a:eth0, p], [a:eth1, p]]", nil},
		{"both, in the order of the file", "[[a:eth0, s], [a:eth1, s], [s, r], [r, s]]", []string{"[4:22] node a", "[4:43] link r - s closes"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, warnings, err := lab.Parse([]byte(switches + "links: " + test.links + "\n"))
			if err != nil || len(warnings) != len(test.want) {
				t.Fatalf("warnings %q, err %v, want %q", warnings, err, test.want)
			}
			for i, want := range test.want {
				if !strings.HasPrefix(warnings[i], want) {
					t.Errorf("warning %q, want %q", warnings[i], want)
				}
			}
		})
	}
	_, warnings, err := lab.Parse([]byte("name: lan\nswitches: {s: {}}\nnodes:\n  a: {macs: {eth0: \"02:00:00:00:00:01\"}}\n  b: {macs: {eth0: \"02:00:00:00:00:01\"}}\nlinks:\n  - [a:eth0, s]\n  - [b:eth0, s]\n"))
	if err != nil || len(warnings) != 1 || warnings[0] != "[8:5] MAC 02:00:00:00:00:01 of b:eth0 is that of a:eth0 already" {
		t.Errorf("warnings %q, err %v", warnings, err)
	}
}

func TestUnits(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"64kbit", "64kbit"},
		{"1.5Mbit", "1.5mbit"},
		{"8000bit", "8kbit"},
		{"10gbit", "10gbit"},
		{"12345678bit", "12.34568mbit"},
		{"1mb", ""},
		{"-1mbit", ""},
		{"1bit", ""},
		{"NaNmbit", ""},
		{"", ""},
	} {
		if got, err := lab.ParseRate(test.text); (err != nil) != (test.want == "") || err == nil && got.String() != test.want {
			t.Errorf("rate %q is %v, %v; want %q", test.text, got, err, test.want)
		}
	}
	for _, test := range []struct{ text, want string }{
		{"5%", "5%"}, {"0.01%", "0.01%"}, {"100%", "100%"}, {"5", ""}, {"0%", ""}, {"NaN%", ""}, {"100.1%", ""},
	} {
		if got, err := lab.ParseShare(test.text); (err != nil) != (test.want == "") || err == nil && got.String() != test.want {
			t.Errorf("share %q is %v, %v; want %q", test.text, got, err, test.want)
		}
	}
	for _, test := range []struct{ text, want string }{
		{"20ms", "20ms"}, {"1us", "1µs"}, {"1m", "1m0s"}, {"0s", ""}, {"1ns", ""}, {"1h", ""}, {"20", ""},
	} {
		if got, err := lab.ParseDelay(test.text); (err != nil) != (test.want == "") || err == nil && got.String() != test.want {
			t.Errorf("delay %q is %v, %v; want %q", test.text, got, err, test.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(two)
	for _, test := range bad {
		f.Add(test.text)
	}
	f.Fuzz(func(_ *testing.T, text string) {
		if _, err := lab.Explain([]byte(text)); err == nil {
			lab.Parse([]byte(text)) //nolint:errcheck // what can be explained can be parsed; neither may panic
		}
	})
}
