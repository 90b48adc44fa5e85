package export_test

import (
	"strings"
	"sync"
	"testing"

	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/plugin/wire"
)

// Engines on two hosts that make one network at the same moment have one: with
// traffic between their containers, addresses that differ, and nothing left when
// both have removed it.
func TestSharedNetwork(t *testing.T) {
	s := newSite(t)
	ant, bee := s.engine("ant", 1, nil), s.engine("bee", 2, nil)
	before := []string{ant.m.Dump(t), bee.m.Dump(t)}
	var lans [2]lan
	var all sync.WaitGroup
	for i, e := range []*engine{ant, bee} {
		all.Go(func() {
			n, err := e.create(wish{shared: "lab", ipv6: true})
			if err != nil {
				t.Error(err)
			}
			lans[i] = n
		})
	}
	all.Wait()
	if t.Failed() {
		return
	}
	for i := range lans[0].data {
		if lans[0].data[i].Pool != lans[1].data[i].Pool || lans[0].data[i].Gateway != lans[1].data[i].Gateway {
			t.Errorf("the networks differ: %+v, %+v", lans[0].data[i], lans[1].data[i])
		}
	}
	if names := s.keys("names/"); names != "/linkspan/v1/names/lab" {
		t.Errorf("networks: %s", names)
	}
	a, b, c := ant.run(lans[0]), bee.run(lans[1]), bee.run(lans[1])
	for i := range a.addrs {
		for _, reach := range []struct {
			e        *engine
			from, to box
		}{{ant, a, b}, {bee, b, a}, {ant, a, c}, {bee, b, c}} {
			s.within(reach.from.name+" reaches "+reach.to.addr(i), func() bool { return reach.e.reaches(reach.from, reach.to.addr(i)) })
		}
	}
	if a.addrs[0] == b.addrs[0] || a.addrs[0] == c.addrs[0] || b.addrs[0] == c.addrs[0] {
		t.Errorf("addresses: %v %v %v", a.addrs, b.addrs, c.addrs)
	}
	if _, err := ant.lease(lans[0], c.addr(0)); err == nil || !strings.Contains(err.Error(), "held by container "+c.name+" on host bee") {
		t.Errorf("an address that another host's container has: %v", err)
	}
	// What others do to the tables is put right.
	links := ant.m.Sh(t, "ip -o link show type vxlan")
	device := "vx-" + links[strings.Index(links, "vx-")+3:][:12]
	ant.m.Sh(t, "bridge fdb del "+b.mac+" dev "+device+" master")
	s.within("the table is repaired", func() bool {
		return strings.Contains(ant.m.Sh(t, "bridge fdb show dev "+device), b.mac+" master")
	})
	bee.end(b)
	s.within("ant forgets who has left", func() bool { return !strings.Contains(ant.m.Sh(t, "bridge fdb show dev "+device), b.mac) })
	d, err := bee.lease(lans[1], "")
	s.must(err)
	if d.addrs[0] != b.addrs[0] {
		t.Errorf("the next container gets %s, and not %s, which is free", d.addrs[0], b.addrs[0])
	}
	bee.release(d)

	ant.end(a)
	ant.remove(lans[0])
	if left := s.keys("names/"); left == "" {
		t.Error("the network is gone although bee has its part")
	}
	bee.end(c)
	bee.remove(lans[1])
	s.within("the store has nothing of the network", func() bool {
		return s.keys("networks/")+s.keys("names/")+s.keys("vnis/")+s.keys("keepers/")+s.keys("endpoints/")+s.keys("claims/")+s.keys("blocks/") == ""
	})
	for i, e := range []*engine{ant, bee} {
		s.within(e.name+" has nothing of it", func() bool { return nstest.Diff(before[i], e.m.Dump(t)) == "" })
		if left := e.m.Sh(t, "find "+e.dir+"/state -name '*.json'"); left != "" {
			t.Errorf("%s keeps %s", e.name, left)
		}
	}
}

