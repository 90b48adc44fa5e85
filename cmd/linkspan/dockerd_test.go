package main

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/linkspan/linkspan/internal/nstest"
)

// Docker's own engine uses our drivers as a plugin: two containers on a network
// of ours reach each other, and all of it goes again.
func TestDockerUsesOurDrivers(t *testing.T) {
	s := newStory(t)
	m := s.machine
	socket := "/run/docker/plugins/linkspan.sock"
	plugin := s.program(context.Background(), "plugin", "serve", "--data-root", filepath.Join(s.dir, "plugin"))
	plugin.Stderr = &s.log
	if err := plugin.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		plugin.Process.Signal(os.Interrupt) //nolint:errcheck // it may have ended
		plugin.Wait()                       //nolint:errcheck // it was told to
	})
	docker := func(args string) string {
		t.Helper()
		return strings.TrimSpace(m.Sh(t, "export DOCKER_HOST=unix://"+s.dir+"/d DOCKER_API_VERSION=1.41; docker "+args))
	}
	stop := m.Start(t, `exec dockerd -H unix://`+s.dir+`/d --data-root `+s.dir+`/docker --exec-root `+s.dir+`/run --pidfile `+s.dir+`/pid \
		--bridge none --iptables=false --ip-forward=false --storage-driver vfs --default-runtime runc`)
	if !nstest.Until(60*time.Second, func() bool {
		_, err := m.TrySh("test -S " + socket + "; DOCKER_HOST=unix://" + s.dir + "/d docker version")
		return err == nil
	}) {
		t.Fatalf("dockerd does not start:\n%s", stop())
	}
	docker(`network create -d linkspan --ipam-driver linkspan --subnet 10.77.0.0/24 -o com.docker.network.bridge.name=lab0 lab`)
	m.Sh(t, "ip addr show lab0 | grep 10.77.0.1/24")
	m.Sh(t, "mkdir -p "+s.dir+"/root/bin; cp /bin/busybox "+s.dir+"/root/bin/; cd "+s.dir+"/root; tar c . | DOCKER_HOST=unix://"+s.dir+"/d docker import - box")
	docker(`run -d --name web --network lab -p 8080:80 box /bin/busybox sh -c 'mkdir -p /www; echo hello >/www/index.html; exec /bin/busybox httpd -f -p 80 -h /www'`)
	if out := docker(`run --rm --network lab box /bin/busybox ping -c1 -W5 web`); !strings.Contains(out, "1 packets received") {
		t.Errorf("ping: %s", out)
	}
	if got := docker(`inspect -f '{{.NetworkSettings.Networks.lab.IPAddress}}' web`); got != "10.77.0.2" {
		t.Errorf("the address of web is %s", got)
	}
	// Somebody outside asks for the port that is published.
	m.Sh(t, "sysctl -qw net.ipv4.ip_forward=1")
	far := nstest.New(t)
	nstest.Wire(t, m, far, netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("192.0.2.2/24"))
	asks := func() (string, error) { return far.TrySh("curl -sS -m 5 http://192.0.2.1:8080/") }
	if !nstest.Until(20*time.Second, func() bool { out, err := asks(); return err == nil && strings.TrimSpace(out) == "hello" }) {
		out, err := asks()
		t.Errorf("the published port: %v %s", err, out)
	}
	if out, err := m.TrySh("export DOCKER_HOST=unix://" + s.dir + "/d DOCKER_API_VERSION=1.41; docker run --rm --network lab -p 8080:81 box /bin/busybox true"); err == nil || !strings.Contains(out+err.Error(), "port is already allocated") {
		t.Errorf("a port that another container has: %v %s", err, out)
	}
	// Another program has a port, and then cannot have one that is published.
	holds := m.Start(t, "exec python3 -m http.server 8081")
	within(t, "the port is taken", func() bool { _, err := m.TrySh("ss -Hltn sport = 8081 | grep -q ."); return err == nil })
	if out, err := m.TrySh("export DOCKER_HOST=unix://" + s.dir + "/d DOCKER_API_VERSION=1.41; docker run --rm --network lab -p 8081:81 box /bin/busybox true"); err == nil || !strings.Contains(out+err.Error(), "failed to bind host port 0.0.0.0:8081/tcp: address already in use") {
		t.Errorf("a port that another program has: %v %s", err, out)
	}
	holds()
	if out, err := m.TrySh("timeout 5 python3 -m http.server 8080"); err == nil || !strings.Contains(out+err.Error(), "Address already in use") {
		t.Errorf("another program got a published port: %v %s", err, out)
	}
	docker(`run -d --name any --network lab -p 80 box /bin/busybox httpd -f -p 80 -h /bin`)
	_, chosen, _ := strings.Cut(s.log.String(), "is published at port ")
	chosen = strings.TrimSpace(strings.SplitN(chosen, "\n", 2)[0])
	within(t, "port "+chosen+" answers", func() bool {
		_, err := far.TrySh("curl -sS -m 5 -o /dev/null http://192.0.2.1:" + chosen + "/")
		return err == nil
	})
	docker(`rm -f any`)
	docker(`rm -f web`)
	if out, err := asks(); err == nil {
		t.Errorf("the port is open though its container is gone: %s", out)
	}
	docker(`network rm lab`)

	// Another of our drivers, on a wire of its own.
	m.Sh(t, "ip link add p0 type veth peer name p1; ip link set p0 up; ip link set p1 up")
	docker(`network create -d linkspan --ipam-driver linkspan --subnet 10.78.0.0/24 -o linkspan.driver=macvlan -o parent=p0 wire`)
	docker(`run -d --name web --network wire box /bin/busybox sleep 1000`)
	if out := docker(`run --rm --network wire box /bin/busybox ping -c1 -W5 web`); !strings.Contains(out, "1 packets received") {
		t.Errorf("ping by macvlan: %s", out)
	}
	docker(`rm -f web`)
	docker(`network rm wire`)
	m.Sh(t, "ip link del p0")
	if out := m.Sh(t, "ip -o link; ls "+s.dir+"/plugin/*/ 2>&1 || true"); strings.Contains(out, "lab0") || strings.Contains(out, ".json") {
		t.Errorf("left behind:\n%s", out)
	}
	stop()
	m.Sh(t, "nft delete table inet linkspan")
}
