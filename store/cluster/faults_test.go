package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/store/cluster"
)

// losses collects what a host is told that it lost.
type losses struct {
	mu  sync.Mutex
	all []cluster.Lost
}

func follow(t testing.TB, c *cluster.Cluster) *losses {
	t.Helper()
	l := &losses{}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		c.Follow(ctx, func(change cluster.Change) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.all = append(l.all, change.Lost...)
		})
	})
	t.Cleanup(func() { cancel(); done.Wait() })
	return l
}

func (l *losses) told() []cluster.Lost {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]cluster.Lost(nil), l.all...)
}

func names(endpoints []cluster.Endpoint) string {
	var all []string
	for _, e := range endpoints {
		all = append(all, e.Name+"="+e.IPv4.Addr().String())
	}
	return strings.Join(all, " ")
}

func wants(name, addr string) cluster.Endpoint {
	e := container(name)
	prefix := netip.MustParsePrefix(addr)
	if prefix.Addr().Is4() {
		e.IPv4 = prefix
	} else {
		e.IPv6 = prefix
	}
	return e
}

// TestCutOff takes a host away for less than its claim lasts. It goes on with
// what it has and what it keeps in reserve; when it is back, all know.
func TestCutOff(t *testing.T) {
	s := newSite(t)
	store, _ := s.etcd(t, 1)
	a := host(t, s.machine(t, 1), 1, store.url(), short(4*time.Second, 5*time.Minute))
	b := host(t, s.machine(t, 2), 2, store.url(), short(4*time.Second, 5*time.Minute))
	ready(t, a, b)
	lost := follow(t, a)
	n := lab(t, a, "lab", "10.0.0.0/24")
	web := join(t, a, n, container("web"))
	stays := join(t, a, n, container("stays"))
	store.blocks(t, 1)
	eventually(t, "the other host knows", func() bool { return len(b.Endpoints(n.ID)) == 2 })

	s.cut(t, 0, 1)
	eventually(t, "the host knows that it is cut off", func() bool { return a.Err() != nil })
	if err := a.Err(); !errors.Is(err, linkspan.ErrUnavailable) || !strings.Contains(err.Error(), "10.9.0.101:2379 does not answer") {
		t.Errorf("cut off: %v", err)
	}
	if got := names(a.Endpoints(n.ID)); !strings.Contains(got, "web=10.0.0.2") {
		t.Errorf("the host forgot what is on it: %s", got)
	}
	must(t, a.Leave(t.Context(), web))
	again := join(t, a, n, wants("again", "10.0.0.2/24"))
	fresh := join(t, a, n, container("fresh"))
	if fresh.IPv4.Addr().Less(netip.MustParseAddr("10.0.0.128")) {
		t.Errorf("%s is not of the host's reserve", fresh.IPv4)
	}
	if _, err := a.Join(t.Context(), n, wants("greedy", "10.0.0.77/24")); !errors.Is(err, linkspan.ErrUnavailable) || !strings.Contains(err.Error(), "its block is 10.0.0.") {
		t.Errorf("an address outside of the reserve: %v", err)
	}
	if _, err := a.CreateNetwork(t.Context(), record("other", "10.0.1.0/24")); !errors.Is(err, linkspan.ErrUnavailable) {
		t.Errorf("a new network without the store: %v", err)
	}
	eventually(t, "its endpoints are gone elsewhere", func() bool { return len(b.Endpoints(n.ID)) == 0 && len(b.Members()) == 1 })
	if _, err := b.Join(t.Context(), n, wants("thief", "10.0.0.2/24")); !errors.Is(err, linkspan.ErrConflict) {
		t.Errorf("the address of a host that is cut off: %v", err)
	}

	s.mend(t, 0, 1)
	eventually(t, "all know what the host did alone", func() bool {
		return len(b.Endpoints(n.ID)) == 3 && names(b.Endpoints(n.ID)) == names(a.Endpoints(n.ID)) && len(b.Members()) == 2
	})
	if len(lost.told()) > 0 {
		t.Errorf("lost: %v", lost.told())
	}
	for _, e := range []cluster.Endpoint{again, fresh, stays} {
		must(t, a.Leave(t.Context(), e))
	}
	eventually(t, "nothing is left of it", func() bool {
		return len(store.keys(t, "claims/"))+len(store.keys(t, "blocks/"))+len(store.keys(t, "endpoints/")) == 0
	})
}

