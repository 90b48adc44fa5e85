package controller_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	apinetwork "github.com/moby/moby/api/types/network"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/controller"
	"github.com/linkspan/linkspan/doctor"
	"github.com/linkspan/linkspan/firewall"
	"github.com/linkspan/linkspan/firewall/iptables"
	"github.com/linkspan/linkspan/firewall/nftables"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/ipam"
	"github.com/linkspan/linkspan/op"
)

// sniffScript prints the frames that arrive at eth0, in hex, until the last one
// of its arguments has come.
const sniffScript = `
import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)); s.bind(("eth0", 3))
print("ready", flush=True)
while True:
    frame = s.recv(2000).hex()
    print(frame, flush=True)
    if frame.startswith(sys.argv[1]): print("over", flush=True); break
`

// sendScript sends frames given in hex by eth0.
const sendScript = `
import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind(("eth0", 0))
for frame in sys.argv[1:]: s.send(bytes.fromhex(frame))
`

// A container is who it is: what it sends from a foreign MAC or address, or as
// a router or DHCP server, does not get out of its cable.
func TestPortSecurity(t *testing.T) {
	const own, other = "02:00:00:00:00:0a", "02:00:00:00:00:0b"
	plain := strings.NewReplacer(":", "", " ", "").Replace
	ipv4 := func(mac, source, sport string) string { // a UDP datagram to 10.77.0.3
		head, tail := "4500001c00000000"+"4011", source+"0a4d0003"
		sum := 0
		for words := head + tail; words != ""; words = words[4:] {
			word, _ := strconv.ParseUint(words[:4], 16, 16)
			sum += int(word)
		}
		sum = ^(sum&0xffff + sum>>16) & 0xffff // br_netfilter looks at it
		return plain(fmt.Sprintf("ff:ff:ff:ff:ff:ff %s 0800 %s%04x%s %s 1388 0008 0000", mac, head, sum, tail, sport))
	}
	ipv6 := func(source, icmp string) string {
		return plain("33:33:00:00:00:01 " + own + " 86dd 6000000000083aff " + source + " ff020000000000000000000000000001 " + icmp)
	}
	arp := func(mac, address string) string {
		return plain("ff:ff:ff:ff:ff:ff " + own + " 0806 0001 0800 06 04 0001 " + mac + " " + address + " 000000000000 0a4d0003")
	}
	const mine6, foreign6, local6 = "fd770000000000000000000000000002", "fd7700000000000000000000000000ff", "fe80000000000000000000000000000a"
	frames := []struct {
		what, frame string
		allowed     bool
	}{
		{"its own datagram", ipv4(own, "0a4d0002", "1387"), true},
		{"a foreign MAC", ipv4(other, "0a4d0002", "1386"), false},
		{"a foreign address", ipv4(own, "0a4d0009", "1385"), false},
		{"a question for an address", ipv4(own, "00000000", "0044"), true},
		{"a DHCP offer", ipv4(own, "0a4d0002", "0043"), false},
		{"its own ARP", arp(own, "0a4d0002"), true},
		{"ARP about the gateway's address", arp(own, "0a4d0001"), false},
		{"ARP about a foreign MAC", arp(other, "0a4d0002"), false},
		{"its own ping", ipv6(mine6, "8000000000000000"), true},
		{"a link-local ping", ipv6(local6, "8000000000000001"), true},
		{"a foreign IPv6 address", ipv6(foreign6, "8000000000000000"), false},
		{"a router's advertisement", ipv6(local6, "8600000000000000"), false},
		{"a router's redirection", ipv6(local6, "8900000000000000"), false},
	}
	last := ipv4(own, "0a4d0002", "270f")
	for _, c := range []struct {
		on    bool
		rules firewall.Backend
	}{{true, nftables.Backend{}}, {false, nftables.Backend{}}, {true, iptables.Backend{Variant: iptables.NFT}}, {true, iptables.Backend{Variant: iptables.Legacy}}} {
		on := c.on
		t.Run(fmt.Sprintf("%T/on=%v", c.rules, on), func(t *testing.T) {
			m := nstest.New(t)
			d := start(t, m, newRoots(t), backend(c.rules))
			d.network(t, "lab", dualStack, subnets("10.77.0.0/24", "fd77::/64"), func(s *controller.NetworkSpec) {
				s.Options = map[string]string{controller.OptionPortSecurity: fmt.Sprint(on)}
			})
			bad := d.run(t, spec("bad", "lab", addresses("10.77.0.2", "fd77::2", own)))
			victim := d.run(t, spec("victim", "lab", addresses("10.77.0.3", "fd77::3", "")))
			out := filepath.Join(t.TempDir(), "seen")
			seen := func() string {
				text, _ := os.ReadFile(out)
				return string(text)
			}
			m.Start(t, "exec "+in(victim, "python3 -c '"+strings.ReplaceAll(sniffScript, "'", `"`)+"' "+last)+" >"+out)
			if !nstest.Until(patience, func() bool { return strings.HasPrefix(seen(), "ready") }) {
				t.Fatal("the victim does not listen")
			}
			args := ""
			for _, f := range frames {
				args += " " + f.frame
			}
			m.Sh(t, in(bad, "python3 -c '"+sendScript+"'"+args+" "+last))
			if !nstest.Until(patience, func() bool { return strings.Contains(seen(), "over") }) {
				t.Fatalf("the last frame did not come through:\n%s", seen())
			}
			for _, f := range frames {
				if got, want := strings.Contains(seen(), f.frame), f.allowed || !on; got != want {
					t.Errorf("%s came through: %v, want %v", f.what, got, want)
				}
			}
			before := m.Sh(t, "nft list table bridge linkspan")
			m.Sh(t, "nft delete table bridge linkspan")
			if !nstest.Until(patience, func() bool {
				now, err := m.TrySh("nft list table bridge linkspan")
				return err == nil && len(now) == len(before) // the order of elements is the kernel's
			}) {
				t.Error("the guard did not come back")
			}
			d.clear(t)
		})
	}
}

