package main

import (
	"github.com/spf13/pflag"
)

// containerOptions are the flags that run and create share, as typed.
type containerOptions struct {
	name, platform, pull, cidFile, rootfs, image string
	command                                      []string

	attach, env, envFiles, labels, labelFiles, annotations     []string
	hostname, domainname, user, workdir, entrypoint            string
	stopSignal, detachKeys                                     string
	stopTimeout                                                int
	interactive, tty, quiet, entrypointGiven, stopTimeoutGiven bool

	networks, aliases, links, linkLocal               []string
	ip, ip6, mac                                      string
	addHosts, dns, dnsSearch, dnsOptions              []string
	publish, expose                                   []string
	publishAll                                        bool
	volumes, volumesFrom, tmpfs, mounts               []string
	capAdd, capDrop, securityOptions, groups, sysctls []string
	ulimits, logOptions                               []string
	logDriver, restart, runtime                       string
	ipc, pid, uts, userns, cgroupns, cgroupParent     string
	memory, memoryReservation, memorySwap, shmSize    string
	cpus, cpusetCPUs, cpusetMems                      string
	cpuShares, cpuPeriod, cpuQuota, pidsLimit         int64
	oomScoreAdj                                       int
	privileged, readOnly, init, initGiven, remove     bool
	devices, deviceRules                              []string
	blockWeight                                       uint16
	swappiness                                        int64
	noOOMKill                                         bool
	noHealth                                          bool
	health                                            healthOptions
}

// bind declares the flags under Docker's names.
func (o *containerOptions) bind(flags *pflag.FlagSet) {
	flags.SetInterspersed(false)
	flags.SetNormalizeFunc(currentName)
	o.bindProcess(flags)
	o.bindNetwork(flags)
	o.bindFiles(flags)
	o.bindLimits(flags)
}

// currentName maps the names that flags had, or have elsewhere, to one: two
// flags of one list would each begin it anew.
func currentName(_ *pflag.FlagSet, name string) pflag.NormalizedName {
	switch name {
	case "net":
		name = "network"
	case "net-alias", "alias":
		name = "network-alias"
	case "dns-opt":
		name = "dns-option"
	case "time":
		name = "timeout"
	}
	return pflag.NormalizedName(name)
}

func (o *containerOptions) bindProcess(flags *pflag.FlagSet) {
	flags.StringVar(&o.name, "name", "", "assign a name to the container")
	flags.StringVar(&o.platform, "platform", "", "set platform if server is multi-platform capable")
	flags.StringVar(&o.pull, "pull", "missing", "pull image before running (`always|missing|never`)")
	flags.StringVar(&o.cidFile, "cidfile", "", "write the container ID to the `file`")
	flags.StringArrayVarP(&o.attach, "attach", "a", nil, "attach to STDIN, STDOUT or STDERR")
	flags.StringArrayVarP(&o.env, "env", "e", nil, "set environment variables")
	flags.StringArrayVar(&o.envFiles, "env-file", nil, "read in a `file` of environment variables")
	flags.StringArrayVarP(&o.labels, "label", "l", nil, "set meta data on a container")
	flags.StringArrayVar(&o.labelFiles, "label-file", nil, "read in a line delimited `file` of labels")
	flags.StringArrayVar(&o.annotations, "annotation", nil, "add an annotation to the container")
	flags.StringVarP(&o.hostname, "hostname", "h", "", "container host name")
	flags.StringVar(&o.domainname, "domainname", "", "container NIS domain name")
	flags.StringVarP(&o.user, "user", "u", "", "user name or UID (`<name|uid>[:<group|gid>]`)")
	flags.StringVarP(&o.workdir, "workdir", "w", "", "working directory inside the container")
	flags.StringVar(&o.entrypoint, "entrypoint", "", "overwrite the default ENTRYPOINT of the image")
	flags.StringVar(&o.stopSignal, "stop-signal", "", "signal to stop the container")
	flags.IntVar(&o.stopTimeout, "stop-timeout", 0, "timeout (in `seconds`) to stop a container")
	flags.StringVar(&o.detachKeys, "detach-keys", "", "override the key sequence for detaching a container")
	flags.BoolVarP(&o.interactive, "interactive", "i", false, "keep STDIN open even if not attached")
	flags.BoolVarP(&o.tty, "tty", "t", false, "allocate a pseudo-TTY")
	flags.BoolVarP(&o.quiet, "quiet", "q", false, "suppress the pull output")
	flags.BoolVar(&o.remove, "rm", false, "automatically remove the container when it exits")
	flags.StringVar(&o.restart, "restart", "no", "restart policy to apply when a container exits")
	flags.StringVar(&o.logDriver, "log-driver", "", "logging driver for the container")
	flags.StringArrayVar(&o.logOptions, "log-opt", nil, "log driver options")
	flags.BoolVar(&o.init, "init", false, "run an init inside the container that forwards signals and reaps processes")
	flags.StringVar(&o.runtime, "runtime", "", "runtime to use for this container")
	o.health.bind(flags)
	flags.BoolVar(&o.noHealth, "no-healthcheck", false, "disable any container-specified HEALTHCHECK")
}