// TestCutOffTooLong takes a host away for longer than its claim lasts. What was
// given to others meanwhile is lost, and only that.
func TestCutOffTooLong(t *testing.T) {
	s := newSite(t)
	store, _ := s.etcd(t, 1)
	a := host(t, s.machine(t, 1), 1, store.url(), short(4*time.Second, 6*time.Second))
	b := host(t, s.machine(t, 2), 2, store.url(), short(4*time.Second, 6*time.Second))
	ready(t, a, b)
	lost := follow(t, a)
	n := lab(t, a, "lab", "10.0.0.0/24")
	web, cache := join(t, a, n, container("web")), join(t, a, n, container("cache"))
	idle := wants("idle", "10.0.0.40/24")
	must(t, a.Hold(t.Context(), n, idle))
	join(t, b, n, container("other"))
	store.blocks(t, 2)

	s.cut(t, 0, 1)
	eventually(t, "its claims have ended", func() bool { return len(store.keys(t, "claims/")) == 1 })
	if _, err := a.Join(t.Context(), n, container("late")); !errors.Is(err, linkspan.ErrUnavailable) || !strings.Contains(err.Error(), "claim on its addresses may have ended") {
		t.Errorf("a join on a claim that may have ended: %v", err)
	}
	eventually(t, "the host is gone elsewhere", func() bool { return len(b.Endpoints(n.ID)) == 1 })
	join(t, b, n, wants("heir", web.IPv4.String()))
	join(t, b, n, wants("heir2", "10.0.0.40/24"))

	s.mend(t, 0, 1)
	eventually(t, "the host is told what it lost", func() bool { return len(lost.told()) == 2 })
	for _, l := range lost.told() {
		switch l.Endpoint.Name {
		case "web":
			if l.Endpoint.ID != web.ID || !strings.Contains(l.Reason, "10.0.0.2 is held by container heir on host h2") {
				t.Errorf("lost %s: %s", l.Endpoint.Name, l.Reason)
			}
		case "idle":
			if l.Endpoint.Owner != idle.Owner || !strings.Contains(l.Reason, "10.0.0.40 is held by container heir2 on host h2") {
				t.Errorf("lost %s: %s", l.Endpoint.Name, l.Reason)
			}
		default:
			t.Errorf("lost: %v", l)
		}
	}
	eventually(t, "the rest is back", func() bool {
		return strings.Contains(names(b.Endpoints(n.ID)), "cache="+cache.IPv4.Addr().String()) && len(b.Endpoints(n.ID)) == 4
	})
	must(t, a.Leave(t.Context(), web))
	eventually(t, "both hosts say the same", func() bool { return names(a.Endpoints(n.ID)) == names(b.Endpoints(n.ID)) })
}

// TestDeadHost ends a daemon and does not come back: what it had returns.
func TestDeadHost(t *testing.T) {
	s := newSite(t)
	store, _ := s.etcd(t, 1)
	a := host(t, s.machine(t, 1), 1, store.url(), short(3*time.Second, 5*time.Second))
	b := host(t, s.machine(t, 2), 2, store.url(), short(3*time.Second, 5*time.Second))
	ready(t, a, b)
	n := lab(t, a, "lab", "10.0.0.0/24")
	web := join(t, a, n, container("web"))
	store.blocks(t, 1)
	eventually(t, "the other host knows", func() bool { return len(b.Endpoints(n.ID)) == 1 })
	s.cut(t, 0, 1)
	must(t, a.Close())
	eventually(t, "its endpoints are gone", func() bool { return len(b.Endpoints(n.ID)) == 0 })
	eventually(t, "its address returns", func() bool {
		_, err := b.Join(t.Context(), n, wants("heir", web.IPv4.String()))
		return err == nil
	})
	eventually(t, "all of it is gone", func() bool { return len(store.keys(t, "claims/")) == 1 && len(b.Members()) == 1 })
}

