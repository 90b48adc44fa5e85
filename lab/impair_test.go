package lab_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/lab"
)

// line is a node on a switch and one on a cable to the first.
const line = `name: lan
switches: {sw: {}}
nodes:
  a: {addresses: {eth0: [10.0.0.1/24], eth1: [10.0.1.1/24]}}
  b: {addresses: {eth0: [10.0.0.2/24]}}
  c: {addresses: {eth0: [10.0.1.2/24]}, routes: [{to: default, via: 10.0.1.1}]}
links:
  - ["a:eth0", sw]
  - {ends: ["b:eth0", sw], %s}
  - ["a:eth1", "c:eth0"]
`

func linkStatus(t *testing.T, e *lab.Engine, i int) lab.LinkStatus {
	t.Helper()
	status, err := e.Status(t.Context(), "lan")
	if err != nil {
		t.Fatal(err)
	}
	if status.Difference != nil {
		t.Errorf("the lab is not as it was put up: %v", status.Difference)
	}
	return status.Links[i]
}

// noPorts counts the datagrams that reached a node and found nobody there.
func noPorts(t *testing.T, e *lab.Engine, node string) int {
	t.Helper()
	out, err := run(t, e, node, "awk", "/^Udp:/ && $3 ~ /^[0-9]/ {print $3}", "/proc/self/net/snmp")
	if err != nil {
		t.Fatal(out)
	}
	n := 0
	fmt.Sscan(out, &n)
	return n
}

// TestLoss counts what arrives. A share of 2,000 that is due to chance deviates by
// 20 once in a while; ten times that is not seen before the sun goes out.
func TestLoss(t *testing.T) {
	m, e := engine(t)
	up(t, e, fmt.Sprintf(line, "mtu: 1500"))
	whole := m.Dump(t)
	if out, err := run(t, e, "a", "ping", "-c1", "-W5", "10.0.0.2"); err != nil { // so that they know each other's MAC
		t.Fatal(out)
	}
	loss, _ := lab.ParseShare("30%")
	if err := e.Impair(t.Context(), "lan", "b:eth0", lab.Impairment{Loss: loss}); err != nil {
		t.Fatal(err)
	}
	const sent = 2000
	if out, err := run(t, e, "a", "python3", "-c", fmt.Sprintf("import socket\ns=socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\nfor i in range(%d): s.sendto(b'x', ('10.0.0.2', 9))", sent)); err != nil {
		t.Fatal(out)
	}
	if got := noPorts(t, e, "b"); got < sent*5/10 || got > sent*9/10 {
		t.Errorf("%d of %d datagrams arrived over a cable that loses 30%%", got, sent)
	}
	if got := linkStatus(t, e, 1); got.State != "up" || !strings.HasPrefix(got.Bad, "loss 30% (") {
		t.Errorf("status shows %+v", got)
	}
	if got := linkStatus(t, e, 0); got.Bad != "" {
		t.Errorf("status of another cable shows %+v", got)
	}
	// All of it, in place of some of it, and then none.
	if err := e.Impair(t.Context(), "lan", "b:eth0", lab.Impairment{Loss: kernel.LossScale}); err != nil {
		t.Fatal(err)
	}
	if out, err := run(t, e, "a", "ping", "-c1", "-W1", "10.0.0.2"); err == nil {
		t.Errorf("a ping came over a cable that loses everything:\n%s", out)
	}
	if err := e.Restore(t.Context(), "lan", "sw:port1"); err != nil {
		t.Fatal(err)
	}
	if out, err := run(t, e, "a", "ping", "-c1", "-W5", "10.0.0.2"); err != nil {
		t.Errorf("the cable was not mended:\n%s", out)
	}
	if diff := nstest.Diff(whole, m.Dump(t)); diff != "" {
		t.Errorf("a mended cable is not what it was:\n%s", diff)
	}
}

