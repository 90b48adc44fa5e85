package runtime

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"
)

func host(change func(*container.HostConfig)) setting {
	return func(q *Request) { change(q.HostConfig) }
}

const namespaces = "for n in pid ipc uts; do readlink /proc/self/ns/$n; done"

func own(tb testing.TB, kind string) string {
	tb.Helper()
	name, err := os.Readlink("/proc/self/ns/" + kind)
	if err != nil {
		tb.Fatal(err)
	}
	return name
}

func TestHostNamespaces(t *testing.T) {
	b := open(t)
	_, out, complaints := b.finished(t, namespaces, host(func(h *container.HostConfig) { h.PidMode, h.IpcMode, h.UTSMode = "host", "host", "host" }))
	want := strings.Join([]string{own(t, "pid"), own(t, "ipc"), own(t, "uts")}, "\n") + "\n"
	if out != want {
		t.Errorf("got %s%s, want %s", out, complaints, want)
	}
	// What the main process leaves behind in the host's PID namespace ends too.
	c := b.start(t, "sleep 301 >/dev/null 2>&1 & echo started", host(func(h *container.HostConfig) { h.PidMode = "host" }))
	b.wait(t, c)
	if pids := b.cgroups.Group(c.group()).Pids(); len(pids) != 0 {
		t.Errorf("processes %v are left", pids)
	}
	// Nor does anybody wait for the output of what is left.
	c = b.start(t, "sleep 301 & sleep 300", host(func(h *container.HostConfig) { h.PidMode = "host" }))
	if err := b.Kill(t.Context(), string(c.ID), ""); err != nil {
		t.Error(err)
	}
	if s, out, _ := b.finished(t, "test -d /dev/shm; echo $?", host(func(h *container.HostConfig) { h.IpcMode = "none" })); s.ExitCode != 0 || out != "1\n" {
		t.Errorf("--ipc none: %s %+v", out, s)
	}
}

func TestSharedNamespaces(t *testing.T) {
	b := open(t)
	donor := b.start(t, "echo from-donor >/dev/shm/file; echo ready; "+namespaces+"; exec sleep 300", named("donor"), host(func(h *container.HostConfig) { h.IpcMode = "shareable" }))
	b.until(t, "donor", "its output", func(c Container) bool { out, _ := b.output(t, c); return strings.Count(out, "\n") == 4 })
	theirs, _ := b.output(t, donor)
	lines := strings.Split(theirs, "\n")
	s, out, complaints := b.finished(t, "cat /dev/shm/file; "+namespaces+"; ps -A -o args=", host(func(h *container.HostConfig) { h.PidMode, h.IpcMode = "container:donor", "container:donor" }))
	if s.ExitCode != 0 || !strings.HasPrefix(out, "from-donor\n"+lines[1]+"\n"+lines[2]+"\n") || !strings.Contains(out, "sleep 300") || strings.Contains(out, lines[3]) {
		t.Errorf("got %s%s, the donor has %s", out, complaints, theirs)
	}
	b.start(t, "sleep 300", named("private"))
	for mode, text := range map[string]string{
		"container:nonesuch": "No such container: nonesuch",
		"container:private":  "non-shareable IPC",
		"container:created":  "is not running",
		"container:self":     "No such container: self",
	} {
		name := "x" + strings.TrimPrefix(mode, "container:")
		if mode == "container:self" {
			name = "self"
		}
		if _, err := b.Get("created"); err != nil {
			b.create(t, "true", named("created"))
		}
		c, _, err := b.Create(t.Context(), Request{
			Name: name, Config: &container.Config{Cmd: []string{"true"}}, HostConfig: &container.HostConfig{IpcMode: container.IpcMode(mode)}, Rootfs: "/",
		})
		if err == nil {
			err = b.Start(t.Context(), string(c.ID))
		}
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v, want %s", mode, err, text)
		}
	}
	for ref, text := range map[string]string{
		"nonesuch": "joining network namespace of container: No such container: nonesuch",
		"created":  "cannot join network namespace of a non running container: container created is created",
		"joiner":   "cannot join own network namespace",
	} {
		c := b.create(t, "true", named("joiner"), host(func(h *container.HostConfig) { h.NetworkMode = container.NetworkMode("container:" + ref) }))
		if err := b.Start(t.Context(), c.Name); err == nil || err.Error() != text {
			t.Errorf("%s: %v, want %s", ref, err, text)
		}
		if err := b.Remove(t.Context(), c.Name, RemoveOptions{}); err != nil {
			t.Error(err)
		}
	}
}

