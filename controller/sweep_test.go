package controller_test

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"

	apinetwork "github.com/moby/moby/api/types/network"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/controller"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/op"
)

// testID is the container of the sweeps.
const testID linkspan.ID = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

var errPulled = errors.New("the plug was pulled")

// verbs are what the sweeps interrupt at every step.
var verbs = map[string]struct {
	machine string                    // script: what the machine has before the daemon
	after   string                    // script: takes that away
	prepare func(*testing.T, *daemon) // what exists before
	act     func(context.Context, *daemon) error
	shares  bool // the machine shares networks with others
	stays   bool // a crash may leave what Disconnect keeps as well: the resolver's rewriting
}{
	"create network": {
		prepare: func(*testing.T, *daemon) {},
		act: func(ctx context.Context, d *daemon) error {
			_, err := d.CreateNetwork(ctx, controller.NetworkSpec{Name: "lab", IPv4: true})
			return err
		},
	},
	"create network on a bridge": {
		machine: "ip link add mine0 type bridge; ip addr add fd00:9::1/64 dev mine0", after: "ip link del mine0",
		prepare: func(t *testing.T, d *daemon) { d.network(t, "earlier", dualStack) },
		act: func(ctx context.Context, d *daemon) error {
			_, err := d.CreateNetwork(ctx, controller.NetworkSpec{Name: "lab", IPv4: true, IPv6: true, Options: map[string]string{"com.docker.network.bridge.name": "mine0"}})
			return err
		},
	},
	"create dual-stack network": {
		// The first such network makes the host forward, which stays.
		prepare: func(t *testing.T, d *daemon) { d.network(t, "earlier", dualStack) },
		act: func(ctx context.Context, d *daemon) error {
			_, err := d.CreateNetwork(ctx, controller.NetworkSpec{Name: "lab", IPv4: true, IPv6: true})
			return err
		},
	},
	"attach": {
		prepare: func(t *testing.T, d *daemon) {
			d.network(t, "lab", dualStack)
			d.network(t, "side", onlyIPv6)
			web := spec("web", "lab", also("side"), publish("80", "81/udp")) // ephemeral: who is stopped dead in this process keeps his sockets
			web.ID = testID
			must(t, d.Reserve(web))
		},
		act: attachTest,
	},
	"connect": {
		prepare: func(t *testing.T, d *daemon) {
			d.network(t, "lab")
			d.network(t, "side")
			web := spec("web", "lab")
			web.ID = testID
			d.run(t, web)
		},
		act: func(ctx context.Context, d *daemon) error {
			return d.Connect(ctx, "side", testID, nil)
		},
	},
	"attach to a network of many hosts": {
		shares: true,
		prepare: func(t *testing.T, d *daemon) {
			d.network(t, "earlier", dualStack)
			d.network(t, "lab", across, dualStack)
			web := spec("web", "lab", publish("80"))
			web.ID = testID
			must(t, d.Reserve(web))
		},
		act: attachTest,
	},
	"connect to a network of many hosts": {
		shares: true,
		prepare: func(t *testing.T, d *daemon) {
			d.network(t, "lab")
			d.network(t, "side", across)
			web := spec("web", "lab")
			web.ID = testID
			d.run(t, web)
		},
		act: func(ctx context.Context, d *daemon) error {
			return d.Connect(ctx, "side", testID, nil)
		},
	},
	"connect by another gateway": {
		prepare: func(t *testing.T, d *daemon) {
			d.network(t, "lab")
			d.network(t, "side")
			web := spec("web", "lab", publish("80", "443"))
			web.ID = testID
			d.run(t, web)
		},
		act: func(ctx context.Context, d *daemon) error {
			return d.Connect(ctx, "side", testID, &apinetwork.EndpointSettings{GwPriority: 1})
		},
	},
	"connect from the default network": {
		stays: true,
		prepare: func(t *testing.T, d *daemon) {
			d.network(t, "side")
			web := spec("web", "bridge")
			web.ID = testID
			d.run(t, web)
		},
		act: func(ctx context.Context, d *daemon) error {
			return d.Connect(ctx, "side", testID, nil)
		},
	},
}

func attachTest(ctx context.Context, d *daemon) error {
	a, err := d.Attach(ctx, testID)
	a.Holds.Close()
	for _, file := range a.Keep {
		file.Close()
	}
	return err
}

// sharingOf makes the machine of a sweep one of several hosts, if the verb is
// about that.
func sharingOf(shares bool) (*shared, func(*controller.Options)) {
	all := newShared()
	if !shares {
		return all, func(*controller.Options) {}
	}
	return all, member(all.join("ant", "192.0.2.1"))
}

// count is how many endpoints there are, and addresses that somebody has.
func (s *shared) count() (endpoints, claims int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, on := range s.claims {
		claims += len(on)
	}
	return len(s.endpoints), claims
}

