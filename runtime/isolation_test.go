package runtime

import (
	"errors"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan"
)

// TestIsolation asks inside of one container about everything that it must not
// see or do.
func TestIsolation(t *testing.T) {
	b := open(t)
	mark := filepath.Join("/tmp", "linkspan-runtime-test-mark")
	tests := []struct{ name, script, want string }{
		{"PID 1", "echo $$", "1"},
		{"own processes only", "ls /proc >/tmp/own; grep -c '^[0-9]' /tmp/own", "2"}, // sh, ls
		{"host name", "hostname; cat /proc/sys/kernel/hostname", "box\nbox"},
		{"own cgroup", "grep -v cpuset /proc/self/cgroup | cut -d: -f3 | sort -u", "/"},
		{"cgroup tree read-only", "mkdir /sys/fs/cgroup/memory/x 2>/dev/null; echo $?; ls /sys/fs/cgroup/memory | grep -c memory.limit_in_bytes", "1\n1"},
		{"links of the namespace only", "ls /sys/class/net; ls /proc/sys/net/ipv4/conf | sort | tr '\\n' ' '", "lo\nall default lo"},
		{"copy-on-write", "touch " + mark + "; test -e " + mark + "; echo $?", "0"},
		{"devices", "cd /dev; ls -d null zero full random urandom tty ptmx pts shm mqueue fd stdin stdout stderr | wc -l; head -c 3 zero | wc -c; cat /dev/null; echo x >/dev/full", "14\n3"},
		{"no disks", "ls /dev | grep -c '^[sv]d'", "0"},
		{"made node cannot be opened", "mknod /dev/disk b 254 0 && head -c 1 /dev/disk 2>&1 | grep -o 'Operation not permitted'", "Operation not permitted"},
		{"name of shm", "awk '$2 == \"/dev/shm\" {print $1, $3}' /proc/mounts", "shm tmpfs"},
		{"shm", "df -k /dev/shm | awk 'NR==2{print $2}'", "65536"},
		{"capabilities", "grep -E 'Cap(Prm|Eff|Bnd|Inh|Amb)' /proc/self/status | cut -f2", "0000000000000000\n00000000a80425fb\n00000000a80425fb\n00000000a80425fb\n0000000000000000"},
		{"filter", "grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status | cut -f2", "0\n2"},
		{"no namespaces", "unshare --user true 2>/dev/null || echo refused; unshare --mount true 2>/dev/null || echo refused", "refused\nrefused"},
		{"no mounts", "mount -t tmpfs none /mnt 2>/dev/null || echo refused", "refused"},
		{"masked files", "cat /proc/kcore /proc/keys /proc/timer_list | wc -c; ls /sys/firmware | wc -l", "0\n0"},
		{"read-only proc", "for f in sys/kernel/hostname sysrq-trigger; do (echo x >/proc/$f) 2>/dev/null || echo refused; done", "refused\nrefused"},
		{"read-only sys", "(echo 0 >/sys/kernel/mm/ksm/run) 2>/dev/null || echo refused", "refused"},
		{"flags", "awk '$2 ~ \"^/(proc|sys|dev/shm|dev/mqueue)$\" {print $2, $4}' /proc/mounts | grep -c 'nosuid,nodev,noexec'", "4"},
		{"no mount of the host", "grep -c cgroup2 /proc/mounts; grep -c /run/netns /proc/mounts", "1\n0"},
		{"low ports for all", "cat /proc/sys/net/ipv4/ip_unprivileged_port_start", "0"},
		{"no stray descriptors", "ls /proc/self/fd | tr '\\n' ' '", "0 1 2 3"}, // 3 is that of ls
		{"default signals", "grep -E 'Sig(Ign|Blk)' /proc/1/status | cut -f2", "0000000000000000\n0000000000000000"},
		{"own session", "cut -d' ' -f6 /proc/1/stat", "1"},
		{"umask", "umask", "0022"},
		{"descriptors limit", "ulimit -Sn", "1024"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, stdout, stderr := b.finished(t, test.script, func(q *Request) { q.Config.Hostname = "box" })
			if got := strings.TrimSpace(stdout); got != test.want {
				t.Errorf("got %q, want %q\nstderr: %s", got, test.want, stderr)
			}
		})
	}
	if _, err := os.Stat(mark); err == nil {
		t.Errorf("a container wrote to the host: %s", mark)
	}
}

