package main

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/kernel"
)

const longEnough = 30 * time.Second // for what should happen at once, on a busy machine

// eventually waits for what works behind the caller's back.
func (s *story) eventually(what string, holds func() bool) {
	s.t.Helper()
	if !nstest.Until(longEnough, holds) {
		s.t.Fatalf("it never came about: %s", what)
	}
}

// bindable tells whether a program of the host can have a port.
func (s *story) bindable(port int) bool {
	_, err := s.machine.TrySh(fmt.Sprintf(`python3 -c 'import socket; s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind(("0.0.0.0", %d)); s.listen()'`, port))
	return err == nil
}

func (s *story) answers(address string, port int) bool {
	out, err := s.machine.TrySh("python3 - 'tcp " + address + " " + strconv.Itoa(port) + " 0.4' <<'END'\n" + askScript + "END")
	return err == nil && !strings.HasPrefix(out, "-")
}

// streamScript keeps one connection busy until its input ends, then says so.
const streamScript = `
import socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=30)
for line in iter(sys.stdin.readline, ""):
    s.sendall(line.encode())
    got = b""
    while not got.endswith(b"\n"): got += s.recv(1000)
    print(got.decode(), end="", flush=True)
`

// echoScript answers each connection with what it sends.
const echoScript = `
import socket, sys, threading
def serve(c):
    while True:
        data = c.recv(1000)
        if not data: return
        c.sendall(data)
def listen(port):
    s = socket.create_server(("", port), backlog=64)
    while True:
        c, _ = s.accept()
        threading.Thread(target=serve, args=[c], daemon=True).start()
for port in map(int, sys.argv[1:]): threading.Thread(target=listen, args=[port]).start()
`

// stream is an open connection to a published port.
type stream struct {
	s        *story
	question *os.File
	answer   string // the file that answers go to
	said     int
	stop     func() string
}