// TestFailureSweep fails each step of each verb in turn: nothing may be left.
func TestFailureSweep(t *testing.T) {
	for name, verb := range verbs {
		t.Run(name, func(t *testing.T) {
			m := nstest.New(t)
			m.Sh(t, verb.machine)
			countdown := -1 // steps until the one that fails, over all plans of the verb
			all, sharing := sharingOf(verb.shares)
			d := start(t, m, newRoots(t), sharing, func(o *controller.Options) {
				o.Before = func(int, op.Step) error {
					countdown--
					if countdown == -1 {
						return errPulled
					}
					return nil
				}
			})
			verb.prepare(t, d)
			before := settled(t, m)
			fail := 0
			for ; ; fail++ {
				countdown = fail
				err := verb.act(t.Context(), d)
				if err == nil {
					break
				}
				if !errors.Is(err, errPulled) {
					t.Fatalf("step %d: %v", fail, err)
				}
				if diff := nstest.Diff(before, settled(t, m)); diff != "" {
					t.Fatalf("after failing step %d:\n%s", fail, diff)
				}
				if endpoints, claims := all.count(); endpoints+claims > 0 {
					t.Fatalf("after failing step %d: %d endpoints and %d addresses are left in the cluster", fail, endpoints, claims)
				}
			}
			if fail < 3 {
				t.Errorf("only %d steps were swept", fail)
			}
			t.Logf("%d steps swept", fail)
			d.clear(t)
			m.Sh(t, verb.after)
		})
	}
}

// TestCrashSweep stops dead before each step of each verb in turn, without any
// rollback, and starts a new controller on the same roots: nothing may be left
// of the verb, and the verb must then work.
func TestCrashSweep(t *testing.T) {
	for name, verb := range verbs {
		if verb.stays {
			continue
		}
		t.Run(name, func(t *testing.T) {
			m := nstest.New(t)
			m.Sh(t, verb.machine)
			roots := newRoots(t)
			countdown := -1
			pull := func(o *controller.Options) {
				o.Before = func(int, op.Step) error {
					countdown--
					if countdown == -1 {
						runtime.Goexit() // as kill -9 would: no error, no undo
					}
					return nil
				}
			}
			all, sharing := sharingOf(verb.shares)
			d := start(t, m, roots, sharing, pull)
			verb.prepare(t, d)
			before := settled(t, m)
			for step := 0; ; step++ {
				countdown = step
				var err error
				ended, done := false, make(chan struct{})
				go func() {
					defer close(done)
					err = verb.act(context.Background(), d)
					ended = true
				}()
				<-done
				countdown = -1
				if ended {
					must(t, err)
					break
				}
				d.stop(t)
				d = start(t, m, roots, sharing, pull)
				if strings.HasPrefix(name, "attach") {
					must(t, d.DetachEnded(t.Context(), testID)) // there is no such process, as the runtime finds
				}
				if strings.HasPrefix(name, "connect") {
					// The client never got an answer: it may be connected, or not at all.
					must(t, d.Resume(testID, d.shims.handed(testID)))
					if side := d.Settings(testID).Networks["side"]; side != nil && side.EndpointID == "" {
						t.Errorf("after stopping before step %d: it is said to be on a network on which it is not", step)
					}
					if err := d.Disconnect(t.Context(), "side", testID, false); err != nil && !strings.Contains(err.Error(), "is not connected") {
						t.Fatal(err)
					}
				}
				if diff := nstest.Diff(before, settled(t, m)); diff != "" {
					t.Fatalf("after stopping before step %d:\n%s", step, diff)
				}
				if endpoints, claims := all.count(); endpoints+claims > 0 {
					t.Fatalf("after stopping before step %d: %d endpoints and %d addresses are left in the cluster", step, endpoints, claims)
				}
			}
			d.clear(t)
			m.Sh(t, verb.after)
		})
	}
}

// settled is the state of the machine when nothing is doomed any more.
func settled(t *testing.T, m *nstest.Machine) string {
	t.Helper()
	must(t, m.Host().Reap())
	return m.Dump(t)
}

func TestFailureNamesStep(t *testing.T) {
	m := nstest.New(t)
	m.Sh(t, "ip link add br-taken type veth peer name far") // a bridge would be adopted
	d := start(t, m, newRoots(t))
	_, err := d.CreateNetwork(t.Context(), controller.NetworkSpec{
		Name: "lab", IPv4: true, Options: map[string]string{"com.docker.network.bridge.name": "br-taken"},
	})
	if err == nil || !strings.Contains(err.Error(), "br-taken") {
		t.Errorf("error %v", err)
	}
	if got := m.Sh(t, "ip -br link show br-taken"); !strings.HasPrefix(got, "br-taken@far") {
		t.Errorf("a stranger's link was touched: %s", got)
	}
	m.Sh(t, "ip link del br-taken")
	d.clear(t)
}