func (o *containerOptions) bindNetwork(flags *pflag.FlagSet) {
	flags.StringArrayVar(&o.networks, "network", nil, "connect a container to a network (`name`, or name=NET,ip=ADDR,alias=NAME,...)")
	flags.StringArrayVar(&o.aliases, "network-alias", nil, "add network-scoped alias for the container")
	flags.StringVar(&o.ip, "ip", "", "IPv4 `address` (e.g., 172.30.100.104)")
	flags.StringVar(&o.ip6, "ip6", "", "IPv6 `address` (e.g., 2001:db8::33)")
	flags.StringVar(&o.mac, "mac-address", "", "container MAC `address` (e.g., 92:d0:c6:0a:29:33)")
	flags.StringArrayVar(&o.links, "link", nil, "add link to another container")
	flags.StringArrayVar(&o.linkLocal, "link-local-ip", nil, "container IPv4/IPv6 link-local addresses")
	flags.StringArrayVar(&o.addHosts, "add-host", nil, "add a custom host-to-IP mapping (`host:ip`)")
	flags.StringArrayVar(&o.dns, "dns", nil, "set custom DNS servers")
	flags.StringArrayVar(&o.dnsSearch, "dns-search", nil, "set custom DNS search domains")
	flags.StringArrayVar(&o.dnsOptions, "dns-option", nil, "set DNS options")
	flags.StringArrayVarP(&o.publish, "publish", "p", nil, "publish a container's port(s) to the host")
	flags.BoolVarP(&o.publishAll, "publish-all", "P", false, "publish all exposed ports to random ports")
	flags.StringArrayVar(&o.expose, "expose", nil, "expose a port or a range of ports")
	flags.StringArrayVar(&o.sysctls, "sysctl", nil, "sysctl options (`key=value`)")
}

func (o *containerOptions) bindFiles(flags *pflag.FlagSet) {
	flags.StringVar(&o.rootfs, "rootfs", "", "run over the `folder` instead of an image, copy-on-write; then no IMAGE is named")
	flags.StringArrayVarP(&o.volumes, "volume", "v", nil, "bind mount a volume")
	flags.StringArrayVar(&o.volumesFrom, "volumes-from", nil, "mount volumes from the specified container(s)")
	flags.StringArrayVar(&o.tmpfs, "tmpfs", nil, "mount a tmpfs directory")
	flags.StringArrayVar(&o.mounts, "mount", nil, "attach a filesystem mount to the container (type=bind|tmpfs|volume,...)")
	flags.BoolVar(&o.readOnly, "read-only", false, "mount the container's root filesystem as read only")
}

