package controller_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/controller"
	"github.com/linkspan/linkspan/endpoint"
	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/network"
)

// eventually waits until other hosts have followed.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	if !nstest.Until(time.Minute, holds) {
		t.Fatalf("it never came to pass: %s", what)
	}
}

func knows(d *daemon, name string) bool {
	_, err := d.Network(name)
	return err == nil
}

func links(t *testing.T, m *nstest.Machine) string { return m.Sh(t, "ip -br link show type bridge") }

// TestSharedNetworkIsEverywhere makes a network on one host and finds it on the
// other, where it has a part only while a container is on it.
func TestSharedNetworkIsEverywhere(t *testing.T) {
	d, _, m := hosts(t, "ant", "bee")
	ant, bee := d[0], d[1]
	before := settled(t, m[1])
	id := ant.network(t, "lab", across)
	eventually(t, "bee learns of lab", func() bool { return knows(bee, "lab") })
	n, err := bee.Network("lab")
	must(t, err)
	if n.ID != id || n.Scope != "global" || n.VNI == 0 || n.Pools[0].Subnet.String() != "10.0.0.0/24" {
		t.Errorf("bee has %+v", n)
	}
	if diff := nstest.Diff(before, settled(t, m[1])); diff != "" {
		t.Errorf("a network that bee does not use:\n%s", diff)
	}
	db := spec("db", "lab")
	bee.run(t, db)
	if got := links(t, m[1]); !strings.Contains(got, "br-"+id.Short()) {
		t.Errorf("bee's part is missing: %s", got)
	}
	if got := links(t, m[0]); strings.Contains(got, id.Short()) {
		t.Errorf("ant has a part that it does not need: %s", got)
	}
	must(t, bee.Detach(t.Context(), db.ID))
	if diff := nstest.Diff(before, settled(t, m[1])); diff != "" {
		t.Errorf("after the last container has left:\n%s", diff)
	}
	must(t, ant.RemoveNetwork(t.Context(), "lab"))
	eventually(t, "bee learns that lab is gone", func() bool { return !knows(bee, "lab") })
	for _, d := range d {
		var actions []string
		for _, e := range d.eventsOf(id) {
			actions = append(actions, e.Action)
		}
		if got := strings.Join(actions, " "); got != "create destroy" && got != "create connect disconnect destroy" {
			t.Errorf("events of lab: %s", got)
		}
		d.clear(t)
	}
}

// TestSharedNamesAndAddresses lets containers on two hosts find each other, and
// checks that no address is given twice.
func TestSharedNamesAndAddresses(t *testing.T) {
	d, ways, m := hosts(t, "ant", "bee")
	ant, bee := d[0], d[1]
	id := ant.network(t, "lab", across)
	eventually(t, "bee learns of lab", func() bool { return knows(bee, "lab") })
	web, db := spec("web", "lab"), spec("db", "lab", aliases("store"))
	here, there := ant.run(t, web), bee.run(t, db)
	mine, theirs := ant.Settings(web.ID).Networks["lab"], bee.Settings(db.ID).Networks["lab"]
	if mine.IPAddress == theirs.IPAddress || mine.MacAddress.String() == theirs.MacAddress.String() {
		t.Fatalf("twice the same: %v and %v", mine, theirs)
	}
	eventually(t, "ant learns of db", func() bool { return len(ant.Endpoints(id)) == 2 })
	eventually(t, "bee learns of web", func() bool { return len(bee.Endpoints(id)) == 2 })
	resolves(t, m[0], here, "db", theirs.IPAddress)
	resolves(t, m[0], here, "store", theirs.IPAddress)
	resolves(t, m[1], there, "web", mine.IPAddress)
	eventually(t, "the address of db has its name", func() bool {
		return strings.Contains(ask(m[0], here, "-x "+theirs.IPAddress.String()), "db.lab.")
	})
	if peers := ant.Peers(networkOf(t, ant, "lab")); len(peers) != 2 || peers[0].Name != "ant" || peers[1].VTEP != ways[1].self.VTEP {
		t.Errorf("peers of lab: %v", peers)
	}
	must(t, bee.Rename(db.ID, "data"))
	resolves(t, m[0], here, "data", theirs.IPAddress)

	if err := ant.RemoveNetwork(t.Context(), "lab"); !errors.Is(err, linkspan.ErrForbidden) {
		t.Errorf("removing a network in use: %v", err)
	}
	must(t, ant.Detach(t.Context(), web.ID))
	err := ant.RemoveNetwork(t.Context(), "lab")
	if !errors.Is(err, linkspan.ErrForbidden) || !strings.Contains(err.Error(), "bee") {
		t.Errorf("removing a network that bee uses: %v", err)
	}
	removed, err := ant.Prune(t.Context(), func(network.Network) bool { return true })
	if err != nil || len(removed) > 0 {
		t.Errorf("pruned %v, %v", removed, err)
	}
	for _, d := range d {
		defer d.clear(t)
	}
	must(t, bee.Detach(t.Context(), db.ID))
}