// TestRate sends over a slow cable, which the file already wants slow. A bucket
// never lets more through than its rate and what it holds at first.
func TestRate(t *testing.T) {
	m, e := engine(t)
	up(t, e, fmt.Sprintf(line, "rate: 2mbit"))
	if got := linkStatus(t, e, 1); got.Bad != "rate 2mbit" {
		t.Errorf("status shows %+v", got)
	}
	const size = 300_000 // bytes, 1.2 s at 2 Mbit/s
	for _, way := range []struct{ from, to, address string }{{"a", "b", "10.0.0.2"}, {"b", "a", "10.0.0.1"}} {
		var took time.Duration
		var server net.Listener
		must(t, m.Host().Inside(lab.Netns("lan", way.to), func() (err error) {
			server, err = net.Listen("tcp4", way.address+":7000") //nolint:noctx // it is closed below
			return err
		}))
		done := make(chan error, 1)
		go func() {
			conn, err := server.Accept()
			if err == nil {
				_, err = io.Copy(io.Discard, conn)
				conn.Close()
			}
			done <- err
		}()
		start := time.Now()
		must(t, m.Host().Inside(lab.Netns("lan", way.from), func() error {
			conn, err := net.DialTCP("tcp4", nil, server.Addr().(*net.TCPAddr))
			if err != nil {
				return err
			}
			defer conn.Close()
			_, err = conn.Write(make([]byte, size))
			return err
		}))
		must(t, <-done)
		took = time.Since(start)
		server.Close()
		if took < 900*time.Millisecond || took > time.Minute {
			t.Errorf("%d bytes from %s to %s took %v at 2 Mbit/s", size, way.from, way.to, took)
		}
	}
	must(t, e.Restore(t.Context(), "lan", "b:eth0"))
	if got := linkStatus(t, e, 1); got.Bad != "" || got.State != "up" {
		t.Errorf("status shows %+v", got)
	}
	must(t, e.Reset(t.Context(), "lan"))
	if got := linkStatus(t, e, 1); got.Bad != "rate 2mbit" {
		t.Errorf("after a reset status shows %+v", got)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestDelay wants what only netem can do: a kernel without it says so before
// anything is built, one with it does it.
func TestDelay(t *testing.T) {
	m, e := engine(t)
	lacks, err := kernel.LacksQueue("netem")
	must(t, err)
	before := m.Dump(t)
	text := []byte(fmt.Sprintf(line, "delay: 50ms"))
	_, err = e.Up(t.Context(), text, "")
	if !lacks {
		must(t, err)
		defer down(t, e)
		start := time.Now()
		if out, err := run(t, e, "a", "ping", "-c1", "-W5", "10.0.0.2"); err != nil || time.Since(start) < 100*time.Millisecond {
			t.Errorf("a ping there and back took %v at 50 ms each way: %v\n%s", time.Since(start), err, out)
		}
		return
	}
	if !errors.Is(err, linkspan.ErrUnsupported) || !strings.Contains(err.Error(), "link b:eth0 - sw: delay 50ms: this kernel lacks the queueing discipline netem, CONFIG_NET_SCH_NETEM") {
		t.Errorf("err = %v", err)
	}
	if diff := nstest.Diff(before, m.Dump(t)); diff != "" {
		t.Errorf("a lab that cannot be built was built in part:\n%s", diff)
	}
	up(t, e, fmt.Sprintf(line, "loss: 1%"))
	if err = e.Impair(t.Context(), "lan", "b:eth0", lab.Impairment{Delay: lab.Delay(time.Millisecond)}); !errors.Is(err, linkspan.ErrUnsupported) {
		t.Errorf("err = %v", err)
	}
	if got := linkStatus(t, e, 1); got.Bad != "loss 1%" {
		t.Errorf("a refused impairment took the place of the one before: %+v", got)
	}
}

// TestRestoreGivesRoutesBack: what hung on a link goes when its other end is cut.
func TestRestoreGivesRoutesBack(t *testing.T) {
	m, e := engine(t)
	up(t, e, fmt.Sprintf(line, "mtu: 1400"))
	before := m.Dump(t)
	must(t, e.Cut(t.Context(), "lan", "a:eth1"))
	if got := func() string { out, _ := run(t, e, "c", "ip", "route"); return out }(); got != "" {
		t.Errorf("a link that is down has routes: %s", got)
	}
	status, err := e.Status(t.Context(), "lan")
	must(t, err)
	if got := status.Links[2]; got.State != "c:eth0 is down" {
		t.Errorf("status shows %+v", got)
	}
	must(t, e.Restore(t.Context(), "lan", "c:eth0")) // by its other name
	if diff := nstest.Diff(before, m.Dump(t)); diff != "" {
		t.Errorf("a cable that was cut and mended is not what it was:\n%s", diff)
	}
}

// TestForeignQueue: what somebody set by hand is not replaced in silence.
func TestForeignQueue(t *testing.T) {
	m, e := engine(t)
	up(t, e, fmt.Sprintf(line, "mtu: 1500"))
	m.Sh(t, "tc -n lab-lan-b qdisc add dev eth0 root handle 5: tbf rate 1mbit burst 4000 limit 20000")
	err := e.Impair(t.Context(), "lan", "b:eth0", lab.Impairment{Rate: 2_000_000})
	if !errors.Is(err, linkspan.ErrConflict) || !strings.Contains(err.Error(), "tc -n lab-lan-b qdisc show dev eth0") {
		t.Errorf("err = %v", err)
	}
	if got := linkStatusAnyway(t, e, 1); got.Bad != "rate 1mbit at b:eth0" {
		t.Errorf("status shows %+v", got)
	}
}

func linkStatusAnyway(t *testing.T, e *lab.Engine, i int) lab.LinkStatus {
	t.Helper()
	status, err := e.Status(t.Context(), "lan")
	must(t, err)
	return status.Links[i]
}
