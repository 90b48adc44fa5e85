package controller_test

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/linkspan/linkspan/controller"
	"github.com/linkspan/linkspan/firewall"
	"github.com/linkspan/linkspan/firewall/iptables"
	"github.com/linkspan/linkspan/firewall/nftables"
	"github.com/linkspan/linkspan/internal/nstest"
)

// tellWho has a namespace of a machine answer connections with who asks.
func tellWho(t *testing.T, m *nstest.Machine, ns, address string) {
	t.Helper()
	var listener net.Listener
	must(t, m.Host().Inside(ns, func() (err error) { listener, err = net.Listen("tcp", address); return err }))
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(conn, netip.MustParseAddrPort(conn.RemoteAddr().String()).Addr().Unmap())
			conn.Close()
		}
	}()
}

// whoAsks asks from a namespace of a machine; the answer is empty if nothing
// comes before the limit.
func whoAsks(m *nstest.Machine, ns, address string, limit time.Duration) string {
	buf, n := make([]byte, 64), 0
	err := m.Host().Inside(ns, func() error {
		conn, err := net.DialTimeout("tcp", address, limit)
		if err != nil {
			return err
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(limit)) //nolint:errcheck // it is a socket
		n, err = conn.Read(buf)
		return err
	})
	if err != nil {
		return ""
	}
	return string(buf[:n])
}

// modeCase is a network's options, and who is seen by whom then.
type modeCase struct {
	name     string
	options  map[string]string // without the prefix of bridge options
	internal bool
	asked    map[string]string // "who address" to who is seen; empty: nobody
	ports    string            // what is published
}

func modeCases() []modeCase {
	const routedPorts = "10.77.0.2 80/tcp fd77::2 80/tcp"
	port4, port6 := "lan 192.0.2.1:8080", "lan [2001:db8::1]:8080"
	straight := func(four, six, other4, other6 string) map[string]string {
		return map[string]string{"lan 10.77.0.2:80": four, "lan [fd77::2]:80": six, "lan 10.77.0.2:81": other4, "lan [fd77::2]:81": other6}
	}
	with := func(asked map[string]string, more ...string) map[string]string {
		for i := 0; i < len(more); i += 2 {
			asked[more[i]] = more[i+1]
		}
		return asked
	}
	const lan4, lan6, out4, out6, icc4, icc6 = "192.0.2.2", "2001:db8::2", "web 192.0.2.2:7", "web [2001:db8::2]:7", "peer 10.77.0.2:81", "peer [fd77::2]:81"
	const nat = "0.0.0.0:8080->80/tcp [::]:8080->80/tcp"
	return []modeCase{
		{"nat", nil, false, with(straight("", "", "", ""), port4, lan4, port6, lan6, out4, "192.0.2.1", out6, "2001:db8::1", icc4, "10.77.0.3", icc6, "fd77::3"), nat},
		{
			"unprotected",
			map[string]string{"gateway_mode_ipv4": "nat-unprotected", "gateway_mode_ipv6": "nat-unprotected"},
			false,
			with(straight(lan4, lan6, lan4, lan6), port4, lan4, port6, lan6, out4, "192.0.2.1", out6, "2001:db8::1"), nat,
		},
		{
			"routed",
			map[string]string{"gateway_mode_ipv4": "routed", "gateway_mode_ipv6": "routed"},
			false,
			with(straight(lan4, lan6, "", ""), port4, "", port6, "", out4, "10.77.0.2", out6, "fd77::2", icc4, "10.77.0.3"), routedPorts,
		},
		{
			"routed6",
			map[string]string{"gateway_mode_ipv6": "routed"},
			false,
			with(straight("", lan6, "", ""), port4, lan4, port6, "", out4, "192.0.2.1", out6, "fd77::2"), "0.0.0.0:8080->80/tcp fd77::2 80/tcp",
		},
		{
			"routed4",
			map[string]string{"gateway_mode_ipv4": "routed"},
			false,
			with(straight(lan4, "", "", ""), port4, "", port6, lan6, out4, "10.77.0.2", out6, "2001:db8::1"), "10.77.0.2 80/tcp [::]:8080->80/tcp",
		},
		{
			"isolated",
			map[string]string{"gateway_mode_ipv4": "isolated", "gateway_mode_ipv6": "isolated"},
			true,
			with(straight("", "", "", ""), port4, "", port6, "", out4, "", out6, "", icc4, "10.77.0.3", icc6, "fd77::3", "host 10.77.0.2:81", "", "host [fd77::2]:81", ""), "",
		},
		{
			"isolated6",
			map[string]string{"gateway_mode_ipv6": "isolated"},
			true,
			with(straight("", "", "", ""), port4, "", out4, "", icc4, "10.77.0.3", icc6, "fd77::3", "host 10.77.0.2:81", "10.77.0.1", "host [fd77::2]:81", ""), "",
		},
		{
			"iccoff",
			map[string]string{"enable_icc": "false"},
			false,
			with(straight("", "", "", ""), port4, lan4, port6, lan6, out4, "192.0.2.1", icc4, "", icc6, "", "host 10.77.0.2:81", "10.77.0.1"), nat,
		},
		{
			"snat",
			map[string]string{"host_ipv4": "192.0.2.9", "host_ipv6": "2001:db8::9"},
			false,
			with(straight("", "", "", ""), port4, lan4, port6, lan6, out4, "192.0.2.9", out6, "2001:db8::9", icc4, "10.77.0.3"), nat,
		},
		{
			"unmasked",
			map[string]string{"enable_ip_masquerade": "false"},
			false,
			with(straight("", "", "", ""), port4, lan4, out4, "10.77.0.2", out6, "fd77::2"), nat,
		},
		{
			"trusted",
			map[string]string{"trusted_host_interfaces": "nowhere:WIRE"},
			false,
			with(straight(lan4, lan6, "", ""), port4, lan4, port6, lan6, "other 10.77.0.2:80", ""), nat,
		},
		{"distrusted", map[string]string{"trusted_host_interfaces": "nowhere"}, false, with(straight("", "", "", ""), port4, lan4), nat},
	}
}

