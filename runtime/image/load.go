package image

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/distribution/reference"
	"github.com/moby/go-archive/compression"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/linkspan/linkspan"
)

// Progress is told how something goes on; it must not keep what it is given.
// It is called by one goroutine at a time.
type Progress func(jsonstream.Message)

// maxMetadata is how long a manifest or configuration may be, in bytes.
const maxMetadata = 8 << 20

// bundle is an archive of images on the disk: its order is not ours, so what
// comes first cannot be understood before all is there.
type bundle struct {
	dir   string
	files map[string]string // name in the archive → path on the disk
	links map[string]string // name → name
}

// saved is an entry of manifest.json, as docker save writes it.
type saved struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// Load takes in the images of an archive by docker save, or of an OCI layout.
// It goes through the disk: how large the archive is does not matter.
func (s *Store) Load(r io.Reader, want ocispec.Platform, tell Progress) error {
	dir, err := os.MkdirTemp(s.path("tmp"), "load-")
	if err != nil {
		return fmt.Errorf("making room for an archive: %w", err)
	}
	defer os.RemoveAll(dir) //nolint:errcheck // the next daemon does what is left
	b := bundle{dir: dir, files: map[string]string{}, links: map[string]string{}}
	if err := b.read(r); err != nil {
		return err
	}
	var list []saved
	switch err := b.json("manifest.json", &list); {
	case err == nil && len(list) > 0:
		for _, one := range list {
			if err := s.loadSaved(b, one, tell); err != nil {
				return err
			}
		}
		return nil
	case err != nil && !errors.Is(err, errNotInArchive):
		return err
	}
	var index ocispec.Index
	if err := b.json("index.json", &index); err != nil {
		return linkspan.Errorf(linkspan.ErrInvalid, "invalid archive: it has neither manifest.json (docker save) nor index.json (OCI layout)")
	}
	return s.loadIndex(b, index, "", want, tell)
}

var errNotInArchive = errors.New("not in the archive")

func (b *bundle) read(r io.Reader) error {
	stream, err := compression.DecompressStream(r)
	if err != nil {
		return readingArchive(err)
	}
	defer stream.Close() //nolint:errcheck // it only read
	for archive := tar.NewReader(stream); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return readingArchive(err)
		}
		name := path.Clean(strings.TrimLeft(header.Name, "/"))
		if !filepath.IsLocal(name) {
			return linkspan.Errorf(linkspan.ErrInvalid, "invalid archive: entry %q leads out of it", header.Name)
		}
		switch header.Typeflag {
		case tar.TypeReg:
			if err := b.keep(name, archive); err != nil {
				return err
			}
		case tar.TypeLink:
			b.links[name] = path.Clean(header.Linkname)
		case tar.TypeSymlink:
			b.links[name] = path.Join(path.Dir(name), header.Linkname)
		}
	}
}

// keep writes an entry under a name of our own: what is in the archive names
// no file of the disk.
func (b *bundle) keep(name string, r io.Reader) error {
	place := filepath.Join(b.dir, strconv.Itoa(len(b.files)))
	file, err := os.OpenFile(place, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("spooling archive: %w", err)
	}
	_, err = io.Copy(file, r)
	if cerr := file.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return readingArchive(err)
	}
	b.files[name] = place
	return nil
}

func (b *bundle) open(name string) (*os.File, error) {
	name = path.Clean(name)
	for range 10 { // links to links
		if place, ok := b.files[name]; ok {
			return os.Open(place)
		}
		next, ok := b.links[name]
		if !ok {
			break
		}
		name = next
	}
	return nil, linkspan.Errorf(linkspan.ErrInvalid, "invalid archive: %s is %w", name, errNotInArchive)
}

func (b *bundle) bytes(name string) ([]byte, error) {
	file, err := b.open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close() //nolint:errcheck // it was only read
	text, err := io.ReadAll(io.LimitReader(file, maxMetadata+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s of the archive: %w", name, err)
	}
	if len(text) > maxMetadata {
		return nil, linkspan.Errorf(linkspan.ErrInvalid, "invalid archive: %s has more than %d bytes", name, maxMetadata)
	}
	return text, nil
}

func (b *bundle) json(name string, v any) error {
	text, err := b.bytes(name)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, v); err != nil {
		return linkspan.Errorf(linkspan.ErrInvalid, "invalid archive: reading %s: %w", name, err)
	}
	return nil
}

func (s *Store) loadSaved(b bundle, one saved, tell Progress) error {
	config, err := b.bytes(one.Config)
	if err != nil {
		return err
	}
	var names []reference.NamedTagged
	for _, tag := range one.RepoTags {
		name, err := ParseName(tag)
		if err != nil {
			return err
		}
		names = append(names, name)
	}
	return s.loadImage(b, addition{config: config, tags: names}, one.Layers, tell)
}

