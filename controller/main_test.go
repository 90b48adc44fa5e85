package controller_test

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	apinetwork "github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/controller"
	"github.com/linkspan/linkspan/drivers"
	"github.com/linkspan/linkspan/drivers/bridge"
	joined "github.com/linkspan/linkspan/drivers/container"
	"github.com/linkspan/linkspan/drivers/host"
	"github.com/linkspan/linkspan/drivers/macvlan"
	"github.com/linkspan/linkspan/drivers/none"
	"github.com/linkspan/linkspan/firewall/iptables"
	"github.com/linkspan/linkspan/firewall/nftables"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/ipam"
	"github.com/linkspan/linkspan/kernel"
	"github.com/linkspan/linkspan/network"
	"github.com/linkspan/linkspan/op"
	"github.com/linkspan/linkspan/sandbox"
	"github.com/linkspan/linkspan/store"
)

func TestMain(m *testing.M) { nstest.Main(m) }

// daemon is a controller on a machine, with roots that outlive it.
type daemon struct {
	*controller.Controller
	store  *store.Store
	shims  *shims
	mu     sync.Mutex // of events
	events []controller.Event
	traced atomic.Int64 // kernel operations
}

type roots struct {
	data, exec string
	boot       string // tells lives of the machine apart
	shims      *shims
}

func newRoots(t testing.TB) roots {
	dir := t.TempDir()
	r := roots{data: filepath.Join(dir, "data"), exec: filepath.Join(dir, "exec"), shims: &shims{held: make(map[linkspan.ID]map[kernel.Hold]*os.File)}}
	t.Cleanup(r.shims.end)
	return r
}

// shims stand for all shims of a machine: they hold ports, and outlive the
// controller.
type shims struct {
	mu   sync.Mutex
	held map[linkspan.ID]map[kernel.Hold]*os.File
	kept map[linkspan.ID][]*os.File // handed over late, by Keep
}

func (s *shims) Keep(owner linkspan.ID, files []*os.File) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kept == nil {
		s.kept = make(map[linkspan.ID][]*os.File)
	}
	for _, file := range s.kept[owner] {
		file.Close()
	}
	s.kept[owner] = nil
	for _, file := range files {
		raw, err := file.SyscallConn() // Fd would make the socket block, for its other holders too
		if err == nil {
			err = raw.Control(func(fd uintptr) { s.kept[owner] = append(s.kept[owner], duplicate(int(fd))) })
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// handed returns what Keep got, which remains theirs.
func (s *shims) handed(owner linkspan.ID) []*os.File {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kept[owner]
}

func (s *shims) Holding(owner linkspan.ID) ([]kernel.Hold, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	mine, launched := s.held[owner]
	if !launched {
		return nil, errors.New("there is no shim yet, and a real one would let wait")
	}
	return slices.Collect(maps.Keys(mine)), nil
}

func (s *shims) Hold(owner linkspan.ID, wanted []sandbox.Port, fresh []kernel.Hold, sockets kernel.Sockets) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	mine := s.held[owner]
	if mine == nil {
		mine = make(map[kernel.Hold]*os.File)
		s.held[owner] = mine
	}
	for i, hold := range fresh {
		hold.Serve = false
		mine[hold] = duplicate(sockets[i])
	}
	keep := make(map[kernel.Hold]bool)
	for _, p := range wanted {
		for i := range p.Count {
			keep[kernel.Hold{Protocol: p.Protocol, At: netip.AddrPortFrom(p.Host, p.First+i)}] = true
		}
	}
	for hold, file := range mine {
		if !keep[hold] {
			file.Close()
			delete(mine, hold)
		}
	}
	return nil
}

// launched hands over what an Attach made, as the runtime does.
func (s *shims) launched(owner linkspan.ID, a controller.Attachment) {
	var fresh []kernel.Hold
	for _, p := range a.Ports {
		if p.Routed {
			continue
		}
		for i := range p.Count {
			fresh = append(fresh, kernel.Hold{Protocol: p.Protocol, At: netip.AddrPortFrom(p.Host, p.First+i)})
		}
	}
	s.Hold(owner, a.Ports, fresh, a.Holds) //nolint:errcheck // it never fails
	a.Holds.Close()
	for _, file := range a.Keep {
		file.Close()
	}
}

// drop lets go of what is held for one container, as its shim's end does.
func (s *shims) drop(owner linkspan.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, file := range s.held[owner] {
		file.Close()
	}
	delete(s.held, owner)
}

func (s *shims) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for owner, mine := range s.held {
		for _, file := range mine {
			file.Close()
		}
		delete(s.held, owner)
	}
	for owner, files := range s.kept {
		for _, file := range files {
			file.Close()
		}
		delete(s.kept, owner)
	}
}

