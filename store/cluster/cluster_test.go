package cluster_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/store/cluster"
	"github.com/linkspan/linkspan/store/etcdtest"
)

// TestTwoHosts goes once through all verbs, on two hosts that see the same.
func TestTwoHosts(t *testing.T) {
	m := nstest.New(t)
	etcd := etcdtest.Alone(t, m)
	a, b := host(t, m, 1, "etcd://"+etcd.Endpoint()), host(t, m, 2, "etcd://"+etcd.Endpoint())
	ready(t, a, b)
	eventually(t, "both hosts know both", func() bool { return len(a.Members()) == 2 && len(b.Members()) == 2 })

	n := lab(t, a, "lab", "10.0.0.0/24")
	eventually(t, "the other host knows the network", func() bool { return len(b.Networks()) == 1 && b.Networks()[0].Name == "lab" })
	web := join(t, a, n, container("web"))
	db := join(t, b, n, container("db"))
	if web.IPv4.String() != "10.0.0.2/24" || db.IPv4.String() != "10.0.0.3/24" {
		t.Errorf("the lowest addresses behind the gateway's are 10.0.0.2 and 10.0.0.3, not %s and %s", web.IPv4, db.IPv4)
	}
	eventually(t, "both hosts know both endpoints", func() bool { return len(a.Endpoints(n.ID)) == 2 && len(b.Endpoints(n.ID)) == 2 })

	wanted := container("thief")
	wanted.IPv4 = web.IPv4
	_, err := b.Join(t.Context(), n, wanted)
	if !errors.Is(err, linkspan.ErrConflict) || !strings.Contains(err.Error(), "container web on host h1") {
		t.Errorf("the address of web was asked for: %v", err)
	}
	err = b.RemoveNetwork(t.Context(), n.ID)
	if !errors.Is(err, linkspan.ErrForbidden) || !strings.Contains(err.Error(), `name:"web"`) || !strings.Contains(err.Error(), `host:"h1"`) {
		t.Errorf("removing a network with endpoints: %v", err)
	}
	must(t, a.Leave(t.Context(), web))
	must(t, b.Leave(t.Context(), db))
	eventually(t, "nobody is on the network", func() bool { return len(a.Endpoints(n.ID))+len(b.Endpoints(n.ID)) == 0 })
	eventually(t, "the network can be removed", func() bool { return b.RemoveNetwork(t.Context(), n.ID) == nil })
	eventually(t, "no host knows the network", func() bool { return len(a.Networks())+len(b.Networks()) == 0 })
	if err := a.RemoveNetwork(t.Context(), n.ID); !errors.Is(err, linkspan.ErrNotFound) {
		t.Errorf("removing a network that is gone: %v", err)
	}
}

// TestTwins opens two hosts with one ID: the second one keeps its hands off what
// the first one has until that is gone.
func TestTwins(t *testing.T) {
	m := nstest.New(t)
	etcd := etcdtest.Alone(t, m)
	store := "etcd://" + etcd.Endpoint()
	a := host(t, m, 1, store, short(4*time.Second, 8*time.Second))
	ready(t, a)
	n := lab(t, a, "lab", "10.0.0.0/24")
	web := join(t, a, n, container("web"))
	twin := host(t, m, 1, store, short(4*time.Second, 8*time.Second), func(o *cluster.Options) { o.Self.Name = "copy" })
	eventually(t, "the second one says why it does nothing", func() bool {
		err := twin.Err()
		return errors.Is(err, linkspan.ErrConflict) && strings.Contains(err.Error(), "host h1 at 192.0.2.1 has the same ID")
	})
	if _, err := twin.Join(t.Context(), n, container("db")); err == nil || !strings.Contains(err.Error(), "the same ID") {
		t.Errorf("a join on the second one: %v", err)
	}
	if len(a.Endpoints(n.ID)) != 1 || a.Err() != nil {
		t.Errorf("the first one has %v, %v", a.Endpoints(n.ID), a.Err())
	}
	must(t, a.Leave(t.Context(), web))
	must(t, a.Close())
	ready(t, twin)
	join(t, twin, n, container("db"))
}
