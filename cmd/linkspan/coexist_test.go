package main

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/linkspan/linkspan/internal/nstest"
)

// neighbourhood is a host with somebody else's firewall, a neighbour, and a
// container of ours that publishes port 8080.
//
//	lan ─ 192.0.2.2 ─wire─ 192.0.2.1 ─ host ─ lab 10.77.0.0/24 ─ web
type neighbourhood struct {
	*story
	lan *nstest.Machine
}

func newNeighbourhood(t *testing.T) neighbourhood {
	s := newStory(t)
	n := neighbourhood{s, nstest.New(t)}
	nstest.Wire(t, s.machine, n.lan, netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("192.0.2.2/24"))
	n.lan.Start(t, "exec python3 -c '"+strings.ReplaceAll(answerScript, "'", `"`)+"' 7")
	return n
}

func (n neighbourhood) serve() {
	n.t.Helper()
	n.do("network", "create", "--subnet", "10.77.0.0/24", "lab")
	n.do("run", "-d", "--name", "web", "--network", "lab", "-p", "8080:80", "--rootfs", "/", "--", "python3", "-c", answerScript, "80")
	n.do("run", "-d", "--name", "peer", "--network", "lab", "--rootfs", "/", "--", "sleep", "1000")
}

// asking asks within the limit from the neighbour, the host, or a container.
func (n neighbourhood) asking(who, address string, limit float64) string {
	n.t.Helper()
	question := fmt.Sprintf("tcp %s %g", address, limit)
	switch who {
	case "lan":
		return strings.TrimSpace(n.lan.Sh(n.t, "python3 - '"+question+"' <<'END'\n"+askScript+"END"))
	case "host":
		return strings.TrimSpace(n.machine.Sh(n.t, "python3 - '"+question+"' <<'END'\n"+askScript+"END"))
	}
	return n.do("exec", who, "python3", "-c", askScript, question)
}

// works checks that the container's port, its way out and its network work.
func (n neighbourhood) works(when string) {
	n.t.Helper()
	for _, q := range []struct{ who, address, sees string }{
		{"lan", "192.0.2.1 8080", "192.0.2.2"}, {"host", "127.0.0.1 8080", "10.77.0.1"}, {"web", "192.0.2.2 7", "192.0.2.1"}, {"peer", "web 80", "10.77.0.3"},
	} {
		if got := n.asking(q.who, q.address, trust); got != q.sees {
			n.t.Errorf("%s: %s asks %s and is seen as %q, want %q", when, q.who, q.address, got, q.sees)
		}
	}
}

func (n neighbourhood) finding() string {
	said, _ := n.try("doctor")
	return said
}