func (s *story) open(address string, port int) *stream {
	s.t.Helper()
	base := filepath.Join(s.dir, fmt.Sprintf("stream-%d-%d", port, time.Now().UnixNano()))
	s.machine.Sh(s.t, "mkfifo "+base)
	if err := os.WriteFile(base+".py", []byte(streamScript), 0o600); err != nil {
		s.t.Fatal(err)
	}
	stop := s.machine.Start(s.t, fmt.Sprintf("exec python3 %s.py %s %d <%s >%s.out", base, address, port, base, base))
	question, err := os.OpenFile(base, os.O_WRONLY, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	return &stream{s: s, question: question, answer: base + ".out", stop: stop}
}

// works sends a line and waits for its echo.
func (c *stream) works() {
	c.s.t.Helper()
	c.said++
	fmt.Fprintf(c.question, "line %d\n", c.said)
	if !nstest.Until(longEnough, func() bool {
		text, _ := os.ReadFile(c.answer)
		return strings.Count(string(text), "\n") == c.said
	}) {
		c.s.t.Fatalf("the stream is dead after %d lines:\n%s", c.said-1, c.stop())
	}
}

func (c *stream) close() {
	c.question.Close()
	c.stop()
}

// Ports are the container's, not the daemon's: they outlive it, and end with
// the container whoever is there to see it.
func TestPortsOutliveTheDaemon(t *testing.T) {
	s := newStory(t)
	s.start()
	s.do("network", "create", "--subnet", "10.77.0.0/24", "lab")
	s.do("run", "-d", "--name", "web", "--network", "lab", "-p", "8080:80", "-p", "81", "--rootfs", "/", "--", "python3", "-c", echoScript, "80", "81")
	s.eventually("the server answers", func() bool {
		_, err := s.machine.TrySh("python3 -c 'import socket; s = socket.create_connection((\"127.0.0.1\", 8080), 1); s.sendall(b\"x\"); assert s.recv(1)'")
		return err == nil
	})
	ports := s.do("port", "web")
	if !strings.Contains(ports, "80/tcp -> 0.0.0.0:8080") {
		t.Errorf("port web:\n%s", ports)
	}
	if out := s.machine.Sh(t, "ss -Hltnp 'sport = :8080'"); !strings.Contains(out, "linkspan-shim") || strings.Contains(out, "linkspan.test") {
		t.Errorf("the shim alone should hold the port:\n%s", out)
	}
	tcp := s.open("127.0.0.1", 8080)
	tcp.works()
	before := s.machine.Dump(t)
	for _, signal := range []os.Signal{syscall.SIGKILL, os.Interrupt} {
		s.end(signal)
		tcp.works()
		if s.bindable(8080) {
			t.Error("without the daemon the port is free to take")
		}
		s.start()
		tcp.works()
		if diff := nstest.Diff(before, s.machine.Dump(t)); diff != "" {
			t.Errorf("after a restart of the daemon:\n%s", diff)
		}
		if got := s.do("port", "web"); got != ports {
			t.Errorf("port web after a restart:\n%s\nbefore:\n%s", got, ports)
		}
	}
	tcp.close()
	// The container ends while no daemon looks.
	pid := s.do("inspect", "-f", "{{.State.Pid}}", "web")
	s.end(syscall.SIGKILL)
	s.machine.Sh(t, "kill -9 "+pid)
	s.eventually("the port is free", func() bool { return s.bindable(8080) })
	s.start()
	if got := s.do("port", "web"); got != "" {
		t.Errorf("a stopped container has ports: %s", got)
	}
	s.do("start", "web")
	if got := s.do("port", "web", "80"); !strings.Contains(got, "0.0.0.0:8080") {
		t.Errorf("started again, its port is %s", got)
	}
	// A shim that is killed takes the ports along too.
	shim := s.machine.Sh(t, "ss -Hltnp 'sport = :8080' | sed -n 's/.*pid=\\([0-9]*\\).*/\\1/p' | head -1")
	s.machine.Sh(t, "kill -9 "+shim)
	s.eventually("the port is free", func() bool { return s.bindable(8080) })
	s.leave()
}

// Publishing and taking back while the container runs hurts nobody.
func TestPortsOfARunningContainer(t *testing.T) {
	s := newStory(t)
	lan := nstest.New(t)
	nstest.Wire(t, s.machine, lan, netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("192.0.2.2/24"))
	s.start()
	s.do("network", "create", "--subnet", "10.77.0.0/24", "lab")
	s.do("run", "-d", "--name", "web", "--network", "lab", "-p", "8080:80", "--rootfs", "/", "--", "python3", "-c", echoScript, "80")
	ask := func(m *nstest.Machine, port int, limit float64) bool {
		_, err := m.TrySh(fmt.Sprintf(`python3 - <<'END'
import socket, time, sys
end = time.time() + %g
while time.time() < end:
    try:
        s = socket.create_connection(("192.0.2.1", %d), 0.5); s.sendall(b"x")
        if s.recv(1): sys.exit(0)
    except OSError: time.sleep(0.05)
sys.exit(1)
END`, limit, port))
		return err == nil
	}
	if !ask(lan, 8080, trust) {
		t.Fatal("the neighbour does not reach the port")
	}
	tcp := s.open("127.0.0.1", 8080)
	tcp.works()
	out := s.do("port", "add", "web", "8081:80")
	if !strings.Contains(out, "0.0.0.0:8081") || !ask(lan, 8081, trust) {
		t.Errorf("port add:\n%s", out)
	}
	tcp.works()
	s.do("port", "add", "--from", "198.51.100.0/24", "web", "8082:80")
	if ask(lan, 8082, silence) {
		t.Error("the neighbour reaches a port that is for others")
	}
	if !ask(s.machine, 8082, trust) {
		t.Error("the host itself does not reach the port")
	}
	if out := s.do("port", "ls"); !strings.Contains(out, "this host, 198.51.100.0/24") {
		t.Errorf("port ls:\n%s", out)
	}
	s.do("port", "rm", "web", "8082:80")
	s.do("port", "add", "--from", "192.0.2.0/24", "web", "8082:80")
	if !ask(lan, 8082, trust) {
		t.Error("the neighbour does not reach a port that is for him")
	}
	s.do("port", "rm", "web", "8081:80")
	if ask(lan, 8081, silence) || !s.bindable(8081) {
		t.Error("a port that was taken back is still there")
	}
	tcp.works()
	for _, c := range []struct{ args, says string }{
		{"port rm web 8081:80", "is not published"},
		{"port add web 8080:81", "port is already allocated"},
		{"port add web 0:80", "invalid port specification"},
		{"port add web 80:70000", "invalid port specification"},
		{"port add --from nobody web 8090:80", "invalid source"},
		{"port add nosuch 8090:80", "No such container"},
	} {
		if out, err := s.try(strings.Fields(c.args)...); err == nil || !strings.Contains(out, c.says) {
			t.Errorf("%s: %v, %s", c.args, err, out)
		}
	}
	tcp.works()
	tcp.close()
	// What was added stays wished for.
	s.do("restart", "-t", "0", "web")
	if out := s.do("port", "ls", "web"); !strings.Contains(out, "0.0.0.0:8082") || strings.Contains(out, "8081") {
		t.Errorf("after a restart:\n%s", out)
	}
	s.leave()
}

// TestThousandPorts is scenario 7.
func TestThousandPorts(t *testing.T) {
	s := newStory(t)
	s.machine.Sh(t, "sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0")
	s.start()
	s.do("network", "create", "--ipv6", "--subnet", "10.77.0.0/24", "--subnet", "fd77::/64", "lab")
	run := func(name string, flags ...string) time.Duration {
		began := time.Now()
		s.do(append(append([]string{"run", "-d", "--name", name, "--network", "lab"}, flags...), "--rootfs", "/", "--", "python3", "-c", echoScript, "50501", "50500")...)
		return time.Since(began)
	}
	plain := run("plain")
	processes := func() int { return len(strings.Fields(s.machine.Sh(t, "pgrep -f linkspan-shim || true"))) }
	count, rss := processes(), s.rss(s.daemonPid())
	ranged := run("ftp", "-p", "50000-51000:50000-51000", "-p", "50000-51000:50000-51000/udp")
	t.Logf("start: %v plain, %v with 1,001 ports over tcp and udp, IPv4 and IPv6; the daemon grew by %d KiB, the shim has %d KiB",
		plain, ranged, s.rss(s.daemonPid())-rss, s.rss(s.shimOf("ftp")))
	if got := processes() - count; got != 1 {
		t.Errorf("the container took %d shims", got)
	}
	if held := strings.Count(s.machine.Sh(t, "ss -Hltun"), "\n"); held != 4004 {
		t.Errorf("%d sockets are held, want 4 x 1,001", held)
	}
	for _, table := range []string{"ranges4", "ranges6"} {
		if out := s.machine.Sh(t, "nft list map inet linkspan "+table); strings.Count(out, "50000-51000") != 2 {
			t.Errorf("a range should be one element a protocol:\n%s", out)
		}
	}
	if s.bindable(50500) {
		t.Error("a program of the host can take a published port")
	}
	s.eventually("the server answers", func() bool {
		_, err := s.machine.TrySh(`python3 -c 'import socket; s = socket.create_connection(("127.0.0.1", 50501), 1); s.sendall(b"x"); assert s.recv(1)'`)
		return err == nil
	})
	var streams []*stream
	for range 20 {
		streams = append(streams, s.open("127.0.0.1", 50501))
	}
	for _, one := range streams {
		one.works()
	}
	s.do("port", "rm", "ftp", "50500/tcp")
	for _, one := range streams {
		one.works()
		one.close()
	}
	if !s.bindable(50500) || s.bindable(50501) {
		t.Error("one port of the range should be free, and its neighbour not")
	}
	s.leave()
}

func (s *story) daemonPid() int {
	raw, err := os.ReadFile(filepath.Join(s.dir, "exec", "linkspan.pid"))
	if err != nil {
		s.t.Fatal(err)
	}
	pid, _ := strconv.Atoi(strings.TrimSpace(string(raw)))
	return pid
}

func (s *story) shimOf(name string) int {
	id := s.do("inspect", "-f", "{{.Id}}", name)
	pid, _ := strconv.Atoi(strings.TrimSpace(s.machine.Sh(s.t, "pgrep -f '^linkspan-shim "+id[:12]+"'")))
	return pid
}

// rss is the memory of a process in KiB.
func (s *story) rss(pid int) int {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		s.t.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		if fields := strings.Fields(line); fields[0] == "VmRSS:" {
			kib, _ := strconv.Atoi(fields[1])
			return kib
		}
	}
	return 0
}

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
