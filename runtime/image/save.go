package image

import (
	"archive/tar"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/linkspan/linkspan"
)

// Save writes images as one archive that docker load reads, and that is an OCI
// layout as well. All references are looked up before the first byte.
func (s *Store) Save(refs []string, w func() io.Writer) error {
	if len(refs) == 0 {
		return linkspan.Errorf(linkspan.ErrInvalid, "no image named")
	}
	out := export{s: s, names: map[digest.Digest][]string{}}
	in := s.ingest()
	defer in.done()
	for _, ref := range refs {
		i, release, err := s.Use(ref)
		if err != nil {
			return err
		}
		defer release()
		if _, twice := out.names[i.ID]; !twice {
			out.images = append(out.images, i)
			out.names[i.ID] = nil
		}
		for _, name := range i.called(ref) {
			if !slices.Contains(out.names[i.ID], name) {
				out.names[i.ID] = append(out.names[i.ID], name)
			}
		}
	}
	out.tar = tar.NewWriter(w())
	for _, i := range out.images {
		if err := out.add(in, i); err != nil {
			return err
		}
		s.event("save", string(i.ID), string(i.ID), i.Spec.Config.Labels)
	}
	return out.end()
}

// called returns the names that an archive has an image under: the one asked
// for, all for a repository without a tag, none for an ID.
func (i Image) called(ref string) []string {
	if isID(ref, &i) && !slices.Contains(i.Tags, ref+":latest") {
		return nil
	}
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return nil
	}
	if _, digested := named.(reference.Digested); digested {
		return nil
	}
	return []string{reference.FamiliarString(reference.TagNameOnly(named))}
}

// export is an archive being written.
type export struct {
	s       *Store
	tar     *tar.Writer
	images  []Image
	names   map[digest.Digest][]string
	written map[digest.Digest]bool
	list    []saved
	index   ocispec.Index
}

func (e *export) add(in *ingest, i Image) error {
	text, m, err := e.s.manifestOf(in, i, false)
	if err != nil {
		return err
	}
	one := saved{Config: blobPlace(m.Config.Digest), RepoTags: e.names[i.ID]}
	if err := e.blob(m.Config.Digest); err != nil {
		return err
	}
	for _, l := range m.Layers {
		one.Layers = append(one.Layers, blobPlace(l.Digest))
		if err := e.blob(l.Digest); err != nil {
			return err
		}
	}
	d := digest.FromBytes(text)
	if err := e.text(blobPlace(d), text); err != nil {
		return err
	}
	e.list = append(e.list, one)
	entry := ocispec.Descriptor{
		MediaType: m.MediaType, Digest: d, Size: int64(len(text)),
		Platform: &ocispec.Platform{OS: i.Spec.OS, Architecture: i.Spec.Architecture, Variant: i.Spec.Variant},
	}
	if entry.MediaType == "" {
		entry.MediaType = ocispec.MediaTypeImageManifest
	}
	for _, name := range e.names[i.ID] {
		named := entry
		if full, err := ParseName(name); err == nil {
			named.Annotations = map[string]string{"io.containerd.image.name": full.String(), ocispec.AnnotationRefName: full.Tag()}
		}
		e.index.Manifests = append(e.index.Manifests, named)
	}
	if len(e.names[i.ID]) == 0 {
		e.index.Manifests = append(e.index.Manifests, entry)
	}
	return nil
}

func blobPlace(d digest.Digest) string {
	return path.Join("blobs", d.Algorithm().String(), d.Encoded())
}

// end writes what the rest is found by.
func (e *export) end() error {
	e.index.Versioned, e.index.MediaType = specs.Versioned{SchemaVersion: 2}, ocispec.MediaTypeImageIndex
	for _, file := range []struct {
		name string
		v    any
	}{
		{ocispec.ImageIndexFile, e.index},
		{"manifest.json", e.list},
		{ocispec.ImageLayoutFile, ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion}},
	} {
		text, err := json.Marshal(file.v)
		if err != nil {
			return fmt.Errorf("encoding %s: %w", file.name, err)
		}
		if err := e.text(file.name, text); err != nil {
			return err
		}
	}
	return e.tar.Close()
}

func (e *export) blob(d digest.Digest) error {
	if e.written[d] {
		return nil
	}
	file, err := os.Open(e.s.blobPath(d))
	if err != nil {
		return fmt.Errorf("writing archive: %w", err)
	}
	defer file.Close() //nolint:errcheck // it was only read
	info, err := file.Stat()
	if err != nil {
		return fmt.Errorf("writing archive: %w", err)
	}
	if err := e.header(blobPlace(d), info.Size()); err != nil {
		return err
	}
	if _, err := io.Copy(e.tar, file); err != nil {
		return fmt.Errorf("writing archive: %w", err)
	}
	if e.written == nil {
		e.written = map[digest.Digest]bool{}
	}
	e.written[d] = true
	return nil
}

func (e *export) text(name string, text []byte) error {
	err := e.header(name, int64(len(text)))
	if err == nil {
		_, err = e.tar.Write(text)
	}
	if err != nil {
		return fmt.Errorf("writing archive: %w", err)
	}
	return nil
}

// header has no time of its own: the same images make the same archive.
func (e *export) header(name string, size int64) error {
	return e.tar.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: size, ModTime: time.Unix(0, 0)})
}