func TestHostConfig(t *testing.T) {
	b := open(t)
	shared := t.TempDir()
	if err := os.WriteFile(filepath.Join(shared, "file"), []byte("of the host"), 0o644); err != nil {
		t.Fatal(err)
	}
	pids := int64(77)
	tests := []struct {
		name, script, want string
		change             func(*container.HostConfig)
	}{
		{"bind", "cat /a/b/file; echo new >/a/b/new", "of the host", func(h *container.HostConfig) { h.Binds = []string{shared + ":/a/b"} }},
		{"read-only bind", "cat /a/new; (echo x >/a/new) 2>/dev/null || echo refused", "new\nrefused", func(h *container.HostConfig) { h.Binds = []string{shared + ":/a:ro"} }},
		{"tmpfs", "awk '$2==\"/t\" {print $3, $4}' /proc/mounts", "tmpfs rw,nosuid,nodev,noexec,relatime,size=64k", func(h *container.HostConfig) { h.Tmpfs = map[string]string{"/t": "size=64k"} }},
		{"read-only root", "(touch /x) 2>/dev/null || echo refused; touch /dev/shm/x && echo made", "refused\nmade", func(h *container.HostConfig) { h.ReadonlyRootfs = true }},
		{"dropped and added", "grep CapEff /proc/self/status | cut -f2", "0000000000001400", func(h *container.HostConfig) {
			h.CapDrop, h.CapAdd = []string{"ALL"}, []string{"NET_ADMIN", "cap_net_bind_service"}
		}},
		{"no new privileges", "grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status | cut -f2", "1\n2", func(h *container.HostConfig) { h.SecurityOpt = []string{"no-new-privileges"} }},
		{"unconfined", "grep -E '^Seccomp:' /proc/self/status | cut -f2", "0", func(h *container.HostConfig) { h.SecurityOpt = []string{"seccomp=unconfined"} }},
		{"privileged", "mount -t tmpfs none /mnt && echo mounted; unshare --net true && echo unshared", "mounted\nunshared", func(h *container.HostConfig) { h.Privileged = true }},
		{"memory", "cat /sys/fs/cgroup/memory/memory.limit_in_bytes", "67108864", func(h *container.HostConfig) { h.Memory, h.MemorySwap = 64<<20, 64<<20 }},
		{"pids", "cat /sys/fs/cgroup/pids/pids.max", "77", func(h *container.HostConfig) { h.PidsLimit = &pids }},
		{"cgroups", "mkdir /sys/fs/cgroup/pids/x 2>/dev/null || echo refused", "refused", func(*container.HostConfig) {}},
		{"writable cgroups", "mkdir /sys/fs/cgroup/pids/x && rmdir /sys/fs/cgroup/pids/x && echo made", "made", func(h *container.HostConfig) { h.SecurityOpt = []string{"writable-cgroups"} }},
		{"cpu", "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu/cpu.shares", "150000\n512", func(h *container.HostConfig) { h.NanoCPUs, h.CPUShares = 1_500_000_000, 512 }},
		{"cpuset", "cat /sys/fs/cgroup/cpuset/cpuset.cpus; nproc", "0\n1", func(h *container.HostConfig) { h.CpusetCpus = "0" }},
		{"sysctl", "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax", "1\n4096", func(h *container.HostConfig) {
			h.Sysctls = map[string]string{"net.ipv4.ip_forward": "1", "kernel.msgmax": "4096"}
		}},
		{"ulimit", "ulimit -n; ulimit -c", "99\n0", func(h *container.HostConfig) {
			h.Ulimits = []*units.Ulimit{{Name: "nofile", Soft: 99, Hard: 99}, {Name: "core"}}
		}},
		{"oom score", "cat /proc/1/oom_score_adj", "345", func(h *container.HostConfig) { h.OomScoreAdj = 345 }},
		{"no masks", "test -c /proc/keys; echo $?; (echo box >/proc/sys/kernel/hostname) 2>/dev/null; echo $?", "1\n0", func(h *container.HostConfig) {
			h.MaskedPaths, h.ReadonlyPaths = []string{}, []string{}
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, stdout, stderr := b.finished(t, test.script, func(q *Request) { test.change(q.HostConfig) })
			if got := strings.TrimSpace(stdout); got != test.want {
				t.Errorf("got %q, want %q\nstderr: %s", got, test.want, stderr)
			}
		})
	}
	b.machine.Sh(t, "sysctl -qw net.ipv4.ip_forward=0 net.ipv4.ip_unprivileged_port_start=1024 'net.ipv4.ping_group_range=1 0'")
}