// TestSharedRefusals names who has what is wanted, and on which host.
func TestSharedRefusals(t *testing.T) {
	d, _, m := hosts(t, "ant", "bee")
	ant, bee := d[0], d[1]
	ant.network(t, "lab", across, subnet("10.7.0.0/24"))
	eventually(t, "bee learns of lab", func() bool { return knows(bee, "lab") })

	_, err := bee.CreateNetwork(t.Context(), controller.NetworkSpec{Name: "lab", IPv4: true})
	refused(t, err, linkspan.ErrConflict, "network with name lab already exists")
	_, err = bee.CreateNetwork(t.Context(), controller.NetworkSpec{Name: "lab", Driver: "wide", IPv4: true})
	refused(t, err, linkspan.ErrConflict, "network with name lab already exists")
	over := controller.NetworkSpec{Name: "over", Driver: "wide", IPv4: true}
	subnet("10.7.0.0/16")(&over)
	_, err = bee.CreateNetwork(t.Context(), over)
	refused(t, err, linkspan.ErrForbidden, "overlaps 10.7.0.0/24 of network lab")

	web := spec("web", "lab", ip4("10.7.0.50"))
	must(t, ant.Reserve(web)) // it does not run, and has its address all the same
	db := spec("db", "lab", ip4("10.7.0.50"))
	must(t, bee.Reserve(db))
	_, err = bee.Attach(t.Context(), db.ID)
	refused(t, err, linkspan.ErrConflict, "10.7.0.50 is held by container web on host ant")
	if got := links(t, m[1]); strings.Contains(got, "br-") {
		t.Errorf("a refused container has left bee's part of lab: %s", got)
	}
	must(t, ant.Forget(web.ID))
	_, err = bee.Attach(t.Context(), db.ID)
	must(t, err)

	gate := spec("gate", "lab", ip4("10.7.0.1"))
	must(t, ant.Reserve(gate))
	_, err = ant.Attach(t.Context(), gate.ID)
	refused(t, err, linkspan.ErrForbidden, "the gateway")
	twin := spec("twin", "lab", hardware(bee.Settings(db.ID).Networks["lab"].MacAddress.String()))
	must(t, ant.Reserve(twin))
	eventually(t, "ant learns of db", func() bool { return len(ant.Endpoints(networkOf(t, ant, "lab").ID)) == 1 })
	_, err = ant.Attach(t.Context(), twin.ID)
	refused(t, err, linkspan.ErrForbidden, "db on host bee")

	// A host that reaches the network's addresses by other ways says so.
	ant.network(t, "wan", across, subnet("10.9.0.0/24"))
	eventually(t, "bee learns of wan", func() bool { return knows(bee, "wan") })
	m[1].Sh(t, "ip link add up0 type veth peer name down0; ip addr add 10.9.0.7/16 dev up0; ip link set up0 up")
	err = bee.Connect(t.Context(), "wan", db.ID, nil)
	refused(t, err, linkspan.ErrForbidden, "network wan cannot be used on this host: its subnet 10.9.0.0/24 overlaps 10.9.0.0/16 of a route of the host on up0")
	m[1].Sh(t, "ip link del up0")
	must(t, bee.Connect(t.Context(), "wan", db.ID, nil))
	must(t, bee.Disconnect(t.Context(), "wan", db.ID, false))
	must(t, bee.Detach(t.Context(), db.ID))
	for _, d := range d {
		d.clear(t)
	}
}

