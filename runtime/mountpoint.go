package runtime

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/runtime/volume"
)

// Mount is one thing that a container has mounted. A creation decides all of
// it; a start only carries it out.
type Mount struct {
	container.MountPoint        // as clients see it
	Anonymous            bool   `json:",omitempty"` // a volume that goes with the container
	Make                 bool   `json:",omitempty"` // the source, where it is missing
	NoCopy               bool   `json:",omitempty"` // of what the image has there
	Subpath              string `json:",omitempty"` // of a volume
	Data                 string `json:",omitempty"` // of a tmpfs, as mount(2) takes it
	Flags                int    `json:",omitempty"` // of a tmpfs
	NonRecursive         bool   `json:",omitempty"` // what is mounted below the source is left out
	TopOnly              bool   `json:",omitempty"` // read-only, but for what is mounted below
}

// wish is a mount that is asked for, before its volume is there.
type wish struct {
	Mount
	volume     *volume.Request // nil for others
	propagates bool            // the user says how
}

// mountsFor finds out what the container is to have mounted. It makes the
// volumes, which stay until release is called; undo removes those made for this
// container alone.
func (r *Runtime) mountsFor(c Container) (list []Mount, release, undo func(), err error) {
	wishes, err := r.wishes(c)
	if err != nil {
		return nil, nil, nil, err
	}
	var releases []func()
	release = func() {
		for _, f := range releases {
			f()
		}
	}
	undo = func() {
		release()
		for _, m := range list {
			if !m.Anonymous {
				continue
			}
			if err := r.volumes.Discard(m.Name, c.ID); err != nil {
				r.options.Logf("creating container %s: giving up its volume: %v", c.ID.Short(), err)
			}
		}
	}
	for _, w := range wishes {
		if w.volume != nil {
			v, done, err := r.volumes.Use(*w.volume)
			if err != nil {
				undo()
				return nil, nil, nil, err
			}
			releases = append(releases, done)
			w.Name, w.Source, w.Driver, w.Anonymous = v.Name, v.Source(), volume.Driver, w.Anonymous || w.volume.Name == ""
		}
		if err := r.withinRoot(&w); err != nil {
			undo()
			return nil, nil, nil, err
		}
		list = append(list, w.Mount)
	}
	return list, release, undo, nil
}

// withinRoot sees to binds of the daemon's own data: a private copy of what is
// mounted there would keep the file systems of other containers busy.
func (r *Runtime) withinRoot(w *wish) error {
	root := r.options.DataRoot
	if w.Type != mount.TypeBind || w.Source != root && !strings.HasPrefix(w.Source, root+"/") {
		return nil
	}
	switch w.Propagation {
	case mount.PropagationRSlave, mount.PropagationRShared:
		return nil
	}
	if w.propagates {
		return linkspan.Errorf(linkspan.ErrInvalid, "invalid mount config: must use either propagation mode \"rslave\" or \"rshared\" when mount source is within the daemon root, daemon root: %q, bind mount source: %q, propagation: %q", root, w.Source, w.Propagation)
	}
	w.Propagation = mount.PropagationRSlave
	return nil
}

// outsideProc refuses to hide what the kernel tells a process of itself, and
// what guards the host, behind files of somebody's. Statistics may be replaced:
// there are programs that make them up for a container.
func outsideProc(target string) error {
	inside, found := strings.CutPrefix(target, "/proc/")
	if !found && target != "/proc" {
		return nil
	}
	if slices.Contains([]string{"cpuinfo", "diskstats", "loadavg", "meminfo", "slabinfo", "stat", "swaps", "uptime"}, inside) {
		return nil
	}
	return linkspan.Errorf(linkspan.ErrInvalid, "invalid mount config: %q cannot be mounted because it is inside /proc", target)
}

