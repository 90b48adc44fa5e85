package runtime

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/runtime/cgroup"
)

// Request is what a client wants to have created.
type Request struct {
	Name       string // "" draws one
	Config     *container.Config
	HostConfig *container.HostConfig // nil is all defaults
	Networking *network.NetworkingConfig
	Rootfs     string   // a directory, which the container sees copy-on-write
	Image      string   // or an image's ID
	Lower      []string // and its layers, topmost first
}

// Create records a container. It is durable on return; nothing of it is in the
// kernel before Start. Warnings tell what was accepted but has no effect.
func (r *Runtime) Create(ctx context.Context, q Request) (Container, []string, error) {
	c, warnings, err := r.newContainer(q)
	if err != nil {
		return Container{}, nil, err
	}
	if c.Name, err = r.takeName(c.ID, q.Name); err != nil {
		return Container{}, nil, err
	}
	undo := func() {}
	mounted, release, unmake, err := r.mountsFor(c)
	if err == nil {
		defer release()
		c.Mounts, undo = mounted, unmake
		err = r.create(ctx, c)
	}
	if err != nil {
		undo()
		r.mu.Lock()
		delete(r.names, c.Name)
		r.mu.Unlock()
		return Container{}, nil, err
	}
	r.mu.Lock()
	r.entries[c.ID] = &entry{c: c, changed: make(chan struct{})}
	r.mu.Unlock()
	r.event(c, "create")
	return c, warnings, nil
}

// create makes the directory first: one without a record is an open intent,
// which Recover undoes.
func (r *Runtime) create(ctx context.Context, c Container) error {
	if err := os.Mkdir(r.dataDir(c.ID), 0o710); err != nil {
		return fmt.Errorf("making the container's directory: %w", err)
	}
	err := r.options.Networks.Reserve(ctx, c)
	for _, step := range []func() error{
		func() error { return checkCommand(c.Config) },
		func() error { return r.populate(ctx, c) },
		func() error { return r.saveState(c) },
		func() error { return r.saveRecord(c) },
	} {
		if err == nil {
			err = step()
		}
	}
	if err == nil {
		return nil
	}
	undo, cancel := undoing(ctx)
	defer cancel()
	if ferr := r.options.Networks.Forget(undo, c.ID); ferr != nil {
		r.options.Logf("creating container %s: giving up its networks: %v", c.ID.Short(), ferr)
	}
	return errors.Join(err, os.RemoveAll(r.dataDir(c.ID)))
}

