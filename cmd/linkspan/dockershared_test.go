package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/linkspan/linkspan/internal/nstest"
)

// dockerHost is a host with Docker's own engine and our plugin.
type dockerHost struct {
	*story
	plugin     *exec.Cmd
	stopDocker func() string
}

// servePlugin starts the plugin; it listens in a folder of the host's own.
func (d *dockerHost) servePlugin(store string) {
	d.t.Helper()
	d.plugin = d.program(context.Background(), "plugin", "serve", "--data-root", filepath.Join(d.dir, "plugin"), "--socket", filepath.Join(d.dir, "plugins/linkspan.sock"),
		"--cluster-store", store, "--cluster-advertise", "up0", "--cluster-store-opt", "discovery.ttl=5")
	d.plugin.Stderr = &d.log
	if err := d.plugin.Start(); err != nil {
		d.t.Fatal(err)
	}
}

func (d *dockerHost) endPlugin(signal os.Signal) {
	d.plugin.Process.Signal(signal) //nolint:errcheck // it may have ended
	d.plugin.Wait()                 //nolint:errcheck // it was told to
}

func (d *dockerHost) startDocker() {
	d.t.Helper()
	d.stopDocker = d.machine.Start(d.t, `mkdir -p /run/docker/plugins `+d.dir+`/plugins; mount --bind `+d.dir+`/plugins /run/docker/plugins; cd `+d.dir+`
		exec dockerd -H unix://`+d.dir+`/d --data-root `+d.dir+`/docker --exec-root `+d.dir+`/run --pidfile `+d.dir+`/pid \
		--bridge none --iptables=false --ip-forward=false --storage-driver vfs --default-runtime runc`)
	if !nstest.Until(90*time.Second, func() bool { _, err := d.tryDocker("version"); return err == nil }) {
		d.t.Fatalf("dockerd does not start:\n%s", d.stopDocker())
	}
}

func (d *dockerHost) tryDocker(args string) (string, error) {
	out, err := d.machine.TrySh("export DOCKER_HOST=unix://" + d.dir + "/d DOCKER_API_VERSION=1.41; docker " + args)
	return strings.TrimSpace(out), err
}

func (d *dockerHost) docker(args string) string {
	d.t.Helper()
	out, err := d.tryDocker(args)
	if err != nil {
		d.t.Fatalf("docker %s: %v\n%s\n%s", args, err, out, d.log.String())
	}
	return out
}

func (d *dockerHost) pings(container, addr string) {
	d.t.Helper()
	within(d.t, container+" pings "+addr, func() bool {
		_, err := d.tryDocker("exec " + container + " /bin/busybox ping -c1 -W2 " + addr)
		return err == nil
	})
}

// TestDockersShareANetwork has two of Docker's own engines, and a daemon of ours,
// share a network:
//
//	ant 192.0.2.1, dockerd ───┐
//	bee 192.0.2.2, dockerd ───┼── hub, with etcd 192.0.2.100
//	cat 192.0.2.3, linkspan ──┘
func TestDockersShareANetwork(t *testing.T) {
	hub := newHub(t)
	store := "etcd://" + hub.etcd().Endpoint()
	ant, bee := &dockerHost{story: hub.join("ant", "192.0.2.1")}, &dockerHost{story: hub.join("bee", "192.0.2.2")}
	cat := hub.join("cat", "192.0.2.3")
	subnet := ""
	for _, d := range []*dockerHost{ant, bee} {
		d.servePlugin(store)
		t.Cleanup(func() { d.endPlugin(os.Interrupt) })
		d.startDocker()
		d.machine.Sh(t, "mkdir -p "+d.dir+"/root/bin; cp /bin/busybox "+d.dir+"/root/bin/; cd "+d.dir+"/root; tar c . | DOCKER_HOST=unix://"+d.dir+"/d docker import - box")
		within(t, "the network is made", func() bool {
			_, err := d.tryDocker("network create -d linkspan --ipam-driver linkspan --ipam-opt linkspan.shared=dock " + subnet + " lab")
			return err == nil
		})
		subnet = d.docker("network inspect -f '--subnet {{(index .IPAM.Config 0).Subnet}}' lab") // Docker wants one named for --ip
	}
	cat.start("--cluster-store", store, "--cluster-advertise", "up0", "--cluster-store-opt", "discovery.ttl=5")
	within(t, "the daemon knows the network", func() bool { return strings.Contains(cat.do("network", "ls"), "dock      overlay   global") })

	ant.docker("run -d --name web --network lab box /bin/busybox sleep 1000")
	bee.docker("run -d --name db --network lab box /bin/busybox sleep 1000")
	cat.do("run", "-d", "--name", "own", "--network", "dock", "--rootfs", "/", "--", "sleep", "1000")
	address := func(d *dockerHost, container string) string {
		return d.docker("inspect -f '{{.NetworkSettings.Networks.lab.IPAddress}}' " + container)
	}
	web, db := address(ant, "web"), address(bee, "db")
	own := cat.do("inspect", "-f", "{{.NetworkSettings.Networks.dock.IPAddress}}", "own")
	if web == db || web == own || db == own {
		t.Fatalf("addresses: %s, %s, %s", web, db, own)
	}
	ant.pings("web", db)
	ant.pings("web", own)
	bee.pings("db", web)
	bee.pings("db", own)
	within(t, "own pings web", func() bool { _, err := cat.try("exec", "own", "ping", "-c1", "-W2", web); return err == nil })
	if out, err := bee.tryDocker("run --rm --network lab --ip " + web + " box /bin/busybox true"); err == nil || !strings.Contains(out+err.Error(), "is held by container ") {
		t.Errorf("an address that another engine's container has: %v %s", err, out)
	}
	if out, err := cat.try("network", "rm", "dock"); err == nil || !strings.Contains(out, "active endpoints") {
		t.Errorf("removal of a network in use: %v, %s", err, out)
	}

	// The plugin is killed, and so is an engine: what lives goes on, and what the
	// engine gives up is free.
	ant.endPlugin(os.Kill)
	bee.pings("db", web)
	ant.servePlugin(store)
	bee.stopDocker()
	bee.startDocker()
	within(t, "bee's container is taken off", func() bool { return len(inspectNetwork(cat, "dock").Containers) == 2 })
	bee.docker("start db")
	bee.pings("db", web)
	ant.pings("web", address(bee, "db"))

	cat.do("rm", "-f", "own")
	for _, d := range []*dockerHost{ant, bee} {
		for _, name := range []string{"web", "db"} {
			d.tryDocker("rm -f " + name) //nolint:errcheck // each has one of them
		}
		d.docker("network rm lab")
		if out := d.machine.Sh(t, "ip -o link; find "+d.dir+"/plugin -name '*.json'"); strings.Contains(out, "br-") || strings.Contains(out, "vx-") || strings.Contains(out, ".json") {
			t.Errorf("left behind:\n%s", out)
		}
		d.stopDocker()
		d.machine.Sh(t, "nft delete table inet linkspan")
	}
	within(t, "the network has gone with the last engine's", func() bool { return !strings.Contains(cat.do("network", "ls"), "dock") })
	cat.leave()
}
