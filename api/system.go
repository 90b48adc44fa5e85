package api

import (
	"bytes"
	"cmp"
	"encoding/json"
	"net/http"
	"os"
	goruntime "runtime"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/api/types/system"
	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan"
)

// About is what the daemon says of itself.
type About struct {
	ID                string // of the daemon; stable for one data root
	Version, Commit   string // of this release; empty: dev
	DataRoot          string // absolute
	ExecRoot          string // absolute
	NetworkDrivers    []string
	FirewallDriver    string // "nftables" or "iptables"
	AddressPools      []system.NetworkAddressPool
	Debug             bool
	BuildTime, Notice string // Notice: a warning for docker info, or empty
}

func (a About) filled() About {
	a.Version = cmp.Or(a.Version, "dev")
	return a
}

// headers are those that clients negotiate by.
func (a About) headers(h http.Header) {
	h.Set("Server", "Linkspan/"+a.Version+" (linux)")
	h.Set("Api-Version", MaxVersion)
	h.Set("Ostype", "linux")
	h.Set("Docker-Experimental", "false")
}

func (s *Server) ping(w http.ResponseWriter, r *http.Request) error {
	h := w.Header()
	h.Set("Cache-Control", "no-cache, no-store, must-revalidate")
	h.Set("Pragma", "no-cache")
	h.Set("Builder-Version", "2")
	h.Set("Swarm", "inactive")
	h.Set("Content-Type", "text/plain; charset=utf-8")
	if r.Method == http.MethodHead {
		h.Set("Content-Length", "0")
		w.WriteHeader(http.StatusOK)
		return nil
	}
	_, err := w.Write([]byte("OK"))
	return err
}

func (s *Server) version(w http.ResponseWriter, _ *http.Request) error {
	kernel := kernelRelease()
	details := map[string]string{
		"ApiVersion": MaxVersion, "MinAPIVersion": MinVersion, "Arch": goruntime.GOARCH, "Os": "linux", "BuildTime": s.about.BuildTime,
		"Experimental": "false", "GitCommit": s.about.Commit, "GoVersion": goruntime.Version(), "KernelVersion": kernel,
	}
	writeJSON(w, http.StatusOK, system.VersionResponse{
		Platform: system.PlatformInfo{Name: "Linkspan"}, Version: s.about.Version, APIVersion: MaxVersion, MinAPIVersion: MinVersion,
		Os: "linux", Arch: goruntime.GOARCH, GitCommit: s.about.Commit, GoVersion: goruntime.Version(), KernelVersion: kernel, BuildTime: s.about.BuildTime,
		Components: []system.ComponentVersion{{Name: "Engine", Version: s.about.Version, Details: details}},
	})
	return nil
}

func kernelRelease() string {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return ""
	}
	return unix.ByteSliceToString(name.Release[:])
}

