package image

import (
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/linkspan/linkspan/runtime/durable"
)

// manifestOf returns the manifest of an image: the one that it came with, or
// one of the layers as they are. With zipped, layers that are not compressed
// are, as registries would have them, and the manifest is kept.
func (s *Store) manifestOf(in *ingest, i Image, zipped bool) (text []byte, m ocispec.Manifest, err error) {
	if i.Manifest != "" {
		if text, err = os.ReadFile(s.blobPath(i.Manifest)); err == nil {
			err = json.Unmarshal(text, &m)
		}
		if err != nil {
			return nil, m, fmt.Errorf("reading manifest %s: %w", i.Manifest, err)
		}
		return text, m, nil
	}
	config, err := os.Stat(s.blobPath(i.ID))
	if err != nil {
		return nil, m, fmt.Errorf("reading configuration: %w", err)
	}
	m = ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: i.ID, Size: config.Size()},
	}
	for _, diff := range i.Spec.RootFS.DiffIDs {
		l, ok := in.known(diff)
		if !ok {
			return nil, m, fmt.Errorf("layer %s is missing", diff)
		}
		blob := l.Blob
		if zipped && blob.MediaType == ocispec.MediaTypeImageLayer {
			if blob, err = in.zip(l); err != nil {
				return nil, m, err
			}
		}
		m.Layers = append(m.Layers, ocispec.Descriptor{MediaType: blob.MediaType, Digest: blob.Digest, Size: blob.Size})
	}
	if text, err = json.Marshal(m); err != nil {
		return nil, m, fmt.Errorf("encoding manifest: %w", err)
	}
	return text, m, nil
}

// zip makes, once, the compressed form of a layer that came without.
func (in *ingest) zip(l Layer) (Blob, error) {
	if l.Gzip != nil {
		return *l.Gzip, nil
	}
	s := in.s
	source, err := os.Open(s.blobPath(l.Blob.Digest))
	if err != nil {
		return Blob{}, fmt.Errorf("compressing layer %s: %w", l.Diff, err)
	}
	defer source.Close() //nolint:errcheck // it was only read
	target, err := os.CreateTemp(s.path("tmp"), "gzip-")
	if err != nil {
		return Blob{}, fmt.Errorf("compressing layer %s: %w", l.Diff, err)
	}
	defer os.Remove(target.Name()) //nolint:errcheck // it has moved, unless something failed
	sum := newCounted()
	packer := gzip.NewWriter(io.MultiWriter(target, sum))
	_, err = io.Copy(packer, source)
	if err = errors.Join(err, packer.Close(), target.Close()); err != nil {
		return Blob{}, fmt.Errorf("compressing layer %s: %w", l.Diff, err)
	}
	blob := Blob{Digest: sum.digest(), MediaType: ocispec.MediaTypeImageLayerGzip, Size: sum.n}
	s.mu.Lock()
	defer s.mu.Unlock()
	in.release = append(in.release, s.hold(blob.Digest))
	if err := os.Rename(target.Name(), s.blobPath(blob.Digest)); err != nil {
		return Blob{}, fmt.Errorf("compressing layer %s: %w", l.Diff, err)
	}
	l.Gzip = &blob
	s.layers[l.Diff] = l
	return blob, durable.Replace(s.path("layers", l.Diff.Encoded(), "layer.json"), l, false)
}

// keepManifest notes by which manifest a registry knows an image from now on.
func (s *Store) keepManifest(in *ingest, id digest.Digest, text []byte) (digest.Digest, error) {
	d, err := in.blob(text)
	if err != nil {
		return d, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.images[id]
	if i == nil {
		return d, errNoImage(string(id))
	}
	if i.Manifest == d {
		return d, nil
	}
	i.Manifest = d
	return d, s.saveRecord(i)
}
