package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/linkspan/linkspan/internal/nstest"
)

// executed matches what strace(1) writes of a program that was executed.
var executed = regexp.MustCompile(`exec(?:ve|veat)\((?:-?\d+|AT_FDCWD)?(?:, )?"([^"]*)", \["([^"]*)"`)

// startTraced is start under strace(1), which follows every child: those system
// calls of the daemon, and of all that descends from it, are written to the file
// whose name it returns.
func (s *story) startTraced(calls string, flags ...string) (trace string) {
	s.t.Helper()
	trace = filepath.Join(s.dir, "trace")
	daemon := s.program(context.Background(), s.daemonArgs(flags...)...)
	traced := exec.Command("nsenter", slices.Concat(daemon.Args[1:2], []string{"strace", "-f", "-qq", "-s", "4096", "-e", "trace=" + calls, "-o", trace}, daemon.Args[2:])...)
	traced.Env = daemon.Env
	if err := os.WriteFile(filepath.Join(s.dir, "none.json"), []byte("{}"), 0o600); err != nil {
		s.t.Fatal(err)
	}
	traced.Stderr = &s.log
	s.daemon = traced
	if err := traced.Start(); err != nil {
		s.t.Fatal(err)
	}
	if !nstest.Until(60*time.Second, func() bool { _, err := s.try("version"); return err == nil }) {
		s.t.Fatalf("the daemon does not answer:\n%s", s.log.String())
	}
	return trace
}

// programs returns the names of the programs in a trace, each once, in order.
func (s *story) programs(trace string) []string {
	s.t.Helper()
	text, err := os.ReadFile(trace)
	if err != nil {
		s.t.Fatal(err)
	}
	var names []string
	for line := range strings.Lines(string(text)) {
		if !strings.Contains(line, "exec") || strings.Contains(line, "resumed>") {
			continue
		}
		found := executed.FindStringSubmatch(line)
		if found == nil {
			s.t.Fatalf("a line of the trace is not understood: %s", line)
		}
		names = append(names, filepath.Base(found[2]))
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// A daemon on nftables executes nothing but its shim, and that the container's
// program: no iptables, nft, ip or sysctl, neither when it starts nor for a
// network, a container with published ports, a change of them, or a repair. The
// trace that shows it would show them: with iptables it does.
func TestNoHelperProcesses(t *testing.T) {
	self, err := os.Executable() // which is the program, too
	if err != nil {
		t.Fatal(err)
	}
	for backend, want := range map[string][]string{
		"nftables": {"linkspan-shim", "sleep"},
		"iptables": {"ip6tables-restore", "ip6tables-save", "iptables-restore", "iptables-save", "linkspan-shim", "sleep"},
	} {
		t.Run(backend, func(t *testing.T) {
			s := newStory(t)
			trace := s.startTraced("execve,execveat", "--firewall-backend", backend)
			s.do("network", "create", "--ipv6", "--subnet", "10.77.0.0/24", "--subnet", "fd77::/64", "lab")
			s.do("run", "-d", "--name", "web", "--network", "lab", "-p", "8080:80", "-p", "9000-9010:9000-9010/udp", "--rootfs", "/", "--", "sleep", "1000")
			s.do("port", "add", "web", "8081:81")
			s.do("port", "rm", "web", "8080:80")
			s.do("network", "connect", "bridge", "web")
			s.do("firewall", "reapply")
			s.clear()
			s.endTraced()
			want = append(want, filepath.Base(self))
			slices.Sort(want)
			if got := s.programs(trace); !slices.Equal(got, want) {
				t.Errorf("executed: %v, want %v", got, want)
			}
			s.do(s.daemonArgs("--firewall-backend", backend, "--uninstall")...)
		})
	}
}

// endTraced ends the daemon that is the tracer's child.
func (s *story) endTraced() {
	s.t.Helper()
	s.machine.Sh(s.t, "kill -INT $(cat "+filepath.Join(s.dir, "exec", "linkspan.pid")+")")
	s.daemon.Wait() //nolint:errcheck // the log tells
}

// A start reads the rules of all networks and ports at once, not those of each
// container: how many sets it lists does not depend on how many there are, but for
// the one of each container's own resolver, which has one element.
func TestStartReadsRulesOnce(t *testing.T) {
	s := newStory(t)
	s.start("--firewall-backend", "nftables")
	s.do("network", "create", "--subnet", "10.77.0.0/24", "lab")
	listed, containers := []int{}, 0
	for _, more := range []int{1, 4} {
		for range more {
			containers++
			s.do("run", "-d", "--name", fmt.Sprint("web", containers), "--network", "lab", "-p", fmt.Sprint(8000+containers, ":80"), "--rootfs", "/", "--", "sleep", "1000")
		}
		s.end(os.Interrupt)
		trace := s.startTraced("sendto,sendmsg", "--firewall-backend", "nftables")
		s.endTraced()
		text, err := os.ReadFile(trace)
		if err != nil {
			t.Fatal(err)
		}
		listed = append(listed, strings.Count(string(text), "NFT_MSG_GETSETELEM"))
		s.start("--firewall-backend", "nftables")
	}
	if each := (listed[1] - listed[0]) / 4; listed[0] == 0 || each > 1 {
		t.Errorf("a start with 1 container lists %d sets, with 5 %d: %d more for each", listed[0], listed[1], each)
	}
	t.Logf("sets listed with 1 container: %d, with 5: %d", listed[0], listed[1])
	s.leave()
}