func addresses(four, six, mac string) func(*controller.Container) {
	return func(c *controller.Container) {
		for _, s := range c.Networking.EndpointsConfig {
			s.IPAMConfig = &apinetwork.EndpointIPAMConfig{IPv4Address: netip.MustParseAddr(four)}
			if six != "" {
				s.IPAMConfig.IPv6Address = netip.MustParseAddr(six)
			}
			if mac != "" {
				if err := s.MacAddress.UnmarshalText([]byte(mac)); err != nil {
					panic(err)
				}
			}
		}
	}
}

func subnets(cidrs ...string) func(*controller.NetworkSpec) {
	return func(s *controller.NetworkSpec) {
		for _, cidr := range cidrs {
			s.Pools = append(s.Pools, ipam.Pool{Subnet: netip.MustParsePrefix(cidr)})
		}
	}
}

// A kernel that cannot look into bridges has networks all the same, whose ports
// are not guarded; they say so, and the doctor does. With a kernel that can, the
// next daemon guards those of containers that start.
func TestUnguardedPorts(t *testing.T) {
	for name, rules := range map[string]firewall.Backend{"nftables": nftables.Backend{}, "iptables": iptables.Backend{}} {
		t.Run(name, func(t *testing.T) {
			m, r := nstest.New(t), newRoots(t)
			cannot := func(o *controller.Options) {
				o.Before = func(_ int, step op.Step) error {
					if _, is := step.Op.(nftables.AddGuard); is {
						return linkspan.Errorf(linkspan.ErrUnsupported, "no nftables for bridges (said the test)")
					}
					return nil
				}
			}
			d := start(t, m, r, backend(rules), cannot)
			d.network(t, "lab", subnet("10.77.0.0/24"))
			d.network(t, "free", subnet("10.78.0.0/24"), func(s *controller.NetworkSpec) {
				s.Options = map[string]string{controller.OptionPortSecurity: "false"}
			})
			d.run(t, spec("web", "lab"))
			says := func(name string, on bool, why string) {
				t.Helper()
				n, err := d.Network(name)
				must(t, err)
				got, guardable := d.PortSecurity(n)
				if !guardable || got.On != on || !strings.Contains(got.Why, why) {
					t.Errorf("port security of %s: %+v (%v), want %v and %q", name, got, guardable, on, why)
				}
			}
			says("lab", false, "said the test")
			says("free", false, "switched off")
			finding := func() string {
				found, err := d.Diagnose(t.Context())
				must(t, err)
				for _, f := range found {
					if f.Reason == doctor.ReasonUnguarded {
						return f.What
					}
				}
				return ""
			}
			if got := finding(); !strings.Contains(got, "lab") || strings.Contains(got, "free") {
				t.Errorf("the doctor says %q", got)
			}
			if out := m.Sh(t, "nft list tables"); strings.Contains(out, "bridge linkspan") {
				t.Errorf("there is a guard:\n%s", out)
			}
			d.stop(t)
			d = start(t, m, r, backend(rules))
			says("lab", true, "")
			if got := finding(); got != "" {
				t.Errorf("the doctor says %q", got)
			}
			peer := d.run(t, spec("peer", "lab", addresses("10.77.0.9", "", "")))
			if out := m.Sh(t, "nft list set bridge linkspan stations4"); !strings.Contains(out, "10.77.0.9") {
				t.Errorf("the port of %s is not guarded:\n%s", peer.Hostname, out)
			}
			m.Sh(t, "nft flush set bridge linkspan stations4") // one of its sets is enough
			if !nstest.Until(patience, func() bool { return strings.Contains(m.Sh(t, "nft list set bridge linkspan stations4"), "10.77.0.9") }) {
				t.Error("the guard did not come back")
			}
			d.clear(t)
		})
	}
}
