package runtime

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan"
)

func TestFailedStart(t *testing.T) {
	b := open(t)
	tests := []struct {
		command, text string
		code          int
	}{
		{"nonesuch", `exec: "nonesuch": executable file not found in $PATH`, 127},
		{"/no/such", `exec: "/no/such": stat /no/such: no such file or directory`, 127},
		{"/etc", `exec: "/etc": is a directory`, 126},
		{"/etc/passwd", `exec: "/etc/passwd": permission denied`, 126},
	}
	for _, test := range tests {
		c := b.create(t, "", command(test.command))
		err := b.Start(t.Context(), c.Name)
		if !errors.Is(err, linkspan.ErrInvalid) || !strings.Contains(err.Error(), test.text) {
			t.Errorf("%s: error %v, want %s", test.command, err, test.text)
		}
		got, _ := b.Get(c.Name)
		if got.State.Status != container.StateCreated || got.State.ExitCode != test.code || !strings.Contains(got.State.Error, test.text) {
			t.Errorf("%s: state %+v, want exit code %d", test.command, got.State, test.code)
		}
		if n := b.networks.count("Detach", c.ID); n == 0 {
			t.Errorf("%s: networks stay attached", test.command)
		}
		if _, err := os.Stat(b.execDir(c.ID)); err == nil || b.cgroups.Group(c.group()).Exists() {
			t.Errorf("%s: run directory or cgroup left", test.command)
		}
	}
	c := b.create(t, "", command("nonesuch"), autoRemove)
	if err := b.Start(t.Context(), c.Name); err == nil {
		t.Error("a missing command started")
	}
	if _, err := b.Get(c.Name); !errors.Is(err, linkspan.ErrNotFound) {
		t.Errorf("a container to be removed is there after a failed start: %v", err)
	}
}

func TestNetworksRefuse(t *testing.T) {
	b := open(t)
	refusal := linkspan.Errorf(linkspan.ErrForbidden, "Address already in use")
	b.networks.refuse = map[string]error{"Reserve": refusal}
	if _, _, err := b.Create(t.Context(), Request{Config: &container.Config{Cmd: []string{"true"}}, Rootfs: "/"}); !errors.Is(err, linkspan.ErrForbidden) {
		t.Errorf("create: %v", err)
	}
	b.empty(t)
	b.networks.refuse = nil
	c := b.create(t, "true")
	b.networks.refuse = map[string]error{"Attach": refusal}
	if err := b.Start(t.Context(), c.Name); !errors.Is(err, linkspan.ErrForbidden) {
		t.Errorf("start: %v", err)
	}
	b.networks.refuse = nil
	if err := b.Start(t.Context(), c.Name); err != nil {
		t.Errorf("start after a refusal: %v", err)
	}
	b.wait(t, c)
}

