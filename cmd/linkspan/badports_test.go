package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/linkspan/linkspan/internal/nstest"
)

// What cannot be published is refused by name, with its holder, and leaves
// nothing; with both backends, and when a container runs already.
func TestBadPorts(t *testing.T) {
	for _, backend := range []string{"nftables", "iptables"} {
		t.Run(backend, func(t *testing.T) { badPorts(t, backend) })
	}
}

func badPorts(t *testing.T, backend string) {
	s := newStory(t)
	s.start("--firewall-backend", backend)
	s.do("network", "create", "--subnet", "10.77.0.0/24", "lab")
	s.do("run", "-d", "--name", "web", "--network", "lab", "-p", "9000-9005:9000-9005", "--rootfs", "/", "--", "sleep", "1000")
	s.machine.Start(t, `exec python3 -c 'import socket, time; s = socket.create_server(("127.0.0.1", 7000)); time.sleep(1e6)'`)
	if !nstest.Until(longEnough, func() bool {
		_, err := s.machine.TrySh("ss -Hltn 'sport = :7000' | grep 7000")
		return err == nil
	}) {
		t.Fatal("the host's program does not listen")
	}
	before := s.machine.Dump(t)
	cases := []struct {
		ports string
		says  []string
	}{
		{"8080-8085:8080-8085 8083:80", []string{"Bind for 0.0.0.0:8083 failed: port is already allocated"}},
		{"8080-8085:8080-8085 8085-8090:90-95", []string{"Bind for 0.0.0.0:8085 failed: port is already allocated"}},
		{"9003:80", []string{"Bind for 0.0.0.0:9003 failed: port is already allocated"}},
		{"8999-9000:80-81", []string{"port is already allocated"}},
		{"70000:80", []string{"70000"}},
		{"80:70000", []string{"70000"}},
		{"8085-8080:85-80", []string{"8085-8080"}},
		{"8080-8085:80-81", []string{"8080-8085"}},
		{"80:80/foo", []string{"foo"}},
		{"7000:80", []string{"failed to bind host port 0.0.0.0:7000/tcp: address already in use", "process ", "(python3) holds it"}},
		{"6999-7001:80-82", []string{"7000/tcp: address already in use", "python3"}},
		{"203.0.113.9:8080:80", []string{"no interface of this host has 203.0.113.9", "ip addr"}},
		{"[2001:db8:99::9]:8080:80", []string{"no interface of this host has 2001:db8:99::9"}},
	}
	if _, err := s.machine.TrySh("python3 -c 'import socket; socket.socket(socket.AF_INET, socket.SOCK_STREAM, 132)'"); err != nil {
		cases = append(cases, struct {
			ports string
			says  []string
		}{"80:80/sctp", []string{"this kernel lacks the protocol sctp", "modprobe sctp"}})
	}
	for _, c := range cases {
		run := []string{"run", "--rm", "--name", "bad", "--network", "lab"}
		for _, port := range strings.Fields(c.ports) {
			run = append(run, "-p", port)
		}
		for what, args := range map[string][]string{
			"run":      append(run, "--rootfs", "/", "--", "true"),
			"port add": append([]string{"port", "add", "web"}, strings.Fields(c.ports)...),
		} {
			out, err := s.try(args...)
			if err == nil {
				t.Errorf("%s %s is not refused", what, c.ports)
			}
			for _, want := range c.says {
				if !strings.Contains(out, want) {
					t.Errorf("%s %s: %s\nwant %q", what, c.ports, out, want)
				}
			}
		}
		s.try("rm", "-f", "bad") //nolint:errcheck // most were never made
	}
	s.eventually("nothing is left of what was refused", func() bool { return nstest.Diff(before, s.machine.Dump(t)) == "" })
	if got := s.do("port", "ls", "--format", "json", "web"); strings.Count(got, `"HostPort"`) != 2 {
		t.Errorf("web publishes by now: %s", got)
	}
	for _, port := range []int{8080, 8083, 8085} {
		if !s.bindable(port) {
			t.Error(fmt.Sprint("port ", port, " is held"))
		}
	}
	s.leave()
}
