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
	seen := make(chan string)
	go func() {
		out, _ := s.try("capture", "--live", "--count", "4", "web")
		seen <- out
	}()
	// Pings go on until four frames were seen: whoever listens may not be there yet.
	frames := ""
	for waiting := true; waiting; {
		s.do("exec", "web", "ping", "-c1", "-W1", "10.77.0.1")
		select {
		case frames = <-seen:
			waiting = false
		default:
		}
	}
	for _, want := range []string{"listening to web eth0\n", "  web eth0  web > host  ICMPv4 EchoRequest  98 bytes\n", "  web eth0  host > web  ICMPv4 EchoReply  98 bytes\n"} {
		if !strings.Contains(frames, want) {
			t.Errorf("capture shows no %q:\n%s", want, frames)
		}
	}
	if out, err := s.try("capture", "--live", "nobody"); err == nil || !strings.Contains(out, "nobody is no container, endpoint, link or bridge") {
		t.Errorf("capture of nobody: %v\n%s", err, out)
	}
	s.do("kill", "web")
	if out, err := s.try("nsls", "web"); err == nil || !strings.Contains(out, "is not running") {
		t.Errorf("nsls of a container that ended: %v\n%s", err, out)
	}
}