func TestProcess(t *testing.T) {
	b := open(t)
	root := busybox(t)
	tests := []struct {
		name, script, want string
		change             func(*container.Config)
	}{
		{"number", "id -u; id -g; echo $HOME", "1234\n0\n/", func(c *container.Config) { c.User = "1234" }},
		{"both numbers", "id -u; id -g", "1234\n567", func(c *container.Config) { c.User = "1234:567" }},
		{"own group", "grep Groups: /proc/self/status", "Groups:\t567", func(c *container.Config) { c.User = "1234:567" }},
		{"empty home", "env | grep HOME", "HOME=/root", func(c *container.Config) { c.Env = []string{"HOME="} }},
		{"name", "id -u; id -g; id -G; echo $HOME", "1000\n1001\n1001 42 43\n/home/ada", func(c *container.Config) { c.User = "ada" }},
		{"name and group", "id -u; id -G", "1000\n42", func(c *container.Config) { c.User = "ada:crew" }},
		{"no rights left", "grep -E 'Cap(Prm|Eff)' /proc/self/status | cut -f2", "0000000000000000\n0000000000000000", func(c *container.Config) { c.User = "ada" }},
		{"own output", "echo again >/dev/stdout", "again", func(c *container.Config) { c.User = "ada" }},
		{"directory", "pwd", "/made/for/it", func(c *container.Config) { c.WorkingDir = "/made/for/it" }},
		{"environment", "env | sort", "A=2\nHOME=/root\nHOSTNAME=box\nPATH=/bin\nPWD=/\nSHLVL=1", func(c *container.Config) {
			c.Env, c.Hostname = []string{"A=1", "A=2", "PATH=/bin", "GONE", "HOME=/root"}, "box"
		}},
		{"entrypoint", "", "a b", func(c *container.Config) { c.Entrypoint, c.Cmd = []string{"echo", "a"}, []string{"b"} }},
		{"no input", "cat; echo end", "end", func(*container.Config) {}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, stdout, stderr := b.finished(t, test.script, func(q *Request) {
				q.Rootfs = root
				test.change(q.Config)
			})
			if got := strings.TrimSpace(stdout); got != test.want {
				t.Errorf("got %q, want %q\nstderr: %s", got, test.want, stderr)
			}
		})
	}
	if entries, _ := os.ReadDir(root); slices.ContainsFunc(entries, func(e os.DirEntry) bool { return e.Name() == "made" }) {
		t.Error("a container wrote into its rootfs")
	}
}

// TestIgnoredSignals: what a daemon under nohup(1) ignores, containers do not.
func TestIgnoredSignals(t *testing.T) {
	ignored := []os.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU}
	signal.Ignore(ignored...)
	t.Cleanup(func() { signal.Reset(ignored...) })
	b := open(t)
	if _, stdout, _ := b.finished(t, "grep SigIgn /proc/self/status | cut -f2"); stdout != "0000000000000000\n" {
		t.Errorf("ignored: %s", stdout)
	}
}