// A network that a daemon of the cluster made has engines' containers and the
// daemon's on it. It stays when the engine has left, and cannot be removed before.
func TestSharedWithDaemon(t *testing.T) {
	s := newSite(t)
	ant := s.engine("ant", 1, nil)
	daemon := s.open(s.hub, "cat", 3, nil)
	defer func() { s.must(daemon.Close()) }()
	daemon.Resume(nil, nil)
	s.within("the store answers", func() bool { return daemon.Err() == nil })
	made := daemonNetwork(t, daemon, "lab", "10.77.0.0/24")
	for _, refused := range []struct {
		w     wish
		words string
	}{
		{wish{shared: "lab", subnet: "10.78.0.0/24"}, "network lab is in the cluster with subnet 10.77.0.0/24, not 10.78.0.0/24"},
		{wish{shared: "lab", gateway: "10.77.0.9"}, "with gateway 10.77.0.1, not 10.77.0.9"},
		{wish{shared: "lab", ipv6: true}, "network lab is in the cluster without an IPv6 subnet"},
		{wish{shared: "lab", options: map[string]any{"linkspan.vxlan_port": "4800"}}, "with option linkspan.vxlan_port"},
		{wish{shared: "lab", options: map[string]any{"linkspan.driver": "bridge"}}, "is of driver overlay; leave the option out"},
		{wish{shared: "none"}, "operation is not permitted on predefined none network"},
		{wish{options: map[string]any{"linkspan.driver": "overlay"}}, "--ipam-opt linkspan.shared=NAME"},
		{wish{shared: "big", subnet: "10.0.0.0/8"}, "network lab"},
		{wish{shared: "far", subnet: "192.0.2.0/24", options: map[string]any{"com.docker.network.driver.mtu": "9000"}}, "invalid MTU value: 9000"},
	} {
		n, err := ant.create(refused.w)
		if err == nil || !strings.Contains(err.Error(), refused.words) {
			t.Errorf("%+v: %v", refused.w, err)
		}
		if err == nil {
			ant.remove(n)
		}
	}
	if kept := s.keys("keepers/") + strings.ReplaceAll(s.keys("names/"), "/linkspan/v1/names/lab", ""); kept != "" {
		t.Errorf("refusals left %s", kept)
	}

	n := ant.network(wish{shared: "lab", subnet: "10.77.0.0/24"})
	if _, err := ant.create(wish{shared: "lab"}); err == nil || !strings.Contains(err.Error(), "has a part on this host already: network "+n.id[:12]) {
		t.Errorf("a second part on one host: %v", err)
	}
	a := ant.run(n)
	s.within("the daemon knows the container by its name", func() bool {
		on := daemon.Endpoints(made.ID)
		return len(on) == 1 && on[0].Name == a.name && on[0].DNSNames[0] == a.name && on[0].MAC == a.mac
	})
	if err := daemon.RemoveNetwork(t.Context(), made.ID); err == nil || !strings.Contains(err.Error(), a.name) {
		t.Errorf("removal of a network with a container: %v", err)
	}
	ant.end(a)
	s.within("the daemon is told why the network stays", func() bool {
		err := daemon.RemoveNetwork(t.Context(), made.ID)
		return err != nil && strings.Contains(err.Error(), "host ant needs it: a network of its engine")
	})
	ant.remove(n)
	if names := s.keys("names/"); names != "/linkspan/v1/names/lab" {
		t.Errorf("the daemon's network went with the engine's: %q", names)
	}
	s.must(daemon.RemoveNetwork(t.Context(), made.ID))
}

// The plugin ends between any two calls and is started again: nothing changes. An
// engine that was killed gives back what it still knows of, in whatever order.
func TestSharedRestart(t *testing.T) {
	s := newSite(t)
	ant, bee := s.engine("ant", 1, nil), s.engine("bee", 2, nil)
	again := func() {
		t.Helper()
		ant.stop()
		ant.start()
	}
	n, far := ant.network(wish{shared: "lab"}), bee.network(wish{shared: "lab"})
	b := bee.run(far)
	again()
	leased, err := ant.lease(n, "")
	s.must(err)
	again()
	if got, err := bee.lease(far, leased.addr(0)); err == nil {
		t.Errorf("bee got %v, which ant's engine holds", got.addrs)
	}
	// The answer got lost, and the engine asks again.
	var answer wire.RequestAddressResponse
	ant.call("IpamDriver.RequestAddress", wire.RequestAddressRequest{PoolID: n.pools[0], Options: map[string]string{wire.OptionMAC: leased.mac}}, &answer)
	if answer.Address != leased.addrs[0].String() {
		t.Errorf("asked again, it gives %s and not %s", answer.Address, leased.addrs[0])
	}
	s.must(ant.endpoint(leased))
	again()
	s.must(ant.endpoint(leased))
	s.within("bee knows the endpoint", func() bool { return strings.Contains(s.keys("endpoints/"), leased.id) })
	a := ant.run(n)
	again()
	s.within("they reach each other after a restart", func() bool { return ant.reaches(a, b.addr(0)) && bee.reaches(b, a.addr(0)) })
	if _, err := ant.lease(n, a.addr(0)); err == nil {
		t.Error("an address was given twice")
	}
	if again, err := bee.lease(far, ""); err != nil || again.addrs[0] == a.addrs[0] || again.addrs[0] == leased.addrs[0] {
		t.Errorf("bee gets %v: %v", again.addrs, err)
	} else {
		bee.release(again)
	}
	// The engine forgot the endpoint, and gives back its address only.
	ant.release(leased)
	s.within("the endpoint goes with its address", func() bool { return !strings.Contains(s.keys("endpoints/"), leased.id) })

	// A host that was down while the others changed.
	ant.stop()
	bee.end(b)
	c := bee.run(far)
	ant.start()
	s.within("ant has followed", func() bool { return ant.reaches(a, c.addr(0)) })
	bee.end(c)
	bee.remove(far)
	ant.end(a)
	// The engine forgot the network, and gives back its pool only.
	ant.call("IpamDriver.ReleasePool", wire.ReleasePoolRequest{PoolID: n.pools[0]}, nil)
	s.within("the network is gone", func() bool { return s.keys("networks/")+s.keys("keepers/")+s.keys("claims/") == "" })
	again()
}

