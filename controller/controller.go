// Package controller holds the verbs of the Container Network Model: create and
// remove a network, attach and detach a container, connect and disconnect an
// endpoint. It is the only package that knows more than one kind of record, and
// the only writer of the store.
//
// Every verb has the same three parts:
//
//	reserve   one pure store.Update: names, addresses, plan; phase Creating
//	act       op.Executor.Do of the plan, with no lock held
//	commit    phase Ready
//
// and every deletion is the reverse: phase Deleting, undo of the stored plan,
// no row. What a crash leaves is a row that is not Ready, and Recover takes it
// from there. The kernel's state, DNS zones and address pools all follow from
// the rows; nothing is kept beside them but open sockets.
package controller

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/dns"
	"github.com/linkspan/linkspan/drivers"
	"github.com/linkspan/linkspan/firewall"
	"github.com/linkspan/linkspan/ipam"
	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/peering"
	"github.com/linkspan/linkspan/store"
)

// Options are what a Controller works with. All fields but the optional ones
// must be set.
type Options struct {
	Host     *kernel.Host
	Store    *store.Store
	Drivers  map[string]drivers.Driver // by the name that users type
	Plugins  drivers.Plugins           // further drivers, which are programs of their own; nil: none
	Firewall firewall.Backend
	Guard    firewall.Guard // of bridge ports; nil: none
	Cluster  Cluster        // what this host shares with others; nil: nothing
	Holder   Holder         // keeps the sockets of published ports
	ExecRoot string         // live files of sandboxes go to its folder sandboxes/

	Defaults Defaults

	// Events, if set, is told of each change of a network. It must not block.
	Events func(Event)
	// Trace, if set, sees each kernel operation. It must not block.
	Trace func(op.Event)
	// Logf, if set, gets what went wrong where nobody waits for an answer.
	Logf func(format string, args ...any)
	// Before, if set, is called before each step of a plan: a named failure
	// point for tests (see op.Executor).
	Before func(i int, step op.Step) error
}

// Defaults are what the daemon's flags say about networks.
type Defaults struct {
	Bases4, Bases6 []ipam.Base
	Options        map[string]string // of the default network
	NoBridge       bool              // there is no default network: who would join it has none
	BridgeAddress  string            // of the default network, as a CIDR; empty: from Bases4
	FixedCIDR4     netip.Prefix      // what it leases IPv4 addresses from; zero: all of its subnet
	Gateway4       netip.Addr        // of its containers, in place of the bridge's own address
	Gateway6       netip.Addr

	// NetworkOptions are those of new networks that do not say otherwise, by driver.
	NetworkOptions map[string]map[string]string

	IPv6           bool         // the default network has IPv6 too
	BridgeAddress6 string       // of the default network, as a CIDR; empty: from Bases6
	FixedCIDR6     netip.Prefix // what it leases IPv6 addresses from; zero: all of its subnet
	PublishAddress netip.Addr   // host address of published ports that name none; zero: all
	DNS            []string
	DNSSearch      []string
	DNSOptions     []string
	HostGateway    []netip.Addr   // what "host-gateway" stands for in --add-host
	DNSListen      netip.AddrPort // where the host itself may ask for names; zero: nowhere
	BridgeNames    bool           // names and a resolver on the default network, too
	ResolvConf     string         // the host's file; empty: what resolvconf.Source finds
}

// Event is a change of a network that clients may watch (GET /events).
type Event struct {
	Action    string // create, connect, disconnect, destroy, prune
	Network   linkspan.ID
	Name      string // of the network
	Driver    string
	Container linkspan.ID // of connect and disconnect
}

// Controller carries out the verbs. It is safe for concurrent use; no lock is
// held while it acts.
type Controller struct {
	o         Options
	executor  op.Executor
	names     *dns.Server
	unguarded atomic.Pointer[error] // why this kernel cannot guard ports
	mending   sync.Mutex            // held while the firewall's rules are compared and put back

	peers  *peering.Tables // of networks that span hosts
	spread sync.Mutex      // held while peers are read and handed on: the last to do so knows most
	listed atomic.Bool     // the cluster's store was read at least once

	undoing turns

	holding sync.Mutex // held while holds are compared with what is wanted
	holds   map[hold]bool

	mu         sync.Mutex
	zones      map[linkspan.ID]*dns.Zone     // by network
	resolvers  map[linkspan.ID]*dns.Resolver // by sandbox, and the host's
	announcing map[linkspan.ID]announcement  // by endpoint
	writing    map[linkspan.ID]*sync.Mutex   // by sandbox: who brings its files up to date
	owed       map[linkspan.ID]bool          // rows that could not be undone without a program
	healing    map[string]bool               // by plugin, while it is healed: whether to do it once more

	life     context.Context //nolint:containedctx // of what goes on in the background, until Close
	stop     context.CancelFunc
	stopped  sync.WaitGroup
	speakers sync.WaitGroup // announcements
	unfollow func()         // ends following the host's files
}

// New returns a Controller. Call Recover before any verb.
func New(o Options) *Controller {
	if o.Events == nil {
		o.Events = func(Event) {}
	}
	if o.Logf == nil {
		o.Logf = func(string, ...any) {}
	}
	life, stop := context.WithCancel(context.Background())
	c := &Controller{
		o:          o,
		executor:   op.Executor{Host: o.Host, Trace: o.Trace, Before: o.Before},
		names:      dns.NewServer(),
		zones:      make(map[linkspan.ID]*dns.Zone),
		resolvers:  make(map[linkspan.ID]*dns.Resolver),
		announcing: make(map[linkspan.ID]announcement),
		writing:    make(map[linkspan.ID]*sync.Mutex),
		owed:       make(map[linkspan.ID]bool),
		healing:    make(map[string]bool),
		holds:      make(map[hold]bool),
		life:       life,
		stop:       stop,
		unfollow:   func() {},
	}
	c.peers = peering.New(o.Host, &c.executor, o.Logf)
	return c
}

// Close stops answering and retrying. Nothing changes in the kernel: networks
// and containers stay as they are.
func (c *Controller) Close() {
	c.stop()
	c.stopped.Wait()
	c.unfollow()
	c.hushAll()
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, resolver := range c.resolvers {
		resolver.Close() //nolint:errcheck // its sockets live on in the shim
		delete(c.resolvers, id)
	}
}

// retryEvery is how long a row that could not be undone waits for the next try.
const retryEvery = 30 * time.Second

// driver returns a driver without asking anybody. If it is a plugin, it need not
// be there.
func (c *Controller) driver(name string) (drivers.Driver, error) {
	if d, known := c.o.Drivers[name]; known {
		return d, nil
	}
	if c.o.Plugins != nil {
		return c.o.Plugins.Driver(name), nil
	}
	return nil, linkspan.Errorf(linkspan.ErrNotFound, "plugin %q not found", name)
}
