package kernel_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/kernel"
)

func hold(protocol, at string) kernel.Hold {
	return kernel.Hold{Protocol: protocol, At: netip.MustParseAddrPort(at)}
}

const bindScript = `python3 - <<'END'
import socket
s = socket.socket(socket.%s, socket.%s)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind((%q, %d))
if s.type == socket.SOCK_STREAM: s.listen()
END`

// A held port is nobody else's until its last copy is closed.
func TestHoldPorts(t *testing.T) {
	m := nstest.New(t)
	sockets, err := m.Host().HoldPorts([]kernel.Hold{
		hold("tcp", "0.0.0.0:8080"), hold("tcp", "[::]:8080"), hold("udp", "127.0.0.1:53"), hold("udp", "[::1]:53"),
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ family, kind, address string }{
		{"AF_INET", "SOCK_STREAM", "0.0.0.0"}, {"AF_INET", "SOCK_STREAM", "127.0.0.1"}, {"AF_INET6", "SOCK_STREAM", "::1"},
	} {
		script := fmt.Sprintf(bindScript, c.family, c.kind, c.address, 8080)
		if out, err := m.TrySh(script); err == nil || !strings.Contains(out, "Address already in use") {
			t.Errorf("binding %s: %v\n%s", c.address, err, out)
		}
	}
	m.Sh(t, fmt.Sprintf(bindScript, "AF_INET", "SOCK_DGRAM", "127.0.0.1", 8080)) // another protocol
	sockets.Close()
	m.Sh(t, fmt.Sprintf(bindScript, "AF_INET", "SOCK_STREAM", "0.0.0.0", 8080))
}

// What reaches a held socket is neither answered nor refused.
func TestHeldSocketIsDeaf(t *testing.T) {
	m := nstest.New(t)
	sockets, err := m.Host().HoldPorts([]kernel.Hold{hold("tcp", "127.0.0.1:8080")})
	if err != nil {
		t.Fatal(err)
	}
	defer sockets.Close()
	out := m.Sh(t, `python3 - <<'END'
import socket
s = socket.socket(); s.settimeout(0.3)
try: s.connect(("127.0.0.1", 8080)); print("connected")
except TimeoutError: print("silence")
except OSError as e: print(e)
END`)
	if strings.TrimSpace(out) != "silence" {
		t.Errorf("a client of a held port met %s", out)
	}
}

// All or nothing, and the refusal names the process.
func TestHoldPortsNamesHolder(t *testing.T) {
	m := nstest.New(t)
	m.Start(t, `exec python3 -c '
import socket, time
s = socket.socket(); s.bind(("127.0.0.1", 8081)); s.listen()
time.sleep(1000)'`)
	nstest.Until(10*time.Second, func() bool { return strings.Contains(m.Sh(t, "ss -Hltn"), ":8081") })
	_, err := m.Host().HoldPorts([]kernel.Hold{hold("tcp", "0.0.0.0:8080"), hold("tcp", "0.0.0.0:8081")})
	var failed *kernel.PortError
	if !errors.As(err, &failed) || failed.Index != 1 || !failed.Taken || failed.Holder.Name != "python3" {
		t.Fatalf("got %v", err)
	}
	for _, want := range []string{"failed to bind host port 0.0.0.0:8081/tcp: address already in use", fmt.Sprintf("process %d (python3)", failed.Holder.PID), "ss -ltnp"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
	if out := m.Sh(t, "ss -Hltn"); strings.Contains(out, ":8080") {
		t.Errorf("the other port stayed held:\n%s", out)
	}
}

func TestHoldPortsRefuses(t *testing.T) {
	m := nstest.New(t)
	_, err := m.Host().HoldPorts([]kernel.Hold{hold("tcp", "192.0.2.77:80")})
	if err == nil || !strings.Contains(err.Error(), "no interface of this host has 192.0.2.77 (see: ip addr)") {
		t.Errorf("an address that is nobody's: %v", err)
	}
	sockets, err := m.Host().HoldPorts([]kernel.Hold{hold("sctp", "0.0.0.0:80")})
	sockets.Close()
	if err != nil && !errors.Is(err, linkspan.ErrUnsupported) { // a kernel that has SCTP holds it
		t.Errorf("sctp: %v", err)
	}
}

func TestPortRange(t *testing.T) {
	m := nstest.New(t)
	m.Sh(t, "sysctl -qw net.ipv4.ip_local_port_range='40000 40100' net.ipv4.ip_local_reserved_ports=40001,40010-40012")
	first, last, reserved, err := m.Host().PortRange()
	if err != nil || first != 40000 || last != 40100 {
		t.Fatalf("%d-%d, %v", first, last, err)
	}
	for port, want := range map[uint16]bool{40000: false, 40001: true, 40002: false, 40010: true, 40012: true, 40013: false} {
		if reserved(port) != want {
			t.Errorf("port %d is reserved: want %v", port, want)
		}
	}
	if !m.Host().ListensIPv6() {
		t.Error("a machine with ::1 can listen on IPv6")
	}
	m.Sh(t, "sysctl -qw net.ipv6.conf.all.disable_ipv6=1")
	if m.Host().ListensIPv6() {
		t.Error("a machine without IPv6 cannot listen on it")
	}
}

// A long list is opened in pieces, and is one all the same: in order, all or
// nothing.
func TestHoldManyPorts(t *testing.T) {
	m := nstest.New(t)
	var holds []kernel.Hold
	for i := range 1000 {
		holds = append(holds, hold("udp", fmt.Sprintf("0.0.0.0:%d", 20_000+i)))
	}
	sockets, err := m.Host().HoldPorts(holds)
	if err != nil {
		t.Fatal(err)
	}
	for i, fd := range sockets {
		at, err := unix.Getsockname(fd)
		if four, ok := at.(*unix.SockaddrInet4); err != nil || !ok || four.Port != 20_000+i {
			t.Fatalf("socket %d is at %v, %v", i, at, err)
		}
	}
	again := append([]kernel.Hold{hold("udp", "0.0.0.0:19999")}, holds[999], hold("udp", "0.0.0.0:19998"))
	for i := range 997 {
		again = append(again, hold("udp", fmt.Sprintf("0.0.0.0:%d", 30_000+i)))
	}
	_, err = m.Host().HoldPorts(again)
	var failed *kernel.PortError
	if !errors.As(err, &failed) || failed.Index != 1 || !failed.Taken {
		t.Errorf("holding a port twice: %v", err)
	}
	if out := m.Sh(t, "ss -Hlun"); strings.Contains(out, ":19999") || strings.Contains(out, ":30996") {
		t.Errorf("others stayed held:\n%s", out)
	}
	sockets.Close()
}