// The store is away: containers start with addresses that the host has in reserve,
// and what was removed meanwhile goes from the store when it is back.
func TestSharedWithoutStore(t *testing.T) {
	s := newSite(t)
	ant := s.engine("ant", 1, nil)
	n := ant.network(wish{shared: "lab"})
	a := ant.run(n)
	s.within("the host has a reserve", func() bool { return s.keys("blocks/") != "" })
	s.etcd.Kill()
	s.within("the host knows", func() bool { return ant.cluster.Err() != nil })
	b := ant.run(n)
	if !ant.reaches(a, b.addr(0)) {
		t.Errorf("%s does not reach %s", a.name, b.addr(0))
	}
	if _, err := ant.create(wish{shared: "other"}); err == nil || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("a new network without the store: %v", err)
	}
	ant.stop()
	ant.start()
	ant.end(a)
	ant.end(b)
	ant.remove(n)
	ant.stop()
	ant.start()
	s.etcd.Restart(t)
	s.within("the store has nothing of it", func() bool {
		return s.keys("networks/")+s.keys("names/")+s.keys("keepers/")+s.keys("endpoints/")+s.keys("claims/")+s.keys("blocks/") == ""
	})
	if left := ant.m.Sh(t, "find "+ant.dir+"/state -name '*.json'"); left != "" {
		s.within("nothing is kept", func() bool { return ant.m.Sh(t, "find "+ant.dir+"/state -name '*.json'") == "" })
	}
}

// A host that was cut off for so long that its claim has ended: its network is made
// anew, and a container whose address somebody else has is cut off.
func TestSharedCutOff(t *testing.T) {
	s := newSite(t)
	short := map[string]string{"discovery.ttl": "4", "discovery.claim": "6"}
	ant, bee := s.engine("ant", 1, short), s.engine("bee", 2, nil)
	n := bee.network(wish{shared: "lab"})
	mine := ant.network(wish{shared: "lab"})
	a, kept := ant.run(mine), ant.run(mine)
	s.hub.Sh(t, "ip link set ant down")
	s.within("its claims have ended", func() bool { return !strings.Contains(s.keys("keepers/"), "00001") && s.keys("claims/") == "" })
	thief, err := bee.lease(n, a.addr(0))
	s.must(err)
	s.hub.Sh(t, "ip link set ant up")
	s.within("one container is cut off", func() bool { _, err := ant.m.TrySh("ip -n " + a.name + " link show eth0"); return err != nil })
	s.within("the other is back", func() bool { return strings.Contains(s.keys("endpoints/"), kept.id) })
	ant.m.Sh(t, "ip netns del "+a.name)
	ant.call("NetworkDriver.DeleteEndpoint", wire.EndpointRequest{NetworkID: mine.id, EndpointID: a.id}, nil)
	ant.release(a)
	bee.release(thief)

	s.hub.Sh(t, "ip link set ant down")
	s.within("its claims have ended", func() bool { return !strings.Contains(s.keys("keepers/"), "00001") && s.keys("claims/") == "" })
	bee.remove(n)
	if s.keys("networks/") != "" {
		t.Error("the network stays although nobody needs it")
	}
	s.hub.Sh(t, "ip link set ant up")
	s.within("the network is back, and the container on it", func() bool {
		return s.keys("networks/") != "" && strings.Contains(s.keys("endpoints/"), kept.id) && strings.Contains(s.keys("keepers/"), "00001")
	})
	ant.end(kept)
	ant.remove(mine)
	s.within("the store has nothing of it", func() bool { return s.keys("networks/")+s.keys("keepers/")+s.keys("claims/") == "" })
}
