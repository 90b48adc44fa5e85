// Package volume keeps folders that outlive containers.
//
// A volume is a directory with a name, which containers bind where they want:
//
//	mkdir -p DATA/volumes/pgdata/_data
//	mount --bind DATA/volumes/pgdata/_data ROOT/var/lib/postgresql
//
// Nothing else makes it a volume: what a container writes there is written to
// the directory, at the speed of the disk, and other containers see it at once.
//
//	DATA/volumes/NAME/volume.json   the record
//	DATA/volumes/NAME/_data         the files
//
// A volume without a name of its own gets 64 random digits, and goes with the
// container that it was made for, if that is removed with its volumes. Who uses
// a volume is not stored here but asked of the containers' records.
package volume

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/runtime/durable"
)

// Driver is the only driver there is.
const Driver = "local"

// AnonymousLabel marks volumes that have no name of their own, as Docker does.
const AnonymousLabel = "com.docker.volume.anonymous"

// Volume is one volume. It is a value; nobody changes what its maps hold.
type Volume struct {
	Name    string
	Created time.Time
	Labels  map[string]string
	Options map[string]string // type, o and device, as given
	Path    string            `json:"-"` // of its files
}

// Anonymous tells whether the volume has no name of its own.
func (v Volume) Anonymous() bool {
	_, ok := v.Labels[AnonymousLabel]
	return ok
}

// Options wires a Store. All are required.
type Options struct {
	DataRoot string                          // absolute; durable
	Users    func() map[string][]linkspan.ID // containers by the volumes that they have; must not call the store
	Events   func(Event)                     // must not call the store
	Logf     func(string, ...any)
}

// Event is something that happened to a volume, under Docker's name for it.
type Event struct {
	Action     string // create, mount, unmount, destroy, prune
	Name       string
	Attributes map[string]string // of a mount and its end: Docker's names for who, where and how
	Reclaimed  uint64            // bytes, of a prune
	Time       time.Time
}

// Store keeps the volumes of one data root. Its methods may be called
// concurrently.
type Store struct {
	options Options
	root    string

	mu      sync.Mutex // guards what follows; held for moments and small writes only
	volumes map[string]Volume
	held    map[string]int // that a creation under way needs
}

// Open reads the volumes of a data root. A folder that cannot be read is named
// to Logf and left alone.
func Open(o Options) (*Store, error) {
	s := &Store{options: o, root: filepath.Join(o.DataRoot, "volumes"), volumes: map[string]Volume{}, held: map[string]int{}}
	if err := os.MkdirAll(s.root, 0o711); err != nil {
		return nil, fmt.Errorf("making the volume store: %w", err)
	}
	entries, err := os.ReadDir(s.root)
	if err != nil {
		return nil, fmt.Errorf("reading volumes: %w", err)
	}
	for _, entry := range entries {
		name := entry.Name()
		if strings.HasPrefix(name, ".gone-") {
			if err := os.RemoveAll(filepath.Join(s.root, name)); err != nil {
				o.Logf("clearing up after a removed volume: %v", err)
			}
			continue
		}
		v, err := s.read(name)
		if err != nil {
			o.Logf("reading volume %s: %v", name, err)
			continue
		}
		s.volumes[name] = v
	}
	return s, nil
}

func (s *Store) read(name string) (Volume, error) {
	var v Volume
	text, err := os.ReadFile(filepath.Join(s.root, name, "volume.json"))
	if err != nil {
		return v, err
	}
	if err := json.Unmarshal(text, &v); err != nil {
		return v, err
	}
	if v.Name != name {
		return v, fmt.Errorf("it is of volume %q", v.Name)
	}
	v.Path = s.pathOf(v)
	return v, nil
}

// pathOf is where the files are: a volume of type none that is bound to a
// folder of the host has them there.
func (s *Store) pathOf(v Volume) string {
	return filepath.Join(s.root, v.Name, "_data")
}

// Source is what a container is to have mounted: the files, or the folder of
// the host that the volume stands for.
func (v Volume) Source() string {
	if device := v.Options["device"]; device != "" {
		return device
	}
	return v.Path
}