// Docker on the same host, whose FORWARD policy is DROP: auto takes iptables,
// where our rules come first, and neither disturbs the other. Started under a
// daemon that is on nftables already, Docker stops its packets; the doctor says by
// what, and that a start with iptables helps; it does.
func TestBesideDocker(t *testing.T) {
	n := newNeighbourhood(t)
	m, s := n.machine, n.story
	m.Sh(t, "sysctl -qw net.ipv4.ip_forward=0") // Docker sets its policy when it is who switches it on
	docker := func(args string) {
		t.Helper()
		m.Sh(t, "export DOCKER_HOST=unix://"+s.dir+"/d DOCKER_API_VERSION=1.41; docker "+args)
	}
	dockerd := func() (stop func() string) {
		stop = m.Start(t, `exec dockerd -H unix://`+s.dir+`/d --data-root `+s.dir+`/docker --exec-root `+s.dir+`/run --pidfile `+s.dir+`/pid \
			--bip 172.30.0.1/24 --storage-driver vfs --default-runtime runc --userland-proxy=false`)
		if !nstest.Until(60*time.Second, func() bool {
			_, err := m.TrySh("DOCKER_HOST=unix://" + s.dir + "/d docker version")
			return err == nil
		}) {
			t.Fatalf("dockerd does not start:\n%s", stop())
		}
		return stop
	}
	policy := func() string { return m.Sh(t, "iptables -S FORWARD | head -1") }

	stop := dockerd()
	if got := strings.TrimSpace(policy()); got != "-P FORWARD DROP" {
		t.Fatalf("Docker's policy is %q", got)
	}
	m.Sh(t, "mkdir -p "+s.dir+"/root/bin; cp /bin/busybox "+s.dir+"/root/bin/; cd "+s.dir+"/root; tar c . | DOCKER_HOST=unix://"+s.dir+"/d docker import - box")
	docker("run -d --name theirs -p 8090:80 box /bin/busybox nc -ll -p 80 -e /bin/busybox echo -n hello")
	theirs := func(when string) {
		t.Helper()
		if got := n.asking("lan", "192.0.2.1 8090", trust); got != "hello" {
			t.Errorf("%s: Docker's container answers %q", when, got)
		}
	}
	theirs("Docker alone")
	s.start("--firewall-backend", "auto")
	if info := s.do("info"); !strings.Contains(info, "Firewall Backend: iptables") {
		t.Errorf("info does not name the backend:\n%s", info)
	}
	n.serve()
	n.works("beside Docker")
	theirs("beside us")
	if said := n.finding(); strings.Contains(said, "foreign-drop-policy") {
		t.Errorf("the doctor says:\n%s", said)
	}
	docker("rm -f theirs")
	stop()
	stop = dockerd() // which makes its chains anew
	n.works("after a restart of Docker")
	s.end(os.Interrupt)
	s.start("--firewall-backend", "nftables")
	if said := n.finding(); !strings.Contains(said, "foreign-drop-policy") || !strings.Contains(said, "chain FORWARD of table ip filter") || !strings.Contains(said, "--firewall-backend iptables") {
		t.Errorf("on nftables beside Docker, the doctor says:\n%s", said)
	}
	if got := n.asking("lan", "192.0.2.1 8080", silence); got != "-" {
		t.Errorf("on nftables beside Docker, where the doctor sees an obstacle, the port answers %q", got)
	}
	s.end(os.Interrupt)
	s.start("--firewall-backend", "auto")
	n.works("after the doctor's remedy")
	s.leave()
	if got := strings.TrimSpace(policy()); got != "-P FORWARD DROP" {
		t.Errorf("we have changed Docker's policy: %q", got)
	}
	stop()
}

// ufw, which drops what is forwarded and all that comes in but SSH.
func TestBesideUfw(t *testing.T) {
	n := newNeighbourhood(t)
	ufw := func(args string) {
		t.Helper()
		etc := filepath.Join(n.dir, "ufw")
		// It keeps its rules in the machine's own files, of which it gets copies here.
		n.machine.Sh(t, fmt.Sprintf(`[ -d %[1]s ] || { mkdir %[1]s; cp -a /etc/ufw %[1]s/etc; cp -a /etc/default/ufw %[1]s/default; cp -a /lib/ufw %[1]s/lib; }
			unshare -m sh -ec 'mount --bind %[1]s/etc /etc/ufw; mount --bind %[1]s/default /etc/default/ufw; mount --bind %[1]s/lib /lib/ufw; ufw %[2]s'`, etc, args))
	}
	ufw("--force enable")
	ufw("allow 22/tcp")
	if policy := n.machine.Sh(t, "iptables -S FORWARD | head -1; iptables -S INPUT | head -1"); strings.Count(policy, "DROP") != 2 {
		t.Fatalf("ufw's policies are %s", policy)
	}
	n.start("--firewall-backend", "auto")
	n.serve()
	n.works("beside ufw")
	if said := n.finding(); strings.Contains(said, "foreign-drop-policy") {
		t.Errorf("the doctor says:\n%s", said)
	}
	ufw("reload")
	n.works("after ufw reload")
	ufw("--force disable")
	ufw("--force enable")
	n.works("after ufw was switched off and on")
	n.end(os.Interrupt)
	n.start("--firewall-backend", "nftables")
	if said := n.finding(); !strings.Contains(said, "foreign-drop-policy") || !strings.Contains(said, "--firewall-backend iptables") {
		t.Errorf("on nftables beside ufw, the doctor says:\n%s", said)
	}
	n.leave()
	ufw("--force disable")
}
