package image

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"

	"github.com/linkspan/linkspan"
	"github.com/linkspan/linkspan/runtime/durable"
)

// Options wires a Store.
type Options struct {
	DataRoot string        // absolute; durable
	InUse    func() []User // containers, whose images and layers are kept; must not call the store
	Events   func(Event)   // must not call the store
	Logf     func(string, ...any)
	Insecure []string // registries, as host or host:port, that may speak plain HTTP or show any certificate
}

// User is a container as far as images concern it.
type User struct {
	Container linkspan.ID
	Image     string // ID of the image
	Lower     []string
	Running   bool
}

// Event is something that happened to an image, under Docker's name for it.
type Event struct {
	Action    string // import, load, pull, push, tag, untag, delete, prune, save
	ID        string // of the image, or a reference
	Name      string
	Labels    map[string]string
	Reclaimed uint64 // bytes, of a prune
	Time      time.Time
}

// Store keeps the images of one data root. Its methods may be called
// concurrently.
type Store struct {
	options   Options
	root      string
	transport http.RoundTripper // to registries

	mu     sync.Mutex               // guards what follows; held for moments and small writes only
	images map[digest.Digest]*Image // by ID
	layers map[digest.Digest]Layer  // by the digest of the unpacked tar
	short  map[string]digest.Digest // names of links below l
	tags   map[string]digest.Digest // familiar or full name with tag → ID
	names  map[string]digest.Digest // full name @ digest of a manifest → ID
	held   map[digest.Digest]int    // images, layers and blobs that a request under way needs
}

// Image is one image. It is a value whose pointers lead to data that nobody
// changes.
type Image struct {
	ID       digest.Digest // of the configuration
	Parent   digest.Digest // what it was committed from; or empty
	Manifest digest.Digest // by which it came from a registry or an archive; or empty
	Tagged   time.Time     // when it last got a name
	Spec     dockerspec.DockerOCIImage
	Size     int64    // bytes of all unpacked layers
	Lower    []string // directories of the layers, topmost first
	Tags     []string // familiar names with tag, sorted
	Digests  []string // familiar names with digest, sorted
}

// record is an image on disk; the rest is in the configuration's blob.
type record struct {
	ID       digest.Digest
	Parent   digest.Digest `json:",omitempty"`
	Manifest digest.Digest `json:",omitempty"`
	Tagged   time.Time
}

// references are the names on disk.
type references struct {
	Tags    map[string]digest.Digest
	Digests map[string]digest.Digest
}

// Open reads the images of a data root, and takes away what an earlier daemon
// left half made. A record that cannot be read is named to Logf and left alone.
func Open(o Options) (*Store, error) {
	s := &Store{
		options: o, root: filepath.Join(o.DataRoot, "images"), images: map[digest.Digest]*Image{}, layers: map[digest.Digest]Layer{},
		short: map[string]digest.Digest{}, tags: map[string]digest.Digest{}, names: map[string]digest.Digest{}, held: map[digest.Digest]int{},
	}
	s.transport = s.newTransport()
	if !filepath.IsAbs(o.DataRoot) {
		return nil, linkspan.Errorf(linkspan.ErrInvalid, "root %q is not an absolute path", o.DataRoot)
	}
	if err := os.RemoveAll(s.path("tmp")); err != nil {
		return nil, fmt.Errorf("clearing up after an earlier daemon: %w", err)
	}
	for _, dir := range []string{"tmp", "blobs/sha256", "layers", "l", "images"} {
		if err := os.MkdirAll(s.path(dir), 0o711); err != nil {
			return nil, fmt.Errorf("making the image store: %w", err)
		}
	}
	if err := s.readLayers(); err != nil {
		return nil, err
	}
	if err := s.readImages(); err != nil {
		return nil, err
	}
	return s, s.readReferences()
}

func (s *Store) path(elements ...string) string {
	return filepath.Join(append([]string{s.root}, elements...)...)
}

// Temporary is the folder of what is under way.
func (s *Store) Temporary() string { return s.path("tmp") }

func (s *Store) blobPath(d digest.Digest) string { return s.path("blobs", "sha256", d.Encoded()) }