func duplicate(socket int) *os.File {
	fd, err := unix.FcntlInt(uintptr(socket), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		panic(err)
	}
	return os.NewFile(uintptr(fd), "held port")
}

// start starts a controller and recovers. Stop it with stop, or leave it to the
// end of the test.
func start(t testing.TB, m *nstest.Machine, r roots, change ...func(*controller.Options)) *daemon {
	t.Helper()
	d := opened(t, m, r, change...)
	if err := d.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	return d
}

// opened is start without the recovery.
func opened(t testing.TB, m *nstest.Machine, r roots, change ...func(*controller.Options)) *daemon {
	t.Helper()
	epoch, err := m.Host().Epoch()
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{shims: r.shims}
	o := controller.Options{
		Host: m.Host(), Holder: r.shims, Firewall: nftables.Backend{}, Guard: nftables.Backend{}, ExecRoot: r.exec,
		Drivers: map[string]drivers.Driver{
			"bridge": bridge.Driver{}, "container": joined.Driver{}, "host": host.Driver{}, "ipvlan": macvlan.IPvlan{}, "macvlan": macvlan.Driver{}, "null": none.Driver{},
		},
		Defaults: controller.Defaults{
			Bases4: ipam.DefaultBases(), Bases6: ipam.DefaultBases6("test"), ResolvConf: filepath.Join(r.data, "resolv.conf"),
			Options: bridge.DefaultOptions("linkspan0", 0, true),
		},
		Events: func(e controller.Event) {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.events = append(d.events, e)
		},
		Trace: func(op.Event) { d.traced.Add(1) },
		Logf:  t.Logf,
	}
	for _, f := range change {
		f(&o)
	}
	if o.Store == nil {
		o.Store, _, err = store.Open(store.Options{
			DataRoot: r.data, ExecRoot: r.exec, Epoch: epoch, Codec: op.NewCodec(nftables.Kinds(), iptables.Kinds(), controller.Kinds(o.Cluster)),
			Quarantine: func(err error) { t.Errorf("quarantine: %v", err) },
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	d.store = o.Store
	d.Controller = controller.New(o)
	t.Cleanup(func() { d.stop(t) })
	return d
}

func (d *daemon) stop(t testing.TB) {
	if d.store == nil {
		return
	}
	d.Close()
	if err := d.store.Close(); err != nil {
		t.Error(err)
	}
	d.store = nil
}

// clear removes everything, so that the machine is as it was.
func (d *daemon) clear(t testing.TB) {
	t.Helper()
	ctx := context.Background()
	live, configured := d.Owners()
	d.shims.end() // with the containers
	for _, id := range live {
		must(t, d.Detach(ctx, id))
	}
	for _, id := range configured {
		must(t, d.Forget(id))
	}
	_, err := d.Prune(ctx, func(network.Network) bool { return true })
	must(t, err)
	must(t, d.Uninstall(ctx))
}

func (d *daemon) network(t testing.TB, name string, change ...func(*controller.NetworkSpec)) linkspan.ID {
	t.Helper()
	spec := controller.NetworkSpec{Name: name, IPv4: true}
	for _, f := range change {
		f(&spec)
	}
	n, err := d.CreateNetwork(t.Context(), spec)
	must(t, err)
	return n.ID
}

func subnet(cidr string) func(*controller.NetworkSpec) {
	return func(s *controller.NetworkSpec) { s.Pools = []ipam.Pool{{Subnet: netip.MustParsePrefix(cidr)}} }
}

// spec is a container that wants one network.
func spec(name, network string, change ...func(*controller.Container)) controller.Container {
	c := controller.Container{
		ID: linkspan.NewID(), Name: name, Created: time.Now(),
		Config:     &container.Config{Hostname: name},
		HostConfig: &container.HostConfig{NetworkMode: container.NetworkMode(network)},
		Networking: &apinetwork.NetworkingConfig{EndpointsConfig: map[string]*apinetwork.EndpointSettings{network: {}}},
	}
	for _, f := range change {
		f(&c)
	}
	return c
}

func (d *daemon) run(t testing.TB, c controller.Container) controller.Attachment {
	t.Helper()
	must(t, d.Reserve(c))
	a, err := d.Attach(t.Context(), c.ID)
	must(t, err)
	d.shims.launched(c.ID, a)
	return a
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func ip4(text string) func(*controller.Container) {
	return func(c *controller.Container) {
		for _, s := range c.Networking.EndpointsConfig {
			s.IPAMConfig = &apinetwork.EndpointIPAMConfig{IPv4Address: netip.MustParseAddr(text)}
		}
	}
}

func nsOf(a controller.Attachment) string { return filepath.Base(a.Netns) }
