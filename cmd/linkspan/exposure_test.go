package main

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/linkspan/linkspan/internal/nstest"
)

// serveScript answers on every port that it is given, over TCP and UDP, with
// the address of whoever asks.
const serveScript = `
import socket, sys, threading
def tcp(s):
    while True:
        c, peer = s.accept()
        c.sendall(peer[0].replace("::ffff:", "").encode()); c.close()
def udp(s):
    while True:
        _, peer = s.recvfrom(100)
        s.sendto(peer[0].replace("::ffff:", "").encode(), peer)
def sock(kind, port):
    s = socket.socket(socket.AF_INET6, kind)
    s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("::", port))
    return s
for port in map(int, sys.argv[1:]):
    t = sock(socket.SOCK_STREAM, port); t.listen(64)
    threading.Thread(target=tcp, args=[t]).start()
    threading.Thread(target=udp, args=[sock(socket.SOCK_DGRAM, port)]).start()
print("serving", flush=True)
`

// askScript asks all at once: lines of "protocol address port seconds", each
// answered by who the server saw, or by nothing.
const askScript = `
import socket, sys, threading, time
def ask(protocol, host, port, limit):
    end = time.time() + limit
    while time.time() < end:
        try:
            kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
            s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind)
            s.settimeout(min(2, max(0.1, end - time.time())))
            s.connect((host, int(port)))
            if protocol == "udp": s.send(b"?")
            got = s.recv(100).decode()
            s.close()
            if got: return got
        except OSError:
            pass
        time.sleep(0.05)
    return "-"
lines = sys.argv[1].split("\n")
answers = [None] * len(lines)
def run(i):
    words = lines[i].split()
    answers[i] = ask(words[0], words[1], words[2], float(words[3]))
threads = [threading.Thread(target=run, args=[i]) for i in range(len(lines))]
for t in threads: t.start()
for t in threads: t.join()
print("\n".join(answers))
`

const (
	silence = 0.6 // seconds after which a question that should stay unanswered counts as such
	trust   = 20  // seconds that an answer that should come may take on a busy machine
)

// question is one cell of the matrix. Sees is whom the server should see; empty:
// nobody gets through.
type question struct {
	from, protocol, host string
	port                 int
	sees                 string
	throughHost          bool // it ends at a socket of the host, which INPUT rules may forbid
}

// exposure is a host with a neighbour who knows the way to everything, and two
// networks.
//
//	lan ─ 192.0.2.2 ─wire─ 192.0.2.1, .9 ─ host ─┬─ lab   10.77.0.0/24  web, peer
//	      2001:db8::2      2001:db8::1           └─ side  10.78.0.0/24  other
type exposure struct {
	*story
	lan *nstest.Machine
}

func newExposure(t *testing.T, backend string) exposure {
	s := newStory(t)
	lan := nstest.New(t)
	wire := nstest.Wire(t, s.machine, lan, netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("192.0.2.2/24"))
	s.machine.Sh(t, fmt.Sprintf(`ip addr add 192.0.2.9/24 dev %[1]s; ip addr add 2001:db8::1/64 dev %[1]s nodad; sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0`, wire))
	// The neighbour sends what it likes to 127.0.0.1, and the host's own kernel would let it in.
	s.machine.Sh(t, "sysctl -qw net.ipv4.conf."+wire+".route_localnet=1")
	lan.Sh(t, fmt.Sprintf(`ip addr add 2001:db8::2/64 dev %[1]s nodad
		ip route add 10.0.0.0/8 via 192.0.2.1; ip -6 route add fd00::/8 via 2001:db8::1
		sysctl -qw net.ipv4.conf.all.route_localnet=1 net.ipv4.conf.%[1]s.route_localnet=1
		ip route flush table local 127.0.0.0/8; ip route del local 127.0.0.1 table local 2>/dev/null || true
		ip route add 127.0.0.1 via 192.0.2.1 src 192.0.2.2`, wire))
	s.start("--firewall-backend", backend)
	return exposure{s, lan}
}