func (o *containerOptions) bindLimits(flags *pflag.FlagSet) {
	flags.StringArrayVar(&o.capAdd, "cap-add", nil, "add Linux capabilities")
	flags.StringArrayVar(&o.capDrop, "cap-drop", nil, "drop Linux capabilities")
	flags.BoolVar(&o.privileged, "privileged", false, "give extended privileges to this container")
	flags.StringArrayVar(&o.securityOptions, "security-opt", nil, "security options")
	flags.StringArrayVar(&o.groups, "group-add", nil, "add additional groups to join")
	flags.StringVar(&o.ipc, "ipc", "", "IPC mode to use")
	flags.StringVar(&o.pid, "pid", "", "PID namespace to use")
	flags.StringVar(&o.uts, "uts", "", "UTS namespace to use")
	flags.StringVar(&o.userns, "userns", "", "user namespace to use")
	flags.StringVar(&o.cgroupns, "cgroupns", "", "cgroup namespace to use (`host|private`)")
	flags.StringVar(&o.cgroupParent, "cgroup-parent", "", "optional parent cgroup for the container")
	o.bindResources(flags)
	flags.StringVar(&o.shmSize, "shm-size", "", "size of /dev/shm (`bytes`)")
	flags.IntVar(&o.oomScoreAdj, "oom-score-adj", 0, "tune host's OOM preferences (-1000 to 1000)")
	flags.StringArrayVar(&o.ulimits, "ulimit", nil, "ulimit options")
	flags.StringArrayVar(&o.devices, "device", nil, "add a host device to the container (`host[:container[:rights]]`)")
	flags.StringArrayVar(&o.deviceRules, "device-cgroup-rule", nil, "add a rule to the cgroup allowed devices list")
	flags.Int64Var(&o.swappiness, "memory-swappiness", -1, "tune container memory swappiness (0 to 100)")
	flags.BoolVar(&o.noOOMKill, "oom-kill-disable", false, "disable OOM Killer")
}

// bindResources declares what can be changed of a container later.
func (o *containerOptions) bindResources(flags *pflag.FlagSet) {
	flags.StringVarP(&o.memory, "memory", "m", "", "memory limit (`bytes`, or 64m, 2g, ...)")
	flags.StringVar(&o.memoryReservation, "memory-reservation", "", "memory soft limit (`bytes`)")
	flags.StringVar(&o.memorySwap, "memory-swap", "", "swap limit equal to memory plus swap: '-1' to enable unlimited swap")
	flags.StringVar(&o.cpus, "cpus", "", "`number` of CPUs")
	flags.Int64VarP(&o.cpuShares, "cpu-shares", "c", 0, "CPU shares (relative weight)")
	flags.Int64Var(&o.cpuPeriod, "cpu-period", 0, "limit CPU CFS (Completely Fair Scheduler) period (`microseconds`)")
	flags.Int64Var(&o.cpuQuota, "cpu-quota", 0, "limit CPU CFS (Completely Fair Scheduler) quota (`microseconds`)")
	flags.StringVar(&o.cpusetCPUs, "cpuset-cpus", "", "CPUs in which to allow execution (0-3, 0,1)")
	flags.StringVar(&o.cpusetMems, "cpuset-mems", "", "MEMs in which to allow execution (0-3, 0,1)")
	flags.Int64Var(&o.pidsLimit, "pids-limit", 0, "tune container pids limit (set -1 for unlimited)")
	flags.Uint16Var(&o.blockWeight, "blkio-weight", 0, "block IO (relative weight), between 10 and 1000, or 0 to disable")
}

// take stores the arguments, and which flags were given at all.
func (o *containerOptions) take(flags *pflag.FlagSet, args []string) error {
	o.entrypointGiven = flags.Changed("entrypoint")
	o.stopTimeoutGiven = flags.Changed("stop-timeout")
	o.initGiven = flags.Changed("init")
	if flags.Changed("rootfs") {
		if o.rootfs == "" {
			return errEmptyRootfs
		}
		if len(args) > 0 {
			o.command = args
		}
		return nil
	}
	if len(args) == 0 {
		return errNoImage
	}
	o.image = args[0]
	// No command at all is null, not an empty list: the image's own is meant.
	if len(args) > 1 {
		o.command = args[1:]
	}
	return nil
}