// takeName reserves a name for the container, which appears under it only when
// it exists.
func (r *Runtime) takeName(id linkspan.ID, name string) (string, error) {
	name = strings.TrimPrefix(name, "/")
	if name != "" {
		if err := checkName(name); err != nil {
			return "", err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if name != "" {
		if holder, taken := r.names[name]; taken {
			return "", linkspan.Errorf(linkspan.ErrConflict, "Conflict. The container name %q is already in use by container %q. You have to remove (or rename) that container to be able to reuse that name.", "/"+name, holder)
		}
		r.names[name] = id
		return name, nil
	}
	for try := 0; ; try++ {
		name = pick(adjectives[:]) + "_" + pick(ships[:])
		if try > 3 {
			name += "_" + id.Prefix(4+try)
		}
		if _, taken := r.names[name]; !taken {
			r.names[name] = id
			return name, nil
		}
	}
}

func pick(words []string) string {
	n, err := rand.Int(rand.Reader, big.NewInt(int64(len(words))))
	if err != nil {
		return words[0]
	}
	return words[n.Int64()]
}

func (r *Runtime) newContainer(q Request) (Container, []string, error) {
	if q.Config == nil {
		return Container{}, nil, linkspan.Errorf(linkspan.ErrInvalid, "config cannot be empty in order to create a container")
	}
	host := q.HostConfig
	if host == nil {
		host = &container.HostConfig{}
	}
	c := Container{
		ID: linkspan.NewID(), Created: time.Now().UTC(), Config: q.Config, HostConfig: host, Networking: q.Networking,
		Rootfs: q.Rootfs, Image: q.Image, Lower: q.Lower, State: State{Status: container.StateCreated},
	}
	if c.Rootfs != "" {
		c.Rootfs = filepath.Clean(c.Rootfs)
	}
	var err error
	if host.MaskedPaths, host.ReadonlyPaths, err = hiddenPaths(host); err != nil {
		return c, nil, err
	}
	if q.Config.WorkingDir != "" {
		q.Config.WorkingDir = filepath.Clean(q.Config.WorkingDir)
	}
	for _, variable := range q.Config.Env {
		if name, _, _ := strings.Cut(variable, "="); name == "" {
			return c, nil, linkspan.Errorf(linkspan.ErrInvalid, "invalid environment variable: %s", variable)
		}
	}
	if err := checkLayers(c); err != nil {
		return c, nil, err
	}
	if _, err := r.wishes(c); err != nil {
		return c, nil, err
	}
	// A trial run of the translation finds what a start would refuse.
	if _, err := r.spec(c, Attachment{}, nil); err != nil {
		return c, nil, err
	}
	limits, err := limitsOf(host)
	if err != nil {
		return c, nil, err
	}
	if err = r.cgroups.Check(limits); err != nil {
		return c, nil, err
	}
	if err := checkModes(host); err != nil {
		return c, nil, err
	}
	if err := checkHealth(q.Config.Healthcheck); err != nil {
		return c, nil, err
	}
	if err := r.checkShares(q.Config, host); err != nil {
		return c, nil, err
	}
	return c, r.warningsFor(host), nil
}

// checkCommand comes after all that is said of the settings, as in Docker.
func checkCommand(config *container.Config) error {
	if len(config.Entrypoint)+len(config.Cmd) == 0 {
		return linkspan.Errorf(linkspan.ErrInvalid, "no command specified")
	}
	return nil
}

func checkLayers(c Container) error {
	layers := c.layers()
	if len(layers) == 0 {
		return linkspan.Errorf(linkspan.ErrInvalid, "no root file system: give an image or --rootfs DIR")
	}
	for _, dir := range layers {
		if !filepath.IsAbs(dir) {
			return linkspan.Errorf(linkspan.ErrInvalid, "rootfs %q is not an absolute path", dir)
		}
		info, err := os.Stat(dir)
		if err != nil {
			return linkspan.Errorf(linkspan.ErrInvalid, "invalid rootfs: %w", err)
		}
		if !info.IsDir() {
			return linkspan.Errorf(linkspan.ErrInvalid, "invalid rootfs: %s is not a directory", dir)
		}
	}
	return nil
}

// checkModes refuses what would otherwise be quietly left out.
func checkModes(h *container.HostConfig) error {
	if h.AutoRemove && !h.RestartPolicy.IsNone() {
		return linkspan.Errorf(linkspan.ErrInvalid, "can't create 'AutoRemove' container with restart policy")
	}
	if err := container.ValidateRestartPolicy(h.RestartPolicy); err != nil {
		return linkspan.Errorf(linkspan.ErrInvalid, "%w", err)
	}
	if h.UsernsMode != "" && !h.UsernsMode.IsHost() {
		return linkspan.Errorf(linkspan.ErrNotImplemented, "--userns %s is not supported by this runtime", h.UsernsMode)
	}
	if !cgroup.ValidParent(h.CgroupParent) {
		return linkspan.Errorf(linkspan.ErrInvalid, "invalid cgroup parent %q: want a path in the cgroup hierarchies without '..'", h.CgroupParent)
	}
	if len(h.DeviceRequests) > 0 {
		first := h.DeviceRequests[0]
		return linkspan.Errorf(linkspan.ErrNotImplemented, "could not select device driver %q with capabilities: %v: this runtime has no drivers of GPUs", first.Driver, first.Capabilities)
	}
	if !h.Isolation.IsDefault() {
		return linkspan.Errorf(linkspan.ErrInvalid, "invalid isolation '%s' on linux", h.Isolation)
	}
	switch h.Runtime {
	case "", "runc", "io.containerd.runc.v2", "linkspan":
	default:
		return linkspan.Errorf(linkspan.ErrInvalid, "unknown or invalid runtime name: %s", h.Runtime)
	}
	return checkDevices(h)
}

// warningsFor tells what is accepted and has no effect.
func (r *Runtime) warningsFor(h *container.HostConfig) []string {
	var warnings []string
	if limits, err := limitsOf(h); err == nil {
		warnings = r.cgroups.Without(limits)
	}
	if h.CPURealtimePeriod != 0 || h.CPURealtimeRuntime != 0 {
		warnings = append(warnings, "Real-time scheduling of processors is recorded and not acted on.")
	}
	if len(h.StorageOpt) > 0 {
		warnings = append(warnings, "Storage options are recorded and not acted on.")
	}
	return warnings
}

// checkUpper refuses a data root that cannot hold what containers write.
func checkUpper(dir string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("looking at data root %s: %w", dir, err)
	}
	if st.Type == unix.OVERLAYFS_SUPER_MAGIC || st.Type == unix.NFS_SUPER_MAGIC {
		return linkspan.Errorf(linkspan.ErrUnsupported, "data root %s is on overlayfs or NFS, which cannot be the upper layer of an overlay; put --data-root on ext4, xfs or tmpfs", dir)
	}
	return nil
}