// TestRestart ends a daemon and starts it again with what it has: the store does
// not notice. What it has not any more is given back.
func TestRestart(t *testing.T) {
	s := newSite(t)
	store, _ := s.etcd(t, 1)
	m := s.machine(t, 1)
	a := host(t, m, 1, store.url())
	b := host(t, s.machine(t, 2), 2, store.url())
	ready(t, a, b)
	n := lab(t, a, "lab", "10.0.0.0/24")
	web, db := join(t, a, n, container("web")), join(t, a, n, container("db"))
	idle := wants("idle", "10.0.0.40/24")
	must(t, a.Hold(t.Context(), n, idle))
	idle.Network = n.ID
	store.blocks(t, 1)
	before := store.revision(t, false)
	must(t, a.Close())

	a = restarted(t, m, store, []cluster.Endpoint{web, db}, []cluster.Endpoint{idle})
	if got := names(a.Endpoints(n.ID)); len(a.Endpoints(n.ID)) != 2 {
		t.Errorf("before the store answers the host knows only %s", got)
	}
	ready(t, a)
	cache := join(t, b, n, container("cache"))
	eventually(t, "it follows again", func() bool { return len(a.Endpoints(n.ID)) == 3 })
	must(t, b.Leave(t.Context(), cache))
	// Join, block, leave and the block's end were b's.
	if after := store.revision(t, false); after > before+4 {
		t.Errorf("a restart without a change wrote: revision %d before, %d after", before, after)
	}
	must(t, a.Close())

	a = restarted(t, m, store, []cluster.Endpoint{web}, nil)
	eventually(t, "what was not there any more is given back", func() bool {
		return len(store.keys(t, "endpoints/")) == 1 && len(store.keys(t, "claims/")) == 1 && len(b.Endpoints(n.ID)) == 1
	})
	ready(t, a)
}

func restarted(t testing.TB, m machine, store *client, living, held []cluster.Endpoint) *cluster.Cluster {
	t.Helper()
	c := opened(t, m, 1, store.url())
	c.Resume(living, held)
	return c
}

// TestStoreAway kills etcd and starts it again.
func TestStoreAway(t *testing.T) {
	s := newSite(t)
	store, members := s.etcd(t, 1)
	a := host(t, s.machine(t, 1), 1, store.url(), short(4*time.Second, 5*time.Minute))
	b := host(t, s.machine(t, 2), 2, store.url(), short(4*time.Second, 5*time.Minute))
	ready(t, a, b)
	lost := follow(t, a)
	n := lab(t, a, "lab", "10.0.0.0/24")
	web := join(t, a, n, container("web"))
	store.blocks(t, 1)
	eventually(t, "both know", func() bool { return len(b.Endpoints(n.ID)) == 1 })
	members[0].Kill()
	eventually(t, "both hosts notice", func() bool { return a.Err() != nil && b.Err() != nil })
	if len(a.Networks()) != 1 || len(b.Endpoints(n.ID)) != 1 || len(b.Members()) != 2 {
		t.Error("without the store the hosts forgot what they knew")
	}
	alone := join(t, a, n, container("alone"))
	members[0].Restart(t)
	eventually(t, "both hosts know both endpoints", func() bool {
		return names(a.Endpoints(n.ID)) == names(b.Endpoints(n.ID)) && len(b.Endpoints(n.ID)) == 2 && a.Err() == nil && b.Err() == nil
	})
	must(t, a.Leave(t.Context(), web))
	must(t, a.Leave(t.Context(), alone))
	if len(lost.told()) > 0 {
		t.Errorf("lost: %v", lost.told())
	}
}

// TestCompaction lets the store forget what a host did not hear.
func TestCompaction(t *testing.T) {
	s := newSite(t)
	store, _ := s.etcd(t, 1)
	a := host(t, s.machine(t, 1), 1, store.url(), short(4*time.Second, 5*time.Minute))
	var forgotten atomic.Bool
	b := host(t, s.machine(t, 2), 2, store.url(), short(4*time.Second, 5*time.Minute), func(o *cluster.Options) {
		logf := o.Logf
		o.Logf = func(format string, args ...any) {
			logf(format, args...)
			if strings.Contains(fmt.Sprintf(format, args...), "has been compacted") {
				forgotten.Store(true)
			}
		}
	})
	ready(t, a, b)
	n, old := lab(t, a, "lab", "10.0.0.0/24"), lab(t, a, "old", "10.0.1.0/24")
	web := join(t, a, n, container("web"))
	eventually(t, "both know", func() bool { return len(b.Endpoints(n.ID)) == 1 && len(b.Networks()) == 2 })
	s.cut(t, 0, 2)
	must(t, a.Leave(t.Context(), web))
	join(t, a, n, container("db"))
	join(t, a, n, container("cache"))
	must(t, a.RemoveNetwork(t.Context(), old.ID))
	eventually(t, "its connection is given up", func() bool { return b.Err() != nil })
	store.revision(t, true)
	s.mend(t, 0, 2)
	eventually(t, "the host that heard nothing knows all", func() bool {
		return names(a.Endpoints(n.ID)) == names(b.Endpoints(n.ID)) && len(b.Endpoints(n.ID)) == 2 && len(b.Networks()) == 1
	})
	if !forgotten.Load() {
		t.Error("the store still knew what the host had not heard: nothing was tested")
	}
	join(t, a, n, container("last"))
	eventually(t, "and follows", func() bool { return len(b.Endpoints(n.ID)) == 3 })
}