func TestCreateRefuses(t *testing.T) {
	b := open(t)
	held := b.create(t, "true", named("held"))
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	limits := func(change func(*container.Resources)) func(*Request) {
		return func(q *Request) { change(&q.HostConfig.Resources) }
	}
	tests := []struct {
		change func(*Request)
		kind   error
		text   string
	}{
		{func(q *Request) { q.Config = nil }, linkspan.ErrInvalid, "config cannot be empty in order to create a container"},
		{func(q *Request) { q.Config.Cmd = nil }, linkspan.ErrInvalid, "no command specified"},
		{func(q *Request) { q.Config.Cmd, q.HostConfig.Memory = nil, 1<<20 }, linkspan.ErrInvalid, "Minimum memory limit allowed is 6MB"},
		{func(q *Request) { q.Rootfs = "/no/such" }, linkspan.ErrInvalid, "/no/such: no such file or directory"},
		{func(q *Request) { q.Rootfs = "relative" }, linkspan.ErrInvalid, "not an absolute path"},
		{func(q *Request) { q.Rootfs = file }, linkspan.ErrInvalid, "is not a directory"},
		{func(q *Request) { q.Rootfs = "" }, linkspan.ErrInvalid, "no root file system"},
		{func(q *Request) { q.Name = "a/b" }, linkspan.ErrInvalid, "Invalid container name (a/b), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"},
		{func(q *Request) { q.Name = ".." }, linkspan.ErrInvalid, "Invalid container name"},
		{func(q *Request) { q.Name = "x" }, linkspan.ErrInvalid, "Invalid container name"},
		{func(q *Request) { q.Name = "/held" }, linkspan.ErrConflict, `Conflict. The container name "/held" is already in use by container "` + string(held.ID) + `". You have to remove (or rename) that container to be able to reuse that name.`},
		{func(q *Request) { q.HostConfig.Memory = 1 << 20 }, linkspan.ErrInvalid, "Minimum memory limit allowed is 6MB"},
		{limits(func(r *container.Resources) { r.Memory, r.MemoryReservation = 16<<20, 32<<20 }), linkspan.ErrInvalid, "Minimum memory limit can not be less than memory reservation limit, see usage"},
		{limits(func(r *container.Resources) { r.MemoryReservation = 1 << 20 }), linkspan.ErrInvalid, "Minimum memory reservation allowed is 6MB"},
		{limits(func(r *container.Resources) { r.NanoCPUs = 1 << 50 }), linkspan.ErrInvalid, "range of CPUs is from 0.01 to "},
		{limits(func(r *container.Resources) { r.NanoCPUs, r.CPUQuota = 1e9, 1000 }), linkspan.ErrInvalid, "Nano CPUs and CPU Quota cannot both be set"},
		{limits(func(r *container.Resources) { r.CPUPeriod = 10 }), linkspan.ErrInvalid, "CPU cfs period can not be less than 1ms"},
		{limits(func(r *container.Resources) { r.CPUQuota = 10 }), linkspan.ErrInvalid, "CPU cfs quota can not be less than 1ms (i.e. 1000)"},
		{limits(func(r *container.Resources) { r.CpusetCpus = "1-what" }), linkspan.ErrInvalid, "Invalid value 1-what for cpuset cpus"},
		{limits(func(r *container.Resources) { r.CpusetCpus = "0,8000" }), linkspan.ErrInvalid, "Requested CPUs are not available - requested 0,8000, available: 0"},
		{limits(func(r *container.Resources) { r.CpusetMems = "8000" }), linkspan.ErrInvalid, "Requested memory nodes are not available - requested 8000, available: 0"},
		{func(q *Request) { q.HostConfig.OomScoreAdj = 1001 }, linkspan.ErrInvalid, "Invalid value 1001, range for oom score adj is [-1000, 1000]"},
		{func(q *Request) { q.HostConfig.ShmSize = -1 }, linkspan.ErrInvalid, "SHM size can not be less than 0"},
		{limits(func(r *container.Resources) { r.Ulimits = []*container.Ulimit{nil} }), linkspan.ErrInvalid, "invalid ulimit: null"},
		{limits(func(r *container.Resources) { r.BlkioDeviceReadBps = []*blkiodev.ThrottleDevice{nil} }), linkspan.ErrInvalid, "invalid limit on block I/O: null"},
		{func(q *Request) { q.HostConfig.Isolation = "hyperv" }, linkspan.ErrInvalid, "invalid isolation 'hyperv' on linux"},
		{func(q *Request) {
			q.HostConfig.IpcMode, q.HostConfig.Sysctls = "host", map[string]string{"kernel.shmmax": "1"}
		}, linkspan.ErrInvalid, "would change the host"},
		{func(q *Request) {
			q.HostConfig.IpcMode, q.HostConfig.Sysctls = "host", map[string]string{"fs.mqueue.msg_max": "9"}
		}, linkspan.ErrInvalid, "would change the host"},
		{func(q *Request) { q.HostConfig.CapAdd = []string{"NONE_SUCH"} }, linkspan.ErrInvalid, `invalid CapAdd: unknown capability: "NONE_SUCH"`},
		{func(q *Request) { q.HostConfig.CapDrop = []string{"NONE_SUCH"} }, linkspan.ErrInvalid, `invalid CapDrop: unknown capability: "NONE_SUCH"`},
		{func(q *Request) { q.HostConfig.Sysctls = map[string]string{"kernel.panic": "1"} }, linkspan.ErrInvalid, "would change the host"},
		{func(q *Request) { q.HostConfig.Sysctls = map[string]string{"net.../../kernel/panic": "1"} }, linkspan.ErrInvalid, "would change the host"},
		{func(q *Request) { q.HostConfig.SecurityOpt = []string{"what"} }, linkspan.ErrInvalid, "invalid --security-opt"},
		{func(q *Request) { q.HostConfig.Binds = []string{"/a:b"} }, linkspan.ErrInvalid, "invalid volume specification: '/a:b': invalid mount path"},
		{func(q *Request) { q.HostConfig.PidMode = "nonsense" }, linkspan.ErrInvalid, "invalid PID mode: nonsense"},
		{func(q *Request) { q.HostConfig.IpcMode = "nonsense" }, linkspan.ErrInvalid, "invalid IPC mode: nonsense"},
		{func(q *Request) { q.HostConfig.UTSMode, q.Config.Hostname = "host", "x" }, linkspan.ErrInvalid, "conflicting options: hostname and the UTS mode"},
		{func(q *Request) { q.HostConfig.Runtime = "nonsense" }, linkspan.ErrInvalid, "unknown or invalid runtime name: nonsense"},
		{func(q *Request) { q.HostConfig.DeviceCgroupRules = []string{"x 1:1 r"} }, linkspan.ErrInvalid, "invalid device cgroup rule format: 'x 1:1 r'"},
		{check(v1.HealthcheckConfig{Interval: 1}), linkspan.ErrInvalid, "Interval in Healthcheck cannot be less than 1ms"},
		{check(v1.HealthcheckConfig{Retries: -1}), linkspan.ErrInvalid, "Retries in Healthcheck cannot be negative"},
		{logging("nonsense"), linkspan.ErrInvalid, "no log driver named 'nonsense' is registered"},
		{logging("syslog"), linkspan.ErrNotImplemented, `log driver "syslog" is not supported`},
		{logging("json-file", "what", "1"), linkspan.ErrInvalid, "unknown log opt 'what' for json-file log driver"},
		{logging("json-file", "max-size", "much"), linkspan.ErrInvalid, "invalid log opt max-size=much"},
		{logging("json-file", "max-file", "0"), linkspan.ErrInvalid, "max-file cannot be less than 1"},
		{logging("json-file", "compress", "true"), linkspan.ErrInvalid, "compress cannot be true when"},
		{func(q *Request) { q.Config.StopSignal = "SIGWHAT" }, linkspan.ErrInvalid, "invalid signal: SIGWHAT"},
		{func(q *Request) { q.Config.WorkingDir = "a" }, linkspan.ErrInvalid, "needs to be an absolute path"},
		{func(q *Request) { q.HostConfig.PidMode = "container:nosuch" }, linkspan.ErrInvalid, "No such container: nosuch"},
		{func(q *Request) { q.HostConfig.CPUShares = -1 }, linkspan.ErrInvalid, "invalid CPU shares (-1): value must be a positive integer"},
		{func(q *Request) { q.HostConfig.SecurityOpt = []string{"what=x"} }, linkspan.ErrInvalid, `invalid --security-opt 2: "what=x"`},
		{func(q *Request) { q.HostConfig.SecurityOpt = []string{"writable-cgroups=1"} }, linkspan.ErrInvalid, `invalid --security-opt 2: "writable-cgroups=1"`},
		{func(q *Request) { q.Config.Env = []string{"=x"} }, linkspan.ErrInvalid, "invalid environment variable: =x"},
		{func(q *Request) { q.Config.Env = []string{""} }, linkspan.ErrInvalid, "invalid environment variable: "},
		{func(q *Request) { q.Config.Env = []string{"A=\x00"} }, linkspan.ErrInvalid, "zero byte"},
		{func(q *Request) { q.HostConfig.RestartPolicy.Name, q.HostConfig.AutoRemove = "always", true }, linkspan.ErrInvalid, "can't create 'AutoRemove' container with restart policy"},
	}
	for _, test := range tests {
		q := Request{Config: &container.Config{Cmd: []string{"true"}}, HostConfig: &container.HostConfig{}, Rootfs: "/"}
		test.change(&q)
		c, _, err := b.Create(t.Context(), q)
		if !errors.Is(err, test.kind) || !strings.Contains(err.Error(), test.text) {
			t.Errorf("got %q %v, want %s", c.Name, err, test.text)
		}
	}
	b.networks.refuse = map[string]error{"Reserve": errors.New("invalid port specification")}
	_, _, err := b.Create(t.Context(), Request{Config: &container.Config{}, HostConfig: &container.HostConfig{}, Rootfs: "/"})
	if err == nil || !strings.Contains(err.Error(), "invalid port specification") {
		t.Errorf("a bad wish for the network and no command: %v", err)
	}
	if n := len(b.List()); n != 1 {
		t.Errorf("%d containers are left of refused creations", n-1)
	}
}

