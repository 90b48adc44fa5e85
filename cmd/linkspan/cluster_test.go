package main

import (
	"encoding/json"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	apinetwork "github.com/moby/moby/api/types/network"

	"github.com/linkspan/linkspan/internal/nstest"
	"github.com/linkspan/linkspan/store/etcdtest"
)

// hub is the network between hosts.
type hub struct {
	*nstest.Machine
	t *testing.T
}

// newHub returns a hub that is itself at 192.0.2.100.
func newHub(t *testing.T) hub {
	m := nstest.New(t)
	m.Sh(t, "ip link add sw0 type bridge; ip addr add 192.0.2.100/24 dev sw0; ip link set sw0 up")
	return hub{m, t}
}

// join returns a host at an address on the hub, on its link up0.
func (h hub) join(name, addr string) *story {
	s := newStory(h.t)
	h.Sh(h.t, "ip link add "+name+" type veth peer name up0 netns "+s.machine.Name()+"; ip link set "+name+" master sw0 up")
	s.machine.Sh(h.t, "ip addr add "+addr+"/24 dev up0; ip link set up0 up; ip route add default via 192.0.2.100")
	return s
}

// etcd starts the store that the hosts share.
func (h hub) etcd() *etcdtest.Member {
	h.t.Helper()
	etcd := etcdtest.Start(h.t, h.Machine, etcdtest.Config{Addr: netip.AddrFrom4([4]byte{192, 0, 2, 100})})
	etcd.Ready(h.t)
	return etcd
}

// TestTwoDaemons lets containers of two daemons, each on a host of its own, find
// each other on one network:
//
//	ant 192.0.2.1 ──┐
//	                ├── hub, with etcd 192.0.2.100
//	bee 192.0.2.2 ──┘
func TestTwoDaemons(t *testing.T) {
	hub := newHub(t)
	ant, bee := hub.join("ant", "192.0.2.1"), hub.join("bee", "192.0.2.2")
	etcd := hub.etcd()
	flags := []string{"--cluster-store", "etcd://" + etcd.Endpoint(), "--cluster-advertise", "up0", "--cluster-store-opt", "discovery.ttl=5"}
	ant.start(flags...)
	bee.start(flags...)

	ant.do("network", "create", "-d", "overlay", "--subnet", "10.77.0.0/24", "lab")
	within(t, "bee knows the network", func() bool { return strings.Contains(bee.do("network", "ls"), "lab       overlay   global") })
	ant.do("run", "-d", "--name", "web", "--network", "lab", "--network-alias", "www", "-p", "8080:80", "--rootfs", "/", "--", "python3", "-m", "http.server", "80")
	bee.do("run", "-d", "--name", "db", "--network", "lab", "--rootfs", "/", "--", "sleep", "600")
	for _, s := range []*story{ant, bee} {
		within(t, "both are seen on both", func() bool {
			n := inspectNetwork(s, "lab")
			return len(n.Containers) == 2 && len(n.Peers) == 2 && n.Peers[0].IP.Is4()
		})
	}
	// By name, by alias, and by the port that is published where web runs.
	for _, url := range []string{"http://web/", "http://www/", "http://192.0.2.1:8080/"} {
		within(t, "db reads "+url, func() bool {
			out, err := bee.try("exec", "db", "curl", "-fsS", "--max-time", "5", url)
			return err == nil && strings.Contains(out, "Directory listing")
		})
	}
	if out, err := bee.try("run", "--rm", "--network", "lab", "--ip", "10.77.0.2", "--rootfs", "/", "--", "true"); err == nil || !strings.Contains(out, "container web on host ") {
		t.Errorf("an address that web has: %v, %s", err, out)
	}
	if out, err := bee.try("network", "create", "-d", "overlay", "lab"); err == nil || !strings.Contains(out, "network with name lab already exists") {
		t.Errorf("a second network of the name: %v, %s", err, out)
	}
	if out, err := bee.try("network", "create", "-d", "overlay", "-o", "encrypted", "secret"); err == nil || !strings.Contains(out, "option encrypted is refused") {
		t.Errorf("an encrypted network: %v, %s", err, out)
	}

	// A host that is gone takes its containers along, and comes back with them.
	hub.Sh(t, "ip link set bee down")
	within(t, "db vanishes", func() bool { return len(inspectNetwork(ant, "lab").Containers) == 1 })
	within(t, "bee says that it is cut off", func() bool {
		out, _ := bee.try("doctor") //nolint:errcheck // it has findings, which is its exit status
		return strings.Contains(out, "cluster-store")
	})
	if got := bee.do("exec", "db", "getent", "hosts", "web"); !strings.HasPrefix(got, "10.77.0.2") {
		t.Errorf("cut off, db knows of web: %s", got)
	}
	hub.Sh(t, "ip link set bee up")
	within(t, "db is back", func() bool { return len(inspectNetwork(ant, "lab").Containers) == 2 })

	// Neither the store's end nor a daemon's stops what is there.
	etcd.Kill()
	bee.end(os.Kill)
	bee.start(flags...)
	within(t, "db reads from web without the store", func() bool {
		out, err := bee.try("exec", "db", "curl", "-fsS", "--max-time", "5", "http://10.77.0.2/")
		return err == nil && strings.Contains(out, "Directory listing")
	})
	if out, err := bee.try("network", "create", "-d", "overlay", "later"); err == nil || !strings.Contains(out, "does not answer") {
		t.Errorf("a network without the store: %v, %s", err, out)
	}
	etcd.Restart(t)
	etcd.Ready(t)
	within(t, "db knows web again", func() bool {
		out, err := bee.try("exec", "db", "curl", "-fsS", "--max-time", "5", "http://web/")
		return err == nil && strings.Contains(out, "Directory listing")
	})
	if out, err := bee.try("network", "rm", "lab"); err == nil || !strings.Contains(out, `name:"db"`) {
		t.Errorf("removal of a network in use: %v, %s", err, out)
	}
	bee.do("rm", "-f", "db")
	if out, err := bee.try("network", "rm", "lab"); err == nil || !strings.Contains(out, `name:"web"`) {
		t.Errorf("removal of a network in use elsewhere: %v, %s", err, out)
	}
	ant.do("rm", "-f", "web")
	ant.do("network", "rm", "lab")
	within(t, "bee forgets the network", func() bool { return !strings.Contains(bee.do("network", "ls"), "lab") })
	ant.leave()
	bee.leave()
}

func within(t *testing.T, what string, holds func() bool) {
	t.Helper()
	if !nstest.Until(90*time.Second, holds) {
		t.Fatalf("it never came to pass: %s", what)
	}
}

func inspectNetwork(s *story, name string) apinetwork.Inspect {
	s.t.Helper()
	var all []apinetwork.Inspect
	if err := json.Unmarshal([]byte(s.do("network", "inspect", name)), &all); err != nil || len(all) != 1 {
		s.t.Fatalf("inspecting network %s: %v", name, err)
	}
	return all[0]
}
