package main

import (
	"os"
	"testing"
)

// A daemon that starts with other flags than the one before opens published ports
// of containers that run already at their own addresses, or lets marked packets
// in, and closes both again.
func TestDirectRoutingByFlags(t *testing.T) {
	for _, backend := range []string{"nftables", "iptables"} {
		t.Run(backend, func(t *testing.T) {
			n := newNeighbourhood(t)
			n.lan.Sh(t, "ip route add 10.77.0.0/24 via 192.0.2.1; ip addr add 192.0.2.4/24 dev $(ip -o -4 addr show to 192.0.2.2 | awk '{print $2}')")
			n.machine.Sh(t, "nft 'table ip marks { chain pre { type filter hook prerouting priority mangle; ip saddr 192.0.2.2 tcp dport 81 meta mark set 0x713; }; }'")
			n.start("--firewall-backend", backend)
			n.do("network", "create", "--subnet", "10.77.0.0/24", "lab")
			n.do("run", "-d", "--name", "web", "--network", "lab", "--ip", "10.77.0.2", "-p", "8080:80", "--rootfs", "/", "--", "python3", "-c", serveScript, "80", "81", "82")
			says := func(when string, published, marked string) {
				t.Helper()
				for address, want := range map[string]string{"192.0.2.1 8080": "192.0.2.2", "10.77.0.2 80": published, "10.77.0.2 81": marked, "10.77.0.2 82": "-"} {
					limit := float64(trust)
					if want == "-" {
						limit = silence
					}
					if got := n.asking("lan", address, limit); got != want {
						t.Errorf("%s: the neighbour asks %s and is seen as %q, want %q", when, address, got, want)
					}
				}
			}
			restart := func(flags ...string) {
				t.Helper()
				n.end(os.Interrupt)
				n.start(append([]string{"--firewall-backend", backend}, flags...)...)
			}
			says("at first", "-", "-")
			restart("--allow-direct-routing")
			says("with direct routing", "192.0.2.2", "-")
			restart("--bridge-accept-fwmark", "0x10/0xf0")
			says("accepting by mark", "-", "192.0.2.2")
			restart("--allow-direct-routing", "--bridge-accept-fwmark", "0x713")
			says("with both", "192.0.2.2", "192.0.2.2")
			restart("--bridge-accept-fwmark", "0x20/0xf0")
			says("accepting by another mark", "-", "-")
			restart()
			says("without flags", "-", "-")
			if said := n.do("firewall", "reapply"); said != "nothing was missing" {
				t.Errorf("reapply says %s", said)
			}
			n.leave()
		})
	}
}
