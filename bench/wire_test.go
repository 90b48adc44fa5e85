package bench

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan/kernel"
)

// path is a way from one network namespace to another.
type path struct {
	from, to *kernel.Host
	listen   netip.AddrPort // in to
	dial     netip.AddrPort // in from
}

// conns are the two ends of a TCP connection that takes the path.
type conns struct{ near, far int }

// open makes blocking sockets: no poller of ours is to be measured.
func (p path) open(t *testing.T) conns {
	t.Helper()
	var listener int
	must(t, p.to.Inside("", func() (err error) {
		if listener, err = unix.Socket(family(p.listen), unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		return errors.Join(
			unix.SetsockoptInt(listener, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
			unix.Bind(listener, sockaddr(p.listen)), unix.Listen(listener, 8),
		)
	}))
	defer unix.Close(listener)
	var c conns
	must(t, p.from.Inside("", func() (err error) {
		if c.near, err = unix.Socket(family(p.dial), unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		if err = unix.Connect(c.near, sockaddr(p.dial)); err != nil {
			err = fmt.Errorf("connecting to %s: %w", p.dial, err)
		}
		return err
	}))
	far, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
	must(t, err)
	c.far = far
	for _, fd := range []int{c.near, c.far} {
		must(t, unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1))
	}
	return c
}

func (c conns) close() {
	unix.Close(c.near)
	unix.Close(c.far)
}

func family(a netip.AddrPort) int {
	if a.Addr().Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
	}
	return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
}

// flow is what one way carried.
type flow struct {
	speed float64 // bytes a second
	cost  float64 // seconds of this process's CPU for a byte, the kernel's work included
}

// send writes for a while, as fast as the path takes it.
func (p path) send(t *testing.T, during time.Duration) flow {
	t.Helper()
	c := p.open(t)
	defer c.close()
	got := make(chan int64)
	go func() {
		defer oneThread()()
		buf, total := make([]byte, 256<<10), int64(0)
		for {
			n, err := unix.Read(c.far, buf)
			if n <= 0 || err != nil {
				got <- total
				return
			}
			total += int64(n)
		}
	}()
	defer oneThread()()
	buf := make([]byte, 128<<10)
	began, used := time.Now(), cpu(t)
	for time.Since(began) < during {
		if _, err := unix.Write(c.near, buf); err != nil {
			t.Fatal(err)
		}
	}
	must(t, unix.Shutdown(c.near, unix.SHUT_WR))
	total := float64(<-got)
	return flow{total / time.Since(began).Seconds(), (cpu(t) - used).Seconds() / total}
}

// pingPong sends one byte there and back, again and again.
func (p path) pingPong(t *testing.T, count int) sample {
	t.Helper()
	c := p.open(t)
	defer c.close()
	ended := make(chan struct{}) // or it would read from whatever has this descriptor next
	go func() {
		defer close(ended)
		defer oneThread()()
		buf := make([]byte, 1)
		for {
			if n, err := unix.Read(c.far, buf); n <= 0 || err != nil {
				return
			}
			if _, err := unix.Write(c.far, buf); err != nil {
				return
			}
		}
	}()
	defer oneThread()()
	buf := make([]byte, 1)
	s := make(sample, 0, count)
	for range count {
		began := time.Now()
		if _, err := unix.Write(c.near, buf); err != nil {
			t.Fatal(err)
		}
		if n, err := unix.Read(c.near, buf); n != 1 || err != nil {
			t.Fatalf("%d bytes came back, %v", n, err)
		}
		s.add(time.Since(began))
	}
	must(t, unix.Shutdown(c.near, unix.SHUT_WR))
	<-ended
	return s
}

// work is what one byte there and back costs in all: one thread has both ends, so
// that nobody is woken, and the kernel carries each packet within the write. Of
// many short runs the fastest was not disturbed, whatever else the machine does.
func (p path) work(t *testing.T, runs int) time.Duration {
	t.Helper()
	c := p.open(t)
	defer c.close()
	defer oneThread()()
	buf, best := make([]byte, 1), time.Duration(0)
	const trips = 200
	for range runs {
		began := time.Now()
		for i := range 2 * trips {
			from, to := c.near, c.far
			if i%2 == 1 {
				from, to = to, from
			}
			if _, err := unix.Write(from, buf); err != nil {
				t.Fatal(err)
			}
			if n, err := unix.Read(to, buf); n != 1 || err != nil {
				t.Fatalf("%d bytes came through, %v", n, err)
			}
		}
		if took := time.Since(began) / trips; best == 0 || took < best {
			best = took
		}
	}
	return best
}

// oneThread keeps the calling goroutine on its thread, so that what is measured is
// not Go's scheduler.
func oneThread() (release func()) {
	runtime.LockOSThread() //nolint:forbidigo // it changes no namespace
	return runtime.UnlockOSThread
}

// cpu is what this process has used so far.
func cpu(t *testing.T) time.Duration {
	t.Helper()
	var u unix.Rusage
	must(t, unix.Getrusage(unix.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// compare measures two paths in turns, and says how ours does against the bare
// one: 1 is as well.
func compare(t *testing.T, what string, ours, bare path) []figure {
	t.Helper()
	var speed, bareSpeed, cost, bareCost []float64
	var trip, bareTrip, work, bareWork sample
	for range size(1, 10) {
		a, b := ours.send(t, time.Duration(size(10, 1000))*time.Millisecond), bare.send(t, time.Duration(size(10, 1000))*time.Millisecond)
		speed, bareSpeed = append(speed, a.speed), append(bareSpeed, b.speed)
		cost, bareCost = append(cost, a.cost), append(bareCost, b.cost)
		trip, bareTrip = append(trip, ours.pingPong(t, size(10, 4000))...), append(bareTrip, bare.pingPong(t, size(10, 4000))...)
		work, bareWork = append(work, ours.work(t, size(1, 20))), append(bareWork, bare.work(t, size(1, 20)))
	}
	return []figure{
		{
			what: what + ", throughput", got: middle(speed) / middle(bareSpeed), unit: "x", more: true, target: 0.97,
			note: fmt.Sprintf("%.1f against %.1f Gbit/s; CPU for a byte %.3f x", middle(speed)*8e-9, middle(bareSpeed)*8e-9, middle(cost)/middle(bareCost)),
		},
		{
			what: what + ", round trips a second", got: float64(bareTrip.median()) / float64(trip.median()), unit: "x", more: true, target: 0.97,
			note: fmt.Sprintf("p50 %.1f against %.1f µs, p99 %.1f against %.1f; the work for one %.2f against %.2f µs", µs(trip.median()), µs(bareTrip.median()),
				µs(trip.at(99)), µs(bareTrip.at(99)), µs(work.fastest()), µs(bareWork.fastest())),
		},
	}
}

func middle(values []float64) float64 { return slices.Sorted(slices.Values(values))[len(values)/2] }
