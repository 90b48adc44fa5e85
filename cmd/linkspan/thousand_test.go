package main

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/linkspan/linkspan/internal/nstest"
)

// manyScript echoes on each port from its first argument to its second, over TCP
// and UDP, IPv4 and IPv6.
const manyScript = `
import resource, selectors, socket, sys
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
sel = selectors.DefaultSelector()
for port in range(int(sys.argv[1]), int(sys.argv[2]) + 1):
    for kind in socket.SOCK_STREAM, socket.SOCK_DGRAM:
        s = socket.socket(socket.AF_INET6, kind)
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        s.bind(("::", port))
        if kind == socket.SOCK_STREAM: s.listen(16)
        s.setblocking(False)
        sel.register(s, selectors.EVENT_READ, kind)
while True:
    for key, _ in sel.select():
        s = key.fileobj
        if key.data == socket.SOCK_STREAM:
            c, _ = s.accept(); sel.register(c, selectors.EVENT_READ, None)
        elif key.data == socket.SOCK_DGRAM:
            data, peer = s.recvfrom(1000); s.sendto(data, peer)
        else:
            try: data = s.recv(1000)
            except OSError: data = b""
            if data: s.send(data)
            else: sel.unregister(s); s.close()
`

// flowsScript opens a connection to each port from its first argument to its
// second but the third, by turns to the addresses that follow. For each line that
// it reads it sends something through all of them, and says how many echo it.
const flowsScript = `
import resource, socket, sys, time
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
first, last, but = map(int, sys.argv[1:4])
flows = []
for port in range(first, last + 1):
    if port == but: continue
    end = time.time() + 60
    while True:
        try: flows.append(socket.create_connection((sys.argv[4 + port % (len(sys.argv) - 4)], port), timeout=10)); break
        except OSError:
            if time.time() > end: raise
            time.sleep(0.1)
print("open", len(flows), flush=True)
for line in iter(sys.stdin.readline, ""):
    good = 0
    for s in flows: s.sendall(line.encode())
    for s in flows:
        try:
            got = b""
            while not got.endswith(b"\n"):
                part = s.recv(1000)
                if not part: raise OSError("closed")
                got += part
            good += got == line.encode()
        except OSError as e: print("broken:", s, e, file=sys.stderr)
    print(line.strip(), good, flush=True)
`

// TestThousandPorts is scenario 7.
func TestThousandPorts(t *testing.T) {
	for _, backend := range []string{"nftables", "iptables"} {
		t.Run(backend, func(t *testing.T) { thousandPorts(t, backend) })
	}
}

