package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/linkspan/linkspan/internal/nstest"
)

// A plugin that is itself a container of this daemon's. All ends at once, the
// daemon too; the next one starts both containers, in whatever order: the one
// that needs the plugin runs as soon as that does, and nobody waits for anybody.
func TestPluginInContainer(t *testing.T) {
	s := newStory(t)
	script, err := filepath.Abs("../../drivers/remote/testdata")
	if err != nil {
		t.Fatal(err)
	}
	const sockets = "/run/docker/plugins"
	if err := os.MkdirAll(sockets, 0o755); err != nil {
		t.Fatal(err)
	}
	s.start()
	s.do("run", "-d", "--name", "driver", "--restart", "always", "--network", "host", "--cap-add", "NET_ADMIN",
		"-v", sockets+":"+sockets, "-v", script+":/driver:ro", "--rootfs", "/", "python3", "/driver/plugin.py", sockets+"/lab.sock")
	if !nstest.Until(time.Minute, func() bool { _, err := os.Stat(sockets + "/lab.sock"); return err == nil }) {
		t.Fatalf("the plugin does not listen: %s", s.do("logs", "driver"))
	}
	s.do("network", "create", "-d", "lab", "--subnet", "10.77.0.0/24", "net")
	s.do("run", "-d", "--name", "web", "--restart", "always", "--network", "net", "--rootfs", "/", "sleep", "1000")
	s.do("run", "-d", "--name", "other", "--rootfs", "/", "sleep", "1000")
	var pids []int
	for _, name := range []string{"driver", "web"} {
		pid, err := strconv.Atoi(s.do("inspect", "-f", "{{.State.Pid}}", name))
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	s.end(os.Kill)
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Error(err)
		}
	}
	s.start()
	s.do("run", "--rm", "--rootfs", "/", "true") // the daemon is of use at once
	works := func() bool {
		out, err := s.try("exec", "web", "ip", "addr", "show", "eth0")
		return err == nil && strings.Contains(out, "10.77.0.")
	}
	if !nstest.Until(2*time.Minute, works) {
		out, _ := s.try("ps", "-a")
		state, _ := s.try("plugin", "inspect", "lab")
		t.Fatalf("the container does not run again on the plugin's network:\n%s\n%s", out, state)
	}
	s.do("exec", "web", "ping", "-n", "-c1", "-W5", "10.77.0.1")
	if out := s.do("network", "inspect", "net"); strings.Contains(out, "degraded") {
		t.Errorf("the network is degraded: %s", out)
	}
	if out := s.do("plugin", "inspect", "lab"); strings.Contains(out, `"Waiting"`) {
		t.Errorf("something is owed to the plugin: %s", out)
	}
	s.do("rm", "-f", "web", "other")
	s.do("network", "rm", "net")
	s.do("rm", "-f", "driver")
	if err := os.Remove(sockets + "/lab.sock"); err != nil {
		t.Error(err)
	}
	s.leave()
}
