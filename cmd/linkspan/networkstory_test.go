package main

import (
	"os"
	"strings"
	"testing"
)

// A network changes under a container that runs, and the change outlives the
// daemon; what is spoilt is found and mended.
func TestNetworkUpdateAndDoctorStory(t *testing.T) {
	s := newStory(t)
	s.start("--default-address-pool", "base=10.9.0.0/16,size=26", "--default-address-pool", "base=fd09::/48,size=64")
	id := s.do("network", "create", "lab")
	bridge := "br-" + id[:12]
	s.do("run", "-d", "--name", "web", "--network", "lab", "--rootfs", "/", "--", "sleep", "300")
	field := func(template string) string { return s.do("network", "inspect", "-f", template, "lab") }
	if got := field("{{(index .IPAM.Config 0).Subnet}}"); got != "10.9.0.64/26" {
		t.Errorf("the second network of the pool has %s", got)
	}

	if got := s.do("explain", "network", "update", "--mtu", "1400", "--ipv6", "lab"); !strings.Contains(got, "ip link set "+bridge+" mtu 1400") || field("{{.EnableIPv6}}") != "false" {
		t.Errorf("explained:\n%s", got)
	}
	if got := s.do("network", "update", "--mtu", "1400", "--ipv6", "--subnet", "10.78.0.0/24", "--label", "stage=test", "--attachable", "lab"); got != "lab" {
		t.Errorf("update printed %q", got)
	}
	inside := s.do("exec", "web", "ip", "addr", "show", "eth0")
	for _, want := range []string{"mtu 1400", "inet 10.9.0.66/26", "inet6 fd09::2/64"} {
		if !strings.Contains(inside, want) {
			t.Errorf("no %q in the container:\n%s", want, inside)
		}
	}
	if out, err := s.try("network", "update", "--subnet", "10.9.0.0/16", "lab"); err == nil || !strings.Contains(out, "overlaps") {
		t.Errorf("a subnet that is taken: %v, %s", err, out)
	}

	s.end(os.Kill)
	s.start("--default-address-pool", "base=10.9.0.0/16,size=26", "--default-address-pool", "base=fd09::/48,size=64")
	if got := field(`{{.EnableIPv6}} {{.Attachable}} {{len .IPAM.Config}} {{index .Labels "stage"}} {{index .Options "com.docker.network.driver.mtu"}}`); got != "true true 3 test 1400" {
		t.Errorf("after kill -9: %s", got)
	}

	s.machine.Sh(t, "ip link set "+bridge+" mtu 1300; ip link add stray group 27763 type bridge")
	out, err := s.try("doctor")
	if err == nil || !strings.Contains(out, "broken (differs-from-plan): network lab: link "+bridge+" has MTU 1300, not 1400") || !strings.Contains(out, "note (orphan): link stray") {
		t.Errorf("the doctor says, with %v:\n%s", err, out)
	}
	if out, err := s.try("doctor", "--repair"); err != nil || strings.Contains(out, "stray") || strings.Contains(out, "differs") {
		t.Errorf("after a repair, with %v:\n%s", err, out)
	}
	if out, err := s.try("doctor", "--local"); err != nil || strings.Contains(out, "Error") {
		t.Errorf("without the daemon: %v\n%s", err, out)
	}
	s.leave()
}
