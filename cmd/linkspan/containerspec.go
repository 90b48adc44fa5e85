package main

import (
	"cmp"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/sys/signal"
)

// rootfsAnnotation tells the daemon that a container has a folder for a root
// and no image.
const rootfsAnnotation = "linkspan.rootfs"

var (
	errNoImage     = errors.New("an IMAGE, or --rootfs DIR, is required: see --help")
	errEmptyRootfs = errors.New("invalid --rootfs: the folder's name is empty")
)

// ambient is what a command line draws in from around it. Tests give their own.
type ambient struct {
	getenv   func(string) (string, bool)
	readFile func(string) ([]byte, error)
}

// request returns the body of POST /containers/create.
func (o *containerOptions) request(from ambient) (container.CreateRequest, error) {
	config, err := o.config(from)
	if err != nil {
		return container.CreateRequest{}, err
	}
	host, err := o.hostConfig()
	if err != nil {
		return container.CreateRequest{}, err
	}
	exposed, bindings, err := parsePorts(o.publish, o.expose)
	if err != nil {
		return container.CreateRequest{}, err
	}
	config.ExposedPorts, host.PortBindings = exposed, bindings
	mode, networking, err := o.networking()
	if err != nil {
		return container.CreateRequest{}, err
	}
	host.NetworkMode = mode
	return container.CreateRequest{Config: config, HostConfig: host, NetworkingConfig: networking}, nil
}

// config returns the part of the request that belongs to the process.
func (o *containerOptions) config(from ambient) (*container.Config, error) {
	env, err := environment(from, o.envFiles, o.env)
	if err != nil {
		return nil, err
	}
	labels, err := o.allLabels(from)
	if err != nil {
		return nil, err
	}
	config := &container.Config{
		Hostname:   o.hostname,
		Domainname: o.domainname,
		User:       o.user,
		Tty:        o.tty,
		OpenStdin:  o.interactive,
		Env:        env,
		Cmd:        o.command,
		Image:      o.image,
		Volumes:    map[string]struct{}{},
		WorkingDir: o.workdir,
		Labels:     labels,
		StopSignal: o.stopSignal,
	}
	if o.entrypointGiven {
		config.Entrypoint = []string{o.entrypoint}
	}
	if o.stopTimeoutGiven {
		config.StopTimeout = &o.stopTimeout
	}
	if o.stopSignal != "" {
		if _, err = signal.ParseSignal(o.stopSignal); err != nil {
			return nil, fmt.Errorf("invalid --stop-signal %q: want a name such as SIGTERM, or a number", o.stopSignal)
		}
	}
	for _, volume := range o.volumes {
		if !strings.Contains(volume, ":") {
			config.Volumes[volume] = struct{}{}
		}
	}
	if config.Healthcheck, err = o.health.config(o.noHealth); err != nil {
		return nil, err
	}
	return config, o.attachStreams(config)
}

// attachStreams says which of the process's streams a client will hold.
func (o *containerOptions) attachStreams(config *container.Config) error {
	for _, stream := range o.attach {
		switch strings.ToLower(stream) {
		case "stdin":
			config.AttachStdin = true
		case "stdout":
			config.AttachStdout = true
		case "stderr":
			config.AttachStderr = true
		default:
			return fmt.Errorf("invalid --attach %q: want STDIN, STDOUT or STDERR", stream)
		}
	}
	if len(o.attach) == 0 {
		config.AttachStdin, config.AttachStdout, config.AttachStderr = o.interactive, true, true
	}
	config.StdinOnce = config.OpenStdin && config.AttachStdin
	return nil
}

