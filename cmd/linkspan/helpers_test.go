package main

import (
	"context"
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

// startTraced is start under strace(1), which follows every child: what the
// daemon and all that descends from it execute is written to the file whose name
// it returns.
func (s *story) startTraced(flags ...string) (trace string) {
	s.t.Helper()
	trace = filepath.Join(s.dir, "trace")
	daemon := s.program(context.Background(), s.daemonArgs(flags...)...)
	traced := exec.Command("nsenter", slices.Concat(daemon.Args[1:2], []string{"strace", "-f", "-qq", "-s", "4096", "-e", "trace=execve,execveat", "-o", trace}, daemon.Args[2:])...)
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
	for backend, want := range map[string][]string{
		"nftables": {"linkspan-shim", "linkspan.test", "sleep"},
		"iptables": {"ip6tables-restore", "ip6tables-save", "iptables-restore", "iptables-save", "linkspan-shim", "linkspan.test", "sleep"},
	} {
		t.Run(backend, func(t *testing.T) {
			s := newStory(t)
			trace := s.startTraced("--firewall-backend", backend)
			s.do("network", "create", "--ipv6", "--subnet", "10.77.0.0/24", "--subnet", "fd77::/64", "lab")
			s.do("run", "-d", "--name", "web", "--network", "lab", "-p", "8080:80", "-p", "9000-9010:9000-9010/udp", "--rootfs", "/", "--", "sleep", "1000")
			s.do("port", "add", "web", "8081:81")
			s.do("port", "rm", "web", "8080:80")
			s.do("network", "connect", "bridge", "web")
			s.do("firewall", "reapply")
			s.clear()
			// The daemon is the tracer's child, and ends when it is told to.
			s.machine.Sh(t, "kill -INT $(cat "+filepath.Join(s.dir, "exec", "linkspan.pid")+")")
			s.daemon.Wait() //nolint:errcheck // the log tells
			got := s.programs(trace)
			if !slices.Equal(got, want) {
				t.Errorf("executed: %v, want %v", got, want)
			}
			s.do(s.daemonArgs("--firewall-backend", backend, "--uninstall")...)
		})
	}
}