func (s *Store) readImages() error {
	entries, err := os.ReadDir(s.path("images"))
	if err != nil {
		return fmt.Errorf("reading images: %w", err)
	}
	for _, entry := range entries {
		var r record
		err := readJSON(s.path("images", entry.Name()), &r)
		if err == nil && r.ID.Encoded()+".json" != entry.Name() {
			err = fmt.Errorf("it is of image %q", r.ID)
		}
		var image *Image
		if err == nil {
			image, err = s.image(r)
		}
		if err != nil {
			s.options.Logf("reading image %s: %v", entry.Name(), err)
			continue
		}
		s.images[r.ID] = image
	}
	return nil
}

// image completes a record. It must be called with mu held, or by Open.
func (s *Store) image(r record) (*Image, error) {
	raw, err := os.ReadFile(s.blobPath(r.ID))
	if err != nil {
		return nil, err
	}
	image := &Image{ID: r.ID, Parent: r.Parent, Manifest: r.Manifest, Tagged: r.Tagged}
	if err := json.Unmarshal(raw, &image.Spec); err != nil {
		return nil, fmt.Errorf("reading its configuration: %w", err)
	}
	for _, id := range image.Spec.RootFS.DiffIDs {
		layer, ok := s.layers[id]
		if !ok {
			return nil, fmt.Errorf("its layer %s is missing", id)
		}
		image.Size += layer.Size
		image.Lower = append(image.Lower, layer.link)
	}
	slices.Reverse(image.Lower)
	return image, nil
}

func (s *Store) readReferences() error {
	var r references
	if err := readJSON(s.path("references.json"), &r); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for into, from := range map[*map[string]digest.Digest]map[string]digest.Digest{&s.tags: r.Tags, &s.names: r.Digests} {
		for name, id := range from {
			if s.images[id] != nil {
				(*into)[name] = id
			}
		}
	}
	return nil
}

// saveReferences must be called with mu held.
func (s *Store) saveReferences() error {
	return durable.Replace(s.path("references.json"), references{Tags: s.tags, Digests: s.names}, true)
}

func (s *Store) saveRecord(i *Image) error {
	return durable.Replace(s.path("images", i.ID.Encoded()+".json"), record{ID: i.ID, Parent: i.Parent, Manifest: i.Manifest, Tagged: i.Tagged}, true)
}

func readJSON(name string, v any) error {
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, v); err != nil {
		return fmt.Errorf("reading %s: %w", name, err)
	}
	return nil
}

// named returns a copy of an image with its names. It must be called with mu
// held.
func (s *Store) named(i *Image) Image {
	copied := *i
	copied.Tags, copied.Digests = nil, nil
	for name, id := range s.tags {
		if id == i.ID {
			copied.Tags = append(copied.Tags, familiar(name))
		}
	}
	for name, id := range s.names {
		if id == i.ID {
			copied.Digests = append(copied.Digests, familiar(name))
		}
	}
	slices.Sort(copied.Tags)
	slices.Sort(copied.Digests)
	return copied
}

// List returns all images, newest first.
func (s *Store) List() []Image {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]Image, 0, len(s.images))
	for i := range maps.Values(s.images) {
		list = append(list, s.named(i))
	}
	slices.SortFunc(list, func(a, b Image) int {
		return cmp.Or(b.Created().Compare(a.Created()), strings.Compare(string(a.ID), string(b.ID)))
	})
	return list
}

// Created is the moment that the configuration gives, or the zero time.
func (i Image) Created() time.Time {
	if i.Spec.Created == nil {
		return time.Time{}
	}
	return *i.Spec.Created
}

// Get returns the image that ref names: a name with or without a tag or a
// digest, an ID, or an unambiguous beginning of one.
func (s *Store) Get(ref string) (Image, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, err := s.find(ref)
	if err != nil {
		return Image{}, err
	}
	return s.named(i), nil
}

// Use returns an image that stays until release is called, whoever removes
// its names meanwhile.
func (s *Store) Use(ref string) (i Image, release func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	found, err := s.find(ref)
	if err != nil {
		return Image{}, nil, err
	}
	return s.named(found), s.hold(found.ID), nil
}

// hold keeps things from being swept. It must be called with mu held; the
// function it returns, without.
func (s *Store) hold(ids ...digest.Digest) func() {
	for _, id := range ids {
		s.held[id]++
	}
	return sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, id := range ids {
			if s.held[id]--; s.held[id] <= 0 {
				delete(s.held, id)
			}
		}
	})
}

func (s *Store) event(action, id, name string, labels map[string]string) {
	s.options.Events(Event{Action: action, ID: id, Name: name, Labels: labels, Time: time.Now()})
}
