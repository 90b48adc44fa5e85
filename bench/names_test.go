package bench

import (
	"errors"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/kernel"
)

// names measures a question for the name of a neighbour, as a C program in the
// container asks it: one at a time.
func names(t *testing.T) []figure {
	e := start(t, nstest.New(t))
	e.network(t, "lab", "10.77.0.0/24")
	e.up(t, "web")
	s := ask(t, e.inside(t, e.up(t, "app")), size(10, 40_000))
	return []figure{
		{what: "name of a neighbour, p50", got: µs(s.median()), unit: "µs", target: 45, note: "min " + micros(s)},
		{what: "name of a neighbour, p99", got: µs(s.at(99)), unit: "µs", target: 95},
	}
}

// ask puts the same question for web many times.
func ask(t *testing.T, from *kernel.Host, count int) sample {
	t.Helper()
	question := []byte("\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03web\x00\x00\x01\x00\x01") // RFC 1035 section 4.1
	socket := -1
	must(t, from.Inside("", func() (err error) {
		if socket, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		limit := unix.Timeval{Sec: 20}
		if err = unix.SetsockoptTimeval(socket, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
			return err
		}
		return unix.Connect(socket, sockaddr(netip.MustParseAddrPort("127.0.0.11:53")))
	}))
	defer unix.Close(socket)
	defer oneThread()()
	answer := make([]byte, 512)
	s := make(sample, 0, count)
	for range count {
		s.took(func() {
			if _, err := unix.Write(socket, question); err != nil {
				t.Fatal(err)
			}
			n, err := unix.Read(socket, answer)
			for errors.Is(err, unix.EINTR) { // by Go's scheduler: a read with a time limit is not taken up again
				n, err = unix.Read(socket, answer)
			}
			if err != nil || n < 12 || answer[7] == 0 {
				t.Fatalf("asking for web: %d bytes %x, %v", n, answer[:max(n, 0)], err)
			}
		})
	}
	return s
}