// wishes reads all places in which a mount can be asked for. Those of other
// containers give way to the container's own, and those of its image to both.
func (r *Runtime) wishes(c Container) ([]wish, error) {
	borrowed, err := r.borrowed(c.HostConfig.VolumesFrom)
	if err != nil {
		return nil, err
	}
	var own []wish
	for _, bind := range c.HostConfig.Binds {
		w, err := parseBind(bind)
		if err != nil {
			return nil, err
		}
		own = append(own, w)
	}
	for _, m := range c.HostConfig.Mounts {
		w, err := parseMount(m)
		if err != nil {
			return nil, err
		}
		own = append(own, w)
	}
	taken := map[string]bool{}
	for _, w := range own {
		if taken[w.Destination] {
			return nil, linkspan.Errorf(linkspan.ErrInvalid, "Duplicate mount point: %s", w.Destination)
		}
		taken[w.Destination] = true
	}
	for target, options := range c.HostConfig.Tmpfs {
		w, err := parseTmpfs(target, options)
		if err != nil {
			return nil, err
		}
		if taken[w] {
			return nil, linkspan.Errorf(linkspan.ErrInvalid, "Duplicate mount point: %s", w)
		}
		taken[w] = true
	}
	list := own
	for _, w := range borrowed {
		if !taken[w.Destination] {
			taken[w.Destination] = true
			list = append(list, w)
		}
	}
	for _, target := range slices.Sorted(maps.Keys(c.Config.Volumes)) {
		clean, err := destination(target, target)
		if err != nil {
			return nil, err
		}
		if !taken[clean] {
			taken[clean] = true
			list = append(list, wish{Mount: Mount{MountPoint: container.MountPoint{Type: mount.TypeVolume, Destination: clean, RW: true}}, volume: &volume.Request{}})
		}
	}
	for _, target := range slices.Sorted(maps.Keys(taken)) {
		if err := outsideProc(target); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// borrowed are the mounts of other containers: CONTAINER[:ro|rw].
func (r *Runtime) borrowed(from []string) ([]wish, error) {
	var list []wish
	for _, text := range from {
		ref, mode, given := strings.Cut(text, ":")
		if given && mode != "ro" && mode != "rw" && mode != "z" && mode != "Z" {
			return nil, linkspan.Errorf(linkspan.ErrInvalid, "invalid mode: %s (of volumes-from %s)", mode, ref)
		}
		other, err := r.Get(ref)
		if errors.Is(err, linkspan.ErrNotFound) {
			return nil, linkspan.Errorf(linkspan.ErrInvalid, "%w", err)
		}
		if err != nil {
			return nil, err
		}
		for _, m := range other.Mounts {
			if m.Type == mount.TypeTmpfs {
				continue
			}
			w := wish{Mount: m}
			w.NoCopy = true // what is in it is the other's to decide
			if mode == "ro" {
				w.RW = false
			}
			if m.Type == mount.TypeVolume {
				w.volume = &volume.Request{Name: m.Name}
			}
			list = append(list, w)
		}
	}
	return list, nil
}

// destination checks where in the container something is to be mounted.
func destination(target, whole string) (string, error) {
	switch clean := filepath.Clean(target); {
	case target == "":
		return "", linkspan.Errorf(linkspan.ErrInvalid, "invalid volume specification: '%s'", whole)
	case !filepath.IsAbs(target):
		return "", linkspan.Errorf(linkspan.ErrInvalid, "invalid volume specification: '%s': invalid mount path: '%s' mount path must be absolute", whole, target)
	case clean == "/":
		return "", linkspan.Errorf(linkspan.ErrInvalid, "invalid volume specification: '%s': invalid specification: destination can't be '/'", whole)
	default:
		return clean, nil
	}
}

// parseBind reads SOURCE:TARGET[:MODE], where SOURCE is a path or the name of a
// volume, or TARGET alone.
func parseBind(bind string) (wish, error) {
	invalid := linkspan.Errorf(linkspan.ErrInvalid, "invalid volume specification: '%s'", bind)
	parts := strings.Split(bind, ":")
	if len(parts) > 3 || slices.Contains(parts[:min(len(parts), 2)], "") {
		return wish{}, invalid
	}
	if len(parts) == 1 {
		target, err := destination(parts[0], bind)
		return wish{Mount: Mount{MountPoint: container.MountPoint{Type: mount.TypeVolume, Destination: target, RW: true}}, volume: &volume.Request{}}, err
	}
	target, err := destination(parts[1], bind)
	if err != nil {
		return wish{}, err
	}
	w := wish{Mount: Mount{MountPoint: container.MountPoint{Type: mount.TypeBind, Source: parts[0], Destination: target, RW: true}}}
	if len(parts) == 3 {
		w.Mode = parts[2]
	}
	if !filepath.IsAbs(parts[0]) {
		if err := volume.CheckName(parts[0]); err != nil {
			return wish{}, err
		}
		w.Type, w.volume = mount.TypeVolume, &volume.Request{Name: parts[0]}
	} else {
		w.Source, w.Make, w.Propagation = filepath.Clean(parts[0]), true, mount.PropagationRPrivate
	}
	return w, w.mode(w.Mode)
}

// mode reads the words behind the second colon.
func (w *wish) mode(text string) error {
	if text == "" {
		if w.Type == mount.TypeVolume {
			w.Mode = "z" // which is what Docker shows; nothing is labelled
		}
		return nil
	}
	seen := map[string]bool{}
	for word := range strings.SplitSeq(text, ",") {
		kind := word
		switch word {
		case "ro":
			w.RW, kind = false, "rw"
		case "rw":
		case "z", "Z":
			kind = "z"
		case "nocopy":
			if w.Type != mount.TypeVolume {
				return linkspan.Errorf(linkspan.ErrInvalid, "invalid mode: %s", text)
			}
			w.NoCopy = true
		case "private", "rprivate", "slave", "rslave", "shared", "rshared":
			if w.Type != mount.TypeBind {
				return linkspan.Errorf(linkspan.ErrInvalid, "invalid mode: %s", text)
			}
			w.Propagation, w.propagates, kind = mount.Propagation(word), true, "propagation"
		default:
			return linkspan.Errorf(linkspan.ErrInvalid, "invalid mode: %s", text)
		}
		if seen[kind] {
			return linkspan.Errorf(linkspan.ErrInvalid, "invalid mode: %s", text)
		}
		seen[kind] = true
	}
	return nil
}

// parseMount reads an entry of HostConfig.Mounts.
func parseMount(m mount.Mount) (wish, error) {
	refuse := func(format string, args ...any) (wish, error) {
		return wish{}, linkspan.Errorf(linkspan.ErrInvalid, "invalid mount config for type %q: %s", m.Type, fmt.Sprintf(format, args...))
	}
	switch {
	case m.Target == "":
		return refuse("field Target must not be empty")
	case !filepath.IsAbs(m.Target):
		return refuse("invalid mount path: '%s' mount path must be absolute", m.Target)
	case filepath.Clean(m.Target) == "/":
		return refuse("invalid specification: destination can't be '/'")
	case m.BindOptions != nil && m.Type != mount.TypeBind:
		return refuse("field BindOptions must not be specified")
	case m.VolumeOptions != nil && m.Type != mount.TypeVolume:
		return refuse("field VolumeOptions must not be specified")
	case m.TmpfsOptions != nil && m.Type != mount.TypeTmpfs:
		return refuse("field TmpfsOptions must not be specified")
	}
	w := wish{Mount: Mount{MountPoint: container.MountPoint{Type: m.Type, Source: m.Source, Destination: filepath.Clean(m.Target), RW: !m.ReadOnly}}}
	switch m.Type {
	case mount.TypeBind:
		switch {
		case m.Source == "":
			return refuse("field Source must not be empty")
		case !filepath.IsAbs(m.Source):
			return refuse("invalid mount path: '%s' mount path must be absolute", m.Source)
		}
		return w, w.bind(m)
	case mount.TypeVolume:
		w.volume, w.Mode = &volume.Request{Name: m.Source}, "z"
		if o := m.VolumeOptions; o != nil {
			w.NoCopy, w.Subpath, w.volume.Labels = o.NoCopy, o.Subpath, o.Labels
			if o.DriverConfig != nil {
				w.volume.Driver, w.volume.Options = o.DriverConfig.Name, o.DriverConfig.Options
			}
			if o.Subpath != "" && !filepath.IsLocal(o.Subpath) {
				return refuse("subpath must be a relative path within the volume")
			}
		}
		return w, nil
	case mount.TypeTmpfs:
		if m.Source != "" {
			return refuse("field Source must not be specified")
		}
		var err error
		w.Flags, w.Data, err = tmpfsOf(m)
		return w, err
	case mount.TypeImage, mount.TypeNamedPipe, mount.TypeCluster:
		return w, linkspan.Errorf(linkspan.ErrNotImplemented, "mounts of type %q are not supported: use bind, volume or tmpfs", m.Type)
	}
	return refuse("mount type unknown")
}

// bind reads the options of a bind mount.
func (w *wish) bind(m mount.Mount) error {
	w.Source, w.Propagation = filepath.Clean(m.Source), mount.PropagationRPrivate
	o := m.BindOptions
	if o == nil {
		return nil
	}
	w.Make, w.NonRecursive, w.TopOnly = o.CreateMountpoint, o.NonRecursive, o.ReadOnlyNonRecursive
	if o.Propagation != "" {
		if !slices.Contains(mount.Propagations, o.Propagation) {
			return linkspan.Errorf(linkspan.ErrInvalid, "invalid propagation mode: %s", o.Propagation)
		}
		w.Propagation, w.propagates = o.Propagation, true
	}
	switch {
	case o.ReadOnlyForceRecursive && !m.ReadOnly:
		return linkspan.Errorf(linkspan.ErrInvalid, "invalid mount config for type %q: mount must be read-only to be recursively so", m.Type)
	case o.ReadOnlyForceRecursive && o.ReadOnlyNonRecursive:
		return linkspan.Errorf(linkspan.ErrInvalid, "invalid mount config for type %q: read-only can be forced to be recursive or not to be, not both", m.Type)
	}
	return nil
}

// makeSources makes the folders of the host that binds of the old form may be
// without, and refuses others that are gone.
func makeSources(c Container) error {
	for _, m := range c.Mounts {
		if m.Type != mount.TypeBind {
			continue
		}
		_, err := os.Stat(m.Source)
		if !errors.Is(err, os.ErrNotExist) {
			continue // what else may be wrong shows when it is mounted
		}
		if !m.Make {
			return linkspan.Errorf(linkspan.ErrInvalid, "invalid mount config for type \"bind\": bind source path does not exist: %s", m.Source)
		}
		if err := os.MkdirAll(m.Source, 0o755); err != nil {
			return linkspan.Errorf(linkspan.ErrInvalid, "error while creating mount source path '%s': %w", m.Source, err)
		}
	}
	return nil
}

// volumeUsers tells for each volume which containers have it.
func (r *Runtime) volumeUsers() map[string][]linkspan.ID {
	users := map[string][]linkspan.ID{}
	for _, c := range r.List() {
		for _, m := range c.Mounts {
			if m.Type == mount.TypeVolume {
				users[m.Name] = append(users[m.Name], c.ID)
			}
		}
	}
	return users
}

// volumeEvents tells of each volume that a run begins, or ceases, to use.
func (r *Runtime) volumeEvents(c Container, action string) {
	for _, m := range c.Mounts {
		if m.Type != mount.TypeVolume {
			continue
		}
		attributes := map[string]string{"container": string(c.ID)}
		if action == "mount" {
			attributes["destination"], attributes["read/write"], attributes["propagation"] = m.Destination, strconv.FormatBool(m.RW), string(m.Propagation)
		}
		r.options.Volumes(volume.Event{Action: action, Name: m.Name, Attributes: attributes, Time: time.Now()})
	}
}

// Volumes are those of this data root.
func (r *Runtime) Volumes() *volume.Store { return r.volumes }