// hostConfig returns the part of the request that belongs to the host.
func (o *containerOptions) hostConfig() (*container.HostConfig, error) {
	resources, err := o.resources()
	if err != nil {
		return nil, err
	}
	host := &container.HostConfig{
		ContainerIDFile: o.cidFile,
		AutoRemove:      o.remove,
		VolumesFrom:     o.volumesFrom,
		CapAdd:          capabilities(o.capAdd),
		CapDrop:         capabilities(o.capDrop),
		CgroupnsMode:    container.CgroupnsMode(o.cgroupns),
		DNSOptions:      o.dnsOptions,
		DNSSearch:       o.dnsSearch,
		GroupAdd:        o.groups,
		IpcMode:         container.IpcMode(o.ipc),
		OomScoreAdj:     o.oomScoreAdj,
		PidMode:         container.PidMode(o.pid),
		Privileged:      o.privileged,
		PublishAllPorts: o.publishAll,
		ReadonlyRootfs:  o.readOnly,
		SecurityOpt:     o.securityOptions,
		UTSMode:         container.UTSMode(o.uts),
		UsernsMode:      container.UsernsMode(o.userns),
		Runtime:         o.runtime,
		Resources:       resources,
	}
	if o.initGiven {
		host.Init = &o.init
	}
	if host.ShmSize, err = byteSize("shm-size", o.shmSize); err != nil {
		return nil, err
	}
	if host.RestartPolicy, err = restartPolicy(o.restart); err != nil {
		return nil, err
	}
	if o.remove && !host.RestartPolicy.IsNone() {
		return nil, errors.New("conflicting options: cannot specify both --restart and --rm")
	}
	return host, o.fillHost(host)
}

// fillHost adds the parts of the host's side that are parsed.
func (o *containerOptions) fillHost(host *container.HostConfig) error {
	var err error
	if host.DNS, err = servers(o.dns); err != nil {
		return err
	}
	if host.ExtraHosts, err = extraHosts(o.addHosts); err != nil {
		return err
	}
	logOptions, err := keyValues("log-opt", o.logOptions)
	if err != nil {
		return err
	}
	host.LogConfig = container.LogConfig{Type: o.logDriver, Config: logOptions}
	if host.Sysctls, err = keyValues("sysctl", o.sysctls); err != nil {
		return err
	}
	if host.Annotations, err = keyValues("annotation", o.annotations); err != nil {
		return err
	}
	if o.rootfs != "" {
		dir, absErr := filepath.Abs(o.rootfs)
		if absErr != nil {
			return fmt.Errorf("finding the folder of --rootfs: %w", absErr)
		}
		host.Annotations[rootfsAnnotation] = dir
	}
	if host.Binds, err = binds(o.volumes); err != nil {
		return err
	}
	if host.Tmpfs, err = tmpfsMounts(o.tmpfs); err != nil {
		return err
	}
	host.Mounts, err = mounts(o.mounts)
	return err
}

func (o *containerOptions) resources() (container.Resources, error) {
	resources := container.Resources{
		CPUShares:    o.cpuShares,
		CgroupParent: o.cgroupParent,
		CPUPeriod:    o.cpuPeriod,
		CPUQuota:     o.cpuQuota,
		CpusetCpus:   o.cpusetCPUs,
		CpusetMems:   o.cpusetMems,
		BlkioWeight:  o.blockWeight,
	}
	resources.DeviceCgroupRules = o.deviceRules
	if o.noOOMKill {
		resources.OomKillDisable = &o.noOOMKill
	}
	if o.swappiness >= 0 {
		resources.MemorySwappiness = &o.swappiness
	}
	for _, text := range o.devices {
		device, err := parseDevice(text)
		if err != nil {
			return resources, err
		}
		resources.Devices = append(resources.Devices, device)
	}
	if o.pidsLimit != 0 {
		resources.PidsLimit = &o.pidsLimit
	}
	var err error
	if resources.Memory, err = byteSize("memory", o.memory); err != nil {
		return resources, err
	}
	if resources.MemoryReservation, err = byteSize("memory-reservation", o.memoryReservation); err != nil {
		return resources, err
	}
	if o.memorySwap == "-1" {
		resources.MemorySwap = -1
	} else if resources.MemorySwap, err = byteSize("memory-swap", o.memorySwap); err != nil {
		return resources, err
	}
	if resources.NanoCPUs, err = nanoCPUs(o.cpus); err != nil {
		return resources, err
	}
	for _, text := range o.ulimits {
		limit, parseErr := units.ParseUlimit(text)
		if parseErr != nil {
			return resources, fmt.Errorf("invalid --ulimit %q: %w", text, parseErr)
		}
		resources.Ulimits = append(resources.Ulimits, limit)
	}
	return resources, nil
}

