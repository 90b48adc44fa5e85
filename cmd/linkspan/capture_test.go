package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/linkspan/linkspan/internal/nstest"
)

// capturing starts a capture and waits until it listens.
func capturing(t *testing.T, s *story, args ...string) (cmd *exec.Cmd, said *syncBuffer) {
	t.Helper()
	cmd, said = s.program(t.Context(), append([]string{"capture"}, args...)...), &syncBuffer{}
	cmd.Stderr = said
	if cmd.Stdout == nil {
		cmd.Stdout = said
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if !nstest.Until(30*time.Second, func() bool { return strings.Contains(said.String(), "listening to ") }) {
		t.Fatalf("capture does not listen:\n%s", said)
	}
	return cmd, said
}

// TestCaptureOfALab listens to the cables of a lab, with no daemon.
func TestCaptureOfALab(t *testing.T) {
	s := newStory(t)
	file := filepath.Join(s.dir, "lan.yaml")
	text := `name: lan
switches: {sw: {}}
nodes:
  a: {addresses: {eth0: [10.0.0.1/24]}}
  b: {addresses: {eth0: [10.0.0.2/24], eth1: [10.0.1.2/24]}}
  c: {addresses: {eth0: [10.0.1.3/24]}}
links: [["a:eth0", sw], ["b:eth0", sw], ["b:eth1", "c:eth0"]]
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s.do("lab", "up", file)
	if out, err := s.try("capture", "--lab", "lan", "--live", "d:eth0"); err == nil || !strings.Contains(out, "lab lan has no cable at d:eth0: there are a:eth0, sw:port0, b:eth0, sw:port1, b:eth1, c:eth0") {
		t.Errorf("capture of no cable: %v\n%s", err, out)
	}
	if out, err := s.try("capture", "--lab", "lan", "--live", "-s", "5"); err == nil || !strings.Contains(out, "--snaplen 5: want 14") {
		t.Errorf("capture of five bytes: %v\n%s", err, out)
	}

	// One end of every cable; it ends by itself when the lab goes.
	whole := filepath.Join(s.dir, "lan.pcapng")
	cmd, said := capturing(t, s, "--lab", "lan", "--live", "-w", whole)
	s.do("lab", "exec", "lan", "a", "ping", "-c1", "-W5", "10.0.0.2")
	for _, want := range []string{"listening to a eth0\n", "listening to b eth1\n", "  a eth0  a > all  ARP who has 10.0.0.2? tell 10.0.0.1  42 bytes\n", "  a eth0  a > b  ICMPv4 EchoRequest  98 bytes\n"} {
		if !nstest.Until(30*time.Second, func() bool { return strings.Contains(said.String(), want) }) {
			t.Errorf("capture shows no %q:\n%s", want, said)
		}
	}
	s.do("lab", "down", "lan")
	if err := cmd.Wait(); err != nil {
		t.Errorf("capture of a lab that went: %v", err)
	}
	if !regexp.MustCompile(`(?s)a eth0 is gone\n.*\n\d+ frames, 0 dropped by the kernel\n$`).MatchString(said.String()) {
		t.Errorf("capture of a lab that went says:\n%s", said)
	}
	if out := s.machine.Sh(t, "tcpdump -nr "+whole+" icmp 2>/dev/null"); strings.Count(out, "ICMP echo re") != 4 {
		t.Errorf("tcpdump reads:\n%s", out)
	}

	// ^C leaves a whole file; a pipe gets each frame at once.
	s.do("lab", "up", file)
	cmd, said = capturing(t, s, "--lab", "lan", "-s", "60", "-w", whole, "sw")
	s.do("lab", "exec", "lan", "a", "ping", "-c1", "-W5", "10.0.0.2")
	if !nstest.Until(30*time.Second, func() bool {
		out, _ := s.machine.TrySh("tcpdump -nr " + whole + " icmp 2>/dev/null")
		return strings.Count(out, "ICMP echo re") == 4
	}) {
		t.Error("the frames are not in the file")
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil || !strings.HasSuffix(said.String(), " frames, 0 dropped by the kernel\n") {
		t.Errorf("^C: %v\n%s", err, said)
	}
	s.machine.Sh(t, "tcpdump -nr "+whole+" 2>"+whole+".err >/dev/null; ! grep -i truncated "+whole+".err")
	piped := filepath.Join(s.dir, "piped")
	reader := s.machine.Start(t, "mkfifo "+piped+"; exec tcpdump --immediate-mode -nlr "+piped+" icmp 2>/dev/null")
	if !nstest.Until(30*time.Second, func() bool { _, err := os.Stat(piped); return err == nil }) {
		t.Fatal("no pipe")
	}
	cmd, _ = capturing(t, s, "--lab", "lan", "-c", "4", "-w", piped, "b:eth0")
	s.do("lab", "exec", "lan", "a", "ping", "-c1", "-W5", "10.0.0.2")
	s.do("lab", "exec", "lan", "a", "ping", "-c1", "-W5", "10.0.0.2")
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if out := reader(); !strings.Contains(out, "ICMP echo reply") {
		t.Errorf("the other end of the pipe saw:\n%s", out)
	}
	s.do("lab", "down", "lan")
}

// TestCaptureOfAContainerThatGoes ends with words.
func TestCaptureOfAContainerThatGoes(t *testing.T) {
	s := newStory(t)
	s.start()
	defer s.leave()
	s.do("network", "create", "--subnet", "10.77.0.0/24", "lab")
	s.do("run", "-d", "--name", "web", "--network", "lab", "--rootfs", "/", "--", "sleep", "1000")
	cmd, said := capturing(t, s, "--live", "web")
	s.do("rm", "-f", "web")
	if err := cmd.Wait(); err != nil {
		t.Errorf("capture of a container that went: %v", err)
	}
	if !regexp.MustCompile(`(?s)web eth0 is gone\n\d+ frames, 0 dropped by the kernel\n$`).MatchString(said.String()) {
		t.Errorf("capture of a container that went says:\n%s", said)
	}
}
