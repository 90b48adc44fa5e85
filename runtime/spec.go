package runtime

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/runtime/cgroup"
	"github.com/linkspan/linkspan/runtime/launch"
)

const (
	defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	defaultShm  = 64 << 20
	noExec      = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
)

// The paths that Docker hides or protects, from oci/defaults.go in its
// documentation of HostConfig.MaskedPaths and ReadonlyPaths.
var (
	maskedPaths = [...]string{
		"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
		"/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
	}
	readonlyPaths = [...]string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)

// hiddenPaths are the paths that are hidden, and those that are protected. In
// the record nil asks for the default and an empty list for none; a privileged
// container sees all.
func hiddenPaths(h *container.HostConfig) (masked, readonly []string, err error) {
	security, err := parseSecurity(h.SecurityOpt)
	masked, readonly = h.MaskedPaths, h.ReadonlyPaths
	if err != nil || security.openPaths || h.Privileged {
		return masked, readonly, err
	}
	if masked == nil {
		masked = maskedPaths[:]
	}
	if readonly == nil {
		readonly = readonlyPaths[:]
	}
	return masked, readonly, nil
}

// spec translates a container for the shim. It reads the record only.
func (r *Runtime) spec(c Container, a Attachment, groups []cgroup.Dir) (*launch.Spec, error) {
	h := c.HostConfig
	process, err := r.process(c, h.Privileged)
	if err != nil {
		return nil, err
	}
	s := &launch.Spec{
		ID: string(c.ID), Dir: r.execDir(c.ID), Netns: a.Netns, Lower: c.layers(),
		Upper: filepath.Join(r.dataDir(c.ID), "upper"), Work: filepath.Join(r.dataDir(c.ID), "work"),
		Host: hostname(c), Domain: c.Config.Domainname, ReadonlyRoot: h.ReadonlyRootfs, Privileged: h.Privileged,
		Brief:        h.AutoRemove,
		HostCgroupns: h.CgroupnsMode.IsHost(), ShmSize: h.ShmSize, Process: process,
	}
	if s.MaskedPaths, s.ReadonlyPaths, err = hiddenPaths(h); err != nil {
		return nil, err
	}
	if s.ShmSize == 0 {
		s.ShmSize = defaultShm
	}
	security, err := parseSecurity(h.SecurityOpt)
	if err != nil {
		return nil, err
	}
	s.WritableCgroups = security.cgroups
	for _, g := range groups {
		if !g.Made {
			continue
		}
		s.Cgroups = append(s.Cgroups, launch.Cgroup{Path: g.Path, Name: g.Name, Unified: g.Unified})
	}
	if s.Log, err = logOf(h.LogConfig); err != nil {
		return nil, err
	}
	if s.Log.Files > 0 {
		s.Log.Path = r.logFile(c)
	}
	s.Init = h.Init != nil && *h.Init
	if s.Sysctls, err = sysctls(h); err != nil {
		return nil, err
	}
	if s.Mounts, err = mountings(c, a); err != nil {
		return nil, err
	}
	return s, nil
}

// process is the container's own process.
func (r *Runtime) process(c Container, privileged bool) (launch.Process, error) {
	h, cfg := c.HostConfig, c.Config
	security, err := parseSecurity(h.SecurityOpt)
	if err != nil {
		return launch.Process{}, err
	}
	caps, err := r.capabilities(h, privileged)
	if err != nil {
		return launch.Process{}, err
	}
	filter, err := r.filters.forProcess(security, caps, privileged)
	if err != nil {
		return launch.Process{}, err
	}
	if cfg.WorkingDir != "" && !filepath.IsAbs(cfg.WorkingDir) {
		return launch.Process{}, linkspan.Errorf(linkspan.ErrInvalid, "the working directory '%s' is invalid, it needs to be an absolute path", cfg.WorkingDir)
	}
	if cfg.StopSignal != "" {
		if _, err = signalByName(cfg.StopSignal); err != nil {
			return launch.Process{}, err
		}
	}
	limits, err := rlimits(h)
	if err != nil {
		return launch.Process{}, err
	}
	p := launch.Process{
		Args: slices.Concat(cfg.Entrypoint, cfg.Cmd), Env: r.environment(c, cfg.Tty), Dir: cfg.WorkingDir, User: cfg.User, Groups: h.GroupAdd,
		Tty: cfg.Tty, Stdin: cfg.OpenStdin || cfg.Tty, StdinOnce: cfg.StdinOnce, Rows: int(h.ConsoleSize[0]), Cols: int(h.ConsoleSize[1]),
		Caps: caps, Seccomp: filter, NoNewPrivs: security.noNewPrivs, Rlimits: limits, OOMAdj: h.OomScoreAdj, Umask: 0o022,
	}
	if h.Umask != nil {
		p.Umask = int(*h.Umask)
	}
	for _, s := range slices.Concat(p.Args, p.Env, []string{p.Dir, p.User}) {
		if strings.ContainsRune(s, 0) {
			return launch.Process{}, linkspan.Errorf(linkspan.ErrInvalid, "invalid argument %q: it contains a zero byte", s)
		}
	}
	return p, nil
}

