package cluster_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/internal/nstest"
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