var nameForm = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]+$`)

// CheckName refuses what cannot be the name of a folder of ours.
func CheckName(name string) error {
	if nameForm.MatchString(name) && len(name) < 256 {
		return nil
	}
	return linkspan.Errorf(linkspan.ErrInvalid, `create %s: %q includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path`, name, name)
}

// Request is what a client wants to have created. An empty Name asks for a
// volume without a name of its own.
type Request struct {
	Name    string
	Driver  string
	Labels  map[string]string
	Options map[string]string
}

// Create returns a volume, made if there is none of that name.
func (s *Store) Create(q Request) (Volume, error) {
	v, release, err := s.Use(q)
	if err == nil {
		release()
	}
	return v, err
}

// Use is Create; the volume stays until release is called.
func (s *Store) Use(q Request) (v Volume, release func(), err error) {
	if err := check(q); err != nil {
		return v, nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.volumes[q.Name]
	if ok && len(q.Options) > 0 && !maps.Equal(q.Options, v.Options) {
		return v, nil, linkspan.Errorf(linkspan.ErrConflict, "create %s: a volume of this name exists with other options: remove it first (see: docker volume inspect %s)", q.Name, q.Name)
	}
	if !ok {
		if v, err = s.make(q); err != nil {
			return v, nil, err
		}
	}
	s.held[v.Name]++
	return v, sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.held[v.Name]--; s.held[v.Name] <= 0 {
			delete(s.held, v.Name)
		}
	}), nil
}

func check(q Request) error {
	if q.Driver != "" && q.Driver != Driver {
		return linkspan.Errorf(linkspan.ErrNotFound, "error looking up volume plugin %s: plugin %q not found", q.Driver, q.Driver)
	}
	if q.Name != "" {
		if err := CheckName(q.Name); err != nil {
			return err
		}
	}
	for key := range q.Options {
		if key != "type" && key != "o" && key != "device" {
			return linkspan.Errorf(linkspan.ErrInvalid, "create %s: invalid option: %q", q.Name, key)
		}
	}
	if len(q.Options) == 0 {
		return nil
	}
	binds := slices.ContainsFunc(strings.Split(q.Options["o"], ","), func(o string) bool { return o == "bind" || o == "rbind" })
	device := q.Options["device"]
	switch {
	case !binds:
		return linkspan.Errorf(linkspan.ErrNotImplemented, "create %s: a volume of type %q is not supported: only folders of the host are (--opt type=none --opt o=bind --opt device=/dir)", q.Name, q.Options["type"])
	case !filepath.IsAbs(device):
		return linkspan.Errorf(linkspan.ErrInvalid, "create %s: missing device in volume options: it must be an absolute path", q.Name)
	}
	return nil
}

// make must be called with mu held. The record is there last but for the
// rename that makes all of it appear.
func (s *Store) make(q Request) (Volume, error) {
	v := Volume{Name: q.Name, Created: time.Now().UTC(), Labels: maps.Clone(q.Labels), Options: maps.Clone(q.Options)}
	if v.Name == "" {
		v.Name = string(linkspan.NewID())
		if v.Labels == nil {
			v.Labels = map[string]string{}
		}
		v.Labels[AnonymousLabel] = ""
	}
	v.Path = s.pathOf(v)
	dir, err := os.MkdirTemp(s.root, ".gone-") // a name that the next daemon clears up
	if err != nil {
		return v, fmt.Errorf("making volume %s: %w", v.Name, err)
	}
	err = os.Mkdir(filepath.Join(dir, "_data"), 0o755)
	if err == nil {
		err = os.Chmod(dir, 0o701)
	}
	if err == nil {
		err = durable.Replace(filepath.Join(dir, "volume.json"), v, !v.Anonymous())
	}
	if err == nil {
		err = os.Rename(dir, filepath.Join(s.root, v.Name))
	}
	if err != nil {
		return v, errors.Join(fmt.Errorf("making volume %s: %w", v.Name, err), os.RemoveAll(dir))
	}
	s.volumes[v.Name] = v
	s.event("create", v.Name)
	return v, nil
}

func (s *Store) event(action, name string) {
	s.options.Events(Event{Action: action, Name: name, Time: time.Now()})
}

// Get returns a volume by its name.
func (s *Store) Get(name string) (Volume, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.get(name)
}

func (s *Store) get(name string) (Volume, error) {
	v, ok := s.volumes[name]
	if !ok {
		return v, linkspan.Errorf(linkspan.ErrNotFound, "get %s: no such volume", name)
	}
	return v, nil
}

// List returns all volumes by name.
func (s *Store) List() []Volume {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.SortedFunc(maps.Values(s.volumes), func(a, b Volume) int { return strings.Compare(a.Name, b.Name) })
}

// Users returns the containers that have a volume.
func (s *Store) Users() map[string][]linkspan.ID { return s.options.Users() }