// ask asks the questions of one asker and compares.
func (e exposure) ask(questions []question, inputDrop bool) map[question]bool {
	e.t.Helper()
	reached := make(map[question]bool)
	byAsker := make(map[string][]question)
	for _, q := range questions {
		byAsker[q.from] = append(byAsker[q.from], q)
	}
	for from, list := range byAsker {
		var lines []string
		for _, q := range list {
			limit := silence
			if q.sees != "" && (!inputDrop || !q.throughHost) {
				limit = trust
			}
			lines = append(lines, fmt.Sprintf("%s %s %d %g", q.protocol, q.host, q.port, limit))
		}
		text := strings.Join(lines, "\n")
		var out string
		switch from {
		case "host":
			out = e.machine.Sh(e.t, "python3 - '"+text+"' <<'END'\n"+askScript+"END")
		case "lan":
			out = e.lan.Sh(e.t, "python3 - '"+text+"' <<'END'\n"+askScript+"END")
		default:
			out = e.do("exec", from, "python3", "-c", askScript, text)
		}
		answers := strings.Split(strings.TrimSpace(out), "\n")
		if len(answers) != len(list) {
			e.t.Fatalf("%s asked %d questions and got:\n%s", from, len(list), out)
		}
		for i, q := range list {
			want := q.sees
			if inputDrop && q.throughHost {
				want = ""
			}
			got := strings.Trim(answers[i], "-")
			reached[q] = got != ""
			if got != want {
				e.t.Errorf("%s asks %s [%s]:%d: the server saw %q, want %q", from, q.protocol, q.host, q.port, got, want)
			}
		}
	}
	return reached
}

// Where ports are published in the matrix.
const (
	everywhere = 8001
	loopback4  = 8002
	loopback6  = 8003
	address4   = 8004
	address6   = 8005
	nowhere    = 8006
)

func exposureQuestions() []question {
	const nobody = ""
	q := []question{
		// Published at all addresses.
		{"host", "tcp", "127.0.0.1", everywhere, "10.77.0.1", false},
		{"host", "udp", "127.0.0.1", everywhere, "10.77.0.1", false},
		{"host", "tcp", "192.0.2.1", everywhere, "192.0.2.1", false},
		{"host", "tcp", "::1", everywhere, "fd77::1", false}, // by lo, which every INPUT chain lets in
		{"host", "udp", "::1", everywhere, "fd77::1", false},
		{"host", "tcp", "2001:db8::1", everywhere, "2001:db8::1", false},
		{"lan", "tcp", "192.0.2.1", everywhere, "192.0.2.2", false},
		{"lan", "udp", "192.0.2.1", everywhere, "192.0.2.2", false},
		{"lan", "tcp", "192.0.2.9", everywhere, "192.0.2.2", false},
		{"lan", "tcp", "2001:db8::1", everywhere, "2001:db8::2", false},
		{"lan", "udp", "2001:db8::1", everywhere, "2001:db8::2", false},
		{"other", "tcp", "192.0.2.1", everywhere, "10.78.0.2", false},
		{"other", "udp", "192.0.2.1", everywhere, "10.78.0.2", false},
		{"other", "tcp", "2001:db8::1", everywhere, "fd78::2", false},
		{"web", "tcp", "192.0.2.1", everywhere, "10.77.0.1", true},
		{"web", "udp", "192.0.2.1", everywhere, "10.77.0.1", true},
		{"web", "tcp", "2001:db8::1", everywhere, "fd77::1", true},
		{"peer", "tcp", "192.0.2.1", everywhere, "10.77.0.1", true},
		{"peer", "udp", "192.0.2.1", everywhere, "10.77.0.1", true},
		{"peer", "tcp", "2001:db8::1", everywhere, "fd77::1", true},

		// At the loopback alone: not even by a packet that pretends.
		{"host", "tcp", "127.0.0.1", loopback4, "10.77.0.1", false},
		{"host", "tcp", "192.0.2.1", loopback4, nobody, false},
		{"host", "tcp", "::1", loopback6, "fd77::1", false},
		{"host", "tcp", "2001:db8::1", loopback6, nobody, false},
		{"lan", "tcp", "127.0.0.1", loopback4, nobody, false},
		{"lan", "udp", "127.0.0.1", everywhere, nobody, false},
		{"lan", "tcp", "127.0.0.1", everywhere, nobody, false},

		// At one address.
		{"host", "tcp", "192.0.2.1", address4, "192.0.2.1", false},
		{"host", "tcp", "127.0.0.1", address4, nobody, false},
		{"lan", "tcp", "192.0.2.1", address4, "192.0.2.2", false},
		{"lan", "tcp", "192.0.2.9", address4, nobody, false},
		{"other", "tcp", "192.0.2.1", address4, "10.78.0.2", false},
		{"peer", "tcp", "192.0.2.1", address4, "10.77.0.1", true},
		{"web", "tcp", "192.0.2.1", address4, "10.77.0.1", true},
		{"host", "tcp", "2001:db8::1", address6, "2001:db8::1", false},
		{"host", "tcp", "::1", address6, nobody, false},
		{"lan", "tcp", "2001:db8::1", address6, "2001:db8::2", false},
		{"other", "tcp", "2001:db8::1", address6, "fd78::2", false},

		// By the container's own address: the host may, a static route does not help.
		{"host", "tcp", "10.77.0.2", nowhere, "10.77.0.1", false},
		{"host", "tcp", "fd77::2", nowhere, "fd77::1", false},
		{"lan", "tcp", "10.77.0.2", nowhere, nobody, false},
		{"lan", "tcp", "10.77.0.2", everywhere, nobody, false},
		{"lan", "udp", "10.77.0.2", everywhere, nobody, false},
		{"lan", "tcp", "fd77::2", everywhere, nobody, false},
		{"other", "tcp", "10.77.0.2", everywhere, nobody, false},
		{"other", "tcp", "fd77::2", everywhere, nobody, false},
	}
	for _, from := range []string{"host", "lan", "other", "peer", "web"} {
		q = append(q, question{from, "tcp", "192.0.2.1", nowhere, nobody, false}, question{from, "udp", "2001:db8::1", nowhere, nobody, false})
		if from != "host" {
			q = append(q, question{from, "tcp", "192.0.2.1", loopback4, nobody, false}, question{from, "tcp", "2001:db8::1", loopback6, nobody, false})
		}
	}
	return q
}