func TestDevices(t *testing.T) {
	b := open(t)
	mapping := func(m container.DeviceMapping) setting {
		return host(func(h *container.HostConfig) { h.Devices = []container.DeviceMapping{m} })
	}
	// Majors from 240 on are for experiments: there is no driver, so an open
	// that the cgroup allows gives ENXIO, and another one EPERM.
	node := filepath.Join(t.TempDir(), "node")
	if err := unix.Mknod(node, unix.S_IFCHR|0o640, int(unix.Mkdev(240, 7))); err != nil {
		t.Fatal(err)
	}
	s, out, complaints := b.finished(t, "stat -c %t:%T:%a /dev/mine && : </dev/mine", mapping(container.DeviceMapping{PathOnHost: node, PathInContainer: "/dev/mine"}))
	if s.ExitCode != 2 || out != "f0:7:640\n" || !strings.Contains(complaints, "No such device or address") {
		t.Errorf("device: %+v %s%s", s, out, complaints)
	}
	if _, _, complaints := b.finished(t, "mknod /dev/k c 240 7 && : </dev/k"); b.cgroups.Has("devices") && !strings.Contains(complaints, "not permitted") {
		t.Errorf("a device that was not asked for: %s", complaints)
	}
	if _, out, _ := b.finished(t, "ls /dev", host(func(h *container.HostConfig) { h.Privileged = true })); !strings.Contains(out, "\nkmsg\n") {
		t.Errorf("privileged: %s", out)
	}
	c := b.create(t, "true", mapping(container.DeviceMapping{PathOnHost: "/dev/nonesuch"}))
	if err := b.Start(t.Context(), string(c.ID)); err == nil || !strings.Contains(err.Error(), `error gathering device information while adding custom device "/dev/nonesuch"`) {
		t.Errorf("missing device: %v", err)
	}
}

func withInit(q *Request) { yes := true; q.HostConfig.Init = &yes }

func TestInit(t *testing.T) {
	b := open(t)
	// The command is not PID 1, its orphans are taken away, and its code is the container's.
	s, out, complaints := b.finished(t, `echo $$; cat /proc/1/comm; sh -c 'sleep 0.01 & echo $! >/tmp/orphan'
		i=0; while test -d /proc/$(cat /tmp/orphan) && [ $i -lt 3000 ]; do i=$((i+1)); sleep 0.01; done
		test -d /proc/$(cat /tmp/orphan) && echo zombie; exit 7`, withInit)
	if lines := strings.Fields(out); s.ExitCode != 7 || len(lines) != 2 || lines[0] == "1" || lines[1] == "sh" {
		t.Errorf("%+v %s%s", s, out, complaints)
	}
	// A signal that the command does not handle ends it, which as PID 1 it would not.
	c := b.start(t, "", command("sleep", "300"), withInit)
	if err := b.Kill(t.Context(), string(c.ID), "TERM"); err != nil {
		t.Fatal(err)
	}
	if s := b.wait(t, c); s.ExitCode != 128+int(unix.SIGTERM) {
		t.Errorf("ended by a signal: %+v", s)
	}
	c = b.create(t, "", command("nonesuch"), withInit)
	if err := b.Start(t.Context(), string(c.ID)); err == nil || !strings.Contains(err.Error(), "executable file not found") {
		t.Errorf("missing command: %v", err)
	}
	if s, out, _ := b.finished(t, "tty; echo $$; kill -INT $$", withInit, func(q *Request) { q.Config.Tty = true }); s.ExitCode != 130 || !strings.Contains(out, "/dev/pts/") {
		t.Errorf("with a terminal: %+v %q", s, out)
	}
	if s, out, _ := b.finished(t, "id -u", withInit, func(q *Request) { q.Config.User = "1234" }); s.ExitCode != 0 || out != "1234\n" {
		t.Errorf("as a user: %+v %q", s, out)
	}
}