// loadImage takes in an image whose layers are at places of the archive, from
// the lowest up.
func (s *Store) loadImage(b bundle, a addition, layers []string, tell Progress) error {
	diffs, err := diffsOf(a.config)
	if err != nil {
		return err
	}
	if len(diffs) != len(layers) {
		return linkspan.Errorf(linkspan.ErrInvalid, "invalid archive: a configuration of %d layers with %d of them", len(diffs), len(layers))
	}
	in := s.ingest()
	defer in.done()
	for n, diff := range diffs {
		if _, ok := in.known(diff); ok {
			continue
		}
		if err := in.layerOf(b, layers[n], diff); err != nil {
			return err
		}
		tell(jsonstream.Message{ID: diff.Encoded()[:12], Status: "Loading layer"})
	}
	i, err := in.add(a)
	if err != nil {
		return err
	}
	s.event("load", string(i.ID), string(i.ID), i.Spec.Config.Labels)
	if len(a.tags) == 0 {
		tell(jsonstream.Message{Stream: "Loaded image ID: " + string(i.ID) + "\n"})
	}
	for _, name := range a.tags {
		tell(jsonstream.Message{Stream: "Loaded image: " + reference.FamiliarString(name) + "\n"})
	}
	return nil
}

func (in *ingest) layerOf(b bundle, name string, diff digest.Digest) error {
	file, err := b.open(name)
	if err != nil {
		return err
	}
	defer file.Close() //nolint:errcheck // it was only read
	_, err = in.layer(file, diff)
	return err
}

// diffsOf reads the layers of a configuration, from the lowest up.
func diffsOf(config []byte) ([]digest.Digest, error) {
	var c ocispec.Image
	if err := json.Unmarshal(config, &c); err != nil {
		return nil, linkspan.Errorf(linkspan.ErrInvalid, "invalid image configuration: %w", err)
	}
	for _, diff := range c.RootFS.DiffIDs {
		if err := diff.Validate(); err != nil || diff.Algorithm() != digest.SHA256 {
			return nil, linkspan.Errorf(linkspan.ErrInvalid, "invalid image configuration: layer %q is no SHA-256", diff)
		}
	}
	if len(c.RootFS.DiffIDs) == 0 {
		return nil, linkspan.Errorf(linkspan.ErrInvalid, "invalid image configuration: it has no layers")
	}
	return c.RootFS.DiffIDs, nil
}

// blobName is where an OCI layout has a file.
func blobName(d digest.Digest) (string, error) {
	if err := d.Validate(); err != nil {
		return "", linkspan.Errorf(linkspan.ErrInvalid, "invalid archive: %q is no digest", d)
	}
	return path.Join("blobs", d.Algorithm().String(), d.Encoded()), nil
}

// loadIndex takes in what an index of an OCI layout lists: images of the
// platform that is wanted, and further indexes.
func (s *Store) loadIndex(b bundle, index ocispec.Index, name string, want ocispec.Platform, tell Progress) error {
	loaded := false
	for _, d := range index.Manifests {
		at, err := blobName(d.Digest)
		if err != nil {
			return err
		}
		called := nameOf(d.Annotations, name)
		switch {
		case d.MediaType == ocispec.MediaTypeImageIndex || d.MediaType == dockerList:
			var inner ocispec.Index
			if err := b.json(at, &inner); err != nil {
				return err
			}
			if err := s.loadIndex(b, inner, called, want, tell); err != nil {
				return err
			}
		case d.Platform != nil && !fits(*d.Platform, want):
			continue
		default:
			if err := s.loadManifest(b, at, called, tell); err != nil {
				return err
			}
		}
		loaded = true
	}
	if !loaded {
		return linkspan.Errorf(linkspan.ErrNotFound, "no image for platform %s in the archive", platformText(want))
	}
	return nil
}

// nameOf reads the annotations that tools leave an image's name in.
func nameOf(annotations map[string]string, inherited string) string {
	for _, key := range []string{"io.containerd.image.name", ocispec.AnnotationRefName} {
		if text := annotations[key]; text != "" {
			if _, err := ParseName(text); err == nil && (key != ocispec.AnnotationRefName || strings.ContainsAny(text, ":/")) {
				return text
			}
		}
	}
	return inherited
}

func (s *Store) loadManifest(b bundle, at, called string, tell Progress) error {
	var m ocispec.Manifest
	if err := b.json(at, &m); err != nil {
		return err
	}
	text, err := b.bytes(at)
	if err != nil {
		return err
	}
	configAt, err := blobName(m.Config.Digest)
	if err != nil {
		return err
	}
	a := addition{}
	if a.config, err = b.bytes(configAt); err != nil {
		return err
	}
	if digest.FromBytes(a.config) != m.Config.Digest || digest.FromBytes(text).Encoded() != path.Base(at) {
		return linkspan.Errorf(linkspan.ErrInvalid, "invalid archive: %s is not what its digest says", at)
	}
	if called != "" {
		name, err := ParseName(called)
		if err != nil {
			return err
		}
		a.tags = []reference.NamedTagged{name}
	}
	var layers []string
	for _, l := range m.Layers {
		layerAt, err := blobName(l.Digest)
		if err != nil {
			return err
		}
		layers = append(layers, layerAt)
	}
	return s.loadImage(b, a, layers, tell)
}
