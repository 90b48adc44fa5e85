package main

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/linkspan/linkspan/internal/nstest"
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
	before := s.machine.Dump(t)
	said := s.do("explain", "port", "add", "web", "8081:80")
	if want := "add element inet linkspan published4 { tcp . 8081 : 10.77.0.2 . 80 }"; !strings.Contains(said, want) {
		t.Errorf("explain port add does not say %q:\n%s", want, said)
	}
	if diff := nstest.Diff(before, s.machine.Dump(t)); diff != "" || !s.bindable(8081) {
		t.Errorf("to explain is to do:\n%s", diff)
	}
	out := s.do("port", "add", "web", "8081:80")
	if said := s.do("explain", "port", "rm", "web", "8081:80"); !strings.Contains(said, "delete element inet linkspan published4 { tcp . 8081 }") {
		t.Errorf("explain port rm says:\n%s", said)
	}
	if said := s.do("explain", "port", "rm", "web", "80"); !strings.Contains(said, "undone") || !strings.Contains(said, "8080") {
		t.Errorf("explain port rm of all says:\n%s", said)
	}
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
		{"explain port rm web 8081:80", "is not published"},
		{"explain port add web 8080:81", "port is already allocated"},
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
	s.do("create", "--name", "idle", "--network", "lab", "--rootfs", "/", "--", "sleep", "1")
	if said := s.do("explain", "port", "add", "idle", "8099:99"); !strings.Contains(said, "does not run") {
		t.Errorf("explain port add of a container that does not run says:\n%s", said)
	}
	// What was added stays wished for.
	s.do("restart", "-t", "0", "web")
	if out := s.do("port", "ls", "web"); !strings.Contains(out, "0.0.0.0:8082") || strings.Contains(out, "8081") {
		t.Errorf("after a restart:\n%s", out)
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
