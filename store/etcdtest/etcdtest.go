// Package etcdtest starts Debian's etcd on the machines of a test.
//
// A single member is a process and a folder:
//
//	etcd --data-dir /run/etcd --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379
//	curl http://127.0.0.1:2379/health
//
// Three of them, each on a machine of its own, agree by votes: two that reach each
// other go on, one alone answers nobody. To see that, take the wire of one away:
//
//	ip -n MACHINE link set eth0 down
//
// Elections here take half a second instead of a whole one, and the data is on a
// tmpfs, so that nobody waits for disks.
package etcdtest

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/linkspan/linkspan/internal/nstest"
)

// patience is how long a member has to answer.
const patience = 60 * time.Second

// Config says what a member is like. The zero value is one that is alone and has
// 127.0.0.1, without TLS.
type Config struct {
	Name    string
	Addr    netip.Addr
	Peer    netip.Addr            // for other members; zero: Addr
	Cluster map[string]netip.Addr // all members' Peer by name, this one too; nil: it is alone
	Flags   []string              // more of etcd's
	TLS     *tls.Config           // of a client, if the flags turn TLS on
}

// Member is an etcd process on a machine. It ends with its test.
type Member struct {
	machine *nstest.Machine
	config  Config
	dir     string
	stop    func() string
}

// Start starts a member, and does not wait for it: see Ready.
func Start(tb testing.TB, m *nstest.Machine, config Config) *Member {
	tb.Helper()
	if config.Name == "" {
		config.Name = "etcd"
	}
	if !config.Addr.IsValid() {
		config.Addr = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	if !config.Peer.IsValid() {
		config.Peer = config.Addr
	}
	if config.Cluster == nil {
		config.Cluster = map[string]netip.Addr{config.Name: config.Peer}
	}
	dir, err := os.MkdirTemp("/run", "etcd-") //nolint:usetesting // there is a tmpfs
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { os.RemoveAll(dir) })
	e := &Member{machine: m, config: config, dir: dir}
	e.Restart(tb)
	tb.Cleanup(func() {
		if log := e.stop(); tb.Failed() {
			tb.Logf("the last lines of %s:\n%s", config.Name, tail(log, 30))
		}
	})
	return e
}

func tail(text string, lines int) string {
	all := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// Alone starts a member that has its machine's loopback, and waits until it
// answers.
func Alone(tb testing.TB, m *nstest.Machine) *Member {
	tb.Helper()
	e := Start(tb, m, Config{})
	e.Ready(tb)
	return e
}

// Restart starts a member that was killed, with the data that it had.
func (e *Member) Restart(tb testing.TB) {
	tb.Helper()
	var peers []string
	for name, addr := range e.config.Cluster {
		peers = append(peers, fmt.Sprintf("%s=http://%s", name, netip.AddrPortFrom(addr, 2380)))
	}
	flags := append([]string{
		"--name", e.config.Name, "--data-dir", e.dir + "/data",
		"--listen-client-urls", e.url(), "--advertise-client-urls", e.url(),
		"--listen-peer-urls", e.peer(), "--initial-advertise-peer-urls", e.peer(), "--initial-cluster", strings.Join(peers, ","),
		"--heartbeat-interval", "50", "--election-timeout", "500",
	}, e.config.Flags...)
	e.stop = e.machine.Start(tb, "exec etcd '"+strings.Join(flags, "' '")+"'")
}

// Kill ends a member as kill -9 does. What it wrote stays.
func (e *Member) Kill() { e.stop() }

// Wipe removes what a killed member wrote.
func (e *Member) Wipe(tb testing.TB) {
	tb.Helper()
	if err := os.RemoveAll(e.dir + "/data"); err != nil {
		tb.Fatal(err)
	}
}

// Endpoint returns the host:port for clients.
func (e *Member) Endpoint() string { return netip.AddrPortFrom(e.config.Addr, 2379).String() }

func (e *Member) url() string {
	scheme := "http://"
	if e.config.TLS != nil {
		scheme = "https://"
	}
	return scheme + e.Endpoint()
}

func (e *Member) peer() string { return "http://" + netip.AddrPortFrom(e.config.Peer, 2380).String() }

// Ready waits until the member answers and has a leader.
func (e *Member) Ready(tb testing.TB) {
	tb.Helper()
	if !nstest.Until(patience, e.Healthy) {
		tb.Fatalf("etcd %s does not answer:\n%s", e.config.Name, tail(e.stop(), 30))
	}
}

// Healthy tells whether the member answers and has a leader.
func (e *Member) Healthy() bool {
	text, err := e.get("/health")
	return err == nil && strings.Contains(text, `"health":"true"`)
}

// Metrics returns what the member counts; of what it counts in several parts, the
// sum.
func (e *Member) Metrics(tb testing.TB) map[string]float64 {
	tb.Helper()
	text, err := e.get("/metrics")
	if err != nil {
		tb.Fatal(err)
	}
	all := make(map[string]float64)
	for line := range strings.SplitSeq(text, "\n") {
		name, value, _ := strings.Cut(line, " ")
		name, _, _ = strings.Cut(name, "{")
		if number, err := strconv.ParseFloat(value, 64); err == nil {
			all[name] += number
		}
	}
	return all
}

func (e *Member) get(path string) (string, error) {
	transport := &http.Transport{
		DialContext:       func(ctx context.Context, _, addr string) (net.Conn, error) { return Dial(e.machine)(ctx, addr) },
		TLSClientConfig:   e.config.TLS,
		DisableKeepAlives: true,
	}
	client := &http.Client{Transport: transport, Timeout: 5 * time.Second}
	answer, err := client.Get(e.url() + path)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	raw, err := io.ReadAll(answer.Body)
	return string(raw), err
}

// Dial returns a function that connects from a machine over TCP.
func Dial(m *nstest.Machine) func(ctx context.Context, address string) (net.Conn, error) {
	return func(ctx context.Context, address string) (conn net.Conn, err error) {
		var dialer net.Dialer
		inside := m.Host().Inside("", func() error {
			conn, err = dialer.DialContext(ctx, "tcp", address)
			return err
		})
		return conn, inside
	}
}