// TestNoCluster refuses a network that spans hosts where there are no others.
func TestNoCluster(t *testing.T) {
	m := nstest.New(t)
	d := start(t, m, newRoots(t), func(o *controller.Options) { o.Drivers["wide"] = wide{} })
	_, err := d.CreateNetwork(t.Context(), controller.NetworkSpec{Name: "lab", Driver: "wide", IPv4: true})
	refused(t, err, linkspan.ErrForbidden, "--cluster-store")
	d.clear(t)
}

// TestSharedRestart ends a daemon and starts another one, with the cluster there
// and away: nothing changes, and what was known is known still.
func TestSharedRestart(t *testing.T) {
	all := newShared()
	m := nstest.New(t)
	roots := newRoots(t)
	way := all.join("ant", "192.0.2.1")
	d := start(t, m, roots, member(way))
	id := d.network(t, "lab", across)
	web := spec("web", "lab")
	a := d.run(t, web)
	before := settled(t, m)
	for _, cut := range []bool{false, true} {
		way.away(cut)
		d.stop(t)
		d = start(t, m, roots, member(way))
		if writes := d.traced.Load(); writes != 0 {
			t.Errorf("cut %v: a restart made %d changes", cut, writes)
		}
		if diff := nstest.Diff(before, settled(t, m)); diff != "" {
			t.Errorf("cut %v: a restart changed:\n%s", cut, diff)
		}
		must(t, d.Resume(web.ID, d.shims.handed(web.ID)))
		resolves(t, m, a, "web", d.Settings(web.ID).Networks["lab"].IPAddress)
	}
	db := spec("db", "lab")
	must(t, d.Reserve(db))
	_, err := d.Attach(t.Context(), db.ID)
	refused(t, err, linkspan.ErrUnavailable, "cannot be reached")
	if err := d.RemoveNetwork(t.Context(), "lab"); err == nil {
		t.Error("a network was removed without the cluster")
	}
	way.away(false)
	must(t, d.Detach(t.Context(), web.ID))
	if left := len(all.endpoints); left != 0 {
		t.Errorf("%d endpoints are left of %s", left, id)
	}
	d.clear(t)
}

// TestSharedCutOff lets a host be away until its leases end. What nobody took
// meanwhile comes back; what somebody took, the container loses.
func TestSharedCutOff(t *testing.T) {
	d, ways, m := hosts(t, "ant", "bee")
	ant, bee := d[0], d[1]
	id := ant.network(t, "lab", across)
	eventually(t, "bee learns of lab", func() bool { return knows(bee, "lab") })
	web, db := spec("web", "lab"), spec("db", "lab")
	a := ant.run(t, web)
	bee.run(t, db)
	theirs := bee.Settings(db.ID).Networks["lab"].IPAddress
	resolves(t, m[0], a, "db", theirs)

	ways[1].away(true)
	ways[1].expire(true)
	eventually(t, "db vanishes", func() bool { return len(ant.Endpoints(id)) == 1 })
	eventually(t, "the name db vanishes", func() bool { return !strings.Contains(ask(m[0], a, "db"), theirs.String()) })
	ways[1].away(false)
	eventually(t, "db is back", func() bool { return len(ant.Endpoints(id)) == 2 })
	resolves(t, m[0], a, "db", theirs)

	ways[1].away(true)
	ways[1].expire(true)
	eventually(t, "db vanishes", func() bool { return len(ant.Endpoints(id)) == 1 })
	thief := spec("thief", "lab", ip4(theirs.String()))
	ant.run(t, thief)
	ways[1].away(false)
	eventually(t, "db is taken down", func() bool { return !bee.Settings(db.ID).Networks["lab"].IPAddress.IsValid() })
	eventually(t, "bee's part goes with it", func() bool { return !strings.Contains(links(t, m[1]), id.Short()) })
	findings, err := bee.Diagnose(t.Context())
	must(t, err)
	if text := fmt.Sprint(findings); !strings.Contains(text, "container db is not on network lab") {
		t.Errorf("doctor does not say that db has lost its place: %s", text)
	}
	must(t, ant.Detach(t.Context(), thief.ID))
	must(t, bee.Detach(t.Context(), db.ID))
	bee.attachAgain(t, db.ID)
	must(t, bee.Detach(t.Context(), db.ID))
	must(t, ant.Detach(t.Context(), web.ID))
	for _, d := range d {
		d.clear(t)
	}
}

