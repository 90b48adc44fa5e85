package main

import (
	"regexp"
	"strings"
	"testing"
)

// TestSeeing looks at one network with each of the lab's instruments.
func TestSeeing(t *testing.T) {
	s := newStory(t)
	s.start()
	defer s.leave()
	s.do("network", "create", "--subnet", "10.77.0.0/24", "-o", "com.docker.network.bridge.name=br-lab", "lab")
	s.do("run", "-d", "--name", "web", "--network", "lab", "--rootfs", "/", "--", "sleep", "1000")

	if out := s.do("brctl", "show", "--who", "br-lab"); !regexp.MustCompile(`(?m)^br-lab\t\t8000\.[0-9a-f]{12}\tno\t\tveth[0-9a-f]{7}\tweb lab 10\.77\.0\.2$`).MatchString(out) {
		t.Errorf("brctl show --who:\n%s", out)
	}
	if out := s.do("explain", "brctl", "stp", "br-lab", "on"); !strings.Contains(out, "ip link set dev br-lab type bridge stp_state 1") {
		t.Errorf("explain brctl stp:\n%s", out)
	}
	if out, err := s.try("brctl", "delbr", "br-lab"); err == nil || !strings.Contains(out, "bridge br-lab") {
		t.Errorf("brctl delbr of a network's bridge: %v\n%s", err, out)
	}
	if out := s.do("topology"); !regexp.MustCompile(`└─ br-lab bridge 10\.77\.0\.1/24 network lab\n   └─ veth[0-9a-f]{7} ── web: eth0 10\.77\.0\.2/24`).MatchString(out) {
		t.Errorf("topology:\n%s", out)
	}
	out := s.do("nsls", "web")
	if !regexp.MustCompile(`^CONTAINER +PID +CGROUP +IPC +NET +MNT +PID +USER +UTS\n\(here\) +\d+( +\d+){7}\nweb +\d+ +\d+ +\d+ +\d+ +\d+ +\d+ += +\d+$`).MatchString(out) {
		t.Errorf("nsls:\n%s", out)
	}
	s.do("kill", "web")
	if out, err := s.try("nsls", "web"); err == nil || !strings.Contains(out, "is not running") {
		t.Errorf("nsls of a container that ended: %v\n%s", err, out)
	}
}