func TestFind(t *testing.T) {
	b := open(t)
	one, two := b.create(t, "true"), b.create(t, "true", named("zwei"))
	for _, ref := range []string{string(two.ID), two.ID.Short(), "zwei", "/zwei"} {
		if c, err := b.Get(ref); err != nil || c.ID != two.ID {
			t.Errorf("%s: %v %v", ref, c.ID, err)
		}
	}
	if _, err := b.Get("none"); !errors.Is(err, linkspan.ErrNotFound) || err.Error() != "No such container: none" {
		t.Errorf("none: %v", err)
	}
	if _, err := b.Get(""); !errors.Is(err, linkspan.ErrInvalid) {
		t.Errorf("empty: %v", err)
	}
	// A name beats the beginning of an ID.
	three := b.create(t, "true", named(one.ID.Short()))
	if c, err := b.Get(one.ID.Short()); err != nil || c.ID != three.ID {
		t.Errorf("name like an ID: %v %v", c.ID, err)
	}
	if list := b.List(); len(list) != 3 || list[0].ID != three.ID || list[2].ID != one.ID {
		t.Errorf("list is not newest first: %v", list)
	}
	if err := b.Rename(t.Context(), "zwei", "drei"); err != nil {
		t.Error(err)
	}
	if err := b.Rename(t.Context(), "drei", three.Name); !errors.Is(err, linkspan.ErrConflict) {
		t.Errorf("rename to a taken name: %v", err)
	}
	if err := b.Rename(t.Context(), "drei", "drei"); !errors.Is(err, linkspan.ErrInvalid) {
		t.Errorf("rename to itself: %v", err)
	}
	b.create(t, "true", named("zwei"))
}