// busybox makes a root directory of its own, with users, whose files in /etc
// are links that would lead out of it.
func busybox(tb testing.TB) string {
	tb.Helper()
	root := tb.TempDir()
	for _, dir := range []string{"bin", "etc", "data"} {
		if err := os.Mkdir(filepath.Join(root, dir), 0o755); err != nil {
			tb.Fatal(err)
		}
	}
	program, err := os.ReadFile("/usr/bin/busybox")
	if err != nil {
		tb.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "bin/busybox"), program, 0o755); err != nil {
		tb.Fatal(err)
	}
	for _, name := range []string{"sh", "cat", "echo", "id", "env", "sort", "pwd", "sleep", "grep", "cut", "true", "ls"} {
		if err := os.Symlink("busybox", filepath.Join(root, "bin", name)); err != nil {
			tb.Fatal(err)
		}
	}
	files := map[string]string{
		"data/passwd": "root:x:0:0:root:/root:/bin/sh\nbroken line\nada:x:1000:1001:Ada:/home/ada:/bin/sh\n",
		"data/group":  "root:x:0:\ncrew:x:42:ada,bob\ndeck:x:43:ada\n",
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
			tb.Fatal(err)
		}
		if err := os.Symlink("/"+name, filepath.Join(root, "etc", filepath.Base(name))); err != nil {
			tb.Fatal(err)
		}
	}
	return root
}

// TestFiles binds the three files over whatever a root has in their places.
func TestFiles(t *testing.T) {
	b := open(t)
	dir := t.TempDir()
	for _, name := range []string{"hosts", "resolv.conf", "hostname"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("our "+name+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b.networks.files = Attachment{Hosts: dir + "/hosts", ResolvConf: dir + "/resolv.conf", Hostname: dir + "/hostname"}
	want := "our hosts\nour resolv.conf\nour hostname\n"
	root := busybox(t)
	outside := filepath.Join(dir, "victim")
	if err := os.Symlink(outside, filepath.Join(root, "etc/resolv.conf")); err != nil {
		t.Fatal(err)
	}
	for _, rootfs := range []string{"/", root} {
		_, stdout, stderr := b.finished(t, "cat /etc/hosts /etc/resolv.conf /etc/hostname", func(q *Request) { q.Rootfs = rootfs })
		if stdout != want {
			t.Errorf("%s: got %q, want %q; %s", rootfs, stdout, want, stderr)
		}
	}
	if _, err := os.Lstat(outside); err == nil {
		t.Errorf("a link in the rootfs led to %s on the host", outside)
	}
}

// A container's group is where the user wants it, below directories that are made
// for it and stay.
func TestCgroupParent(t *testing.T) {
	b := open(t)
	c := b.create(t, "", command("sleep", "1000"), func(r *Request) { r.HostConfig.CgroupParent = "/linkspan-test/deep" })
	if err := b.Start(t.Context(), c.Name); err != nil {
		t.Fatal(err)
	}
	c, _ = b.Get(c.Name)
	group := b.cgroups.Group(c.group())
	if pids := group.Pids(); !slices.Contains(pids, c.State.Pid) {
		t.Errorf("in the group are %v, not the container's %d", pids, c.State.Pid)
	}
	if err := b.Remove(t.Context(), c.Name, RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, d := range group.Dirs {
		if path := filepath.Dir(d.Path); !strings.HasSuffix(path, "/linkspan-test/deep") {
			t.Errorf("its directory was %s", d.Path)
		} else if os.Remove(path) == nil {
			found++
			os.Remove(filepath.Dir(path))
		}
	}
	if found == 0 || group.Exists() {
		t.Errorf("%d parents stay, the group itself is there: %t", found, group.Exists())
	}
	_, _, err := b.Create(t.Context(), Request{Config: &container.Config{Cmd: []string{"true"}}, HostConfig: &container.HostConfig{Resources: container.Resources{CgroupParent: "/a/../.."}}, Rootfs: "/"})
	if !errors.Is(err, linkspan.ErrInvalid) {
		t.Errorf("a parent outside: %v", err)
	}
}
