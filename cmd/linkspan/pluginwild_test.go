package main

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/linkspan/linkspan/plugin/plugintest"
)

// A driver that has its addresses from elsewhere, and looks into the container
// from outside as soon as that runs.
func TestLeasesStory(t *testing.T) {
	s := newStory(t)
	driver := plugintest.NewLeases(s.machine, plugintest.NewEngine(filepath.Join(s.dir, "s")))
	plugintest.Serve(t, "/run/docker/plugins/net-dhcp.sock", driver.Handler())
	s.machine.Sh(t, "ip link add lan type bridge; ip addr add 10.203.0.1/24 dev lan; ip link set lan up")
	s.start()
	if out, err := s.try("network", "create", "-d", "net-dhcp", "-o", "bridge=lan", "lab"); err == nil || !strings.Contains(out, "only the null IPAM driver") {
		t.Errorf("a network with addresses of the engine's: %v %s", err, out)
	}
	s.do("network", "create", "-d", "net-dhcp", "--ipam-driver", "null", "-o", "bridge=lan", "lab")
	s.do("run", "-d", "--name", "web", "--network", "lab", "--rootfs", "/", "sleep", "1000")
	watched := func() {
		t.Helper()
		select {
		case err := <-driver.Watching:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(time.Minute):
			t.Error("the plugin finds no process of the container")
		}
	}
	watched()
	if out := s.do("exec", "web", "sh", "-c", "ip addr show lan0; ip route; ping -n -c1 -W5 10.203.0.1"); !strings.Contains(out, "10.203.0.10/24") || !strings.Contains(out, "default via 10.203.0.1") {
		t.Errorf("the container has not what the plugin leased:\n%s", out)
	}
	if out := s.do("plugin", "inspect", "net-dhcp"); !strings.Contains(out, `"veth_host": "dh-`) {
		t.Errorf("what the plugin says of its endpoint is not shown:\n%s", out)
	}
	s.do("run", "-d", "--name", "other", "--rootfs", "/", "sleep", "1000")
	s.do("network", "connect", "lab", "other")
	watched()
	s.do("network", "disconnect", "lab", "other")
	s.do("rm", "-f", "web", "other")
	if strings.Contains(s.log.String(), "no sandbox for the endpoint") {
		t.Error("the plugin did not find the process of all its endpoints")
	}
	s.do("network", "rm", "lab")
	if out := s.machine.Sh(t, "ls /sys/class/net"); strings.Contains(out, "dh-") || strings.Contains(out, "-dh") {
		t.Errorf("links of the plugin are left: %s", out)
	}
	s.machine.Sh(t, "ip link del lan")
	s.leave()
}

// A driver and allocator in one that keeps nothing, and asks the engine about a
// network that is only being made.
func TestTunnelStory(t *testing.T) {
	s := newStory(t)
	driver := plugintest.NewTunnel(s.machine, plugintest.NewEngine(filepath.Join(s.dir, "s")))
	plugintest.Serve(t, "/run/docker/plugins/vxlan/vxlan.sock", driver.Handler())
	s.start()
	for _, refused := range [][]string{{"-o", "vxlanid=42"}, {"--subnet", "10.204.0.0/24"}} {
		args := append([]string{"network", "create", "-d", "vxlan", "--ipam-driver", "vxlan"}, refused...)
		if out, err := s.try(append(args, "lab")...); err == nil || !strings.Contains(out, "automatic address pools") && !strings.Contains(out, "without a vxlanid") {
			t.Errorf("%v: %v %s", refused, err, out)
		}
	}
	s.do("network", "create", "-d", "vxlan", "--ipam-driver", "vxlan", "--subnet", "10.204.0.0/24", "--gateway", "10.204.0.254", "-o", "vxlanid=42", "lab")
	s.do("run", "-d", "--name", "web", "--network", "lab", "--rootfs", "/", "sleep", "1000")
	s.do("run", "-d", "--name", "db", "--network", "lab", "--ip", "10.204.0.77", "--rootfs", "/", "sleep", "1000")
	s.do("exec", "web", "ping", "-n", "-c1", "-W5", "10.204.0.77")
	s.do("exec", "web", "ping", "-n", "-c1", "-W5", "db")
	s.do("exec", "db", "ping", "-n", "-c1", "-W5", "10.204.0.254")
	s.machine.Sh(t, "ip -d -o link show type vxlan | grep 'vxlan id 42 '")
	s.do("rm", "-f", "web", "db")
	if out := s.machine.Sh(t, "ls /sys/class/net"); strings.Contains(out, "x_") || strings.Contains(out, "ethc") {
		t.Errorf("links of the plugin are left: %s", out)
	}
	s.do("network", "rm", "lab")
	s.leave()
}