// Each gateway mode, in each family, with containers: who reaches what, and who
// is seen there.
func TestGatewayModes(t *testing.T) {
	for name, rules := range map[string]firewall.Backend{"nftables": nftables.Backend{}, "iptables": iptables.Backend{}} {
		t.Run(name, func(t *testing.T) {
			m, lan := nstest.New(t), nstest.New(t)
			wire := nstest.Wire(t, m, lan, netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("192.0.2.2/24"))
			m.Sh(t, fmt.Sprintf(`sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0
				ip addr add 2001:db8::1/64 nodad dev %[1]s; ip addr add 192.0.2.9/24 dev %[1]s; ip addr add 2001:db8::9/64 nodad preferred_lft 0 dev %[1]s`, wire))
			lan.Sh(t, fmt.Sprintf(`ip addr add 2001:db8::2/64 nodad dev %s; ip route add 10.0.0.0/8 via 192.0.2.1; ip -6 route add fd00::/8 via 2001:db8::1`, wire))
			tellWho(t, lan, "", "192.0.2.2:7")
			tellWho(t, lan, "", "[2001:db8::2]:7")
			d := start(t, m, newRoots(t), backend(rules))
			d.network(t, "side", subnet("10.78.0.0/24"))
			other := nsOf(d.run(t, spec("other", "side")))
			for _, c := range modeCases() {
				t.Run(c.name, func(t *testing.T) {
					id := d.network(t, "lab", dualStack, subnets("10.77.0.0/24", "fd77::/64"), func(s *controller.NetworkSpec) {
						s.Internal, s.Options = c.internal, make(map[string]string)
						for key, value := range c.options {
							prefix := "com.docker.network.bridge."
							if strings.HasPrefix(key, "host_ip") {
								prefix = "com.docker.network."
							}
							s.Options[prefix+key] = strings.ReplaceAll(value, "WIRE", wire)
						}
					})
					web := spec("web", "lab", addresses("10.77.0.2", "fd77::2", ""), publish("8080:80"))
					peer := spec("peer", "lab", addresses("10.77.0.3", "fd77::3", ""))
					spaces := map[string]string{"web": nsOf(d.run(t, web)), "peer": nsOf(d.run(t, peer)), "other": other, "host": ""}
					for _, at := range []string{"10.77.0.2:80", "10.77.0.2:81", "[fd77::2]:80", "[fd77::2]:81"} {
						tellWho(t, m, spaces["web"], at)
					}
					if got := d.published(web.ID); got != c.ports {
						t.Errorf("published: %q, want %q", got, c.ports)
					}
					var asking sync.WaitGroup
					for question, want := range c.asked {
						who, to, _ := strings.Cut(question, " ")
						machine, limit := m, patience
						if who == "lan" {
							machine = lan
						}
						if want == "" {
							limit = 300 * time.Millisecond
						}
						asking.Go(func() {
							if got := whoAsks(machine, spaces[who], to, limit); got != want {
								t.Errorf("%s asks %s and is seen as %q, want %q", who, to, got, want)
							}
						})
					}
					asking.Wait()
					for _, ctr := range []controller.Container{web, peer} {
						d.shims.drop(ctr.ID)
						must(t, d.Detach(t.Context(), ctr.ID))
						must(t, d.Forget(ctr.ID))
					}
					must(t, d.RemoveNetwork(t.Context(), string(id)))
				})
			}
			d.clear(t)
		})
	}
}
