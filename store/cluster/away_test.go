package cluster_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/linkspan/linkspan/store/cluster"
)

// TestAway stops a daemon on purpose and ends another one: what the first has
// stays for others to see, what the second has ends with its life. Back again, the
// first one is mortal as before.
func TestAway(t *testing.T) {
	s := newSite(t)
	store, _ := s.etcd(t, 1)
	lives := short(3*time.Second, 5*time.Minute)
	m := s.machine(t, 1)
	a, b, c := host(t, m, 1, store.url(), lives), host(t, s.machine(t, 2), 2, store.url(), lives), host(t, s.machine(t, 3), 3, store.url(), lives)
	ready(t, a, b, c)
	n := lab(t, a, "lab", "10.0.0.0/24")
	web := join(t, a, n, container("web"))
	join(t, c, n, container("doomed"))
	eventually(t, "the third host knows all", func() bool { return len(b.Endpoints(n.ID)) == 2 && len(b.Members()) == 3 })

	must(t, b.Away(t.Context())) // has nothing to keep
	must(t, a.Away(t.Context()))
	must(t, a.Close())
	must(t, c.Close())
	eventually(t, "a host that died is gone", func() bool { return !strings.Contains(names(b.Endpoints(n.ID)), "doomed") && len(b.Members()) == 2 })
	still := b.Endpoints(n.ID)
	if len(still) != 1 || still[0].ID != web.ID || !still[0].Away {
		t.Errorf("of a host that is away there is %+v", still)
	}

	a = opened(t, m, 1, store.url(), lives)
	a.Resume([]cluster.Endpoint{web}, nil)
	ready(t, a)
	eventually(t, "it is back", func() bool {
		on := b.Endpoints(n.ID)
		return len(on) == 1 && !on[0].Away && !slices.ContainsFunc(b.Members(), func(m cluster.Member) bool { return m.Away })
	})
	must(t, a.Close())
	eventually(t, "it can die", func() bool { return len(b.Endpoints(n.ID)) == 0 && len(b.Members()) == 1 })
}
