package main

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/kernel"
)

// TestOldFlow is scenario 13: a UDP conversation that is older than what it
// talks to.
func TestOldFlow(t *testing.T) {
	for _, backend := range []string{"nftables", "iptables"} {
		t.Run(backend, func(t *testing.T) { oldFlow(t, backend) })
	}
}

func oldFlow(t *testing.T, backend string) {
	s := newStory(t)
	lan := nstest.New(t)
	nstest.Wire(t, s.machine, lan, netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("192.0.2.2/24"))
	s.start("--firewall-backend", backend)
	s.do("network", "create", "--subnet", "10.77.0.0/24", "lab")
	out := filepath.Join(s.dir, "answers")
	lan.Start(t, `exec python3 -u -c '
import socket, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("192.0.2.2", 7777)); s.connect(("192.0.2.1", 9000)); s.settimeout(0.1)
n = 0
while True:
    n += 1
    try: s.send(b"?")
    except OSError: pass
    try: print(n, s.recv(100).decode(), flush=True)
    except OSError: pass
    time.sleep(0.02)
' >`+out)
	// A bystander of another container, whose flows are to stay.
	s.do("run", "-d", "--name", "other", "--network", "lab", "--ip", "10.77.0.9", "-p", "9001:9001/udp", "--rootfs", "/", "--", "python3", "-c", serveScript, "9001")
	lan.Start(t, `exec python3 -c '
import socket, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("192.0.2.2", 7778)); s.connect(("192.0.2.1", 9001)); s.settimeout(0.1)
while True:
    try: s.send(b"?"); s.recv(100)
    except OSError: pass
    time.sleep(0.05)'`)
	flows := func() []kernel.Flow {
		flows, err := s.machine.Host().Flows()
		if err != nil {
			t.Fatal(err)
		}
		return flows
	}
	to := func(address string) bool {
		return slices.ContainsFunc(flows(), func(f kernel.Flow) bool { return f.Server.Addr() == netip.MustParseAddr(address) })
	}
	s.eventually("an entry from before the container", func() bool {
		return slices.ContainsFunc(flows(), func(f kernel.Flow) bool { return f.To.Port() == 9000 })
	})
	s.eventually("the bystander's entry", func() bool { return to("10.77.0.9") })
	for _, address := range []string{"10.77.0.2", "10.77.0.5"} {
		had, _ := os.ReadFile(out)
		s.do("run", "-d", "--rm", "--name", "game", "--network", "lab", "--ip", address, "-p", "9000:9000/udp", "--rootfs", "/", "--", "python3", "-c", serveScript, "9000")
		s.eventually("answers from "+address, func() bool {
			now, _ := os.ReadFile(out)
			return strings.Count(string(now[len(had):]), "192.0.2.2\n") >= 3
		})
		if now, _ := os.ReadFile(out); strings.Contains(string(now[len(had):]), "10.77.0.1") {
			t.Errorf("the server saw somebody else:\n%s", now)
		}
		s.do("stop", "-t", "0", "game")
		s.eventually("the container is gone", func() bool { _, err := s.try("inspect", "game"); return err != nil })
		if to(address) {
			t.Errorf("entries lead to %s still: %v", address, flows())
		}
		if !to("10.77.0.9") {
			t.Error("the bystander's entry is gone")
		}
	}
	s.leave()
}