const ignoreTerm = "trap '' TERM; echo ready; while :; do sleep 0.1; done"

// What a record shows is what is in effect.
func TestRecordOfDefaults(t *testing.T) {
	b := open(t)
	c := b.create(t, "true", func(q *Request) { q.Config.WorkingDir = "/tmp/../tmp/" })
	if c.Config.WorkingDir != "/tmp" {
		t.Errorf("working directory %s", c.Config.WorkingDir)
	}
	if !slices.Equal(c.HostConfig.MaskedPaths, maskedPaths[:]) || !slices.Equal(c.HostConfig.ReadonlyPaths, readonlyPaths[:]) {
		t.Errorf("hidden %v, protected %v", c.HostConfig.MaskedPaths, c.HostConfig.ReadonlyPaths)
	}
	c = b.create(t, "true", func(q *Request) { q.HostConfig.MaskedPaths = []string{} })
	if c.HostConfig.MaskedPaths == nil || len(c.HostConfig.MaskedPaths) > 0 {
		t.Errorf("hidden %v, none was asked for", c.HostConfig.MaskedPaths)
	}
	c = b.create(t, "true", func(q *Request) { q.HostConfig.Privileged = true })
	if c.HostConfig.MaskedPaths != nil || c.HostConfig.ReadonlyPaths != nil {
		t.Errorf("of a privileged container: hidden %v, protected %v", c.HostConfig.MaskedPaths, c.HostConfig.ReadonlyPaths)
	}
}

// What a container's own process is told of its terminal, others that run
// beside it are not: each has its own.
func TestEnvironment(t *testing.T) {
	c := Container{ID: "0123456789abcdef", Config: &container.Config{Tty: true, Env: []string{"A=1"}}, HostConfig: &container.HostConfig{}}
	for tty, want := range map[bool]string{false: defaultPath + " HOSTNAME=0123456789ab A=1", true: defaultPath + " HOSTNAME=0123456789ab TERM=xterm A=1"} {
		if got := strings.Join((&Runtime{}).environment(c, tty), " "); got != want {
			t.Errorf("terminal %t: %s, want %s", tty, got, want)
		}
	}
}

// The files that come from outside are no hole in a read-only root.
func TestReadonlyRootCoversNetworkFiles(t *testing.T) {
	for _, readonly := range []bool{false, true} {
		c := Container{Config: &container.Config{}, HostConfig: &container.HostConfig{ReadonlyRootfs: readonly}}
		list, err := mountings(c, Attachment{Hosts: "/h", ResolvConf: "/r", Hostname: "/n"})
		if err != nil || len(list) != 3 {
			t.Fatal(list, err)
		}
		for _, m := range list {
			if got := m.Flags&unix.MS_RDONLY != 0; got != readonly {
				t.Errorf("%s read-only: %t, want %t", m.Target, got, readonly)
			}
		}
	}
}