func hostname(c Container) string {
	if c.Config.Hostname != "" {
		return c.Config.Hostname
	}
	if c.HostConfig.NetworkMode.IsHost() {
		if name, err := os.Hostname(); err == nil {
			return name
		}
	}
	return c.ID.Short()
}

// environment is Docker's: its defaults first, then what the links say, each
// replaced by what the user gave. A name without a value takes the variable away.
func (r *Runtime) environment(c Container, tty bool) []string {
	env := []string{defaultPath, "HOSTNAME=" + hostname(c)}
	if tty {
		env = append(env, "TERM=xterm")
	}
	return override(append(env, r.linkEnvironment(c)...), c.Config.Env)
}

func override(env, with []string) []string {
	env = slices.Clone(env)
	for _, kv := range with {
		key, _, given := strings.Cut(kv, "=")
		i := slices.IndexFunc(env, func(old string) bool {
			k, _, _ := strings.Cut(old, "=")
			return k == key
		})
		switch {
		case i >= 0 && given:
			env[i] = kv
		case i >= 0:
			env = slices.Delete(env, i, i+1)
		case given:
			env = append(env, kv)
		}
	}
	return env
}

// sysctls are those that belong to a namespace of the container; others would
// change the host.
func sysctls(h *container.HostConfig) ([]string, error) {
	private := !h.NetworkMode.IsHost() && !h.NetworkMode.IsContainer()
	ofIPC := []string{"kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced"}
	values := map[string]string{}
	if private {
		values["net.ipv4.ip_unprivileged_port_start"] = "0"
		values["net.ipv4.ping_group_range"] = "0 2147483647"
	}
	for key, value := range h.Sysctls {
		own := strings.HasPrefix(key, "net.") && private ||
			(strings.HasPrefix(key, "fs.mqueue.") || slices.Contains(ofIPC, key)) && !h.IpcMode.IsHost()
		if !own || strings.Contains(key, "/") || strings.Contains(key, "..") {
			return nil, linkspan.Errorf(linkspan.ErrInvalid, "sysctl %q is not in a namespace of the container, so it would change the host", key)
		}
		values[key] = value
	}
	list := make([]string, 0, len(values))
	for key, value := range values {
		list = append(list, key+"="+value)
	}
	slices.Sort(list)
	return list, nil
}

var resources = map[string]int{
	"as": unix.RLIMIT_AS, "core": unix.RLIMIT_CORE, "cpu": unix.RLIMIT_CPU, "data": unix.RLIMIT_DATA, "fsize": unix.RLIMIT_FSIZE,
	"locks": unix.RLIMIT_LOCKS, "memlock": unix.RLIMIT_MEMLOCK, "msgqueue": unix.RLIMIT_MSGQUEUE, "nice": unix.RLIMIT_NICE, "nofile": unix.RLIMIT_NOFILE,
	"nproc": unix.RLIMIT_NPROC, "rss": unix.RLIMIT_RSS, "rtprio": unix.RLIMIT_RTPRIO, "rttime": unix.RLIMIT_RTTIME, "sigpending": unix.RLIMIT_SIGPENDING, "stack": unix.RLIMIT_STACK,
}

// rlimits begins with the usual number of descriptors, as the Go runtime has
// raised the daemon's and the shim's own to the most there may be.
func rlimits(h *container.HostConfig) ([]launch.Rlimit, error) {
	var own unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &own); err != nil {
		return nil, err
	}
	list := []launch.Rlimit{{Resource: unix.RLIMIT_NOFILE, Soft: min(1024, own.Max), Hard: own.Max}}
	for _, u := range h.Ulimits {
		if u == nil {
			return nil, linkspan.Errorf(linkspan.ErrInvalid, "invalid ulimit: null")
		}
		resource, ok := resources[u.Name]
		if !ok || u.Soft > u.Hard && u.Hard >= 0 {
			return nil, linkspan.Errorf(linkspan.ErrInvalid, "invalid ulimit %s=%d:%d", u.Name, u.Soft, u.Hard)
		}
		list = append(list, launch.Rlimit{Resource: resource, Soft: uint64(u.Soft), Hard: uint64(u.Hard)})
	}
	return list, nil
}