// TestSharedRemovedMeanwhile drops a network that was removed while a host was
// away, containers or not.
func TestSharedRemovedMeanwhile(t *testing.T) {
	d, ways, m := hosts(t, "ant", "bee")
	ant, bee := d[0], d[1]
	before := settled(t, m[1])
	ant.network(t, "lab", across)
	eventually(t, "bee learns of lab", func() bool { return knows(bee, "lab") })
	db := spec("db", "lab")
	bee.run(t, db)
	ways[1].away(true)
	ways[1].expire(true)
	must(t, ant.RemoveNetwork(t.Context(), "lab"))
	ways[1].away(false)
	eventually(t, "bee drops lab", func() bool { return !knows(bee, "lab") })
	must(t, bee.Detach(t.Context(), db.ID))
	must(t, bee.Forget(db.ID))
	if diff := nstest.Diff(before, settled(t, m[1])); diff != "" {
		t.Errorf("what is left of lab:\n%s", diff)
	}
	for _, d := range d {
		d.clear(t)
	}
}

func networkOf(t *testing.T, d *daemon, ref string) network.Network {
	t.Helper()
	n, err := d.Network(ref)
	must(t, err)
	return n
}

func refused(t *testing.T, err, kind error, words string) {
	t.Helper()
	if !errors.Is(err, kind) || !strings.Contains(err.Error(), words) {
		t.Errorf("want %v with %q, have: %v", kind, words, err)
	}
}

// ask is what a resolver in a sandbox says.
func ask(m *nstest.Machine, a controller.Attachment, question string) string {
	out, _ := m.TrySh("nsenter --net=/run/netns/" + nsOf(a) + " dig +short +tries=1 +time=5 @127.0.0.11 " + question) //nolint:errcheck // asked again
	return out
}

func resolves(t *testing.T, m *nstest.Machine, a controller.Attachment, name string, addr netip.Addr) {
	t.Helper()
	eventually(t, name+" is "+addr.String(), func() bool { return strings.TrimSpace(ask(m, a, name)) == addr.String() })
}

func (d *daemon) attachAgain(t *testing.T, id linkspan.ID) {
	t.Helper()
	a, err := d.Attach(t.Context(), id)
	must(t, err)
	d.shims.launched(id, a)
}

func (d *daemon) eventsOf(id linkspan.ID) (all []controller.Event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range d.events {
		if e.Network == id {
			all = append(all, e)
		}
	}
	return all
}

func hardware(mac string) func(*controller.Container) {
	return func(c *controller.Container) {
		parsed, err := endpoint.ParseMAC(mac)
		if err != nil {
			panic(err)
		}
		for _, s := range c.Networking.EndpointsConfig {
			s.MacAddress.UnmarshalText([]byte(parsed)) //nolint:errcheck // it was parsed
		}
	}
}