// TestExposure is scenario 12: who reaches a published port, by which address,
// and as whom the server sees him, for every way of publishing, with ICC on and
// off and with a host that lets nothing in. What port ls says equals what is
// measured.
func TestExposure(t *testing.T) {
	for _, test := range []struct {
		backend string
		icc     bool
	}{{"nftables", true}, {"nftables", false}, {"iptables", true}, {"iptables", false}} {
		icc := test.icc
		t.Run(fmt.Sprintf("%s/icc=%v", test.backend, icc), func(t *testing.T) {
			e := newExposure(t, test.backend)
			e.do("network", "create", "--ipv6", "--subnet", "10.77.0.0/24", "--subnet", "fd77::/64", "-o", fmt.Sprintf("com.docker.network.bridge.enable_icc=%v", icc), "lab")
			e.do("network", "create", "--ipv6", "--subnet", "10.78.0.0/24", "--subnet", "fd78::/64", "side")
			e.do("run", "-d", "--name", "web", "--network", "lab", "--ip", "10.77.0.2", "--ip6", "fd77::2",
				"-p", "8001:8001", "-p", "8001:8001/udp", "-p", "127.0.0.1:8002:8002", "-p", "[::1]:8003:8003", "-p", "192.0.2.1:8004:8004", "-p", "[2001:db8::1]:8005:8005",
				"--rootfs", "/", "--", "python3", "-c", serveScript, "8001", "8002", "8003", "8004", "8005", "8006")
			e.do("run", "-d", "--name", "peer", "--network", "lab", "--rootfs", "/", "--", "sleep", "1000")
			e.do("run", "-d", "--name", "other", "--network", "side", "--ip", "10.78.0.2", "--ip6", "fd78::2", "--rootfs", "/", "--", "sleep", "1000")
			questions := exposureQuestions()
			if icc {
				questions = append(questions, question{"peer", "tcp", "10.77.0.2", nowhere, "10.77.0.3", false})
			} else {
				questions = append(questions, question{"peer", "tcp", "10.77.0.2", everywhere, "", false})
			}
			e.compare(e.ask(questions, false))
			e.machine.Sh(t, `nft 'table inet strict { chain input { type filter hook input priority 0; policy drop; iifname "lo" accept; ct state established,related accept; meta l4proto ipv6-icmp accept; }; }'`)
			e.ask(questions, true)
			e.machine.Sh(t, "nft delete table inet strict")
			e.leave()
		})
	}
}

// compare holds what port ls says against what was measured.
func (e exposure) compare(reached map[question]bool) {
	e.t.Helper()
	var rows []struct {
		HostPort      int
		Host          string
		ReachableFrom string
	}
	if err := json.Unmarshal([]byte(e.do("port", "ls", "--format", "json", "web")), &rows); err != nil {
		e.t.Fatal(err)
	}
	said := make(map[int]string)
	for _, row := range rows {
		said[row.HostPort] = row.ReachableFrom
	}
	for _, port := range []int{everywhere, loopback4, loopback6, address4, address6} {
		measured := make(map[string]bool)
		for q, ok := range reached {
			if q.port == port && !strings.HasPrefix(q.host, "10.77.") && !strings.HasPrefix(q.host, "fd77:") {
				measured[q.from] = measured[q.from] || ok
			}
		}
		words := ""
		if measured["host"] {
			words = "this host"
		}
		switch {
		case measured["other"] && measured["lan"]:
			words += ", containers, other machines"
		case !measured["other"] && !measured["lan"] && !measured["peer"] && !measured["web"]:
			words += " only"
		}
		if said[port] != words {
			e.t.Errorf("port ls says that %d is reachable from %q; measured: %q", port, said[port], words)
		}
	}
}
