package image

import (
	"encoding/json"
	"fmt"
	"io"
	goruntime "runtime"
	"time"

	"github.com/distribution/reference"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/linkspan/linkspan"
)

// addition is an image whose layers and blobs are all in place.
type addition struct {
	config   []byte
	parent   digest.Digest
	manifest digest.Digest
	tags     []reference.NamedTagged
	digests  []reference.Canonical
}

// add makes the image known. One with the same ID stays as it is and gets the
// names.
func (in *ingest) add(a addition) (Image, error) {
	s := in.s
	id, err := in.blob(a.config)
	if err != nil {
		return Image{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.images[id]
	if i == nil {
		if i, err = s.image(record{ID: id, Parent: a.parent, Manifest: a.manifest, Tagged: time.Now().UTC()}); err != nil {
			return Image{}, linkspan.Errorf(linkspan.ErrInvalid, "invalid image configuration: %w", err)
		}
		if err := s.saveRecord(i); err != nil {
			return Image{}, err
		}
		s.images[id] = i
	} else if i.Manifest == "" && a.manifest != "" {
		i.Manifest = a.manifest
		if err := s.saveRecord(i); err != nil {
			return Image{}, err
		}
	}
	for _, name := range a.digests {
		s.names[name.Name()+"@"+name.Digest().String()] = id
	}
	if len(a.digests) > 0 {
		if err := s.saveReferences(); err != nil {
			return Image{}, err
		}
	}
	for _, name := range a.tags {
		if err := s.tag(i, name); err != nil {
			return Image{}, err
		}
	}
	return s.named(i), nil
}

// ImportOptions say what an imported file system is to be.
type ImportOptions struct {
	Name     string // with or without tag; "" for none
	Message  string
	Config   dockerspec.DockerOCIImageConfig
	Platform ocispec.Platform // zero: this machine's
}

// Import makes an image of one layer from a tar archive, compressed or not. It
// reads as it unpacks: how large the archive is does not matter.
func (s *Store) Import(r io.Reader, o ImportOptions) (Image, error) {
	var tags []reference.NamedTagged
	if o.Name != "" {
		name, err := ParseName(o.Name)
		if err != nil {
			return Image{}, err
		}
		tags = append(tags, name)
	}
	in := s.ingest()
	defer in.done()
	layer, err := in.layer(r, "")
	if err != nil {
		return Image{}, err
	}
	now := time.Now().UTC()
	config := dockerspec.DockerOCIImage{
		Image: ocispec.Image{
			Created: &now, Platform: o.Platform, RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{layer.Diff}},
			History: []ocispec.History{{Created: &now, Comment: o.Message}},
		},
		Config: o.Config,
	}
	if config.OS == "" {
		config.OS = "linux"
	}
	if config.Architecture == "" {
		config.Architecture = goruntime.GOARCH
	}
	text, err := json.Marshal(config)
	if err != nil {
		return Image{}, fmt.Errorf("encoding the image's configuration: %w", err)
	}
	i, err := in.add(addition{config: text, tags: tags})
	if err == nil {
		s.event("import", string(i.ID), o.Name, nil)
	}
	return i, err
}