func thousandPorts(t *testing.T, backend string) {
	s := newStory(t)
	lan := nstest.New(t)
	wire := nstest.Wire(t, s.machine, lan, netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("192.0.2.2/24"))
	s.machine.Sh(t, "sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0; ip addr add 2001:db8::1/64 nodad dev "+wire)
	lan.Sh(t, "ip addr add 2001:db8::2/64 nodad dev "+wire)
	s.start("--firewall-backend", backend)
	s.do("network", "create", "--ipv6", "--subnet", "10.77.0.0/24", "--subnet", "fd77::/64", "lab")
	run := func(name string, flags ...string) time.Duration {
		began := time.Now()
		s.do(append(append([]string{"run", "-d", "--name", name, "--network", "lab"}, flags...), "--rootfs", "/", "--", "python3", "-c", manyScript, "50000", "51000")...)
		return time.Since(began)
	}
	plain := run("plain")
	processes := func() int { return len(strings.Fields(s.machine.Sh(t, "ip netns pids "+s.machine.Name()))) }
	count, rss := processes(), s.rss(s.daemonPid())
	ranged := run("ftp", "-p", "50000-51000:50000-51000", "-p", "50000-51000:50000-51000/udp")
	grown := s.rss(s.daemonPid()) - rss
	t.Logf("start: %v plain, %v with 1,001 ports over tcp and udp, IPv4 and IPv6; the daemon grew by %d KiB, the shim has %d KiB",
		plain, ranged, grown, s.rss(s.shimOf("ftp")))
	if grown > 10<<10 && !raceDetector { // which takes memory of its own
		t.Errorf("the daemon grew by %d KiB", grown)
	}
	if got := processes() - count; got != 1 {
		t.Errorf("the container took %d processes beside its own, want its shim alone", got)
	}
	if held := strings.Count(s.machine.Sh(t, "ss -Hltun"), "\n"); held != 4004 {
		t.Errorf("%d sockets are held, want 4 x 1,001", held)
	}
	s.oneRuleEach(backend)
	for _, family := range []struct{ name, any string }{{"AF_INET", "0.0.0.0"}, {"AF_INET6", "::"}} {
		for _, kind := range []string{"SOCK_STREAM", "SOCK_DGRAM"} {
			if s.free(family.name, kind, family.any, 50500) {
				t.Errorf("a program of the host can take a published port (%s, %s)", family.name, kind)
			}
		}
	}
	if out, err := s.machine.TrySh("busybox nc -l -p 50500 </dev/null"); err == nil || !strings.Contains(out+err.Error(), "in use") {
		t.Errorf("busybox nc -l -p 50500: %v, %s", err, out)
	}

	// A thousand connections from elsewhere, by turns over IPv4 and IPv6.
	base := filepath.Join(s.dir, "flows")
	s.machine.Sh(t, "mkfifo "+base)
	if err := os.WriteFile(base+".py", []byte(flowsScript), 0o600); err != nil {
		t.Fatal(err)
	}
	stop := lan.Start(t, fmt.Sprintf("exec python3 %[1]s.py 50000 51000 50500 192.0.2.1 2001:db8::1 <%[1]s >%[1]s.out", base))
	say, err := os.OpenFile(base, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	hears := func(line string) {
		t.Helper()
		if !nstest.Until(2*longEnough, func() bool {
			text, _ := os.ReadFile(base + ".out")
			return strings.Contains(string(text), line+"\n")
		}) {
			text, _ := os.ReadFile(base + ".out")
			t.Fatalf("%q did not come:\n%s\n%s", line, text, stop())
		}
	}
	hears("open 1000")
	for _, address := range []string{"192.0.2.1", "2001:db8::1"} {
		if out := lan.Sh(t, "python3 - 'udp "+address+" 50999 20' <<'END'\n"+askScript+"END"); !strings.HasPrefix(out, "?") {
			t.Errorf("udp to %s: %s", address, out)
		}
	}
	fmt.Fprintln(say, "before")
	hears("before 1000")
	s.do("port", "rm", "ftp", "50500/tcp")
	fmt.Fprintln(say, "after")
	hears("after 1000")
	say.Close()
	stop()
	if !s.free("AF_INET", "SOCK_STREAM", "0.0.0.0", 50500) || s.free("AF_INET", "SOCK_STREAM", "0.0.0.0", 50501) || s.free("AF_INET", "SOCK_DGRAM", "0.0.0.0", 50500) {
		t.Error("one port of the range should be free over TCP, and neither its neighbour nor it over UDP")
	}
	s.leave()
}

// oneRuleEach checks that a range is one element, or rule, for each protocol and
// family.
func (s *story) oneRuleEach(backend string) {
	s.t.Helper()
	lists := []string{"nft list map inet linkspan ranges4", "nft list map inet linkspan ranges6"}
	if backend == "iptables" {
		lists = []string{"iptables-save -t nat | grep 50000:51000", "ip6tables-save -t nat | grep 50000:51000"}
	}
	for _, list := range lists {
		out := strings.ReplaceAll(s.machine.Sh(s.t, list), "50000:51000", "50000-51000")
		if strings.Count(out, "50000-51000") != 2 {
			s.t.Errorf("a range should be one for each protocol:\n%s", out)
		}
	}
}

// free tells whether a program of the host can have a port.
func (s *story) free(family, kind, address string, port int) bool {
	_, err := s.machine.TrySh(fmt.Sprintf(`python3 -c 'import socket; s = socket.socket(socket.%s, socket.%s); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind(("%s", %d)); s.type == socket.SOCK_STREAM and s.listen()'`,
		family, kind, address, port))
	return err == nil
}
