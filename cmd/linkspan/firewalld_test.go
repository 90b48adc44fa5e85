package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/linkspan/linkspan/internal/nstest"
)

// busConfig lets everybody who reaches the bus do everything.
const busConfig = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <listen>unix:path=%s</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/><allow own="*"/><allow send_destination="*"/>
    <allow send_type="method_call"/><allow send_type="signal"/>
    <allow receive_type="method_call"/><allow receive_type="method_return"/><allow receive_type="error"/><allow receive_type="signal"/>
  </policy>
</busconfig>
`

// firewalld starts firewalld(1) on a machine, with a bus and a configuration of
// its own, and returns what runs firewall-cmd(1).
func (n neighbourhood) firewalld() (cmd func(args string) string, stop func()) {
	n.t.Helper()
	dir := filepath.Join(n.dir, "firewalld")
	n.machine.Sh(n.t, "mkdir "+dir+"; cp -a /etc/firewalld "+dir+"/etc")
	if err := os.WriteFile(dir+"/bus.conf", fmt.Appendf(nil, busConfig, dir+"/bus"), 0o600); err != nil {
		n.t.Fatal(err)
	}
	bus := "export DBUS_SYSTEM_BUS_ADDRESS=unix:path=" + dir + "/bus; "
	stopBus := n.machine.Start(n.t, "exec dbus-daemon --config-file="+dir+"/bus.conf --nofork --nopidfile")
	if !nstest.Until(longEnough, func() bool { _, err := os.Stat(dir + "/bus"); return err == nil }) {
		n.t.Fatalf("the bus does not start:\n%s", stopBus())
	}
	stopWall := n.machine.Start(n.t, bus+"exec /usr/sbin/firewalld --nofork --nopid --system-config "+dir+"/etc --log-file "+dir+"/log")
	if !nstest.Until(2*longEnough, func() bool { _, err := n.machine.TrySh(bus + "firewall-cmd --state"); return err == nil }) {
		n.t.Fatalf("firewalld does not start:\n%s", stopWall())
	}
	return func(args string) string {
			n.t.Helper()
			return n.machine.Sh(n.t, bus+"firewall-cmd "+args)
		}, func() {
			stopWall() // which takes its rules away
			stopBus()
		}
}

// firewalld lets no zone's packets into another unless it is told to. The doctor
// says by which chain, and what to tell it; after that, and after its reload, all
// works, with both backends.
func TestBesideFirewalld(t *testing.T) {
	for _, backend := range []string{"nftables", "iptables"} {
		t.Run(backend, func(t *testing.T) {
			n := newNeighbourhood(t)
			cmd, stop := n.firewalld()
			n.start("--firewall-backend", backend)
			n.serve()
			said := n.finding()
			if !strings.Contains(said, "foreign-drop-policy") || !strings.Contains(said, "table inet firewalld") {
				t.Fatalf("the doctor says:\n%s", said)
			}
			if got := n.asking("web", "192.0.2.2 7", silence); got != "-" {
				t.Errorf("where the doctor sees an obstacle, the container reaches the neighbour: %q", got)
			}
			for _, network := range []string{"lab", "bridge"} {
				name := "linkspan0"
				if network == "lab" {
					name = "br-" + n.do("network", "inspect", "-f", "{{.Id}}", "lab")[:12]
				}
				remedy := "--permanent --zone=trusted --add-interface=BRIDGE"
				if !strings.Contains(said, remedy) {
					t.Fatalf("the doctor does not say how to help:\n%s", said)
				}
				cmd(strings.ReplaceAll(remedy, "BRIDGE", name))
			}
			cmd("--reload")
			began := time.Now()
			n.works("after the doctor's remedy and a reload")
			t.Logf("all works %v after a reload", time.Since(began).Round(time.Millisecond))
			if said := n.finding(); strings.Contains(said, "foreign-drop-policy") {
				t.Errorf("after its own remedy the doctor says:\n%s", said)
			}
			cmd("--complete-reload")
			n.works("after a complete reload")
			n.leave()
			stop()
		})
	}
}
