package controller_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	apinetwork "github.com/moby/moby/api/types/network"

	"github.com/linkspan/linkspan/controller"
	"github.com/linkspan/linkspan/firewall"
	"github.com/linkspan/linkspan/firewall/iptables"
	"github.com/linkspan/linkspan/firewall/nftables"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/op"
)

func backend(b firewall.Backend) func(*controller.Options) {
	return func(o *controller.Options) { o.Firewall = b }
}

// publishing wants port 8080 of the host to lead to port 80.
func publishing(c *controller.Container) {
	c.HostConfig.PortBindings = apinetwork.PortMap{apinetwork.MustParsePort("80/tcp"): []apinetwork.PortBinding{{HostIP: netip.MustParseAddr("0.0.0.0"), HostPort: "8080"}}}
	c.Config = &container.Config{Hostname: c.Name}
}

// accept accepts connections in a namespace and closes them.
func accept(t *testing.T, m *nstest.Machine, ns, network, address string) {
	t.Helper()
	var listener net.Listener
	must(t, m.Host().Inside(ns, func() (err error) { listener, err = net.Listen(network, address); return err }))
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			conn.Close()
		}
	}()
}

func connect(m *nstest.Machine, address string, limit time.Duration) error {
	return m.Host().Inside("", func() error {
		conn, err := net.DialTimeout("tcp4", address, limit)
		if err == nil {
			conn.Close()
		}
		return err
	})
}

// A daemon that starts with another firewall backend leaves nothing of the
// earlier one's, and no moment without rules: neither does a connection fail
// that must succeed, nor does one succeed that must not.
func TestSwitchBackend(t *testing.T) {
	m, r := nstest.New(t), newRoots(t)
	lan := nstest.New(t)
	nstest.Wire(t, m, lan, netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("192.0.2.2/24"))
	lan.Sh(t, "ip route add 10.77.0.0/24 via 192.0.2.1")
	d := start(t, m, r, backend(nftables.Backend{}))
	d.network(t, "lab", subnet("10.77.0.0/24"))
	a := d.run(t, spec("web", "lab", ip4("10.77.0.2"), publishing))
	accept(t, m, nsOf(a), "tcp4", "10.77.0.2:80")
	must(t, connect(lan, "192.0.2.1:8080", 20*time.Second))

	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	var asked atomic.Int64
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			if err := connect(lan, "192.0.2.1:8080", 20*time.Second); err != nil {
				t.Errorf("to the published port: %v", err)
			}
			if connect(lan, "10.77.0.2:80", 5*time.Millisecond) == nil {
				t.Error("straight to the container: connected")
			}
			asked.Add(1)
		}
	}()
	const tables = "nft list tables; iptables-nft-save 2>/dev/null | grep -c LINKSPAN || true; iptables-legacy-save 2>/dev/null | grep -c LINKSPAN || true"
	for _, next := range []struct {
		backend firewall.Backend
		gone    string // part of the listing of the earlier one's
	}{
		{iptables.Backend{Variant: iptables.NFT}, "table inet linkspan\n"},
		{iptables.Backend{Variant: iptables.Legacy}, ""},
		{nftables.Backend{}, ""},
	} {
		before := asked.Load()
		d.stop(t)
		d = start(t, m, r, backend(next.backend))
		if list := m.Sh(t, tables); next.gone != "" && strings.Contains(list, next.gone) {
			t.Errorf("the earlier backend's rules are there still:\n%s", list)
		}
		if !nstest.Until(20*time.Second, func() bool { return asked.Load() > before+2 }) {
			t.Error("nobody asked")
		}
		d.stop(t)
		d = start(t, m, r, backend(next.backend))
		if d.traced.Load() != 0 {
			t.Errorf("a start with the same backend changed the kernel %d times", d.traced.Load())
		}
	}
	stop()
	<-done
	if counts := m.Sh(t, "iptables-nft-save 2>/dev/null | grep -c LINKSPAN || true; iptables-legacy-save 2>/dev/null | grep -c LINKSPAN || true"); strings.Trim(counts, "0\n") != "" {
		t.Errorf("rules of iptables are left: %s", counts)
	}
	d.clear(t)
}

// A daemon that dies while it switches, the next one finishes what it began.
func TestSwitchBackendInterrupted(t *testing.T) {
	for at := range 4 {
		m, r := nstest.New(t), newRoots(t)
		d := start(t, m, r, backend(nftables.Backend{}))
		d.network(t, "lab")
		d.stop(t)
		steps := 0
		broken := opened(t, m, r, backend(iptables.Backend{}), func(o *controller.Options) {
			o.Before = func(int, op.Step) error {
				if steps++; steps > at {
					return errors.New("stopped by the test")
				}
				return nil
			}
		})
		broken.Recover(t.Context()) //nolint:errcheck // it is broken
		broken.stop(t)
		d = start(t, m, r, backend(iptables.Backend{}))
		if list := m.Sh(t, "nft list tables"); strings.Contains(list, "inet linkspan\n") {
			t.Errorf("stopped at step %d, rules of nftables are there still:\n%s", at, list)
		}
		d.stop(t)
		if d = start(t, m, r, backend(iptables.Backend{})); d.traced.Load() != 0 {
			t.Errorf("stopped at step %d, the second start changed the kernel %d times", at, d.traced.Load())
		}
		d.clear(t)
	}
}