// byteSize reads 64m and the like; "" is 0.
func byteSize(flag, text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	size, err := units.RAMInBytes(text)
	if err != nil {
		return 0, fmt.Errorf("invalid --%s %q: want a number of bytes, or one with k, m or g behind it", flag, text)
	}
	return size, nil
}

// nanoCPUs reads a decimal number of CPUs into billionths of one.
func nanoCPUs(text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	cpus, ok := new(big.Rat).SetString(text)
	if !ok {
		return 0, fmt.Errorf("invalid --cpus %q: want a number such as 1.5", text)
	}
	nano := cpus.Mul(cpus, big.NewRat(1e9, 1))
	if !nano.IsInt() || !nano.Num().IsInt64() {
		return 0, fmt.Errorf("invalid --cpus %q: value is too precise", text)
	}
	return nano.Num().Int64(), nil
}

func restartPolicy(text string) (container.RestartPolicy, error) {
	name, count, counted := strings.Cut(text, ":")
	policy := container.RestartPolicy{Name: container.RestartPolicyMode(cmp.Or(name, "no"))}
	if counted {
		retries, err := strconv.Atoi(count)
		if err != nil {
			return policy, fmt.Errorf("invalid --restart %q: want a whole number after the colon", text)
		}
		policy.MaximumRetryCount = retries
	}
	return policy, container.ValidateRestartPolicy(policy)
}

// capabilities brings names into the form that the API defines.
func capabilities(names []string) []string {
	var full []string
	for _, name := range names {
		name = strings.ToUpper(name)
		if name != "ALL" && !strings.HasPrefix(name, "CAP_") {
			name = "CAP_" + name
		}
		full = append(full, name)
	}
	slices.Sort(full)
	return slices.Compact(full)
}

func servers(values []string) ([]netip.Addr, error) {
	var addrs []netip.Addr
	for _, text := range values {
		addr, err := netip.ParseAddr(strings.TrimSpace(text))
		if err != nil {
			return nil, fmt.Errorf("invalid --dns %q: %s is not an ip address", text, text)
		}
		addrs = append(addrs, addr)
	}
	return addrs, nil
}

// extraHosts checks values of --add-host: host:ip, host=ip, or host:host-gateway.
func extraHosts(values []string) ([]string, error) {
	var hosts []string
	for _, text := range values {
		host, addr, ok := strings.Cut(text, "=")
		if !ok {
			host, addr, ok = strings.Cut(text, ":")
		}
		if !ok || host == "" {
			return nil, fmt.Errorf("bad format for add-host: %q: want host:ip", text)
		}
		bare := strings.TrimSuffix(strings.TrimPrefix(addr, "["), "]")
		if _, err := netip.ParseAddr(bare); err != nil && addr != "host-gateway" {
			return nil, fmt.Errorf("invalid IP address in add-host: %q", addr)
		}
		hosts = append(hosts, host+":"+bare)
	}
	return hosts, nil
}

// parseDevice reads HOST[:CONTAINER][:RIGHTS].
func parseDevice(text string) (container.DeviceMapping, error) {
	parts := strings.Split(text, ":")
	d := container.DeviceMapping{PathOnHost: parts[0], PathInContainer: parts[0], CgroupPermissions: "rwm"}
	isRights := func(s string) bool { return s != "" && strings.Trim(s, "rwm") == "" }
	switch {
	case len(parts) == 1:
	case len(parts) == 2 && isRights(parts[1]):
		d.CgroupPermissions = parts[1]
	case len(parts) == 2:
		d.PathInContainer = parts[1]
	case len(parts) == 3 && isRights(parts[2]):
		d.PathInContainer, d.CgroupPermissions = parts[1], parts[2]
	default:
		return d, fmt.Errorf("invalid --device %q: want HOST[:CONTAINER][:RIGHTS] with rights of r, w and m", text)
	}
	if parts[0] == "" {
		return d, fmt.Errorf("invalid --device %q: the host's device is not named", text)
	}
	return d, nil
}
