package lab_test

import (
	"strings"
	"testing"

	"github.com/linkspan/linkspan/lab"
)

func TestRefusals(t *testing.T) {
	const head = "name: lan\n"
	for _, test := range []struct{ name, text, want string }{
		{"no YAML", "name: [", "[1:"},
		{"unknown key", head + "nodes:\n  a: {}\nwires: []\n", `[4:1] unknown field "wires"`},
		{"unknown key of a node", head + "nodes:\n  a: {adresses: {}}\n", `[3:7] unknown field "adresses"`},
		{"no name", "nodes: {}\n", `name ""`},
		{"bad name", "name: ../x\nnodes: {}\n", `[1:7] name "../x"`},
		{"bad node", head + "nodes:\n  A b: {}\n", `node "A b"`},
		{"node and switch", head + "switches:\n  a: {}\nnodes:\n  a: {}\n", "[3:6] a is a node and a switch"},
		{"dangling link", head + "nodes:\n  a: {}\nlinks:\n  - [a:eth0, b:eth0]\n", `[5:5] link a:eth0 - b:eth0: there is no node or switch "b"`},
		{"link without interface", head + "nodes:\n  a: {}\n  b: {}\nlinks:\n  - [a, b:eth0]\n", `"a" names no interface`},
		{"interface twice", head + "switches: {s: {}}\nnodes:\n  a: {}\nlinks:\n  - [a:eth0, s]\n  - [a:eth0, s]\n", "[7:5] link a:eth0 - s: a:eth0 has a cable already"},
		{"switch to switch", head + "switches: {s: {}, r: {}}\nnodes: {}\nlinks:\n  - [r, s]\n", "two switches cannot be joined"},
		{"address on no interface", head + "nodes:\n  a: {addresses: {eth0: [10.0.0.1/24]}}\n", "[3:25] node a has no interface eth0"},
		{"address twice", head + "switches: {s: {}}\nnodes:\n  a: {addresses: {eth0: [10.0.0.1/24]}}\n  b: {addresses: {eth0: [10.0.0.1/24]}}\nlinks:\n  - [a:eth0, s]\n  - [b:eth0, s]\n", "address 10.0.0.1 of b:eth0 is that of a:eth0 already"},
		{"no address", head + "nodes:\n  a: {addresses: {eth0: [10.0.0.256/24]}}\n", "[3:"},
		{"multicast MAC", head + "switches: {s: {}}\nnodes:\n  a: {macs: {eth0: \"01:00:5e:00:00:01\"}}\nlinks: [[a:eth0, s]]\n", "is no MAC that an interface can have"},
		{"route of two families", head + "nodes:\n  a: {routes: [{to: 0.0.0.0/0, via: \"fd00::1\"}]}\n", "same family"},
		{"gateway on no wire", head + "nodes:\n  a: {routes: [{to: 0.0.0.0/0, via: 10.0.0.1}]}\n", "no interface has an address in one subnet with 10.0.0.1"},
		{"sysctl of the machine", head + "nodes:\n  a: {sysctls: {kernel.panic: \"1\"}}\n", "only net.* belong"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := lab.Explain([]byte(test.text))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("err = %v, want %q in it", err, test.want)
			}
		})
	}
}

func TestWarnsOfLoops(t *testing.T) {
	const text = "name: lan\nswitches: {s: {}, r: {stp: true}}\nnodes: {a: {}}\nlinks: [[a:eth0, s], [a:eth1, s], [a:eth2, r], [a:eth3, r]]\n"
	_, warnings, err := lab.Parse([]byte(text))
	if err != nil || len(warnings) != 1 || !strings.Contains(warnings[0], "node a has 2 cables to switch s") {
		t.Errorf("warnings %q, err %v", warnings, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(two)
	f.Fuzz(func(_ *testing.T, text string) {
		if _, err := lab.Explain([]byte(text)); err == nil {
			lab.Parse([]byte(text)) //nolint:errcheck // what can be explained can be parsed; neither may panic
		}
	})
}
