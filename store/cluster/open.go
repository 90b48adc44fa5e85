package cluster

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/network"
)

// Cluster is this host's part of the cluster. It is safe for concurrent use.
type Cluster struct {
	o    Options
	keys layout

	life, claim *lease

	stop context.CancelFunc
	done sync.WaitGroup

	// first is closed when it is known, for the first time, whether the store
	// answers.
	first     chan struct{}
	firstOnce sync.Once
	wake      chan struct{} // the settler has something to look at

	mu        sync.Mutex
	client    *clientv3.Client // nil: not connected yet
	mirror    mirror
	own       own
	link      link
	followers map[*follower]struct{}
}

// link is what is known of the way to the store. One question without an answer
// says little; when there was none for Options.Timeout the store is away, and
// verbs do not ask it.
type link struct {
	err    error     // of the last question of the leases; nil: it answers
	since  time.Time // that there is no answer
	away   bool
	listed bool // all keys were read once
}

// Open begins to follow the store. It does not wait for it: Err tells what it is
// waiting for. The context bounds nothing but the call; end the rest with Close.
// Errors are of kind ErrInvalid and about the options.
func Open(ctx context.Context, o Options) (*Cluster, error) {
	o = o.withDefaults()
	switch {
	case len(o.Endpoints) == 0:
		return nil, linkspan.Errorf(linkspan.ErrInvalid, "invalid cluster store: no member of etcd is named; write etcd://HOST:PORT")
	case o.Self.ID == "":
		return nil, linkspan.Errorf(linkspan.ErrInvalid, "invalid cluster member: it has no ID")
	}
	c := &Cluster{
		o: o, keys: layout{root: o.Prefix + "/v1/"},
		first: make(chan struct{}), wake: make(chan struct{}, 1),
		link:      link{err: errors.New("not connected yet"), since: time.Now()},
		followers: make(map[*follower]struct{}),
		own:       newOwn(),
	}
	c.mirror = newMirror(c.keys, o.Self.ID)
	c.life = &lease{id: c.leaseID("life"), wanted: o.Life}
	c.claim = &lease{id: c.leaseID("claim"), wanted: o.Claim}
	c.own.want(c.keys.member(o.Self.ID), wanted{value: encode(o.Self), life: true})
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	c.stop = stop
	c.done.Go(func() { c.run(background) })
	return c, nil
}

// Close ends all that Open began. What this host has in the store stays there for
// as long as its leases do.
func (c *Cluster) Close() error {
	c.stop()
	c.done.Wait()
	c.mu.Lock()
	client := c.client
	c.client = nil
	c.mu.Unlock()
	if client == nil {
		return nil
	}
	if err := client.Close(); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("closing the connection to %s: %w", c.o, err)
	}
	return nil
}

// run connects, then keeps everything going until ctx ends.
func (c *Cluster) run(ctx context.Context) {
	client := c.connect(ctx)
	if client == nil {
		return
	}
	c.mu.Lock()
	c.client = client
	c.mu.Unlock()
	var all sync.WaitGroup
	all.Go(func() { c.watch(ctx) })
	if c.admitted(ctx) {
		all.Go(func() { c.keep(ctx, c.life) })
		all.Go(func() { c.keep(ctx, c.claim) })
		all.Go(func() { c.settle(ctx) })
	}
	all.Wait()
}

// admitted waits until no other host lives that has this one's ID, as a copied
// data root has it: each would take what the other has for its own. A host that
// has got another name or address waits for its own former life to end.
func (c *Cluster) admitted(ctx context.Context) bool {
	for {
		var found *pb.RangeResponse
		err := c.within(ctx, func(ctx context.Context) (err error) {
			// The client's own Get tries again until there is no time left, and then does
			// not say what was wrong.
			found, err = pb.NewKVClient(c.client.ActiveConnection()).Range(ctx, &pb.RangeRequest{Key: []byte(c.keys.member(c.o.Self.ID))})
			return rpctypes.Error(err)
		})
		if err == nil {
			other := c.o.Self
			if len(found.Kvs) == 0 || json.Unmarshal(found.Kvs[0].Value, &other) != nil || other.Name == c.o.Self.Name && other.VTEP == c.o.Self.VTEP {
				return true
			}
			err = c.twin(other.String())
		}
		c.unreachable(err)
		if !pause(ctx, retryAfter) {
			return false
		}
	}
}

func (c *Cluster) twin(who string) error {
	return linkspan.Errorf(linkspan.ErrConflict, "%s has the same ID as this host: give each its own data root, or wait until it is gone from the cluster", who)
}

// connect makes the client. With a password that takes an answer of the store,
// so it may take as long as the store is away.
func (c *Cluster) connect(ctx context.Context) *clientv3.Client {
	// After a long silence the next attempt must not be minutes away.
	patient := backoff.Config{BaseDelay: retryAfter, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second}
	options := []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{Backoff: patient, MinConnectTimeout: c.o.Timeout})}
	if c.o.Dial != nil {
		options = append(options, grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return c.o.Dial(ctx, address)
		}))
	}
	scheme := "http://"
	if c.o.TLS != nil {
		scheme = "https://"
	}
	var endpoints []string
	for _, endpoint := range c.o.Endpoints {
		endpoints = append(endpoints, scheme+endpoint)
	}
	for {
		client, err := clientv3.New(clientv3.Config{
			Context: ctx, Endpoints: endpoints, TLS: c.o.TLS, Username: c.o.Username, Password: c.o.Password,
			DialTimeout: c.o.Timeout, DialOptions: options, Logger: zap.NewNop(),
			// A member that was cut off keeps the connection open and silent.
			DialKeepAliveTime: 10 * time.Second, DialKeepAliveTimeout: c.o.Timeout,
		})
		if err == nil {
			return client
		}
		c.unreachable(err)
		if !pause(ctx, retryAfter) {
			return nil
		}
	}
}

