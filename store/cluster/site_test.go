package cluster_test

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/store/cluster"
	"github.com/linkspan/linkspan/store/etcdtest"
)

// site is machines on two switches: one for all, one for etcd's members among
// themselves.
//
//	eth0 10.9.0.N ──┐              ┌── eth1 10.9.1.N
//	eth0 10.9.0.N ──┤ br0  hub br1 ├── eth1 10.9.1.N
//	eth0 10.9.0.N ──┘              └── eth1 10.9.1.N
type site struct {
	hub *nstest.Machine
}

func newSite(t testing.TB) *site {
	t.Helper()
	s := &site{nstest.New(t)}
	s.hub.Sh(t, "ip link add br0 type bridge; ip link add br1 type bridge; ip link set br0 up; ip link set br1 up")
	return s
}

// machine adds a machine.
func (s *site) machine(t testing.TB, number int) *nstest.Machine {
	t.Helper()
	m := nstest.New(t)
	for i := range 2 {
		s.hub.Sh(t, fmt.Sprintf(`
			ip link add p%[1]d-%[2]d type veth peer name eth%[1]d netns %[3]s
			ip link set p%[1]d-%[2]d master br%[1]d up
			ip -n %[3]s addr add 10.9.%[1]d.%[2]d/24 dev eth%[1]d
			ip -n %[3]s link set eth%[1]d up`, i, number, m.Name()))
	}
	return m
}

// cut takes the wire of a machine away: 0 is that to all, 1 that of etcd's
// members among themselves. mend puts it back.
func (s *site) cut(t testing.TB, wire, number int) {
	t.Helper()
	s.hub.Sh(t, fmt.Sprintf("ip link set p%d-%d down", wire, number))
}

func (s *site) mend(t testing.TB, wire, number int) {
	t.Helper()
	s.hub.Sh(t, fmt.Sprintf("ip link set p%d-%d up", wire, number))
}

func at(wire, number int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 9, byte(wire), byte(number)})
}

// etcd starts members on machines from number 101 on, and waits for them.
func (s *site) etcd(t testing.TB, members int) (*client, []*etcdtest.Member) {
	t.Helper()
	peers := make(map[string]netip.Addr)
	for i := range members {
		peers[fmt.Sprintf("e%d", i)] = at(1, 101+i)
	}
	var all []*etcdtest.Member
	store := &client{}
	for i := range members {
		m := s.machine(t, 101+i)
		e := etcdtest.Start(t, m, etcdtest.Config{Name: fmt.Sprintf("e%d", i), Addr: at(0, 101+i), Peer: at(1, 101+i), Cluster: peers})
		all = append(all, e)
		if i == 0 {
			store.from = m
		}
		store.endpoints = append(store.endpoints, e.Endpoint())
	}
	for _, e := range all {
		e.Ready(t)
	}
	return store, all
}

// client is a look into a store without the code under test.
type client struct {
	from      *nstest.Machine
	endpoints []string
}

// url is for --cluster-store.
func (c *client) url() string {
	text := "etcd://"
	for i, endpoint := range c.endpoints {
		if i > 0 {
			text += ","
		}
		text += endpoint
	}
	return text
}

func (c *client) open(t testing.TB) *clientv3.Client {
	t.Helper()
	raw, err := clientv3.New(clientv3.Config{
		Endpoints: c.endpoints[:1], Logger: zap.NewNop(),
		DialOptions: []grpc.DialOption{grpc.WithContextDialer(etcdtest.Dial(c.from))},
	})
	must(t, err)
	return raw
}

// keys returns what the store has below a prefix.
func (c *client) keys(t testing.TB, prefix string) map[string]string {
	t.Helper()
	raw := c.open(t)
	defer raw.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	found, err := raw.Get(ctx, "/linkspan/v1/"+prefix, clientv3.WithPrefix())
	must(t, err)
	all := make(map[string]string)
	for _, kv := range found.Kvs {
		all[string(kv.Key)] = string(kv.Value)
	}
	return all
}

// revision returns how many changes the store has seen, and forgets what was
// before if asked to.
func (c *client) revision(t testing.TB, compact bool) int64 {
	t.Helper()
	raw := c.open(t)
	defer raw.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	found, err := raw.Get(ctx, "/linkspan/v1/guard")
	must(t, err)
	if compact {
		_, err = raw.Compact(ctx, found.Header.Revision)
		must(t, err)
	}
	return found.Header.Revision
}

// blocks waits until the hosts' blocks of addresses are that many.
func (c *client) blocks(t testing.TB, count int) {
	t.Helper()
	eventually(t, fmt.Sprintf("there are %d blocks", count), func() bool { return len(c.keys(t, "blocks/")) == count })
}

// short makes leases short.
func short(life, claim time.Duration) func(*cluster.Options) {
	return func(o *cluster.Options) { o.Life, o.Claim, o.Timeout = life, claim, 2*time.Second }
}
