package image

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/linkspan/linkspan"
)

// Push sends an image to the registry that its name says; with all, every tag
// of the repository. An error before the first report is a plain refusal.
func (s *Store) Push(ctx context.Context, ref string, all bool, c Credentials, tell Progress) error {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return errReference(err)
	}
	if _, digested := named.(reference.Digested); digested {
		return linkspan.Errorf(linkspan.ErrInvalid, "cannot push a digest reference")
	}
	targets := []reference.Named{reference.TagNameOnly(named)}
	if all {
		targets = s.tagsOf(named)
	}
	for n, target := range targets {
		if _, err := s.Get(target.String()); err != nil {
			targets[n] = nil
		}
	}
	targets = slices.DeleteFunc(targets, func(t reference.Named) bool { return t == nil })
	if len(targets) == 0 {
		return linkspan.Errorf(linkspan.ErrNotFound, "An image does not exist locally with the tag: %s", reference.FamiliarName(named))
	}
	tell = serial(tell)
	to, err := s.remoteName(targets[0])
	if err != nil {
		return refused("push", named, err)
	}
	// What a registry refuses at once is refused before any report.
	announce := sync.OnceFunc(func() {
		tell(jsonstream.Message{Status: "The push refers to repository [" + to.Context().Name() + "]"})
	})
	for _, target := range targets {
		if err := s.push(ctx, target, c, announce, tell); err != nil {
			return refused("push", target, err)
		}
	}
	return nil
}

func (s *Store) tagsOf(named reference.Named) []reference.Named {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []reference.Named
	for full := range s.tags {
		if strings.HasPrefix(full, named.Name()+":") {
			if parsed, err := reference.ParseNormalizedNamed(full); err == nil {
				names = append(names, parsed)
			}
		}
	}
	slices.SortFunc(names, func(a, b reference.Named) int { return strings.Compare(a.String(), b.String()) })
	return names
}

func (s *Store) push(ctx context.Context, named reference.Named, c Credentials, announce func(), tell Progress) error {
	at, err := s.remoteName(named)
	if err != nil {
		return err
	}
	i, release, err := s.Use(named.String())
	if err != nil {
		return err
	}
	defer release()
	in := s.ingest()
	defer in.done()
	text, m, err := s.manifestOf(in, i, true)
	if err != nil {
		return err
	}
	local := &localImage{s: s, id: i.ID, text: text, manifest: m}
	whole, err := partial.CompressedToImage(local)
	if err != nil {
		return fmt.Errorf("reading image %s: %w", i.ID, err)
	}
	pusher, err := remote.NewPusher(s.remoteOptions(ctx, c)...)
	if err != nil {
		return err
	}
	if err := s.upload(ctx, pusher, at.Context(), m, announce, tell); err != nil {
		return err
	}
	if err := pusher.Push(ctx, at, whole); err != nil {
		return err
	}
	d, err := s.keepManifest(in, i.ID, text)
	if err != nil {
		return err
	}
	if err := s.nameDigest(i.ID, named, d); err != nil {
		return err
	}
	tag := at.Identifier()
	tell(jsonstream.Message{Status: fmt.Sprintf("%s: digest: %s size: %d", tag, d, len(text))})
	aux, err := json.Marshal(struct {
		Tag    string
		Digest string
		Size   int
	}{tag, d.String(), len(text)})
	if err != nil {
		return fmt.Errorf("encoding the result: %w", err)
	}
	raw := json.RawMessage(aux)
	tell(jsonstream.Message{Progress: &jsonstream.Progress{}, Aux: &raw})
	s.event("push", reference.FamiliarString(named), reference.FamiliarName(named), i.Spec.Config.Labels)
	return nil
}

// nameDigest notes that a repository has the image under a digest.
func (s *Store) nameDigest(id digest.Digest, named reference.Named, d digest.Digest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.names[named.Name()+"@"+d.String()] = id
	return s.saveReferences()
}

func (s *Store) upload(ctx context.Context, pusher *remote.Pusher, to name.Repository, m ocispec.Manifest, announce func(), tell Progress) error {
	prepare := sync.OnceFunc(func() {
		announce()
		for _, d := range m.Layers {
			tell(jsonstream.Message{ID: d.Digest.Encoded()[:12], Status: "Preparing"})
		}
	})
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(transfers)
	for _, d := range m.Layers {
		layer := &localLayer{s: s, Descriptor: d}
		id := d.Digest.Encoded()[:12]
		layer.tell = func(n int64) {
			prepare()
			tell(jsonstream.Message{ID: id, Status: "Pushing", Progress: &jsonstream.Progress{Current: n, Total: d.Size}})
		}
		whole, err := partial.CompressedToLayer(layer)
		if err != nil {
			return err
		}
		group.Go(func() error {
			if err := pusher.Upload(gctx, to, whole); err != nil {
				return err
			}
			prepare()
			tell(jsonstream.Message{ID: id, Status: layer.outcome()})
			return nil
		})
	}
	return group.Wait()
}

// localImage shows an image of the store to the registry library.
type localImage struct {
	s        *Store
	id       digest.Digest
	text     []byte
	manifest ocispec.Manifest
}

func (l *localImage) RawManifest() ([]byte, error)   { return l.text, nil }
func (l *localImage) RawConfigFile() ([]byte, error) { return os.ReadFile(l.s.blobPath(l.id)) }

func (l *localImage) MediaType() (types.MediaType, error) {
	if l.manifest.MediaType == "" {
		return types.OCIManifestSchema1, nil
	}
	return types.MediaType(l.manifest.MediaType), nil
}

func (l *localImage) LayerByDigest(h v1.Hash) (partial.CompressedLayer, error) {
	for _, d := range append([]ocispec.Descriptor{l.manifest.Config}, l.manifest.Layers...) {
		if d.Digest.String() == h.String() {
			return &localLayer{s: l.s, Descriptor: d}, nil
		}
	}
	return nil, fmt.Errorf("blob %s is not of the image", h)
}

// localLayer is a blob of the store.
type localLayer struct {
	ocispec.Descriptor
	s    *Store
	tell func(int64) // nil: nobody listens
	sent bool
}

func (l *localLayer) Digest() (v1.Hash, error) { return v1.NewHash(l.Descriptor.Digest.String()) }
func (l *localLayer) Size() (int64, error)     { return l.Descriptor.Size, nil }
func (l *localLayer) MediaType() (types.MediaType, error) {
	return types.MediaType(l.Descriptor.MediaType), nil
}

func (l *localLayer) Compressed() (io.ReadCloser, error) {
	file, err := os.Open(l.s.blobPath(l.Descriptor.Digest))
	if err != nil {
		return nil, err
	}
	if l.tell == nil {
		return file, nil
	}
	l.sent = true
	return struct {
		io.Reader
		io.Closer
	}{&meter{Reader: file, tell: l.tell}, file}, nil
}

func (l *localLayer) outcome() string {
	if l.sent {
		return "Pushed"
	}
	return "Layer already exists"
}