// retryAfter is the time between two attempts of what failed.
const retryAfter = 250 * time.Millisecond

// pause waits, and tells whether ctx still lasts.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// leaseID returns the ID of one of this host's leases. It is the same after a
// restart of the daemon, which then finds all that hangs on it as it was.
func (c *Cluster) leaseID(of string) clientv3.LeaseID {
	sum := sha256.Sum256([]byte(c.keys.root + " " + string(c.o.Self.ID) + " " + of))
	return clientv3.LeaseID(binary.BigEndian.Uint64(sum[:8])>>1 | 1)
}

// boottime is the time since boot, which goes on while the machine is
// suspended: time.Now does not see that.
func boottime() time.Duration {
	var now unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &now) != nil {
		return 0 // since Linux 2.6.39 it cannot fail
	}
	return time.Duration(now.Nano())
}

// Err says why the store cannot be reached now, or nil.
func (c *Cluster) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.down()
}

// down is Err with the lock held.
func (c *Cluster) down() error {
	if c.link.err == nil && c.own.stolen != "" {
		return c.twin(c.own.stolen)
	}
	if c.link.err == nil || !c.link.away && c.met() {
		return nil
	}
	if errors.Is(c.link.err, linkspan.ErrConflict) {
		return c.link.err
	}
	return linkspan.Errorf(linkspan.ErrUnavailable, "cluster store %s does not answer, since %s: %w", c.o, time.Since(c.link.since).Round(time.Second), c.link.err)
}

// met tells whether it is known whether the store answers.
func (c *Cluster) met() bool {
	select {
	case <-c.first:
		return true
	default:
		return false
	}
}

// reachable notes that the store answers.
func (c *Cluster) reachable() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.link.listed {
		return
	}
	back := c.link.away || !c.met()
	c.link.err, c.link.away = nil, false
	if back {
		c.firstOnce.Do(func() { close(c.first) })
		c.mirror.news.Store = true
		c.tell()
		c.o.Logf("cluster store %s answers", c.o)
		c.poke()
	}
}

// unreachable notes that it gave no answer.
func (c *Cluster) unreachable(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.link.err == nil {
		c.link.since = time.Now()
	}
	c.link.err = err
	if c.link.away || time.Since(c.link.since) < c.o.Timeout {
		return
	}
	c.link.away = true
	c.firstOnce.Do(func() { close(c.first) })
	c.mirror.news.Store = true
	c.tell()
	c.o.Logf("cluster store %s does not answer: %v", c.o, err)
}

// poke makes the settler look.
func (c *Cluster) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Self returns this host.
func (c *Cluster) Self() Member { return c.o.Self }

// Members returns the hosts that are alive as far as is known, in the order of
// their IDs.
func (c *Cluster) Members() []Member {
	c.mu.Lock()
	defer c.mu.Unlock()
	members := make([]Member, 0, len(c.mirror.members))
	for _, m := range c.mirror.members {
		members = append(members, m.value)
	}
	slices.SortFunc(members, func(a, b Member) int { return compareIDs(a.ID, b.ID) })
	return members
}

// Networks returns the networks of the cluster, in the order of their IDs.
func (c *Cluster) Networks() []network.Network {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mirror.list()
}

func (m *mirror) list() []network.Network {
	networks := make([]network.Network, 0, len(m.networks))
	for _, n := range m.networks {
		networks = append(networks, n.value)
	}
	slices.SortFunc(networks, func(a, b network.Network) int { return compareIDs(a.ID, b.ID) })
	return networks
}

// Endpoints returns the endpoints of a network, in the order of their IDs. Those
// of this host are as it wants them, whether the store knows or not.
func (c *Cluster) Endpoints(network linkspan.ID) []Endpoint {
	c.mu.Lock()
	var endpoints []Endpoint
	if s := c.mirror.on[network]; s != nil {
		endpoints = make([]Endpoint, 0, len(s.endpoints))
		for id, e := range s.endpoints {
			_, here := c.own.endpoints[id]
			if !here && (e.value.Member != c.o.Self.ID || !c.own.resumed) {
				endpoints = append(endpoints, e.value)
			}
		}
	}
	for _, e := range c.own.endpoints {
		if e.Network == network {
			endpoints = append(endpoints, e)
		}
	}
	c.mu.Unlock()
	slices.SortFunc(endpoints, func(a, b Endpoint) int { return compareIDs(a.ID, b.ID) })
	return endpoints
}

func compareIDs(a, b linkspan.ID) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// encode is the JSON form of a value that is plain data.
func encode(value any) string {
	raw, err := json.Marshal(value)
	if err != nil {
		panic(err) // a type that has no JSON form is a mistake in this package
	}
	return string(raw)
}