func (s *Server) info(w http.ResponseWriter, r *http.Request) error {
	hostname, err := os.Hostname()
	if err != nil {
		return err
	}
	a := s.about
	drivers := s.networkDrivers(r)
	info := system.Info{
		ID: a.ID, Name: hostname, ServerVersion: a.Version, Driver: "overlay2", DriverStatus: [][2]string{{"Supports d_type", "true"}, {"Using metacopy", "false"}},
		NFd: openFiles(), OomKillDisable: cgroupVersion() == "1", OSVersion: osRelease("VERSION_ID"), IndexServerAddress: "https://index.docker.io/v1/",
		HTTPProxy: os.Getenv("HTTP_PROXY"), HTTPSProxy: os.Getenv("HTTPS_PROXY"), NoProxy: os.Getenv("NO_PROXY"),
		Images:      len(s.images.List()),
		Plugins:     system.PluginsInfo{Volume: []string{"local"}, Network: drivers, Log: []string{"json-file", "local"}},
		MemoryLimit: true, SwapLimit: true, CPUCfsPeriod: true, CPUCfsQuota: true, CPUShares: true, CPUSet: true, PidsLimit: true, IPv4Forwarding: true,
		Debug: a.Debug, NGoroutines: goruntime.NumGoroutine(), NEventsListener: int(s.events.watchers.Load()), SystemTime: s.now().Format(time.RFC3339Nano), LoggingDriver: "json-file",
		CgroupDriver: "cgroupfs", CgroupVersion: cgroupVersion(), KernelVersion: kernelRelease(), OperatingSystem: cmp.Or(osRelease("PRETTY_NAME"), "Linux"), OSType: "linux",
		Architecture: architecture(), NCPU: goruntime.NumCPU(), MemTotal: memoryTotal(), DockerRootDir: a.DataRoot, Labels: []string{},
		RegistryConfig: &registry.ServiceConfig{IndexConfigs: map[string]*registry.IndexInfo{}},
		Runtimes:       map[string]system.RuntimeWithStatus{"linkspan": {}}, DefaultRuntime: "linkspan", LiveRestoreEnabled: true,
		Swarm: swarm.Info{LocalNodeState: swarm.LocalNodeStateInactive}, InitBinary: "linkspan-shim",
		SecurityOptions: []string{"name=seccomp,profile=builtin", "name=cgroupns"}, DefaultAddressPools: a.AddressPools, CDISpecDirs: []string{}, Warnings: []string{},
	}
	if a.Notice != "" {
		info.Warnings = append(info.Warnings, a.Notice)
	}
	if versionOf(r) >= 49 && a.FirewallDriver != "" {
		info.FirewallBackend = &system.FirewallInfo{Driver: a.FirewallDriver}
	}
	for _, c := range s.containers.List() {
		info.Containers++
		switch c.State.Status {
		case container.StateRunning, container.StateRestarting:
			info.ContainersRunning++
		case container.StatePaused:
			info.ContainersPaused++
		default:
			info.ContainersStopped++
		}
	}
	writeJSON(w, http.StatusOK, info)
	return nil
}

func cgroupVersion() string {
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		return "2"
	}
	return "1"
}

func architecture() string {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return goruntime.GOARCH
	}
	return unix.ByteSliceToString(name.Machine[:])
}

// osRelease reads a line of os-release(5).
func osRelease(key string) string {
	text, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), key+"="); ok {
			return strings.Trim(value, `"`)
		}
	}
	return ""
}

// openFiles is how many descriptors the daemon has.
func openFiles() int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(entries)
}

// memoryTotal is in bytes.
func memoryTotal() int64 {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	fields := bytes.Fields(text) // MemTotal: N kB
	if len(fields) < 2 {
		return 0
	}
	kib, err := strconv.ParseInt(string(fields[1]), 10, 64)
	if err != nil {
		return 0
	}
	return kib << 10
}

// watchEvents streams what happens.
func (s *Server) watchEvents(w http.ResponseWriter, r *http.Request) error {
	at := s.events.position() // before anything else, so that nothing is missed
	now := s.now()
	f, err := filtersOf(r)
	if err != nil {
		return err
	}
	what := watch{filters: f}
	if what.since, err = timeParam(r, "since", now); err != nil {
		return err
	}
	if what.until, err = timeParam(r, "until", now); err != nil {
		return err
	}
	if !what.since.IsZero() && !what.until.IsZero() && what.since.After(what.until) {
		return linkspan.Errorf(linkspan.ErrInvalid, "`since` time (%s) cannot be after `until` time (%s)", r.FormValue("since"), r.FormValue("until"))
	}
	if !what.since.IsZero() || !what.until.IsZero() {
		at = s.events.oldest()
	}
	ctx, cancel := s.streaming(r)
	defer cancel()
	legacy := versionOf(r) < 52
	kind := types.MediaTypeJSONLines
	if legacy {
		kind = types.MediaTypeJSON
	}
	w.Header().Set("Content-Type", kind)
	w.WriteHeader(http.StatusOK)
	control := http.NewResponseController(w)
	if control.Flush() != nil {
		return nil
	}
	encoder := json.NewEncoder(w)
	// An error means that the client has gone, and the answer has begun: there
	// is nothing to say and nobody to say it to.
	s.events.follow(ctx, at, what, func(batch []events.Message) error { //nolint:errcheck // see above
		// A client that has stopped reading is dropped, not waited for. What has
		// no deadline is no socket, and does not block.
		control.SetWriteDeadline(time.Now().Add(s.patience)) //nolint:errcheck // see above
		for _, message := range batch {
			var v any = message
			if legacy {
				v = legacyEvent(message)
			}
			if err := encoder.Encode(v); err != nil {
				return err
			}
		}
		return control.Flush()
	})
	return nil
}
